"""Baselines that neighbors have to beat: forecasts from the past of the same quantity, and raw features as vectors."""

from __future__ import annotations

import numpy as np

from btc_assets.domain.slices import DAY_US, HOUR_US, SLICE_US


def past_mean(times: np.ndarray, values: np.ndarray, width: int) -> np.ndarray:
    """Mean of the known `values` [n] of slices that start in `(t - width, t]` (µs): float64 [n], NaN if none is known."""
    known = np.isfinite(values)
    total = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    count = np.concatenate([[0], np.cumsum(known)])
    first, end = np.searchsorted(times, times - width, side="right"), np.arange(1, len(times) + 1)
    number = count[end] - count[first]
    return np.divide(total[end] - total[first], number, out=np.full(len(times), np.nan), where=number > 0)


def har_regressors(times: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Means over the last slice, hour and day [n, 3]: the heterogeneous autoregressive model (Corsi 2009) on five-minute steps."""
    return np.stack([past_mean(times, values, width) for width in (SLICE_US, HOUR_US, DAY_US)], axis=1)


def forecast_ols(regressors: np.ndarray, target: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """Forecasts by ordinary least squares with an intercept.

    Args:
        regressors: [n, p].
        target: [n].
        fitted: the rows to fit on; rows with an unknown value are left out.

    Returns:
        float64 [n]; NaN if a regressor is unknown, and everywhere if no more rows than coefficients are left.
    """
    design = np.column_stack([np.ones(len(regressors)), regressors])
    rows = fitted[np.isfinite(design[fitted]).all(axis=1) & np.isfinite(target[fitted])]
    if len(rows) <= design.shape[1]:
        return np.full(len(target), np.nan)
    return design @ np.linalg.lstsq(design[rows], target[rows])[0]


def forecast_time_of_day(times: np.ndarray, target: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Mean of the target over the admissible slices of the same hour of the day: float64 [n], NaN if there are none.

    Args:
        times: µs, ascending [n].
        target: [n].
        ends: int64 [n], as `neighbors.admissible` returns it for every slice.
    """
    hours, known = times % DAY_US // HOUR_US, np.isfinite(target)
    means = np.full(len(times), np.nan)
    for hour in np.unique(hours):
        rows, past = np.flatnonzero(hours == hour), np.flatnonzero((hours == hour) & known)
        count = np.searchsorted(past, ends[rows])
        total = np.concatenate([[0.0], np.cumsum(target[past])])[count]
        means[rows] = np.divide(total, count, out=np.full(len(rows), np.nan), where=count > 0)
    return means


def scale_robustly(features: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """asinh((x - median) / interquartile range) of features [n, f], with both taken from the rows `fitted`.

    A feature whose range there is 0 is divided by 1.
    """
    low, median, high = np.percentile(features[fitted], [25, 50, 75], axis=0)
    return np.arcsinh((features - median) / np.where(high > low, high - low, 1.0))
