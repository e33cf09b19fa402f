"""Do slices that look alike go on alike? An evaluation of embeddings that cannot look ahead.

Slices are split by time: the last part are queries, and each looks for neighbours among the admissible slices before it
(`neighbours.admissible`), so the index grows as the queries go on. Its forecast of the next slice is the mean of what
followed its neighbours. Whatever is fitted (scalers, regressions, means) is fitted on the slices that are admissible for
the first query. A method that has no forecast for a query stands with the training mean, so all methods answer for the
same queries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import DAY_US, HOUR_US, KEY_FORMAT, MICROSECOND, SLICE_US, from_microseconds
from btc_assets.signals.evaluation import baselines, metrics
from btc_assets.signals.evaluation.metrics import UNKNOWN, Estimate
from btc_assets.signals.evaluation.neighbours import Neighbours, admissible, drawn, nearest, violations
from btc_assets.signals.evaluation.report import LEVELS, Evaluation, Row

_SOURCES = ("realized_volatility", "volume", "trade_count", "log_return")  # the features that targets are made of
_VARIANCE = "log_realized_variance"
_VARIANCE_FLOOR = 1e-9  # a third of a basis point a slice: below it the log would be of rounding
# Alarms: these bounds, and so many standard errors, because several figures of several embeddings are looked at.
_AUC_BOUND, _AUC_OF_MARKETS, _ASYMMETRY, _ERRORS = 0.53, 0.51, 0.05, 3
_FEW_QUERIES = 1000
_FEWEST = 30  # slices to fit on, and queries


@dataclass(frozen=True)
class Dataset:
    """Slices of one symbol in order of time.

    Args:
        times: starts, int64 µs, ascending and at slices; gaps are allowed [n].
        features: as `features.features` gives them, finite [n, f].
        feature_names: theirs; among them realized_volatility, volume, trade_count and log_return.
        regimes: the known regime of each slice, of a generated market [n].

    Raises:
        UserError: shapes, order or values are not as above.
    """

    times: np.ndarray
    features: np.ndarray
    feature_names: Sequence[str]
    regimes: np.ndarray | None = None

    def __post_init__(self) -> None:
        n = len(self.times)
        if self.features.shape != (n, len(self.feature_names)):
            raise UserError(
                f"The features are {self.features.shape}, of {n} slices and {len(self.feature_names)} names: give one row a slice and one name a column."
            )
        if self.regimes is not None and self.regimes.shape != (n,):
            raise UserError(f"The regimes are {self.regimes.shape}, of {n} slices: give one a slice.")
        if (np.diff(self.times) <= 0).any() or (self.times % SLICE_US).any():
            raise UserError("The times are not ascending starts of 5-minute slices: sort them and drop what is there twice.")
        if not np.isfinite(self.features).all():
            row, column = np.argwhere(~np.isfinite(self.features))[0]
            raise UserError(
                f"The feature {self.feature_names[column]} of {_key(self.times[row])} is not finite: compute the features again."
            )
        if missing := [name for name in _SOURCES if name not in self.feature_names]:
            raise UserError(f"The features lack {', '.join(missing)}, which the targets are made of: compute all features.")

    def own(self) -> dict[str, np.ndarray]:
        """What is to be forecast, of each slice itself: float64 [n] each; the return's sign is NaN where it is 0."""
        volatility, volume, count, log_return = (self.features[:, list(self.feature_names).index(name)] for name in _SOURCES)
        variance = np.maximum(volatility**2, _VARIANCE_FLOOR)
        return {
            _VARIANCE: np.log(variance),
            "log_volume": np.log1p(volume),
            "log_trade_count": np.log1p(count),
            "realized_variance": variance,
            "return_sign": np.where(log_return == 0, np.nan, np.sign(log_return)),
        }

    def following(self, values: np.ndarray) -> np.ndarray:
        """The values [n] of each slice's next one, NaN where that is absent."""
        return np.append(np.where(self._adjacent(), values[1:], np.nan), np.nan)

    def preceding(self, values: np.ndarray) -> np.ndarray:
        """The values [n] of the slice before each, NaN where that is absent."""
        return np.append(np.nan, np.where(self._adjacent(), values[:-1], np.nan))

    def _adjacent(self) -> np.ndarray:
        return np.diff(self.times) == SLICE_US


