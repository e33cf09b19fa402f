"""Sums of integers in place of decimals are those that `Decimal` gives, to the last digit, however large the values are."""

from __future__ import annotations

from decimal import Decimal, localcontext
from itertools import accumulate, pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from btc_assets.domain.exact_sums import Units, product_sums, products, running_sums, sums, units
from btc_assets.domain.ticks import PRICE, QUANTITY

HIGHEST_PRICE, HIGHEST_QUANTITY = Decimal("9999999999.99999999"), Decimal("999999999999.999999999999")


def any_decimal(highest: Decimal, places: int) -> st.SearchStrategy[Decimal]:
    """With any number of places, so that columns differ in the zeros that they end in."""
    return st.integers(0, places).flatmap(lambda shown: st.decimals(0, highest, places=shown))


PRICES, QUANTITIES = any_decimal(HIGHEST_PRICE, 8), any_decimal(HIGHEST_QUANTITY, 12)
ORDINARY = st.tuples(st.decimals(1, 200_000, places=2), st.decimals(0, 1_000, places=5), st.booleans())
TRADES = st.lists(ORDINARY, max_size=200) | st.lists(st.tuples(PRICES, QUANTITIES, st.booleans()), max_size=30)

Trades = list[tuple[Decimal, Decimal, bool]]


def column(values: list[Decimal], type: pa.DataType, cut: int) -> pa.ChunkedArray:
    """In two chunks, the second of which has an offset into its buffer."""
    whole = pa.array(values, type)
    return pa.chunked_array([pa.array(values[:cut], type), whole[cut:]], type)


@given(TRADES, st.data())
def test_sums_and_sums_of_products_are_those_of_decimals(trades: Trades, data: st.DataObject) -> None:
    starts = sorted(data.draw(st.sets(st.integers(0, len(trades) - 1), max_size=5)) | {0}) if trades else []
    cut = data.draw(st.integers(0, len(trades)))
    price = units(column([price for price, _, _ in trades], PRICE, cut))
    quantity = units(column([quantity for _, quantity, _ in trades], QUANTITY, cut))
    taken = quantity.where(np.array([taken for _, _, taken in trades], bool))
    segments = [trades[start:end] for start, end in pairwise([*starts, len(trades)])]
    at = np.array(starts, np.int64)
    with localcontext(prec=100):
        assert sums(quantity, at).decimals() == [sum(row[1] for row in rows) for rows in segments]
        assert sums(taken, at).decimals() == [sum(row[1] for row in rows if row[2]) for rows in segments]
        assert product_sums(price, quantity, at).decimals() == [sum(row[0] * row[1] for row in rows) for rows in segments]
        assert product_sums(price, taken, at).decimals() == [sum(row[0] * row[1] for row in rows if row[2]) for rows in segments]


@given(TRADES)
def test_products_and_their_running_sums_are_those_of_decimals(trades: Trades) -> None:
    price, quantity = (
        units(pa.array([price for price, _, _ in trades], PRICE)),
        units(pa.array([quantity for _, quantity, _ in trades], QUANTITY)),
    )
    signed = products(price, Units(np.where([taken for _, _, taken in trades], quantity.values, -quantity.values), quantity.scale))
    with localcontext(prec=100):
        wanted = [price * (quantity if taken else -quantity) for price, quantity, taken in trades]
        assert signed.decimals() == wanted
        assert Units(running_sums(signed), signed.scale).decimals() == list(accumulate(wanted))


@given(st.lists(QUANTITIES, max_size=30), st.data())
def test_a_column_is_counted_in_the_largest_unit_and_comes_back_equal(values: list[Decimal], data: st.DataObject) -> None:
    counted = units(column(values, QUANTITY, data.draw(st.integers(0, len(values)))))
    assert counted.decimals() == values
    assert counted.arrow(QUANTITY).to_pylist() == values
    if any(values) and counted.scale:
        assert any(int(value) % 10 for value in counted.values)


@pytest.mark.parametrize(
    ("price", "quantity", "rows"),
    [
        ("64000.12", "0.12345", 340_785),  # the largest slice so far
        ("64000.12345678", "123.45678", 100_000),  # products in parts of the price
        ("9999999999.99999999", "1234.567890123456", 1_000),  # in Python's integers
    ],
)
def test_a_long_segment_overflows_nothing(price: str, quantity: str, rows: int) -> None:
    counted = units(pa.array([Decimal(price)] * rows, PRICE)), units(pa.array([Decimal(quantity)] * rows, QUANTITY))
    with localcontext(prec=100):
        assert product_sums(*counted, np.array([0])).decimals() == [Decimal(price) * Decimal(quantity) * rows]
        assert sums(counted[1], np.array([0])).decimals() == [Decimal(quantity) * rows]


def test_a_sum_of_more_than_64_bits_is_exact() -> None:
    many = Units(np.full(1_000, 2**62), 0)
    assert sums(many, np.array([0, 1])).decimals() == [Decimal(2**62), Decimal(999 * 2**62)]


@given(st.lists(st.decimals(-1000, 1000, places=3), min_size=1, max_size=20))
@example([Decimal(-1), Decimal(1)])
def test_negative_values_are_added_too(values: list[Decimal]) -> None:
    counted = units(pa.array(values, QUANTITY))
    assert sums(counted, np.array([0])).decimals() == [sum(values)]
    assert product_sums(counted, counted, np.array([0])).decimals() == [sum(value * value for value in values)]
    price = Units(np.full(len(values), 10**15), 2)
    assert product_sums(price, counted, np.array([0])).decimals() == [sum(values) * 10**13]


def test_a_type_that_holds_fewer_digits_is_refused() -> None:
    with pytest.raises(pa.ArrowInvalid):
        Units(np.array([12345]), 2).arrow(pa.decimal128(4, 2))


@given(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=20), st.integers(0, 20))
@example([0], 20)  # as much as takers of a candle bought, at times
@example([2**63 - 1], 18)
@example([10**17, 10**18 - 1], 20)
def test_values_are_written_with_more_places_than_they_are_counted_in(values: list[int], places: int) -> None:
    counted, wide = Units(np.array(values), 0), pa.decimal128(38, places)
    if max(values) * 10**places < 10**38:
        assert counted.arrow(wide).to_pylist() == [Decimal(value) for value in values]
    else:
        with pytest.raises(pa.ArrowInvalid):
            counted.arrow(wide)
