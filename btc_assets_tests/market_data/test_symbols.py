"""The symbols of a store and how far they reach, also of what a former release loaded."""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pyarrow as pa

from btc_assets.domain.slices import DAY, SLICE, floor_day
from btc_assets.market_data.symbols import read_reach, read_symbols
from btc_assets_tests.support.databases import write_candles, write_ticks
from btc_assets_tests.support.trades import NOON, every, table, trade

_RECORD = """
INSERT INTO market_data.loaded_slices
SELECT bucket_5m, symbol, count(*), min(trade_id), max(trade_id), bit_xor(trade_id), count(*), 0, 0, 0, 0 FROM market_data.btc_ticks GROUP BY 1, 2
"""
OTHER = table([trade(number, NOON - 3 * DAY + number * SLICE, symbol="BTCUSDT.P") for number in range(3)])


def test_an_empty_store_has_no_symbols(on_each_engine: psycopg.Connection) -> None:
    assert read_symbols(on_each_engine) == read_symbols(on_each_engine, registry=True) == []
    assert read_reach(on_each_engine) == {}


def test_symbols_reach_from_their_first_slice_to_the_end_of_their_last(on_each_engine: psycopg.Connection) -> None:
    write_candles(on_each_engine, write_ticks(on_each_engine, pa.concat_tables([OTHER, every(60, 30)])))
    on_each_engine.execute(_RECORD)
    first = NOON - 3 * DAY
    expected = {"BTCUSDT": (NOON, NOON + timedelta(minutes=30)), "BTCUSDT.P": (first, first + 3 * SLICE)}
    assert read_reach(on_each_engine) == expected
    for registry in (False, True):
        found = read_symbols(on_each_engine, registry=registry)
        assert {one.symbol: (one.first, one.end) for one in found} == expected
        assert [(one.slices, one.ticks) for one in found] == [(6, 30), (3, 3)]


def test_what_has_no_candles_yet_reaches_as_far_as_it_was_loaded(on_postgres: psycopg.Connection) -> None:
    write_ticks(on_postgres, every(60, 30))
    on_postgres.execute(_RECORD)
    assert read_reach(on_postgres) == {"BTCUSDT": (NOON, NOON + timedelta(minutes=30))}


def test_what_has_no_record_reaches_over_the_days_of_its_candles(on_postgres: psycopg.Connection) -> None:
    write_candles(on_postgres, write_ticks(on_postgres, every(60, 30)))
    midnight = floor_day(NOON)
    assert read_reach(on_postgres) == {"BTCUSDT": (midnight, midnight + DAY)}
    [found] = read_symbols(on_postgres)
    assert (found.first, found.end, found.slices, found.ticks) == (midnight, midnight + DAY, 0, 0)
