"""A generated day is a day of trades as an exchange might have made it, and always the same one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from btc_assets.domain.slices import floor_slice
from btc_assets.domain.ticks import TICK_SCHEMA, int64
from btc_assets.simulation.generate_day import generate_day, generate_days, generate_slices, worst_day_counts
from btc_assets.simulation.trade_table import FirstTrade

DAY = datetime(2024, 1, 10, tzinfo=UTC)


def day(ticks: int, **options: object) -> pa.Table:
    return pa.concat_tables(generate_day(DAY, ticks, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [0, 1, 5, 24, 1_000, 100_003])
def test_a_day_has_the_requested_number_of_trades_with_contiguous_ids(count: int) -> None:
    ticks = day(count, first=FirstTrade(trade_id=17))
    assert ticks.schema == TICK_SCHEMA
    assert ticks["trade_id"].to_pylist() == list(range(17, 17 + count))
    ticks.validate(full=True)


def test_the_same_seed_gives_the_same_trades_and_another_seed_others() -> None:
    assert day(10_000, seed=3).equals(day(10_000, seed=3))
    assert not day(10_000, seed=3).equals(day(10_000, seed=4))


def test_hours_are_generated_one_by_one_in_order() -> None:
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


def test_a_day_may_begin_at_any_price_and_have_any_symbol() -> None:
    ticks = day(5_000, first=FirstTrade("BTCUSDT_UM", price=0.05))
    assert pc.min(ticks["price"]).as_py() > 0
    assert set(ticks["symbol"].to_pylist()) == {"BTCUSDT_UM"}
    assert abs(day(5_000, first=FirstTrade(price=60_000))["price"][0].as_py() - 60_000) < 600


def test_arrivals_come_in_bursts_that_last() -> None:
    ticks = day(500_000)
    by_second = np.bincount((int64(ticks["event_time"]) - int64(ticks["event_time"])[0]) // 1_000_000, minlength=86_400)
    assert by_second.var() > 3 * by_second.mean()  # 1 where trades came independently
    after = {lag: np.corrcoef(by_second[:-lag], by_second[lag:])[0, 1] for lag in (1, 10, 600)}
    assert after[1] > after[10] > 0.4
    assert abs(after[600]) < 0.1


def test_one_side_often_trades_several_times_in_a_row() -> None:
    sold = day(100_000)["is_market_maker"].to_numpy()
    assert 0.4 < np.corrcoef(sold[:-1], sold[1:])[0, 1] < 0.9


def test_sizes_are_log_normal_so_that_few_trades_make_most_of_the_volume() -> None:
    sizes = np.sort(day(200_000)["quantity"].cast(pa.float64()).to_numpy())
    logs = np.log(sizes[sizes > 0.0002])  # below, the step of 0.00001 shows
    assert np.std(logs) == pytest.approx(1.4, rel=0.2)
    assert sizes[-len(sizes) // 10 :].sum() > 0.6 * sizes.sum()
    assert np.median(sizes) == pytest.approx(np.exp(-5), rel=0.1)


def test_each_day_continues_where_the_one_before_ended() -> None:
    hours = list(generate_days(DAY, 3, 10_000, first=FirstTrade(trade_id=17)))
    ticks = pa.concat_tables(hours)
    assert len(hours) == 72
    assert ticks["trade_id"].to_pylist() == list(range(17, 17 + 30_000))
    assert (np.diff(int64(ticks["event_time"])) >= 0).all()
    assert pc.max(ticks["event_time"]).as_py() < DAY + timedelta(days=3)
    prices = ticks["price"].cast(pa.float64()).to_numpy()
    assert np.abs(np.diff(prices)).max() < 420


def test_days_differ_and_are_the_same_for_the_same_seed() -> None:
    three, two = (pa.concat_tables(generate_days(DAY, days, 2_000, seed=5)) for days in (3, 2))
    assert three.slice(0, 4_000).equals(two)
    assert not three.slice(0, 2_000)["quantity"].equals(three.slice(2_000, 2_000)["quantity"])
    assert not two.equals(pa.concat_tables(generate_days(DAY, 2, 2_000, seed=6)))


# ---- the worst day


@pytest.mark.parametrize("ticks", [0, 1, 1_000, 152_201, 15_220_000])
def test_the_worst_day_has_as_many_trades_as_asked_for_in_288_slices(ticks: int) -> None:
    counts = worst_day_counts(ticks)
    assert (len(counts), sum(counts), min(counts) >= 0) == (288, ticks, True)
    assert counts == worst_day_counts(ticks)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_worst_day_has_the_figures_of_the_largest_day_two_hours_and_five_minutes_that_were_met(seed: int) -> None:
    counts = np.array(worst_day_counts(seed=seed))
    assert counts.sum() == 15_220_000
    assert counts.argmax() == 12 * 12 + 7  # 12:35
    assert counts.max() == pytest.approx(340_785, abs=1)
    two_hours = np.lib.stride_tricks.sliding_window_view(counts, 24).sum(axis=1)
    assert two_hours[12 * 12] == pytest.approx(2_708_366, abs=2)
    rest = np.delete(counts, slice(12 * 12, 14 * 12))
    assert 30_000 < np.median(rest) < 48_000  # 5,455 is the median of all days, 57,319 one slice in a hundred
    assert 2 < np.quantile(rest, 0.99) / np.median(rest) < 8
    assert rest.max() < counts.max()


def test_slices_have_the_trades_that_were_asked_for_and_follow_on_from_each_other() -> None:
    counts = [3, 0, 1_000, 20_000, 1]
    slices = list(generate_slices(DAY, counts, first=FirstTrade(trade_id=17)))
    assert [len(one) for one in slices] == counts
    for number, one in enumerate(slices):
        assert set(one["bucket_5m"].unique().to_pylist()) <= {DAY + number * timedelta(minutes=5)}
    together = pa.concat_tables(slices)
    assert together["trade_id"].to_pylist() == list(range(17, 17 + sum(counts)))
    assert (np.diff(int64(together["event_time"])) >= 0).all()
    together.validate(full=True)
