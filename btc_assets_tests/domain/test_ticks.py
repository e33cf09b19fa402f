"""Ticks have one order and one row a key, the same as plain Python would find."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from btc_assets.domain.ticks import (
    DECODED_SCHEMA,
    PRICE,
    QUANTITY,
    TIME,
    choose_versions,
    contradict,
    decimal128,
    first_of_slices,
    float64,
    symbol_codes,
    tick_order,
    times,
    with_event_times,
)
from btc_assets_tests.support.trades import NOON, decoded_table, every, table, trade

IDS = st.integers(1, 4) | st.sampled_from([-(2**63), 2**63 - 1])


def any_trade(  # one argument for each field that is drawn
    slice_number: int, late: int, has_event_time: bool, symbol: str, trade_id: int, price: str, buyer: int | None
) -> dict[str, object]:
    made = NOON + slice_number * timedelta(minutes=5)
    row = trade(trade_id, made + late * timedelta(seconds=1), made=made, symbol=symbol, price=price, buyer=buyer)
    return row if has_event_time else row | {"event_time": None}


@st.composite
def any_ticks(draw: st.DrawFn) -> pa.Table:
    """Few keys, so that many repeat, with contents that agree or differ; in one piece or several."""
    rows = draw(
        st.lists(
            st.builds(
                any_trade,
                st.integers(0, 2),
                st.integers(0, 2),
                st.booleans(),
                st.sampled_from(["BTCUSDT", "ETHUSDT", "BTCUSDT-PERP", "é"]),
                IDS,
                st.sampled_from(["1", "2"]),
                st.sampled_from([None, 1]),
            ),
            max_size=20,
        )
    )
    cut = draw(st.integers(0, len(rows)))
    return pa.concat_tables([decoded_table(rows[:cut]), decoded_table(rows[cut:])])


def key(row: dict[str, object]) -> tuple[object, ...]:
    return row["bucket_5m"], row["symbol"], row["trade_id"]


@given(any_ticks())
def test_ticks_are_ordered_by_their_key_and_rows_of_one_key_stay_as_they_came(ticks: pa.Table) -> None:
    rows = ticks.to_pylist()
    assert tick_order(ticks).tolist() == sorted(range(len(rows)), key=lambda i: key(rows[i]))


def precedence(row: dict[str, Any]) -> tuple[object, ...]:
    """What decides among versions of one trade, in plain Python; the lowest counts."""
    without_event_time = row["event_time"] is None
    return (
        without_event_time,
        row["event_time"] or row["trade_time"],
        [row["buyer_order_id"], row["seller_order_id"], row["trade_kind"]].count(None),
    )


@given(any_ticks())
def test_of_the_versions_of_a_trade_one_counts_in_all_slices_together(ticks: pa.Table) -> None:
    rows = ticks.to_pylist()
    chosen: dict[tuple[object, ...], int] = {}
    for i in sorted(range(len(rows)), key=lambda i: (precedence(rows[i]), i)):
        chosen.setdefault((rows[i]["symbol"], rows[i]["trade_id"]), i)
    found = choose_versions(ticks)
    of_row = dict(zip(found.rows.tolist(), found.chosen.tolist(), strict=True))
    assert len(of_row) == len(found.rows)
    expected = [chosen[row["symbol"], row["trade_id"]] for row in rows]
    assert [of_row.get(i, i) for i in range(len(rows))] == expected
    assert sorted(found.rows.tolist()) == [i for i, one in enumerate(expected) if expected.count(one) > 1]
    lost = found.lost
    assert sorted(lost.rows.tolist()) == [i for i, one in enumerate(expected) if one != i]
    names = "trade_time", "price", "quantity", "is_market_maker"
    differing = [any(rows[i][name] != rows[of_row[i]][name] for name in names) for i in lost.rows.tolist()]
    assert contradict(ticks, *lost).tolist() == differing


def test_a_rank_decides_before_everything_else() -> None:
    ticks = table([trade(1, NOON), trade(1, NOON + timedelta(minutes=5)), trade(2, NOON)])
    found = choose_versions(ticks, np.array([1, 0, 1]))
    assert (found.rows.tolist(), found.chosen.tolist()) == ([1, 0], [1, 1])


def test_a_tick_without_an_event_time_is_stored_with_its_trade_time() -> None:
    decoded = decoded_table([trade(1, NOON, made=NOON - timedelta(seconds=1)), {**trade(2, NOON), "event_time": None}])
    stored = with_event_times(decoded)
    assert stored["event_time"].to_pylist() == [NOON, NOON]
    assert with_event_times(stored) == stored


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
    assert not len(choose_versions(ticks).rows)


def test_no_ticks_are_in_order_too() -> None:
    ticks = DECODED_SCHEMA.empty_table()
    assert tick_order(ticks).tolist() == choose_versions(ticks).rows.tolist() == []


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)), st.sampled_from([PRICE, QUANTITY]))
def test_integers_of_the_smallest_unit_are_decimals_and_invalid_ones_are_null(units: list[int | None], type: pa.Decimal128Type) -> None:
    valid = np.array([unit is not None for unit in units], bool)
    column = decimal128(np.array([unit or 0 for unit in units], np.int64), type, valid)
    with localcontext(prec=40):
        assert column.to_pylist() == [None if unit is None else Decimal(unit).scaleb(-type.scale) for unit in units]


@given(st.lists(st.decimals(-(10**11), 10**11, places=12), max_size=50), st.data())
def test_decimals_become_the_nearest_floats(values: list[Decimal], data: st.DataObject) -> None:
    places = data.draw(st.integers(0, 12))
    cut = data.draw(st.integers(0, len(values)))
    some = [round(value, places) for value in values]
    whole = pa.array(some, QUANTITY)
    column = pa.chunked_array([pa.array(some[:cut], QUANTITY), whole[cut:]], QUANTITY)  # the second has an offset into its buffer
    assert float64(column).tolist() == [float(value) for value in some]


@given(any_ticks())
def test_a_slice_begins_where_the_slice_or_the_symbol_changes(ticks: pa.Table) -> None:
    ordered = ticks.take(tick_order(ticks))
    keys = list(zip(ordered["bucket_5m"].to_pylist(), ordered["symbol"].to_pylist(), strict=True))
    assert first_of_slices(ordered).tolist() == [i for i, one in enumerate(keys) if i == 0 or one != keys[i - 1]]


def test_times_are_what_their_microseconds_say() -> None:
    given = np.array([0, 1, -1, 2**53], np.int64)
    assert times(given).equals(pa.array(given).cast(TIME))
    assert times(given[::2]).equals(pa.array(given[::2]).cast(TIME))
