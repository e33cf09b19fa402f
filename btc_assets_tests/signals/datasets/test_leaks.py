"""Planted leaks raise an alarm, and honest rows raise none."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import DAY, SLICE_US, Window, to_microseconds
from btc_assets.domain.ticks import TIME, float64, int64
from btc_assets.signals.datasets.doubts import Doubts
from btc_assets.signals.datasets.leaks import find_dataset_leaks, newest_windows
from btc_assets.signals.datasets.own_columns import OwnColumns, OwnTarget
from btc_assets.signals.datasets.plan import Plan, Split
from btc_assets.signals.datasets.rows import make_rows
from btc_assets.signals.datasets.targets import Prices, Target
from btc_assets.signals.evaluation.dataset import SOURCES
from btc_assets.signals.evaluation.leakage import errors_of
from btc_assets.signals.features.compute import features_as_table
from btc_assets.signals.features.formulas import FEATURES
from btc_assets.signals.features.tick_arrays import TickArrays
from btc_assets.simulation.generate_market import generate_market
from btc_assets_tests.support.hand_made import read_ordered_trades
from btc_assets_tests.support.stored_slices import DAY_START
from btc_assets_tests.support.stores import real_data

DAYS = 6
WINDOW = Window(DAY_START, DAY_START + DAYS * DAY)
SPLIT = Split((Window(DAY_START, DAY_START + 4 * DAY),), (Window(DAY_START + 4 * DAY, WINDOW.end),))
LATENCY = 90_000_000
REAL_DAY = datetime(2020, 2, 22, tzinfo=UTC)


@pytest.fixture(scope="module")
def market() -> tuple[pa.Table, Prices]:
    """The features of days of a generated market, and its prices."""
    ticks = pa.concat_tables([trades for trades, _ in generate_market(DAY_START, DAYS, slice_ticks=40)])
    starts = to_microseconds(DAY_START) + SLICE_US * np.arange(288 * DAYS)
    seconds = int64(ticks["trade_time"]) // 1_000_000
    last = np.flatnonzero(np.append(np.diff(seconds) != 0, True))
    prices = Prices((seconds[last] + 1) * 1_000_000, ticks["price"].cast(pa.float64()).to_numpy()[last])
    return features_as_table(TickArrays.of(ticks, starts), "BTCUSDT"), prices


def plan_of(target: Target | OwnTarget, features: tuple[str, ...] = ("log_return", "volume")) -> Plan:
    return Plan("BTCUSDT", features, target=target, latency=LATENCY)


def alarms(market: tuple[pa.Table, Prices], plan: Plan) -> list[str]:
    features, prices = market
    rows = make_rows(plan, WINDOW, features, np.empty(0, np.int64), prices, Doubts())
    assert len(rows) > 1600
    return find_dataset_leaks(plan, SPLIT, rows, features.select(["bucket_5m", *SOURCES]))


SOME = ("log_return", "realized_volatility", "volume", "volume_imbalance")
EVERY = tuple(feature.name for feature in FEATURES)


@pytest.mark.parametrize(
    ("target", "features"),
    [(Target("return", 300_000_000), EVERY), (Target("volatility", 900_000_000), SOME), (Target("direction", 3_600_000_000), SOME)],
)
def test_honest_rows_raise_no_alarm(market: tuple[pa.Table, Prices], target: Target, features: tuple[str, ...]) -> None:
    assert alarms(market, plan_of(target, features)) == []


def shifted(market: tuple[pa.Table, Prices], name: str, by: int) -> pa.Table:
    """A feature of another slice, so many slices later, as a column of a user's own."""
    features = market[0]
    values = np.roll(features[name].to_numpy(), -by)
    values[-by:] = np.nan
    return pa.table({"bucket_5m": features["bucket_5m"], "mine": values})


@pytest.mark.parametrize("name", ["log_return", "realized_volatility", "volume", "trade_count"])
def test_a_feature_of_the_next_slice_is_caught(market: tuple[pa.Table, Prices], name: str) -> None:
    plan = plan_of(Target("return", 300_000_000))
    found = alarms(market, replace(plan, own=OwnColumns.of(shifted(market, name, 1), LATENCY)))
    assert found and all(alarm.startswith(("mine: ", "all features: ")) for alarm in found)


