"""What neighbours have to beat: forecasts of the next slice from the past of the same figure, and raw features as vectors."""

from __future__ import annotations

import numpy as np

from btc_assets.domain.slices import DAY_US, HOUR_US, SLICE_US


def past_mean(times: np.ndarray, values: np.ndarray, width: int) -> np.ndarray:
    """Mean of what is known of `values` [n] over the slices that start in `(t - width, t]` (µs): float64 [n], NaN where nothing is."""
    known = np.isfinite(values)
    total = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    count = np.concatenate([[0], np.cumsum(known)])
    first, end = np.searchsorted(times, times - width, side="right"), np.arange(1, len(times) + 1)
    number = count[end] - count[first]
    return np.divide(total[end] - total[first], number, out=np.full(len(times), np.nan), where=number > 0)


def har_regressors(times: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Means over the last slice, hour and day [n, 3]: the heterogeneous autoregressive model (Corsi 2009) on five-minute steps."""
    return np.stack([past_mean(times, values, width) for width in (SLICE_US, HOUR_US, DAY_US)], axis=1)


def ols(regressors: np.ndarray, target: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """Forecasts by ordinary least squares with an intercept.

    Args:
        regressors: [n, p].
        target: [n].
        fitted: the rows to fit on; those with something unknown are left out.

    Returns:
        float64 [n]; NaN where a regressor is unknown, and everywhere if fewer rows than coefficients are left.
    """
    design = np.column_stack([np.ones(len(regressors)), regressors])
    rows = fitted[np.isfinite(design[fitted]).all(axis=1) & np.isfinite(target[fitted])]
    if len(rows) <= design.shape[1]:
        return np.full(len(target), np.nan)
    return design @ np.linalg.lstsq(design[rows], target[rows])[0]


def time_of_day(times: np.ndarray, target: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Mean of the target over the admissible slices of the same hour of the day: float64 [n], NaN where there are none.

    Args:
        times: µs, ascending [n].
        target: [n].
        ends: int64 [n], as `neighbours.admissible` gives it for every slice.
    """
    hours, known = times % DAY_US // HOUR_US, np.isfinite(target)
    means = np.full(len(times), np.nan)
    for hour in np.unique(hours):
        rows, past = np.flatnonzero(hours == hour), np.flatnonzero((hours == hour) & known)
        count = np.searchsorted(past, ends[rows])
        total = np.concatenate([[0.0], np.cumsum(target[past])])[count]
        means[rows] = np.divide(total, count, out=np.full(len(rows), np.nan), where=count > 0)
    return means


def robustly_scaled(features: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """Features [n, f] less their median over their interquartile range, both of the rows `fitted`, then asinh against outliers.

    A feature without a range there is divided by 1.
    """
    low, median, high = np.percentile(features[fitted], [25, 50, 75], axis=0)
    return np.arcsinh((features - median) / np.where(high > low, high - low, 1.0))
