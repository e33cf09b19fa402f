"""Ticks with some missing or with a slow clock are still ticks, and vectors find themselves or do not."""

from __future__ import annotations

import numpy as np
import pytest

from btc_assets.domain.slices import SLICE_US
from btc_assets.signals.evaluation.robustness import measure_robustness, self_retrieval, shift_clock, thin_ticks
from btc_assets.signals.features.tick_arrays import TickArrays

SECOND = 1_000_000


def ticks(*seconds: float, slices: tuple[int, ...]) -> TickArrays:
    """Ticks at these seconds, numbered by their prices, in the slices of these numbers."""
    time = (np.array(seconds) * SECOND).astype(np.int64)
    starts = np.array(slices) * SLICE_US
    n = len(time)
    offsets = np.append(np.searchsorted(time, starts), n)
    return TickArrays(starts, offsets, time, np.arange(1.0, n + 1), np.ones(n), np.ones(n, bool))


def contents(arrays: TickArrays) -> list[list[float]]:
    return [arrays.price[start:end].tolist() for start, end in zip(arrays.offsets, arrays.offsets[1:], strict=False)]


def test_a_slow_clock_moves_the_first_second_of_each_slice_into_the_one_before() -> None:
    before = ticks(0.5, 1.0, 299.0, 300.9, 301.0, 600.5, 899.0, slices=(0, 1, 2))
    after = shift_clock(before)
    assert contents(before) == [[1, 2, 3], [4, 5], [6, 7]]
    assert contents(after) == [[2, 3, 4], [5, 6], [7]]
    assert (after.time - after.starts[np.repeat([0, 1, 2], np.diff(after.offsets))]).tolist() == [
        0, 298 * SECOND, 299_900_000, 0, 299_500_000, 298 * SECOND,
    ]  # fmt: skip


def test_a_slow_clock_loses_ticks_into_a_gap() -> None:
    assert contents(shift_clock(ticks(10, 900.5, 902, slices=(0, 3)))) == [[1], [3]]


def test_a_tick_whose_time_steps_back_goes_to_its_own_slice_and_order_stays() -> None:
    before = ticks(100, 301.1, 300.9, 302, slices=(0, 1))
    assert contents(
        shift_clock(TickArrays(before.starts, np.array([0, 1, 4]), before.time, before.price, before.quantity, before.buy))
    ) == [
        [1, 3],
        [2, 4],
    ]


def test_thinning_drops_a_share_of_the_ticks_and_keeps_every_slice() -> None:
    before = ticks(*np.arange(0, 1500, 0.1), slices=(0, 1, 2, 3, 4, 5))
    after = thin_ticks(before, 0.1, seed=1)
    assert len(after.time) == pytest.approx(13_500, abs=150)
    assert after.starts.tolist() == before.starts.tolist()
    assert all(set(some) < set(all_) for some, all_ in zip(contents(after)[:5], contents(before)[:5], strict=True))
    assert contents(after)[5] == []
    assert (thin_ticks(before, 0.1, seed=1).price == after.price).all()


def test_vectors_find_themselves_by_how_little_they_changed() -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(1500, 8)) + 100
    same = self_retrieval(vectors, vectors)
    assert (same.at_1, same.at_10) == (1, 1)
    near = self_retrieval(vectors, vectors + 0.7 * random.normal(size=vectors.shape))
    assert 0.2 < near.at_1 < near.at_10 < 1
    other = self_retrieval(vectors, random.permutation(vectors))
    assert other.at_10 < 0.03


def test_equal_vectors_find_nothing() -> None:
    assert self_retrieval(np.ones((100, 3)), np.ones((100, 3))).at_10 == 0


def test_slices_without_a_vector_are_not_queried() -> None:
    vectors = np.random.default_rng(0).normal(size=(50, 4))
    vectors[7] = np.nan
    assert self_retrieval(vectors, vectors).at_1 == 1
    assert np.isnan(self_retrieval(np.full((5, 2), np.nan), np.ones((5, 2))).at_1)


def test_ticks_are_embedded_once_unchanged_and_once_for_each_disturbance() -> None:
    arrays = ticks(*np.sort(np.random.default_rng(0).random(3000) * 3000), slices=tuple(range(10)))
    rates = measure_robustness(arrays, lambda some: np.stack([np.diff(some.offsets), some.starts / SLICE_US * 50], axis=1)).rates
    assert {name: rate.at_1 for name, rate in rates.items()} == {"10 % of trades missing": 1, "clock 1 s slow": 1}
