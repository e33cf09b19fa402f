"""Signs that an embedding has seen the future: alarms, one sentence each, with the size of the excess."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from btc_assets.signals.evaluation import metrics
from btc_assets.signals.evaluation.dataset import format_time
from btc_assets.signals.evaluation.metrics import Estimate
from btc_assets.signals.evaluation.neighbors import Neighbors, count_violations
from btc_assets.signals.evaluation.report import LEVELS, Row
from btc_assets.signals.evaluation.trial import Trial

# An alarm needs an excess over these bounds by several standard errors, because many figures of several embeddings are tested.
_AUC_BOUND, _AUC_OF_MARKETS, _ASYMMETRY, _ERRORS = 0.53, 0.51, 0.05, 3


def find_leaks(trial: Trial, row: Row, found: Neighbors, trained_until: int | None) -> Iterator[str]:
    """The alarms of one embedding.

    Args:
        trial: in which it was judged.
        row: its results.
        found: its neighbors for all n slices.
        trained_until: end of the data that it was trained on, µs; None if it was not trained.
    """
    name = row.name
    if trained_until is not None and trained_until > trial.times[trial.queries[0]]:
        yield f"{name}: it was trained on data up to {format_time(trained_until)}, past the first query; its figures are not out of sample."
    broken = count_violations(trial.times, trial.times, found.indices, embargo=trial.embargo, same_day=trial.same_day)
    if broken:
        yield f"{name}: {broken} neighbors lie inside the embargo or on the query's own day."
    if row.auc.value > _AUC_BOUND and row.auc.exceeds(_AUC_OF_MARKETS, _ERRORS):
        yield (
            f"{name}: the AUC of the sign of the next return is {row.auc}, above {_AUC_BOUND} and over {_ERRORS} standard errors above "
            f"{_AUC_OF_MARKETS}."
        )
    control = metrics.r2(*trial.align(trial.shuffled, found.mean(trial.shuffled)))
    if control.exceeds(0.0, _ERRORS):
        yield f"{name}: R2 of shuffled targets is {control}, over {_ERRORS} standard errors above 0."
    for target in LEVELS:
        excess = _foresight(trial, found, target)
        if excess.exceeds(_ASYMMETRY, _ERRORS):
            yield (
                f"{name}: knows {target} of the next slice better than that of the previous one: R2 is higher by {excess}, which is more "
                f"than {_ASYMMETRY} by over {_ERRORS} standard errors."
            )


def _foresight(trial: Trial, found: Neighbors, target: str) -> Estimate:
    """R2 for the next slice minus R2 for the previous one.

    Autocorrelations are symmetric in time, so the content of a slice predicts both about equally well. Only information taken from
    the next slice predicts that one better.
    """
    known = np.isfinite(trial.next[target]) & np.isfinite(trial.previous[target])
    series: list[np.ndarray] = []
    for values in (trial.previous[target], trial.next[target]):
        actual, forecast, mean = trial.align(np.where(known, values, np.nan), found.mean(values))
        series += [(actual - forecast) ** 2, (actual - mean) ** 2]
    return metrics.estimate_from_sums(
        lambda before, before_spread, after, after_spread: before / before_spread - after / after_spread, *series
    )