@pytest.mark.parametrize("kind", ["return", "volatility"])
def test_a_target_among_the_features_is_caught(market: tuple[pa.Table, Prices], kind: str) -> None:
    target = Target(kind, 900_000_000)
    plan = plan_of(target)
    rows = make_rows(plan, WINDOW, market[0], np.empty(0, np.int64), market[1], Doubts())
    seen = pa.table({"bucket_5m": rows["bucket_5m"], "mine": rows["target"]})
    assert any(alarm.startswith("mine: ") for alarm in alarms(market, replace(plan, own=OwnColumns.of(seen, LATENCY))))


@pytest.mark.parametrize(("kind", "by"), [("return", 1), ("volatility", 1), ("volatility", 2)])
def test_a_target_that_was_shifted_into_the_slice_is_caught(market: tuple[pa.Table, Prices], kind: str, by: int) -> None:
    plan = plan_of(Target(kind, 300_000_000), SOME)
    rows = make_rows(plan, WINDOW, market[0], np.empty(0, np.int64), market[1], Doubts())
    values = rows["target"].to_numpy()
    table = pa.table(
        {
            "bucket_5m": rows["bucket_5m"].slice(by),
            "target": values[:-by],
            "target_end": pa.array(int64(rows["bucket_5m"])[by:] + SLICE_US + LATENCY + 300_000_000).cast(TIME),
        }
    )
    found = alarms(market, replace(plan, target=OwnTarget.of(table, LATENCY)))
    assert any("the target" in alarm for alarm in found)


def test_columns_that_end_before_the_newest_slices_are_judged_where_they_are(market: tuple[pa.Table, Prices]) -> None:
    features, prices = market
    plan = plan_of(Target("return", 300_000_000))
    early = shifted(market, "log_return", 1).slice(0, 1000)
    leaking = replace(plan, own=OwnColumns.of(early, LATENCY))
    rows = make_rows(leaking, WINDOW, features, np.empty(0, np.int64), prices, Doubts())
    assert len(rows) == 1000
    assert find_dataset_leaks(leaking, SPLIT, rows, features.select(["bucket_5m", *SOURCES]))
    sparse = pa.concat_tables([rows.slice(0, 700), rows.slice(len(rows) - 10)])
    with pytest.raises(UserError, match=r"^Only 10 of the newest \d+ slices are complete rows, and leaks show in 30 or more"):
        find_dataset_leaks(leaking, SPLIT, sparse, features.select(["bucket_5m", *SOURCES]))


def test_a_real_day_raises_no_alarm_until_a_leak_is_planted() -> None:
    ticks = read_ordered_trades(real_data("um_BTCUSDT_2020-02-22_fullday_trades.csv.gz"))
    seconds = int64(ticks["trade_time"]) // 1_000_000
    last = np.flatnonzero(np.append(np.diff(seconds) != 0, True))
    prices = Prices((seconds[last] + 1) * 1_000_000, float64(ticks["price"])[last])
    features = features_as_table(TickArrays.of(ticks), "BTCUSDT")
    day = Window(REAL_DAY, REAL_DAY + DAY)
    split = Split((Window(day.start, day.start + DAY * 2 // 3),), (Window(day.start + DAY * 2 // 3, day.end),))
    planted = OwnColumns.of(shifted((features, prices), "volume", 1), LATENCY)
    for own, names in ((None, EVERY), (planted, SOME)):
        plan = replace(plan_of(Target("volatility", 900_000_000), names), own=own)
        rows = make_rows(plan, day, features, np.empty(0, np.int64), prices, Doubts())
        found = find_dataset_leaks(plan, split, rows, features.select(["bucket_5m", *SOURCES]))
        assert any(alarm.startswith("mine: knows log_volume of the next slice") for alarm in found) if own else found == []


def test_the_newest_slices_are_judged() -> None:
    day = [Window(DAY_START + i * DAY, DAY_START + (i + 1) * DAY) for i in range(3)]
    split = Split((day[0], day[2]), (day[1],))
    assert newest_windows(split, 300) == [Window(day[1].end - timedelta(hours=1), day[1].end), day[2]]
    assert newest_windows(split, 10_000) == day


def test_an_alarm_of_many_columns_needs_more() -> None:
    assert errors_of(1) == pytest.approx(3.0)
    assert errors_of(50) == pytest.approx(4.04, abs=0.01)
