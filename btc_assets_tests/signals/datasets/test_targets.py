"""Targets, recomputed from the trades themselves."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_assets.domain.slices import SLICE_US, to_microseconds
from btc_assets.signals.datasets.spans import SECOND_US
from btc_assets.signals.datasets.targets import NO_PRICES, SAMPLING_US, Prices, Target, compute_targets

START = to_microseconds(datetime(2024, 1, 10, tzinfo=UTC))


def candles(times: np.ndarray, prices: np.ndarray, width: int) -> Prices:
    """Closes of trades in order of time and id."""
    buckets = times // width
    last = np.flatnonzero(np.append(np.diff(buckets) != 0, True))
    return Prices((buckets[last] + 1) * width, prices[last])


trades = st.lists(st.tuples(st.integers(0, 40 * 60 * 1000), st.integers(90, 110)), min_size=1, max_size=200).map(
    lambda each: (START + 1000 * np.array(sorted(time for time, _ in each)), np.array([price for _, price in each], float))
)


def price_before(times: np.ndarray, prices: np.ndarray, moment: int) -> float:
    at = np.flatnonzero((times < moment) & (times >= moment - SLICE_US))
    return float(np.log(prices[at[-1]])) if len(at) else float("nan")


@given(trades, st.sampled_from([SECOND_US, 30 * SECOND_US, 60 * SECOND_US, SLICE_US]))
def test_a_target_is_the_price_before_its_end_over_the_price_before_its_beginning(
    trades: tuple[np.ndarray, np.ndarray], width: int
) -> None:
    times, prices = trades
    starts = START + SLICE_US * np.arange(6)
    found = compute_targets(Target("return", 2 * SLICE_US), candles(times, prices, width), starts)
    expected = [price_before(times, prices, start + 2 * SLICE_US) - price_before(times, prices, start) for start in starts.tolist()]
    known = np.isfinite(expected) & np.isfinite(found)
    assert found[known] == pytest.approx(np.array(expected)[known], abs=1e-15)
    assert (np.isfinite(found) >= np.isfinite(expected)).all()  # a wide candle ends later than its last trade, so it is old later
    if width == SECOND_US:
        assert np.isfinite(found).sum() - np.isfinite(expected).sum() <= 2
    direction = compute_targets(Target("direction", 2 * SLICE_US), candles(times, prices, width), starts)
    assert np.array_equal(direction, np.sign(found), equal_nan=True)


@given(trades)
def test_volatility_is_that_of_returns_of_thirty_seconds(trades: tuple[np.ndarray, np.ndarray]) -> None:
    times, prices = trades
    path = candles(times, prices, 30 * SECOND_US)
    starts = START + SLICE_US * np.arange(6) + 90 * SECOND_US
    found = compute_targets(Target("volatility", SLICE_US), path, starts)
    for start, value in zip(starts.tolist(), found, strict=True):
        steps = [path.before(np.array([start + i * SAMPLING_US]))[0] for i in range(11)]
        assert value == pytest.approx(float(np.sqrt(np.sum(np.diff(steps) ** 2))), nan_ok=True, abs=1e-15)
    one_by_one = [compute_targets(Target("volatility", SLICE_US), path, starts[i : i + 1])[0] for i in range(6)]
    assert np.array_equal(found, one_by_one, equal_nan=True)


def test_the_coarsest_candles_that_tell_the_prices() -> None:
    assert Target("return", SLICE_US).interval(SLICE_US) == "5m"
    assert Target("return", SLICE_US).interval(SLICE_US + 90 * SECOND_US) == "30s"
    assert Target("volatility", SLICE_US).interval(SLICE_US) == "30s"
    assert Target("return", 60 * SECOND_US).interval(SLICE_US + 60 * SECOND_US) == "1m"
    assert Target("return", 7 * SECOND_US).interval(SLICE_US) == "1s"


def test_without_candles_nothing_is_known() -> None:
    assert np.isnan(compute_targets(Target("return", SLICE_US), NO_PRICES, np.array([START]))).all()
