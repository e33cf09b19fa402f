"""Data sets for evaluations: what is refused, and what follows what."""

from __future__ import annotations

import numpy as np
import pytest

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE_US
from btc_assets.signals.evaluation.dataset import Dataset
from btc_assets_tests.support.level_market import NAMES, START


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"times": START + np.zeros(100, np.int64)}, "not ascending"),
        ({"times": START + np.arange(100)}, "not ascending starts"),
        ({"features": np.ones((99, 4))}, "one row per slice"),
        ({"features": np.where(np.eye(100, 4) > 0, np.nan, 1.0)}, "realized_volatility of 2024-01-10T00:00Z is not finite"),
        ({"feature_names": ("volume", "trade_count", "log_return", "x")}, "lack realized_volatility"),
        ({"regimes": np.zeros(3)}, "regimes"),
    ],
)
def test_an_invalid_data_set_is_an_error(change: dict[str, object], message: str) -> None:
    good = {"times": START + np.arange(100) * SLICE_US, "features": np.ones((100, 4)), "feature_names": NAMES}
    with pytest.raises(UserError, match=message):
        Dataset(**{**good, **change})  # type: ignore[arg-type]


def test_values_of_adjacent_slices_are_unknown_across_a_gap() -> None:
    dataset = Dataset(START + SLICE_US * np.array([0, 1, 3]), np.ones((3, 4)), NAMES)
    values = np.array([1.0, 2.0, 3.0])
    assert dataset.following(values) == pytest.approx([2, np.nan, np.nan], nan_ok=True)
    assert dataset.preceding(values) == pytest.approx([np.nan, 1, np.nan], nan_ok=True)


def test_a_return_of_zero_has_no_sign_and_a_variance_of_zero_a_floor() -> None:
    features = np.array([[0.0, 0.0, 0.0, 0.0], [1e-3, 5.0, 7.0, -0.1]])
    own = Dataset(START + SLICE_US * np.arange(2), features, NAMES).quantities()
    assert own["return_sign"] == pytest.approx([np.nan, -1], nan_ok=True)
    assert own["realized_variance"] == pytest.approx([1e-9, 1e-6])
    assert own["log_volume"] == pytest.approx([0, np.log(6)])
