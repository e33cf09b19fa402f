"""Ticks have one order and one row a key, the same as plain Python would find."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal, localcontext

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from btc_assets.domain.ticks import PRICE, QUANTITY, TICK_SCHEMA, conflicts, decimal128, repeats, symbol_codes, tick_order
from btc_assets_tests.support.trades import NOON, every, table, trade

IDS = st.integers(1, 4) | st.sampled_from([-(2**63), 2**63 - 1])


@st.composite
def any_ticks(draw: st.DrawFn) -> pa.Table:
    """Few keys, so that many repeat, with contents that agree or differ; in one piece or several."""
    rows = draw(
        st.lists(
            st.builds(
                lambda slice_number, symbol, trade_id, price, buyer: trade(
                    trade_id, NOON + slice_number * timedelta(minutes=5), symbol=symbol, price=price, buyer=buyer
                ),
                st.integers(0, 2),
                st.sampled_from(["BTCUSDT", "ETHUSDT", "BTCUSDT-PERP", "é"]),
                IDS,
                st.sampled_from(["1", "2"]),
                st.sampled_from([None, 1]),
            ),
            max_size=20,
        )
    )
    cut = draw(st.integers(0, len(rows)))
    return pa.concat_tables([table(rows[:cut]), table(rows[cut:])])


def key(row: dict[str, object]) -> tuple[object, ...]:
    return row["bucket_5m"], row["symbol"], row["trade_id"]


@given(any_ticks())
def test_ticks_are_ordered_by_their_key_and_rows_of_one_key_stay_as_they_came(ticks: pa.Table) -> None:
    rows = ticks.to_pylist()
    assert tick_order(ticks).tolist() == sorted(range(len(rows)), key=lambda i: key(rows[i]))


@given(any_ticks())
def test_of_the_rows_of_one_key_all_but_the_first_are_repeats(ticks: pa.Table) -> None:
    ordered = ticks.take(tick_order(ticks))
    rows = ordered.to_pylist()
    assert repeats(ordered).tolist() == [i > 0 and key(row) == key(rows[i - 1]) for i, row in enumerate(rows)]


@given(any_ticks())
def test_a_repeat_that_differs_from_the_row_that_is_kept_is_a_conflict(ticks: pa.Table) -> None:
    ordered = ticks.take(tick_order(ticks))
    kept: dict[tuple[object, ...], dict[str, object]] = {}
    differing = sum(row != kept.setdefault(key(row), row) for row in ordered.to_pylist())
    assert conflicts(ordered, repeats(ordered)) == differing


@given(any_ticks())
def test_symbols_are_numbered_in_the_order_of_their_names(ticks: pa.Table) -> None:
    names = sorted(set(ticks["symbol"].to_pylist()))
    assert symbol_codes(ticks).tolist() == [names.index(name) for name in ticks["symbol"].to_pylist()]


def test_ids_that_lie_further_apart_than_64_bits_are_ordered() -> None:
    ticks = table([trade(2**63 - 1, NOON), trade(-(2**63), NOON)])
    assert tick_order(ticks).tolist() == [1, 0]


def test_ticks_in_order_stay_where_they_are() -> None:
    ticks = every(7, 1000)
    assert (tick_order(ticks) == np.arange(1000)).all()
    assert not repeats(ticks).any()
    assert conflicts(ticks, repeats(ticks)) == 0


def test_no_ticks_are_in_order_too() -> None:
    ticks = TICK_SCHEMA.empty_table()
    assert tick_order(ticks).tolist() == repeats(ticks).tolist() == []


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)), st.sampled_from([PRICE, QUANTITY]))
def test_integers_of_the_smallest_unit_are_decimals_and_invalid_ones_are_null(units: list[int | None], type: pa.Decimal128Type) -> None:
    valid = np.array([unit is not None for unit in units], bool)
    column = decimal128(np.array([unit or 0 for unit in units], np.int64), type, valid)
    with localcontext(prec=40):
        assert column.to_pylist() == [None if unit is None else Decimal(unit).scaleb(-type.scale) for unit in units]
