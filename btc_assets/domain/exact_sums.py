"""Exact sums of decimals, and of products of decimals, over segments of a table: integers instead of a `Decimal` for each row.

Prices have 8 decimal places and quantities 12, so that the sum of their products needs more than 64 bits. Exchanges use far fewer (2
and 5, say): without the zeros that all values of a column end in, what a slice holds fits into 64 bits nearly always. Where that cannot
be proved, products are summed in several parts of the price, and at last in Python's integers. Every result is exact.
"""

from __future__ import annotations

import math
from decimal import Context, Decimal
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from btc_assets.domain.ticks import decimal128

_BITS = 63  # of an int64 without its sign
_LEAST_PART = 4  # bits; with smaller parts of a price, Python's integers are as fast
_TRIED = 64  # values that tell the zeros of a column, nearly always
_LOW_HALF = np.uint64(2**32 - 1)
_NONE = np.empty((0, 2), np.int64)
_EXACT = Context(prec=1000)  # no result is rounded


class Units(NamedTuple):
    """Decimals as integers that count a unit of `10 ** -scale`.

    Attributes:
        values: int64, or Python's integers (dtype object) where one of them needs more.
        scale: decimal places of the unit.
    """

    values: np.ndarray
    scale: int

    def where(self, mask: np.ndarray) -> Units:
        """Zero in place of the values for which `mask` does not hold."""
        return Units(np.where(mask, self.values, 0) if self.values.dtype == object else self.values * mask, self.scale)

    def decimals(self) -> list[Decimal]:
        """The values as Python's decimals."""
        return [Decimal(value).scaleb(-self.scale, _EXACT) for value in self.values.tolist()]

    def arrow(self, type: pa.Decimal128Type | pa.Decimal256Type) -> pa.Array:
        """The values as Arrow's decimals of a type whose scale is at least this one.

        Raises:
            pa.ArrowInvalid: a value has more digits than the type.
        """
        factor = 10 ** (type.scale - self.scale)
        if isinstance(type, pa.Decimal128Type) and self.values.dtype != object and len(self.values) and factor < 2**_BITS:
            largest = max(abs(int(self.values.min())), abs(int(self.values.max()))) * factor
            if largest < min(2**_BITS, 10**type.precision):
                return decimal128(self.values * factor, type)
            if largest < 10**type.precision and self.values.min() >= 0:
                return _product(self.values, factor, type)
        return pa.array(self.decimals(), type)


def units(column: pa.ChunkedArray | pa.Array) -> Units:
    """A column of decimals without nulls, in the largest unit that all of its values are multiples of."""
    column = pa.chunked_array([column]) if isinstance(column, pa.Array) else column
    scale = column.type.scale
    values = _int64(column)
    if values is None:
        values = np.array([int(value.scaleb(scale, _EXACT)) for value in column.to_pylist()], object)
    zeros = _common_zeros(values[:_TRIED], min(scale, 18))  # all values end in as many or fewer
    while zeros:
        shorter = values // 10**zeros
        others = values[shorter * 10**zeros != values]
        if not len(others):
            return Units(_narrow(shorter), scale - zeros)
        zeros = _common_zeros(others[:_TRIED], zeros)
    return Units(values, scale)


def sums(counted: Units, starts: np.ndarray) -> Units:
    """The sums of segments.

    Args:
        counted: none is negative.
        starts: position of the first value of each segment, ascending; a segment ends where the next one begins.
    """
    values = counted.values
    if values.dtype != object and len(values):
        longest = int(np.diff(starts, append=len(values)).max())
        if int(values.min()) < 0 or int(values.max()) * longest >= 2**_BITS:
            values = values.astype(object)
    return Units(_add(values, starts), counted.scale)


def product_sums(price: Units, quantity: Units, starts: np.ndarray) -> Units:
    """The sums of price times quantity of segments; see `sums`.

    A sum is at most the highest price times the sum of the quantities. If that is below 2**63, it does not matter whether a step on the
    way to it overflows: int64 computes modulo 2**64.
    """
    scale, prices, quantities = price.scale + quantity.scale, price.values, quantity.values
    if not len(prices):
        return Units(_add(quantities, starts), scale)
    traded = sums(quantity, starts).values
    width = 0 if object in (prices.dtype, traded.dtype) or prices.min() < 0 else _BITS - int(traded.max()).bit_length()
    if width < _LEAST_PART:
        return Units(_add(prices.astype(object) * quantities, starts), scale)
    highest = int(prices.max())
    if highest.bit_length() <= width:
        return Units(_add(prices * quantities, starts), scale)
    total = np.zeros(len(starts), object)
    for shift in range(0, highest.bit_length(), width):
        part = (prices >> shift) & ((1 << width) - 1)
        total += _add(part * quantities, starts).astype(object) * (1 << shift)
    return Units(_narrow(total), scale)


def products(price: Units, quantity: Units) -> Units:
    """Price times quantity, row by row."""
    prices, quantities = price.values, quantity.values
    if len(prices) and object not in (prices.dtype, quantities.dtype):
        largest = int(np.abs(prices).max()) * int(np.abs(quantities).max())
        if largest >= 2**_BITS:
            prices = prices.astype(object)
    return Units(prices * quantities, price.scale + quantity.scale)


def running_sums(counted: Units) -> np.ndarray:
    """The sum of each value and all before it, in the same unit: int64 with a bit to spare, or Python's integers."""
    values = counted.values
    if values.dtype != object and len(values) and int(np.abs(values).max()) * len(values) >= 2 ** (_BITS - 1):
        values = values.astype(object)
    return np.cumsum(values)


def _add(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    return np.add.reduceat(values, starts) if len(starts) else values[:0]


def _int64(column: pa.ChunkedArray) -> np.ndarray | None:
    """The integers that decimals consist of; None if one of them needs more than 64 bits."""
    if not isinstance(column.type, pa.Decimal128Type):
        return None
    parts = []
    for chunk in column.chunks:
        words = np.frombuffer(chunk.buffers()[1], np.int64, 2 * len(chunk), 16 * chunk.offset).reshape(-1, 2) if len(chunk) else _NONE
        if (words[:, 1] != words[:, 0] >> 63).any():  # the high 64 bits repeat the sign, see `decimal128`
            return None
        parts.append(words[:, 0])
    return np.concatenate(parts) if parts else _NONE[:, 0]


def _product(values: np.ndarray, factor: int, type: pa.Decimal128Type) -> pa.Array:
    """Decimals from int64 times a factor, neither negative and both below 2**63: in halves of 32 bits, as on paper."""
    half = np.uint64(32)
    low, high = values.astype(np.uint64) & _LOW_HALF, values.astype(np.uint64) >> half
    factor_low, factor_high = np.uint64(factor) & _LOW_HALF, np.uint64(factor) >> half
    first, middle = low * factor_low, low * factor_high + high * factor_low
    words = np.empty((len(values), 2), np.uint64)
    words[:, 0] = first + (middle << half)
    words[:, 1] = high * factor_high + (middle >> half) + (words[:, 0] < first)
    return pa.Array.from_buffers(type, len(values), [None, pa.py_buffer(words)])


def _narrow(values: np.ndarray) -> np.ndarray:
    """As int64, if all values fit."""
    if values.dtype == object and all(-(2**_BITS) <= value < 2**_BITS for value in values.tolist()):
        return values.astype(np.int64)
    return values


def _common_zeros(values: np.ndarray, most: int) -> int:
    """How many decimal zeros all of these integers end in, `most` at most."""
    divisor = math.gcd(*values.tolist())
    return max(zeros for zeros in range(most + 1) if divisor % 10**zeros == 0)
