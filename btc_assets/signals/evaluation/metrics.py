"""Metrics, each with its standard error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_DRAWS = 400


@dataclass(frozen=True)
class Estimate:
    """A value and its standard error; both NaN if there was nothing to estimate from."""

    value: float = float("nan")
    error: float = float("nan")

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.error:.3f}" if np.isfinite(self.value) else "-"

    def exceeds(self, bound: float, errors: float) -> bool:
        """Whether the value is above the bound by more than this number of standard errors."""
        return bool(self.value - errors * self.error > bound)


UNKNOWN = Estimate()


def estimate_from_sums(statistic: Callable[..., np.ndarray], *series: np.ndarray, seed: int = 0) -> Estimate:
    """A statistic of the sums of series [n] in order of time.

    The error comes from a circular block bootstrap (Politis and Romano 1992) with blocks of about sqrt(n), because errors of adjacent
    queries are correlated.
    """
    values = np.stack(series)
    count = values.shape[1]
    if not count:
        return UNKNOWN
    length = block_length(count)
    total = np.cumsum(np.concatenate([np.zeros((len(values), 1)), values, values[:, :length]], axis=1), axis=1)
    blocks = total[:, length : length + count] - total[:, :count]
    starts = np.random.default_rng(seed).integers(0, count, (_DRAWS, -(-count // length)))
    with np.errstate(divide="ignore", invalid="ignore"):
        return Estimate(float(statistic(*values.sum(axis=1))), float(np.std(statistic(*blocks[:, starts].sum(axis=2)), ddof=1)))


def block_length(count: int) -> int:
    """The number of queries in a block of the bootstrap."""
    return max(round(count**0.5), 1)


def r2(actual: np.ndarray, forecast: np.ndarray, mean: float) -> Estimate:
    """R2 out of sample: 1 minus the squared errors over those of the training mean (Campbell and Thompson 2008)."""
    return estimate_from_sums(lambda errors, spread: 1 - errors / spread, (actual - forecast) ** 2, (actual - mean) ** 2)


def qlike(variance: np.ndarray, forecast: np.ndarray) -> Estimate:
    """Mean of `v/f - ln(v/f) - 1` (Patton 2011): 0 for a perfect forecast. Variances and forecasts must be above 0."""
    ratio = variance / forecast
    return estimate_from_sums(lambda loss, count: loss / count, ratio - np.log(ratio) - 1, np.ones_like(ratio))


def pooled_share(hits: np.ndarray, of: np.ndarray) -> Estimate:
    """Sum of `hits` over sum of `of`, both of them counts per query [q]."""
    return estimate_from_sums(lambda one, all_: one / all_, hits.astype(float), of.astype(float))


def auc(positive: np.ndarray, score: np.ndarray) -> Estimate:
    """Area under the ROC curve: how often a positive scores above a negative, with ties counted as one half.

    The error is that of Hanley and McNeil (1982) for independent queries; returns are nearly independent.

    Args:
        positive: bool [q].
        score: [q].
    """
    ones, zeros = int(positive.sum()), int((~positive).sum())
    if not ones or not zeros:
        return UNKNOWN
    _, code, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[code]
    area = float((ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = (area * (1 - area) + (ones - 1) * (q1 - area**2) + (zeros - 1) * (q2 - area**2)) / (ones * zeros)
    return Estimate(area, max(variance, 0.0) ** 0.5)


def effective_rank(vectors: np.ndarray) -> float:
    """exp of the entropy of the singular values (Roy and Vetterli 2007) of the finite rows of [n, d] about their mean: from 1 to d.

    NaN for fewer than two rows, 1 if all rows are equal.
    """
    finite = vectors[np.isfinite(vectors).all(axis=1)].astype(np.float64)
    if len(finite) < 2:
        return float("nan")
    covariance = np.cov(finite, rowvar=False).reshape(finite.shape[1], -1)  # d x d, however many rows
    values = np.sqrt(np.clip(np.linalg.eigvalsh(covariance), 0.0, None))
    if not values.any():
        return 1.0
    p = values[values > 0] / values.sum()
    return float(np.exp(-(p * np.log(p)).sum()))