def evaluate(
    dataset: Dataset,
    candidates: Mapping[str, np.ndarray],
    *,
    trained_until: Mapping[str, int] | None = None,
    k: int = 10,
    query_share: float = 0.3,
    embargo: timedelta = timedelta(hours=1),
    seed: int = 0,
) -> Evaluation:
    """Compare embeddings with each other and with what needs none.

    Args:
        dataset: the slices.
        candidates: name to embedding [n, d]; a row that is not finite is no embedding. An untrained encoder is one of them.
        trained_until: name to the end of the data that the candidate was trained on, µs, where it was trained.
        k: neighbours of a query.
        query_share: the share of slices, the last ones, that are queries.
        embargo: between the end of a neighbour and the start of its query.
        seed: of random neighbours and shuffled targets.

    Raises:
        UserError: an embedding has another number of rows than the data set, `trained_until` names none, or there are too
            few slices.
    """
    for name, vectors in candidates.items():
        if vectors.ndim != 2 or len(vectors) != len(dataset.times):
            raise UserError(f"The embedding {name!r} is {vectors.shape}, of {len(dataset.times)} slices: give one row a slice.")
    trained_until = trained_until or {}
    if unknown := sorted(trained_until.keys() - candidates.keys()):
        raise UserError(f"There is an end of training for {', '.join(unknown)}, but no such embedding: name both alike.")
    trial = _Trial(dataset, k, query_share, embargo, seed)
    rows = [
        trial.row("persistence", trial.own),
        trial.row("time of day", {name: baselines.time_of_day(trial.times, next_, trial.ends) for name, next_ in trial.next.items()}),
        trial.row("HAR", trial.har()),
        trial.neighbour_row("random neighbours", drawn(trial.ends, k, seed)),
    ]
    vectors_of = {"raw features": baselines.robustly_scaled(dataset.features, trial.fitted), **candidates}
    for name, vectors in vectors_of.items():
        found = nearest(vectors, trial.ends, np.arange(len(trial.times)), k)
        rows.append(trial.neighbour_row(name, found, metrics.effective_rank(vectors)))
        trial.look_for_leaks(name, found, rows[-1], trained_until.get(name))
    return Evaluation(rows, k, trial.notes(), trial.alarms)


