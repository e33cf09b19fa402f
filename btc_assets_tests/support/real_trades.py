"""Real trades and candles of the exchange, read from the files that tests share; see `stores.real_data`."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal

import pyarrow as pa

from btc_assets.domain.slices import EPOCH
from btc_assets.domain.ticks import tick_order
from btc_assets.simulation.replay import Landed, read_trades
from btc_assets_tests.support.stores import FEED, real_data

KLINE_FIGURES = (
    "open", "high", "low", "close", "volume", "quote_volume", "trade_count", "taker_buy_volume", "taker_buy_quote_volume",
)  # fmt: skip


def klines() -> Iterator[tuple[datetime, list[Decimal]]]:
    """The exchange's candles of a minute within 2020-02-22: start, then `KLINE_FIGURES`."""
    with real_data("klines_um_BTCUSDT_1m_2020-02-22T0015-0204.csv").open() as file:
        for row in csv.DictReader(file):
            names = [name if name != "trade_count" else "count" for name in KLINE_FIGURES]
            yield EPOCH + timedelta(milliseconds=int(row["open_time"])), [Decimal(row[name]) for name in names]


def real_ticks(name: str) -> pa.Table:
    """The trades of a file as ticks, in the order of the key."""
    ticks = pa.concat_tables(read_trades(real_data(name), FEED, Landed()))
    return ticks.take(tick_order(ticks))
