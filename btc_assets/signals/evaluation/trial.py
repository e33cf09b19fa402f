"""One evaluation: the split into queries and earlier slices, the targets, and the judgement of forecasts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import MICROSECOND
from btc_assets.signals.evaluation import baselines, metrics
from btc_assets.signals.evaluation.dataset import VARIANCE, Dataset
from btc_assets.signals.evaluation.metrics import UNKNOWN, Estimate
from btc_assets.signals.evaluation.neighbors import Neighbors, admissible
from btc_assets.signals.evaluation.purging import EMBARGO_US
from btc_assets.signals.evaluation.report import LEVELS, Row

FEWEST = 30  # slices to fit on, and queries


@dataclass(frozen=True)
class EvaluationOptions:
    """How to evaluate.

    Attributes:
        k: neighbors of a query.
        query_share: the share of slices, the last ones, that are queries.
        embargo: between the end of a neighbor and the start of its query.
        seed: of random neighbors and shuffled targets.
    """

    k: int = 10
    query_share: float = 0.3
    embargo: timedelta = EMBARGO_US * MICROSECOND
    seed: int = 0


class Trial:
    """The split and the targets of a data set, on which forecasts are judged.

    Attributes:
        times: starts of the slices, µs [n].
        queries: indices of the queries [q].
        ends: how many slices are admissible for each slice, int64 [n].
        fitted: indices of the slices that are admissible for the first query; everything fitted is fitted on these.
        embargo: µs.
        same_day: slices of the query's own day are admitted, because there are too few days.
        own, next, previous: the quantities of each slice, of the slice after it and of the slice before it, float64 [n] each.
        shuffled: the log realized variance of the next slice in random order, which nothing can forecast.

    Raises:
        UserError: too few slices can be queries, or fitted on.
    """

    def __init__(self, dataset: Dataset, options: EvaluationOptions) -> None:
        self.times, self.regimes, self.k = dataset.times, dataset.regimes, options.k
        n = len(self.times)
        self.own = dataset.quantities()
        self.next = {name: dataset.following(values) for name, values in self.own.items()}
        self.previous = {name: dataset.preceding(self.own[name]) for name in LEVELS}
        self.queries = np.arange(round(n * (1 - options.query_share)), n)
        self.embargo = options.embargo // MICROSECOND
        for self.same_day in (False, True):
            self.ends = admissible(self.times, self.times, embargo=self.embargo, same_day=self.same_day)
            self.fitted = np.arange(self.ends[self.queries[0]] if len(self.queries) else 0)
            known = [int(np.isfinite(self.next[VARIANCE][rows]).sum()) for rows in (self.queries, self.fitted)]
            if known[1] >= FEWEST:
                break
        if min(known) < FEWEST:
            raise UserError(
                f"Of these {n:,} slices {known[0]:,} are queries, and {known[1]:,} are admissible for the first of them: {FEWEST} of each are "
                "needed, with the slice after each; give a longer range."
            )
        self.shuffled = self._shuffle(options.seed)

    def _shuffle(self, seed: int) -> np.ndarray:
        target = self.next[VARIANCE].copy()
        known = np.isfinite(target)
        target[known] = np.random.default_rng(seed).permutation(target[known])
        return target

    def forecast_har(self) -> dict[str, np.ndarray]:
        """HAR of each quantity on its own past; for the variance, that of its log times the smearing factor of Duan (1983)."""
        forecasts = {
            name: baselines.forecast_ols(baselines.har_regressors(self.times, values), self.next[name], self.fitted)
            for name, values in self.own.items()
            if name != "realized_variance"
        }
        log_forecast = forecasts[VARIANCE]
        smearing = np.nanmean(np.exp(self.next[VARIANCE][self.fitted] - log_forecast[self.fitted]))
        return {**forecasts, "realized_variance": smearing * np.exp(log_forecast)}

    def forecast_time_of_day(self) -> dict[str, np.ndarray]:
        """The mean of each quantity at the same hour of earlier days."""
        return {name: baselines.forecast_time_of_day(self.times, target, self.ends) for name, target in self.next.items()}

    def judge(self, name: str, forecasts: Mapping[str, np.ndarray], **more: Estimate | float) -> Row:
        """Judge a method by its forecasts [n] of each target at the queries."""
        judged = {target: self.align(self.next[target], forecasts[target]) for target in self.next}
        actual, forecast, _ = judged["realized_variance"]
        sign, score, _ = judged["return_sign"]
        return Row(
            name,
            {target: metrics.r2(*judged[target]) for target in LEVELS},
            metrics.qlike(actual, forecast),
            metrics.auc(sign > 0, score),
            int(np.isfinite(forecasts[VARIANCE][self.queries]).sum()),
            **more,  # type: ignore[arg-type]  # each fits the field of its name
        )

    def judge_neighbors(self, name: str, found: Neighbors, effective_rank: float = float("nan")) -> Row:
        """Judge a method by the neighbors that it finds for all n slices."""
        forecasts = {target: found.mean(next_) for target, next_ in self.next.items()}
        return self.judge(
            name,
            forecasts,
            gain=self._gain_over_har(forecasts[VARIANCE]),
            precision=self._regime_precision(found),
            effective_rank=effective_rank,
        )

    def align(self, target: np.ndarray, forecast: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """Target and forecast at the queries whose target is known, and the training mean, which replaces missing forecasts."""
        past = target[self.fitted]
        mean = float(past[np.isfinite(past)].mean()) if np.isfinite(past).any() else float("nan")
        rows = self.queries[np.isfinite(target[self.queries])]
        return target[rows], np.where(np.isfinite(forecast[rows]), forecast[rows], mean), mean

    def _gain_over_har(self, forecast: np.ndarray) -> Estimate:
        """R2 of HAR with the forecast from neighbors as a fourth regressor, minus R2 of HAR, both fitted on the same slices."""
        target, regressors = self.next[VARIANCE], baselines.har_regressors(self.times, self.own[VARIANCE])
        fitted = self.fitted[np.isfinite(forecast[self.fitted])]
        alone = baselines.forecast_ols(regressors, target, fitted)
        both = baselines.forecast_ols(np.column_stack([regressors, forecast]), target, fitted)
        actual, alone_at, mean = self.align(target, alone)
        _, both_at, _ = self.align(target, np.where(np.isfinite(both), both, alone))
        return metrics.estimate_from_sums(
            lambda less, spread: less / spread, (actual - alone_at) ** 2 - (actual - both_at) ** 2, (actual - mean) ** 2
        )

    def _regime_precision(self, found: Neighbors) -> Estimate:
        if self.regimes is None:
            return UNKNOWN
        indices = found.indices[self.queries]
        chosen = indices >= 0
        same = (self.regimes[indices] == self.regimes[self.queries, None]) & chosen
        return metrics.pooled_share(same.sum(axis=1), chosen.sum(axis=1))
