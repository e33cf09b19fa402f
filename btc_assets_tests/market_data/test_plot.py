"""The chart of candles is a PNG of a sensible size, whatever the candles."""

from __future__ import annotations

import struct
from datetime import timedelta
from decimal import Decimal

import pyarrow as pa
import pytest

from btc_assets.market_data.plot import _title, plot_candles
from btc_assets_tests.support.trades import NOON


@pytest.mark.parametrize("prices", [["1", "2", "1.5"], ["5"], ["3", "3"]], ids=["rising and falling", "one candle", "a constant price"])
@pytest.mark.parametrize(("width", "known"), [(timedelta(minutes=5), timedelta(minutes=5)), (timedelta(days=31), None)])
def test_candles_are_drawn_as_a_png(prices: list[str], width: timedelta, known: timedelta | None) -> None:
    rows = [
        {"bucket": NOON + i * width, "close": Decimal(price), "volume": Decimal(1), "trade_count": 3}
        | dict.fromkeys(("open", "high", "low"), Decimal(prices[0]))
        for i, price in enumerate(prices)
    ]
    png = plot_candles(pa.Table.from_pylist(rows), known, "BTCUSDT")
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", png[16:24]) == (1320, 715)


def test_the_title_ends_where_the_last_candle_does() -> None:
    assert _title("x", NOON, NOON + timedelta(minutes=10), 1500, generated=False) == "x, 2024-01-10 12:00 to 12:10 UTC, 1,500 trades"
    title = _title("x", NOON, NOON + timedelta(hours=12), 3, generated=True)
    assert title == "x, 2024-01-10 12:00 to 2024-01-11 00:00 UTC, 3 generated trades"
