"""The last map of every encoder: dimensions without content, and windows without differences."""

from __future__ import annotations

import numpy as np
import pytest

from btc_assets.domain.errors import UserError
from btc_assets.signals.encoders.fitting import fit_encoder
from btc_assets.signals.encoders.options import FitOptions
from btc_assets.signals.encoders.windows import TrainingWindows
from btc_assets_tests.support.windows import training_windows, windows


def test_dimensions_that_the_windows_do_not_span_are_zero() -> None:
    vectors = fit_encoder("rocket-pca", training_windows(5), FitOptions(dim=16)).embed(*windows(9, seed=1))
    assert vectors.shape == (9, 16)
    assert not vectors[:, 4:].any()


def test_windows_that_are_all_alike_are_refused() -> None:
    bars, features = windows(1)
    with pytest.raises(UserError, match=r"^The 60 windows are all alike, so nothing can be learned from them"):
        fit_encoder("rocket-pca", TrainingWindows(np.repeat(bars, 60, axis=0), np.repeat(features, 60, axis=0)))
