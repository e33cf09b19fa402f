"""What the generators share: arrays become canonical ticks, and events follow their trades in order."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import numpy as np

from btc_assets.domain.slices import SLICE, to_microseconds
from btc_assets.domain.ticks import TICK_SCHEMA
from btc_assets.simulation.trade_table import TradeArrays, autoregression, sent_after
from btc_assets_tests.support.trades import NOON


def test_arrays_become_ticks_with_contiguous_ids() -> None:
    noon = to_microseconds(NOON)
    arrays = TradeArrays(
        event_us=np.array([noon, noon + 300_000_000]),
        trade_us=np.array([noon - 1000, noon + 299_000_000]),
        cents=np.array([4_200_001, 1]),
        quantity=np.array([1, 150_000]),
        sold=np.array([True, False]),
    )
    ticks = arrays.as_ticks("BTCUSDT_UM", 7)
    assert ticks.schema == TICK_SCHEMA
    assert ticks.drop_columns(["buyer_order_id", "seller_order_id", "trade_kind"]).to_pylist() == [
        {
            "bucket_5m": NOON, "event_time": NOON, "trade_time": NOON - timedelta(milliseconds=1), "symbol": "BTCUSDT_UM", "trade_id": 7,
            "price": Decimal("42000.01"), "quantity": Decimal("0.00001"), "is_market_maker": True,
        },
        {
            "bucket_5m": NOON + SLICE, "event_time": NOON + SLICE, "trade_time": NOON + timedelta(seconds=299), "symbol": "BTCUSDT_UM",
            "trade_id": 8, "price": Decimal("0.01"), "quantity": Decimal("1.5"), "is_market_maker": False,
        },
    ]  # fmt: skip
    assert ticks["buyer_order_id"].null_count == ticks["seller_order_id"].null_count == 2


def test_events_follow_their_trades_and_each_other_and_stay_inside_the_day() -> None:
    trade_ms = np.arange(0, 1000)
    event_ms = sent_after(np.random.default_rng(1), trade_ms, last_ms=999)
    assert (event_ms >= trade_ms).all()
    assert (np.diff(event_ms) >= 0).all()
    assert event_ms[-1] == 999
    assert (event_ms > trade_ms).mean() > 0.8


def test_an_autoregression_keeps_a_share_of_each_value() -> None:
    assert autoregression(8.0, 0.5, np.array([0.0, 1.0, 0.0])).tolist() == [4.0, 3.0, 1.5]
