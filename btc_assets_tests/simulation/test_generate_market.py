"""A generated market has the regimes that it says it has, and hides them in noise; it is always the same."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from btc_assets.domain.slices import SLICE_US
from btc_assets.domain.ticks import TICK_SCHEMA, int64
from btc_assets.simulation.generate_market import REGIMES, generate_market
from btc_assets.simulation.trade_table import FirstTrade

DAY = datetime(2024, 1, 10, tzinfo=UTC)


def market(days: int, **options: object) -> tuple[pa.Table, np.ndarray]:
    tables, regimes = zip(*generate_market(DAY, days, **options), strict=True)  # type: ignore[arg-type]
    return pa.concat_tables(tables), np.concatenate(regimes)


@pytest.fixture(scope="module")
def ten_days() -> tuple[pa.Table, np.ndarray]:
    return market(10)


def test_a_market_has_contiguous_trades_in_order_each_in_the_slice_of_its_event(ten_days: tuple[pa.Table, np.ndarray]) -> None:
    ticks, regimes = ten_days
    ticks.slice(0, 10_000).validate(full=True)
    assert ticks.schema == TICK_SCHEMA
    assert (np.diff(ticks["trade_id"].to_numpy()) == 1).all()
    event, trade, bucket = (int64(ticks[name]) for name in ("event_time", "trade_time", "bucket_5m"))
    assert (np.diff(event) >= 0).all()
    assert (np.diff(trade) >= 0).all()
    assert (event >= trade).all()
    assert (bucket == event // SLICE_US * SLICE_US).all()
    assert len(np.unique(bucket)) == len(regimes) == 2880
    assert len(ticks) / len(regimes) == pytest.approx(300, rel=0.15)


def test_a_market_is_the_same_for_the_same_seed() -> None:
    ticks, regimes = market(1, seed=3, slice_ticks=30)
    again, regimes_again = market(1, seed=3, slice_ticks=30)
    assert ticks.equals(again)
    assert (regimes == regimes_again).all()
    assert not ticks.equals(market(1, seed=4, slice_ticks=30)[0])


def test_regimes_last_for_some_slices_and_all_of_them_occur(ten_days: tuple[pa.Table, np.ndarray]) -> None:
    _, regimes = ten_days
    assert set(regimes) == set(range(len(REGIMES)))
    assert len(regimes) / (1 + (np.diff(regimes) != 0).sum()) == pytest.approx(6, rel=0.3)
    _, slow = market(10, slice_ticks=1, regime_slices=60)
    assert (np.diff(slow) != 0).sum() < 100


def test_regimes_differ_in_the_mean_and_overlap(ten_days: tuple[pa.Table, np.ndarray]) -> None:
    ticks, regimes = ten_days
    bucket = int64(ticks["bucket_5m"])
    slices = (bucket - bucket[0]) // SLICE_US
    count = np.bincount(slices)
    sides = np.where(ticks["is_market_maker"].to_numpy(), -1.0, 1.0)
    log_price = np.log(ticks["price"].cast(pa.float64()).to_numpy())
    within = np.diff(slices, prepend=-1) == 0
    hundredths = (int64(ticks["event_time"]) - bucket) // 3_000_000
    figures = {
        "volatility": np.bincount(slices, within * np.diff(log_price, prepend=0.0) ** 2) ** 0.5,
        "imbalance": np.bincount(slices, sides) / count,
        "persistence": np.bincount(slices, within * sides * np.roll(sides, 1)) / count,
        "clustering": np.bincount(slices * 100 + hundredths, minlength=len(count) * 100).reshape(-1, 100).std(axis=1) / count,
        "size": np.bincount(slices, ticks["quantity"].cast(pa.float64()).to_numpy()) / count,
    }

    def of(figure: str, **parts: str) -> np.ndarray:
        chosen = [all(getattr(REGIMES[regime], part) == name for part, name in parts.items()) for regime in regimes]
        return figures[figure][chosen]

    ascending = [
        [of("volatility", flow="balanced", volatility=name) for name in ("low", "middle", "high")],
        [of("imbalance", flow=name) for name in ("selling", "balanced", "buying")],
        [of("persistence", flow=name) for name in ("bouncing", "balanced", "bursty")],
        [of("clustering", flow=name) for name in ("balanced", "bursty")],
        [of("size", size=name) for name in ("small", "large")],
    ]
    for groups in ascending:
        for less, more in pairwise(groups):
            assert np.median(less) < np.median(more)
            assert np.percentile(less, 98) > np.percentile(more, 2)


def test_buying_does_not_predict_rising_prices(ten_days: tuple[pa.Table, np.ndarray]) -> None:
    ticks, _ = ten_days
    last = np.flatnonzero(np.diff(int64(ticks["bucket_5m"])))
    returns = np.diff(np.log(ticks["price"].cast(pa.float64()).to_numpy()[last]))
    bought = np.diff(np.cumsum(~ticks["is_market_maker"].to_numpy())[last]) / np.diff(last)
    assert np.corrcoef(bought, returns)[0, 1] > 0.05
    assert abs(np.corrcoef(bought[:-1], returns[1:])[0, 1]) < 0.06


def test_a_market_may_be_thin_and_have_any_symbol() -> None:
    ticks, regimes = market(2, slice_ticks=1, first=FirstTrade("BTCUSDT_UM", 7, 60_000))
    assert len(ticks["bucket_5m"].unique()) < 450
    assert len(regimes) == 576
    assert set(ticks["symbol"].to_pylist()) == {"BTCUSDT_UM"}
    assert ticks["trade_id"][0].as_py() == 7
    assert abs(float(ticks["price"][0].as_py()) - 60_000) < 600
