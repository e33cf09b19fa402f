"""Bars of a store: of the range that was asked for, the same whether it is read in one piece or day by day."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

import btc_assets as btc
from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE
from btc_assets.market_data.clock_bars.bars import SCHEMA
from btc_assets.market_data.clock_bars.sizes import ADAPTIVE, CLOCKS
from btc_assets_tests.client.conftest import FUTURE, SPOT, Market
from btc_assets_tests.support.book_bars import Book, describe, known_at
from btc_assets_tests.support.trades import NOON

ALL = (NOON - timedelta(minutes=30), NOON + timedelta(hours=1))
SIZES: dict[str, Any] = {"tick": 40, "volume": "7.5", "dollar": 500_000, "time": "1m"} | dict.fromkeys(ADAPTIVE, 30)


def test_bars_are_those_of_the_book_on_the_ticks_of_the_range(client: btc.ClientStore, market: Market) -> None:
    made = client.bars(SPOT, ALL, clock="volume", size="7.5").arrow()
    wanted = Book("volume", Decimal("7.5")).bars(market.of(SPOT))
    assert len(made) == len(wanted) > 100
    assert made.schema == SCHEMA
    for bar, of in zip(made.to_pylist(), wanted, strict=True):
        for name, value in describe(of).items():
            assert bar[name] == pytest.approx(value, rel=1e-9) if isinstance(value, float) else bar[name] == value
        assert bar["available_at"] == known_at(of, timedelta(seconds=90))


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_range_in_one_piece_is_the_same_range_slice_by_slice(client: btc.ClientStore, clock: str) -> None:
    whole = client.bars(SPOT, ALL, clock=clock, size=SIZES[clock])
    at_once, state, made, start = whole.arrow(), None, [], ALL[0]
    while start < ALL[1]:
        part = client.bars(SPOT, (start, start + 2 * SLICE), clock=clock, size=SIZES[clock], state=state)
        made.append(part.arrow())
        state, start = pickle.loads(pickle.dumps(part.state)), start + 2 * SLICE
    assert len(at_once) > 5
    assert pa.concat_tables(made).equals(at_once)
    assert state == whole.state


def test_bars_of_a_time_are_the_candles_of_the_store(client: btc.ClientStore) -> None:
    """Also of trades that were reported in the slice after the one that they were made in."""
    for symbol in (SPOT, FUTURE):
        candles = client.candles(symbol, "1m", ALL).arrow()
        made = client.bars(symbol, ALL, clock="time", size="1m").arrow()
        assert len(made) > 60
        assert [time.replace(second=0, microsecond=0) for time in made["open_time"].to_pylist()] == candles["bucket"].to_pylist()
        for name in set(made.column_names) & set(candles.column_names) - {"bucket_5m", "available_at"}:
            assert made[name].to_pylist() == candles[name].to_pylist(), name


def test_a_range_that_begins_in_the_middle_begins_a_bar_there(client: btc.ClientStore, market: Market) -> None:
    first = next(row for row in market.of(SPOT) if row["event_time"] >= NOON)
    (bar, *_) = client.bars(SPOT, (NOON, ALL[1]), clock="tick", size=10).head(1).to_pylist()
    assert (bar["first_trade_id"], bar["trade_count"]) == (first["trade_id"], 10)


def test_each_reading_begins_anew_and_a_state_reads_what_was_not_read(client: btc.ClientStore) -> None:
    bars = client.bars(SPOT, ALL, clock="tick", size=1000)
    assert bars.state.bar is not None
    first = bars.arrow()
    assert bars.arrow().equals(first)
    assert client.bars(SPOT, ALL, clock="tick", size=1000, decimals="float").arrow()["close"].type == pa.float64()


def test_the_last_interval_is_a_bar_only_if_it_is_over(market: Market) -> None:
    late = btc.connect(market.dsn, latency=datetime.now(UTC) - NOON)  # so that what came after noon cannot have been known yet
    made = late.bars(SPOT, (NOON - timedelta(minutes=5), NOON + timedelta(minutes=5)), clock="time", size="5m").arrow()
    assert made["open_time"].to_pylist() < [NOON]
    assert len(made) == 1


def test_bars_that_make_no_sense_are_refused_before_anything_is_read(client: btc.ClientStore) -> None:
    with pytest.raises(UserError, match="There is no clock 'candle': use one of tick"):
        client.bars(SPOT, ALL, clock="candle", size=1)
    with pytest.raises(UserError, match="Bars on the clock 'dollar' need a size: give quote units"):
        client.bars(SPOT, ALL, clock="dollar")
    with pytest.raises(UserError, match="NOBODY"):
        client.bars("NOBODY", ALL, clock="tick", size=5)
    with pytest.raises(UserError, match="decimals='text' is unknown"):
        client.bars(SPOT, ALL, clock="tick", size=5, decimals="text")
    state = client.bars(SPOT, ALL, clock="tick", size=5).state
    with pytest.raises(UserError, match=rf"one of bars of {SPOT}: go on with it for that symbol, and leave it out for {FUTURE}"):
        client.bars(FUTURE, ALL, clock="tick", size=5, state=state)
    assert btc.Expectation(span=50).span == 50
