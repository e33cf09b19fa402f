"""Converting single columns of any type to integers, times, decimals and booleans, exactly.

Whole columns are converted at once. Only if that fails, a slow path converts value by value and says which values are
unreadable; nothing here raises for a bad value.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from btc_assets.domain.ticks import TIME, decimal128
from btc_assets.landing.raw import NULLS

_INT64_MAX = (1 << 63) - 1

# Other types that may hold text; each is cast to plain strings.
_TEXT = (
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
    pa.types.is_fixed_size_binary,
)


class Converted(NamedTuple):
    """A converted column: its values, null if missing or unreadable, and by position why a value is unreadable."""

    values: pa.Array
    unreadable: dict[int, str]


def plain_array(column: pa.ChunkedArray) -> pa.Array:
    """The column as one array, with text of any type as plain strings."""
    array = column.combine_chunks()
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if not pa.types.is_primitive(array.type) and any(is_text(array.type) for is_text in _TEXT):
        with suppress(pa.ArrowInvalid):  # some bytes are not UTF-8: the conversion looks at each value
            array = array.cast(pa.string())
    return array


def python_value(scalar: pa.Scalar) -> object:
    """The value as a Python object, or as text if Python cannot represent it (the year 20000, an unknown time zone)."""
    try:
        value = scalar.as_py()
        return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value
    except (ValueError, OverflowError, LookupError):
        return " ".join(pa.repeat(scalar, 1).to_string().split())[2:-2]


def _convert_by_value(column: pa.Array, convert: Callable[[object], object], type: pa.DataType, expected: str) -> Converted:
    """The slow path: one value at a time."""
    values: list[object] = []
    unreadable: dict[int, str] = {}
    for i, value in enumerate(map(python_value, column)):
        try:
            values.append(None if value is None or str(value).strip() in NULLS else convert(value))
        except (ValueError, ArithmeticError, TypeError):
            values.append(None)
            unreadable[i] = f"{repr(value) if isinstance(value, str) else str(value):.100} is not {expected}"
    return Converted(pa.array(values, type), unreadable)


# ---- text


def to_text(column: pa.Array) -> Converted:
    """Plain strings."""
    return Converted(column, {}) if pa.types.is_string(column.type) else _convert_by_value(column, str, pa.string(), "text")


# ---- integers


def to_int64(column: pa.Array) -> Converted:
    """64-bit integers, of integers, text, or floats that are exact."""
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_null(kind):
        with suppress(pa.ArrowInvalid):
            return Converted(column.cast(pa.int64()), {})
    exact = 1 << 53
    if pa.types.is_floating(kind):
        # pandas turns integers with gaps into floats: NaN is a gap, and below 2^53 (2^24 for float32) every integer is exact.
        exact = 1 << (np.finfo(kind.to_pandas_dtype()).nmant + 1)
        column = column.cast(pa.float64())
        column = pc.if_else(pc.is_nan(column), None, column)
        if pc.all(pc.and_(pc.equal(column, pc.floor(column)), pc.less(pc.abs(column), float(exact)))).as_py():
            return Converted(column.cast(pa.int64()), {})
    return _convert_by_value(column, partial(_parse_int64, exact=exact), pa.int64(), "a 64-bit integer")


def _parse_int64(value: object, exact: int = 1 << 53) -> int:
    number = Decimal(str(value))
    if number != number.to_integral_value() or abs(number) > _INT64_MAX or (isinstance(value, float) and abs(value) >= exact):
        raise ValueError
    return int(number)


# ---- times


def to_times(column: pa.Array) -> Converted:
    """Times in UTC with microseconds, of timestamps of any unit and zone, numbers since 1970, or text of either kind."""
    kind = column.type
    if pa.types.is_string(kind):
        for target in (TIME, pa.timestamp("us"), pa.int64()):
            with suppress(pa.ArrowInvalid):
                column.slice(0, 1).cast(target)  # the first value fails at once, a whole column would take long to fail
                return to_times(column.cast(target))
    elif pa.types.is_timestamp(kind):
        with suppress(pa.ArrowInvalid):  # a time after the year 290000
            utc = column.cast(pa.int64()).cast(pa.timestamp(kind.unit, "UTC"))  # the zone affects only display, and may not exist
            return Converted(utc.cast(TIME, safe=kind.unit != "ns"), {})
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind):
        if kind == pa.float64():  # nanoseconds exceed 2^53: round to the nearest microsecond, which was meant
            column = pc.if_else(pc.greater_equal(pc.abs(column), 1e17), pc.round(pc.divide(column, 1e3)), column)
        numbers, unreadable = to_int64(column)
        return Converted(_times_since_1970(numbers), unreadable)
    return _convert_by_value(column, _parse_time, TIME, "a time")


def _times_since_1970(column: pa.Array) -> pa.Array:
    """Milli-, micro- or nanoseconds since 1970, told apart by their size: no two of them overlap between 1973 and 5138."""
    value = pc.fill_null(column, 0).to_numpy(zero_copy_only=False)
    size = np.abs(value)
    us = np.where(size < 10**14, np.clip(value, -(10**14), 10**14) * 1000, np.where(size < 10**17, value, value // 1000))
    return pa.array(us, pa.int64(), mask=column.is_null().to_numpy(zero_copy_only=False)).cast(TIME)


def _parse_time(value: object) -> datetime:
    text = str(value).strip()
    with suppress(ValueError, ArithmeticError):
        return _times_since_1970(pa.array([_parse_int64(text)]))[0].as_py()
    time = datetime.fromisoformat(text)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


# ---- decimals


def to_decimals(column: pa.Array, type: pa.Decimal128Type) -> Converted:
    """Decimals of `type`, of decimals, integers, text, or floats, which are rounded to the decimal that they were made of."""
    if column.type == pa.float64():
        return _doubles_to_decimals(column, type)
    if pa.types.is_floating(column.type):
        column = column.cast(pa.string())  # the shortest text that gives the same float32 is what was meant
    if pa.types.is_string(column.type) and _has_exponent(column):
        return _decimals_by_value(column, type)  # Arrow reads a tiny number with many digits as zero
    try:
        # Arrow demands that a decimal has room for any integer of the type, so integers go through a wide one.
        wide = column.cast(pa.decimal128(38, type.scale)) if pa.types.is_integer(column.type) else column
        return Converted(wide.cast(type), {})
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # one bad value fails the whole cast: find it, and reject it alone
        return _decimals_by_value(column, type)


def _has_exponent(texts: pa.Array) -> bool:
    return any(pc.any(pc.match_substring(texts, letter)).as_py() for letter in "eE")


def _doubles_to_decimals(column: pa.Array, type: pa.Decimal128Type) -> Converted:
    """Round to 8 decimals, which recovers the exchange's own decimal; with integers, 10 times faster than Arrow's cast.

    The product is off by less than half a unit up to 2^51 units (22.5 million). Above, each float's shortest text is taken.
    """
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    step = 10 ** (type.scale - 8)
    with np.errstate(over="ignore"):
        units = np.rint(pc.fill_null(column, 0.0).to_numpy(zero_copy_only=False) * 1e8)
    exact = np.abs(units) < min(1 << 51, (1 << 63) // step)  # False for NaN and infinities as well
    if exact.all():
        return Converted(decimal128(units.astype(np.int64) * step, type, valid), {})
    rest = np.flatnonzero(~exact)
    slow, unreadable = _decimals_by_value(column.take(rest), type)
    fast = decimal128(np.where(exact, units, 0).astype(np.int64) * step, type, valid)
    return Converted(pc.replace_with_mask(fast, ~exact, slow), {int(rest[i]): reason for i, reason in unreadable.items()})


def _decimals_by_value(column: pa.Array, type: pa.Decimal128Type) -> Converted:
    expected = f"a decimal with at most {type.precision - type.scale} digits before and {type.scale} after the point"
    return _convert_by_value(column, partial(_parse_decimal, type=type), type, expected)


def _parse_decimal(value: object, type: pa.Decimal128Type) -> Decimal:
    number = round(Decimal(repr(value)), 8) if isinstance(value, float) else Decimal(str(value).strip())
    exact = number.quantize(Decimal(1).scaleb(-type.scale))
    if exact != number or abs(number) >= Decimal(10) ** (type.precision - type.scale):
        raise InvalidOperation
    return exact


# ---- booleans

_TRUE, _FALSE = {"true", "t", "1", "1.0"}, {"false", "f", "0", "0.0"}


def to_booleans(column: pa.Array) -> Converted:
    """Booleans, of booleans, text such as `true`, `t` and `1`, or the numbers 0 and 1."""
    kind = column.type
    if pa.types.is_boolean(kind) or pa.types.is_string(kind) or pa.types.is_null(kind):
        with suppress(pa.ArrowInvalid):
            return Converted(column.cast(pa.bool_()), {})
    return _convert_by_value(column, _parse_boolean, pa.bool_(), "true or false")


def _parse_boolean(value: object) -> bool:
    text = str(value).strip().lower()
    if text not in _TRUE | _FALSE:
        raise ValueError
    return text in _TRUE
