"""A generated day is a day of trades as an exchange might have made it, and always the same one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from btc_assets.landing.generate import generate_day
from btc_assets.market_data.ticks import TICK_SCHEMA, int64
from btc_assets.slices import floor_slice

DAY = datetime(2024, 1, 10, tzinfo=UTC)


def day(ticks: int, **options: object) -> pa.Table:
    return pa.concat_tables(generate_day(DAY, ticks, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [0, 1, 5, 24, 1_000, 100_003])
def test_a_day_has_as_many_trades_as_asked_for_with_contiguous_ids(count: int) -> None:
    ticks = day(count, first_trade_id=17)
    assert ticks.schema == TICK_SCHEMA
    assert ticks["trade_id"].to_pylist() == list(range(17, 17 + count))
    ticks.validate(full=True)


def test_the_same_seed_gives_the_same_trades_and_another_seed_others() -> None:
    assert day(10_000, seed=3).equals(day(10_000, seed=3))
    assert not day(10_000, seed=3).equals(day(10_000, seed=4))


def test_hours_come_one_by_one_in_order() -> None:
    hours = list(generate_day(DAY, 24_000))
    assert [len(hour) for hour in hours] == [1000] * 24
    for i, hour in enumerate(hours):
        times = pc.min_max(hour["event_time"]).as_py()
        assert DAY + timedelta(hours=i) <= times["min"] <= times["max"] < DAY + timedelta(hours=i + 1)


def test_trades_are_made_and_sent_in_order_within_the_day() -> None:
    ticks = day(200_000)
    event, trade = int64(ticks["event_time"]), int64(ticks["trade_time"])
    assert (np.diff(event) >= 0).all()
    assert (np.diff(trade) >= 0).all()
    assert (event >= trade).all()
    assert ticks["trade_time"][0].as_py() >= DAY
    assert ticks["event_time"][-1].as_py() < DAY + timedelta(days=1)
    assert ticks["bucket_5m"][100_000].as_py() == floor_slice(ticks["event_time"][100_000].as_py())


def test_every_slice_of_a_busy_day_has_trades_and_some_many_more_than_others() -> None:
    counts = day(500_000)["bucket_5m"].value_counts().field("counts").to_numpy()
    assert len(counts) == 288
    assert counts.max() > 3 * np.median(counts)


@pytest.mark.parametrize("count", [10_000, 500_000])
def test_prices_move_by_some_percent_in_steps_of_a_cent(count: int) -> None:
    prices = day(count)["price"]
    assert pc.all(pc.equal(prices, pc.round(prices, 2))).as_py()
    low, high = pc.min_max(prices).as_py().values()
    assert 0.005 < (high - low) / Decimal(42_000) < 0.2
    step = np.diff(prices.cast(pa.float64()).to_numpy())
    assert 0.5 < (step == 0).mean() < 0.95
    assert np.abs(step).max() < 420


def test_buyers_raise_the_price_and_sellers_lower_it() -> None:
    ticks = day(100_000)
    step = np.diff(ticks["price"].cast(pa.float64()).to_numpy())
    sold = ticks["is_market_maker"].to_numpy()[1:]
    assert (step[sold] <= 0).all()
    assert (step[~sold] >= 0).all()
    assert 0.4 < sold.mean() < 0.6


def test_quantities_are_positive_and_of_all_sizes() -> None:
    quantities = day(100_000)["quantity"]
    assert pc.all(pc.equal(quantities, pc.round(quantities, 5))).as_py()
    low, high = pc.min_max(quantities).as_py().values()
    assert Decimal(0) < low < Decimal("0.001")
    assert Decimal(1) < high < Decimal(1000)


def test_a_day_may_begin_at_any_price_and_be_of_any_symbol() -> None:
    ticks = day(5_000, price=0.05, symbol="BTCUSDT_UM")
    assert pc.min(ticks["price"]).as_py() > 0
    assert set(ticks["symbol"].to_pylist()) == {"BTCUSDT_UM"}
    assert abs(day(5_000, price=60_000)["price"][0].as_py() - 60_000) < 600
