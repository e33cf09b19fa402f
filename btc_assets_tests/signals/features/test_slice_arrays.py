"""Slices as arrays: choosing some, and what follows what."""

from __future__ import annotations

import numpy as np

from btc_assets.domain.slices import SLICE, SLICE_US
from btc_assets.signals.features.bars import compute_bars
from btc_assets.signals.features.formulas import FEWEST_TICKS, compute_features
from btc_assets.signals.features.slice_arrays import SliceArrays
from btc_assets_tests.support.hand_made import Trade, tick_arrays
from btc_assets_tests.support.trades import NOON


def trades(count: int) -> list[Trade]:
    return [(second, 100.0, 1.0, True) for second in range(count)]


def test_slices_have_the_features_and_bars_of_their_ticks() -> None:
    ticks = tick_arrays(trades(3), trades(5))
    slices = SliceArrays.of(ticks)
    assert np.array_equal(slices.features, compute_features(ticks)) and np.array_equal(slices.bars, compute_bars(ticks))
    assert slices.tick_count.tolist() == slices.feature("volume").tolist() == [3, 5]
    assert slices.range == (NOON, NOON + 2 * SLICE)


def test_slices_with_too_few_ticks_are_not_embeddable() -> None:
    slices = SliceArrays.of(tick_arrays(trades(FEWEST_TICKS - 1), trades(FEWEST_TICKS), trades(FEWEST_TICKS + 1)))
    assert slices.embeddable.tolist() == [1, 2]
    assert slices.where(slices.embeddable).tick_count.tolist() == [FEWEST_TICKS, FEWEST_TICKS + 1]


def test_a_slice_is_followed_only_by_the_slice_right_after_it() -> None:
    slices = SliceArrays.of(tick_arrays(*[trades(1)] * 4)).where(np.array([0, 1, 3]))
    assert slices.followed.tolist() == [True, False, False]
    assert np.diff(slices.times).tolist() == [SLICE_US, 2 * SLICE_US]
    assert slices.where(np.array([], int)).followed.tolist() == []
