"""Partial candles that a load makes of the ticks in memory are those that the server makes of the table, to the last digit."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from btc_assets.domain.slices import SLICE, Window
from btc_assets.domain.ticks import market_trades, tick_order
from btc_assets.market_data import candles
from btc_assets.market_data.partial_candles import CandlesOfTicks, make_partial_candles
from btc_assets.store.encode import encode_rows
from btc_assets.store.replace import replace_rows
from btc_assets.store.tables import Target
from btc_assets_tests.support.databases import write_ticks
from btc_assets_tests.support.trades import HOUR, NOON, every, table, trade

LEVELS = ["100ms", "1s", "30s", "1m", "5m"]

Trades = list[dict[str, Any]]


def figures(highest: str, places: int) -> st.SearchStrategy[str]:
    """Decimals above zero with any number of places."""
    some = st.integers(0, places).flatmap(lambda shown: st.decimals(Decimal(1).scaleb(-shown), Decimal(highest), places=shown))
    return some.map(lambda value: f"{value:f}")


@st.composite
def some_trades(draw: st.DrawFn) -> Trades:
    """Trades of two symbols and three slices, many in the same moments, reported late, out of order, and of any kind."""
    extreme = draw(st.booleans())  # the value of all trades together has 38 digits at most
    prices = figures("9999999999", 8) if extreme else figures("90000", 2)
    quantities = figures("1999999", 12) if extreme else figures("50", 5)
    count = draw(st.integers(1, 40))
    moments = st.integers(0, 9_000).map(lambda i: NOON + i * timedelta(milliseconds=100))
    delays = st.sampled_from([0, 0, 0, 0.05, 1, 45, 400])
    return [
        trade(
            number // 2 if draw(st.booleans()) else 1000 + number,
            at := draw(moments),
            made=at - timedelta(seconds=draw(delays)),
            symbol=f"S{number % 2}",
            price=draw(prices),
            quantity=draw(quantities),
            maker=draw(st.booleans()),
            kind=draw(st.sampled_from([None, None, "MARKET", "ADL"])),
        )
        for number in range(count)
    ]


def in_order(trades: Trades) -> pa.Table:
    """Whole slices in the order of the key, as a load has them."""
    unique = {(one["symbol"], one["trade_id"]): one for one in trades}
    ticks = table(list(unique.values()))
    return ticks.take(tick_order(ticks))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(some_trades())
@example([trade(1, NOON, quantity="0.1", maker=True), trade(2, NOON, quantity="0.2", maker=True)])  # takers bought nothing
@example([trade(2, NOON, price="2", made=NOON - timedelta(seconds=1)), trade(1, NOON, price="1")])  # ids against times
@example([trade(1, NOON, kind="ADL")])  # no market trade at all
def test_candles_of_ticks_are_those_of_the_server(on_postgres: psycopg.Connection, trades: Trades) -> None:
    candles.create_optional_candles(on_postgres)
    ticks = in_order(trades)
    write_ticks(on_postgres, ticks, HOUR)
    made = make_partial_candles(market_trades(ticks), [candles.WIDTHS[level] for level in LEVELS])
    for level, rows in zip(LEVELS, made, strict=True):
        # Each level is made of what is stored of the one below it, so the loop goes upwards.
        (query,) = on_postgres.execute("SELECT market_data.partials_query(%s)", (level,)).fetchone() or ()
        query = query.replace("$1", f"'{HOUR.start}'").replace("$2", f"'{HOUR.end}'")
        target = Target.of(on_postgres, f"market_data.candle_partials_{level}", "tick_bucket")
        names = [column.name for column in target.columns]
        wanted = on_postgres.execute(f"SELECT {', '.join(names)} FROM ({query}) AS wanted ORDER BY 1, 3, 2").fetchall()
        assert [tuple(row[name] for name in names) for row in rows.to_pylist()] == wanted
        with on_postgres.transaction(), on_postgres.cursor() as cursor:
            replace_rows(cursor, target, HOUR, encode_rows(rows, target))
    for level in ("1h", "1d"):
        candles.refresh_candles(on_postgres, level, HOUR)
    assert candles.find_outdated_candles(on_postgres, HOUR) == []


def test_each_level_is_made_of_the_one_below_it() -> None:
    """Otherwise the starts of its candles would not be those of whole candles below."""
    assert all(candles.WIDTHS[above] % candles.WIDTHS[below] == timedelta(0) for below, above in pairwise(LEVELS))
    assert [level for level in candles.WIDTHS if candles.WIDTHS[level] <= SLICE] == LEVELS


def test_figures_of_more_than_38_digits_are_left_to_the_server() -> None:
    ticks = in_order([trade(1, NOON, price="9999999999.99999999", quantity="999999999999.999999999999")])
    with pytest.raises(pa.ArrowInvalid):
        make_partial_candles(ticks, [timedelta(seconds=1)])


def test_a_load_makes_candles_only_where_they_are_rows_that_it_may_write(on_each_engine: psycopg.Connection) -> None:
    made = CandlesOfTicks(["5m", "1s", "30s", "1h", "1m", "1d"])
    maker = made.open(on_each_engine)
    if on_each_engine.execute("SELECT 1 FROM pg_extension WHERE extname = 'timescaledb'").fetchone():
        assert maker is None
        return
    assert maker is not None
    assert maker.assets == [f"market_data/candles_{level}" for level in ("1s", "30s", "1m", "5m")]
    assert CandlesOfTicks(["100ms", "1s"]).open(on_each_engine) is None  # there are none of 100 ms
    with on_each_engine.transaction(force_rollback=True):
        on_each_engine.execute("CREATE ROLE reader_of_candles; GRANT USAGE ON SCHEMA market_data TO reader_of_candles")
        on_each_engine.execute("GRANT SELECT ON ALL TABLES IN SCHEMA market_data TO reader_of_candles; SET ROLE reader_of_candles")
        assert made.open(on_each_engine) is None


def test_ten_minutes_of_ordinary_trades_make_as_many_candles_as_they_last() -> None:
    of_seconds, *_, of_slices = make_partial_candles(every(0.5, 1200), [candles.WIDTHS[level] for level in LEVELS[1:]])
    assert (len(of_seconds), len(of_slices)) == (600, 2)
    assert sum(of_seconds["trade_count"].to_pylist()) == sum(of_slices["trade_count"].to_pylist()) == 1200
    assert Window.of_slice(of_slices["bucket"][1].as_py()).start == NOON + SLICE
