"""Sizes of the tables of ticks and candles."""

from __future__ import annotations

import psycopg

from btc_assets.market_data import candles
from btc_assets.ops.policies import TICKS
from btc_assets.ops.table_sizes import read_table_sizes
from btc_assets_tests.support.databases import write_candles, write_ticks
from btc_assets_tests.support.trades import every


def test_ticks_and_every_interval_have_a_size(on_each_engine: psycopg.Connection) -> None:
    write_candles(on_each_engine, write_ticks(on_each_engine, every(1, 600)))
    sizes = {size.table: size for size in read_table_sizes(on_each_engine)}
    assert sizes.keys() == {TICKS, *(f"market_data.candle_partials_{interval}" for interval in candles.INTERVALS)}
    assert all(size.total > 8192 for size in sizes.values())
    assert sizes[TICKS].chunks == 1