class _Trial:
    """The split, the targets, and the methods' forecasts judged on them."""

    def __init__(self, dataset: Dataset, k: int, query_share: float, embargo: timedelta, seed: int) -> None:
        self.times, self.regimes, self.k = dataset.times, dataset.regimes, k
        n = len(self.times)
        self.own = dataset.own()
        self.next = {name: dataset.following(values) for name, values in self.own.items()}
        self.queries = np.arange(round(n * (1 - query_share)), n)
        self.embargo = embargo // MICROSECOND
        for self.same_day in (False, True):
            self.ends = admissible(self.times, self.times, embargo=self.embargo, same_day=self.same_day)
            self.fitted = np.arange(self.ends[self.queries[0]] if len(self.queries) else 0)
            known = [int(np.isfinite(self.next[_VARIANCE][rows]).sum()) for rows in (self.queries, self.fitted)]
            if known[1] >= _FEWEST:
                break
        if min(known) < _FEWEST:
            raise UserError(
                f"Of these {n:,} slices {known[0]:,} are queries, and {known[1]:,} are admissible for the first of them: {_FEWEST} of each are "
                "needed, with the slice after each; give a longer range."
            )
        self.previous = {name: dataset.preceding(self.own[name]) for name in LEVELS}
        self.shuffled = self._shuffled(seed)
        self.alarms: list[str] = []

    def _shuffled(self, seed: int) -> np.ndarray:
        """The log realised variance of the next slice, dealt out anew: nothing can forecast it."""
        target = self.next[_VARIANCE].copy()
        known = np.isfinite(target)
        target[known] = np.random.default_rng(seed).permutation(target[known])
        return target

    def har(self) -> dict[str, np.ndarray]:
        """HAR of each figure on its own past; the variance's is the logarithm's, times Duan's (1983) smearing factor."""
        forecasts = {
            name: baselines.ols(baselines.har_regressors(self.times, values), self.next[name], self.fitted)
            for name, values in self.own.items()
            if name != "realized_variance"
        }
        log_forecast = forecasts[_VARIANCE]
        smearing = np.nanmean(np.exp(self.next[_VARIANCE][self.fitted] - log_forecast[self.fitted]))
        return {**forecasts, "realized_variance": smearing * np.exp(log_forecast)}

    def row(self, name: str, forecasts: Mapping[str, np.ndarray], **more: Estimate | float) -> Row:
        """Judge forecasts [n] of each target at the queries."""
        judged = {target: self._judged(self.next[target], forecasts[target]) for target in self.next}
        actual, forecast, _ = judged["realized_variance"]
        sign, score, _ = judged["return_sign"]
        return Row(
            name,
            {target: metrics.r2(*judged[target]) for target in LEVELS},
            metrics.qlike(actual, forecast),
            metrics.auc(sign > 0, score),
            int(np.isfinite(forecasts[_VARIANCE][self.queries]).sum()),
            **more,  # type: ignore[arg-type]  # each fits the field of its name
        )

    def _judged(self, target: np.ndarray, forecast: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """Target and forecast of the queries with a target, and the training mean, which stands in for missing forecasts."""
        past = target[self.fitted]
        mean = float(past[np.isfinite(past)].mean()) if np.isfinite(past).any() else float("nan")
        rows = self.queries[np.isfinite(target[self.queries])]
        return target[rows], np.where(np.isfinite(forecast[rows]), forecast[rows], mean), mean

    def neighbour_row(self, name: str, found: Neighbours, effective_rank: float = float("nan")) -> Row:
        """Judge the neighbours of all n slices."""
        forecasts = {target: found.mean(next_) for target, next_ in self.next.items()}
        return self.row(
            name, forecasts, gain=self._gain(forecasts[_VARIANCE]), precision=self._precision(found), effective_rank=effective_rank
        )

    def _gain(self, forecast: np.ndarray) -> Estimate:
        """R2 of HAR with the neighbours' forecast as a fourth regressor, less R2 of HAR, both fitted on the same slices."""
        target, regressors = self.next[_VARIANCE], baselines.har_regressors(self.times, self.own[_VARIANCE])
        fitted = self.fitted[np.isfinite(forecast[self.fitted])]
        alone = baselines.ols(regressors, target, fitted)
        both = baselines.ols(np.column_stack([regressors, forecast]), target, fitted)
        actual, alone_at, mean = self._judged(target, alone)
        _, both_at, _ = self._judged(target, np.where(np.isfinite(both), both, alone))
        return metrics.of_sums(lambda less, spread: less / spread, (actual - alone_at) ** 2 - (actual - both_at) ** 2, (actual - mean) ** 2)

    def _precision(self, found: Neighbours) -> Estimate:
        if self.regimes is None:
            return UNKNOWN
        indices = found.indices[self.queries]
        chosen = indices >= 0
        same = (self.regimes[indices] == self.regimes[self.queries, None]) & chosen
        return metrics.share(same.sum(axis=1), chosen.sum(axis=1))

    def look_for_leaks(self, name: str, found: Neighbours, row: Row, trained_until: int | None) -> None:
        """Raise the alarms of one embedding; each says by how much."""
        if trained_until is not None and trained_until > self.times[self.queries[0]]:
            self.alarms.append(
                f"{name}: it was trained on data up to {_key(trained_until)}, past the first query; its figures are not out of sample."
            )
        broken = violations(self.times, self.times, found.indices, embargo=self.embargo, same_day=self.same_day)
        if broken:
            self.alarms.append(f"{name}: {broken} neighbours lie inside the embargo or on the query's own day.")
        if row.auc.value > _AUC_BOUND and row.auc.exceeds(_AUC_OF_MARKETS, _ERRORS):
            self.alarms.append(
                f"{name}: the AUC of the sign of the next return is {row.auc}, above {_AUC_BOUND} and over {_ERRORS} standard errors above {_AUC_OF_MARKETS}."
            )
        control = metrics.r2(*self._judged(self.shuffled, found.mean(self.shuffled)))
        if control.exceeds(0.0, _ERRORS):
            self.alarms.append(f"{name}: R2 of shuffled targets is {control}, over {_ERRORS} standard errors above 0.")
        for target in LEVELS:
            excess = self._foresight(found, target)
            if excess.exceeds(_ASYMMETRY, _ERRORS):
                self.alarms.append(
                    f"{name}: knows {target} of the next slice better than that of the one before: R2 is higher by {excess}, which is more "
                    f"than {_ASYMMETRY} by over {_ERRORS} standard errors."
                )

    def _foresight(self, found: Neighbours, target: str) -> Estimate:
        """R2 for the next slice less R2 for the one before.

        Autocorrelations are the same both ways, so what is in a slice tells about as much of either; only what was
        taken from the next slice tells more of that one.
        """
        known = np.isfinite(self.next[target]) & np.isfinite(self.previous[target])
        series: list[np.ndarray] = []
        for values in (self.previous[target], self.next[target]):
            actual, forecast, mean = self._judged(np.where(known, values, np.nan), found.mean(values))
            series += [(actual - forecast) ** 2, (actual - mean) ** 2]
        return metrics.of_sums(lambda before, before_spread, after, after_spread: before / before_spread - after / after_spread, *series)

    def notes(self) -> list[str]:
        first, last = self.queries[0], self.queries[-1]
        count = len(self.queries)
        said = [
            f"{count:,} queries from {_key(self.times[first])} to {_key(self.times[last])}; {int(self.ends[first]):,} slices are admissible for the "
            f"first and {int(self.ends[last]):,} for the last; {self.k} neighbours, embargo {self.embargo / HOUR_US:g} h, never of the query's own day.",
            f"± is a standard error: of a bootstrap of blocks of {metrics.block_length(count)} queries, for the AUC by Hanley and McNeil.",
        ]
        if self.same_day:
            said[0] = said[0].removesuffix(", never of the query's own day.") + "."
            days = len(np.unique(self.times // DAY_US))
            said.append(
                f"{'One day' if days == 1 else f'{days} days'} only: same-day neighbours admitted, embargo {self.embargo / HOUR_US:g} h."
            )
        if absent := int((~np.isfinite(self.next[_VARIANCE][self.queries])).sum()):
            said.append(f"{absent:,} of the queries have no next slice and are not judged.")
        if count < _FEW_QUERIES:
            said.append(f"A small sample: {count:,} queries tell large differences only.")
        return said


def _key(time: int) -> str:
    return from_microseconds(time).strftime(KEY_FORMAT)
