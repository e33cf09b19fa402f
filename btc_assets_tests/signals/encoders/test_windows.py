"""Training windows: what fits together, what follows what, and the labels of the next slice."""

from __future__ import annotations

import numpy as np
import pytest

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE_US
from btc_assets.signals.encoders.windows import TrainingWindows, next_labels
from btc_assets.signals.features.bars import CHANNELS, STEPS
from btc_assets.signals.features.formulas import FEATURES
from btc_assets.signals.features.slice_arrays import SliceArrays
from btc_assets_tests.support.windows import windows


def test_labels_come_from_the_slice_right_after_and_are_unknown_after_a_gap() -> None:
    features = np.random.default_rng(0).random((3, len(FEATURES)))
    slices = SliceArrays(SLICE_US * np.array([0, 1, 3]), features, np.zeros((3, STEPS, len(CHANNELS)), np.float32))
    labels = next_labels(slices)
    volatility, volume, count = (slices.feature(name)[1] for name in ("realized_volatility", "volume", "trade_count"))
    assert labels[0] == pytest.approx(np.log([volatility + 1e-6, volume + 1, count + 1]), rel=1e-5)
    assert np.isnan(labels[1:]).all()


def test_a_window_follows_only_the_slice_right_before_it() -> None:
    bars, features = windows(4)
    trained = TrainingWindows(bars, features, SLICE_US * np.array([7, 8, 10, 11]))
    assert trained.follows(np.arange(4)).tolist() == [False, True, False, True]  # type: ignore[union-attr]
    assert trained.follows(np.array([0, 3])).tolist() == [False, False]  # type: ignore[union-attr]
    assert TrainingWindows(bars, features).follows(np.arange(4)) is None


def test_arrays_of_different_lengths_are_refused() -> None:
    bars, features = windows(20)
    with pytest.raises(UserError, match=r"Bars of shape \(20, 20, 3\) and features of shape \(19, 4\) do not fit"):
        TrainingWindows(bars, features[1:])
    with pytest.raises(UserError, match="labels of 19 windows and bars of 20"):
        TrainingWindows(bars, features, next_labels=np.zeros((19, 3)))
