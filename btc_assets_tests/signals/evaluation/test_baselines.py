"""The baselines of an evaluation, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from btc_assets.domain.slices import DAY_US, HOUR_US, SLICE_US
from btc_assets.signals.evaluation.baselines import forecast_ols, forecast_time_of_day, har_regressors, past_mean, scale_robustly
from btc_assets.signals.evaluation.neighbors import admissible


def test_past_means_cover_known_values_up_to_the_slice_itself() -> None:
    times = np.array([0, 1, 2, 12, 13]) * SLICE_US  # a gap of 45 minutes
    values = np.array([1.0, np.nan, 4.0, 10.0, 20.0])
    assert past_mean(times, values, SLICE_US) == pytest.approx([1, np.nan, 4, 10, 20], nan_ok=True)
    assert past_mean(times, values, HOUR_US) == pytest.approx([1, 1, 2.5, 7, 34 / 3])


def test_har_is_a_regression_on_the_last_slice_hour_and_day() -> None:
    n = 700
    values = np.cumsum(np.random.default_rng(0).normal(size=n)) / 5
    target = np.append(values[1:], np.nan)
    times = np.arange(n) * SLICE_US
    by_hand = np.array([[1, values[i], values[max(i - 11, 0) : i + 1].mean(), values[max(i - 287, 0) : i + 1].mean()] for i in range(n)])
    x, y = by_hand[:500], target[:500]
    coefficients = np.linalg.inv(x.T @ x) @ x.T @ y
    assert forecast_ols(har_regressors(times, values), target, np.arange(500)) == pytest.approx(by_hand @ coefficients)


def test_a_regression_leaves_out_unknown_values_and_needs_more_rows_than_coefficients() -> None:
    x, y = np.array([[0.0], [1.0], [2.0], [np.nan], [4.0]]), np.array([1.0, 3.0, 5.0, 7.0, np.nan])
    assert forecast_ols(x, y, np.arange(5)) == pytest.approx([1, 3, 5, np.nan, 9], nan_ok=True)
    assert np.isnan(forecast_ols(x, y, np.arange(2))).all()


def test_the_time_of_day_is_known_from_earlier_days_only() -> None:
    times = np.arange(3 * 288) * SLICE_US
    target = (times // DAY_US * 100 + times % DAY_US // HOUR_US).astype(float)  # the day and the hour
    means = forecast_time_of_day(times, target, admissible(times, times))
    assert np.isnan(means[:288]).all()
    assert means[288 + 5 * 12] == 5
    assert means[2 * 288 + 5 * 12 + 11] == 55
    target[2 * 288 :] = 1e9
    assert (forecast_time_of_day(times, target, admissible(times, times)) == means)[288:].all()


def test_scaling_is_fitted_on_the_given_rows_and_bounds_outliers() -> None:
    features = np.stack([np.arange(101.0), np.ones(101)], axis=1)
    features[100, 0] = 1e12
    scaled = scale_robustly(features, np.arange(100))
    assert scaled[:, 1].tolist() == [0.0] * 101
    assert scaled[49, 0] == -scaled[50, 0]
    assert scaled[100, 0] < 30
    features[100] = -5
    assert (scale_robustly(features, np.arange(100))[:100] == scaled[:100]).all()
