"""Signs that an embedding has seen the future: alarms, one sentence each, with the size of the excess."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import NormalDist

import numpy as np

from btc_assets.signals.evaluation import metrics
from btc_assets.signals.evaluation.dataset import format_time
from btc_assets.signals.evaluation.metrics import Estimate
from btc_assets.signals.evaluation.neighbors import Neighbors, count_violations
from btc_assets.signals.evaluation.report import LEVELS, Row
from btc_assets.signals.evaluation.trial import Trial

# An alarm needs an excess over these bounds by several standard errors, because many figures of several embeddings are tested.
_AUC_BOUND, _AUC_OF_MARKETS, _ASYMMETRY, _ERRORS = 0.53, 0.51, 0.05, 3.0


def errors_of(tests: int) -> float:
    """How many standard errors an alarm needs if this many columns are judged, so that one of them raises it by chance as rarely as one alone."""
    normal = NormalDist()
    return -normal.inv_cdf(normal.cdf(-_ERRORS) / max(tests, 1))


def find_leaks(trial: Trial, row: Row, found: Neighbors, trained_until: int | None, errors: float = _ERRORS) -> Iterator[str]:
    """The alarms of one embedding.

    Args:
        trial: in which it was judged.
        row: its results.
        found: its neighbors for all n slices.
        trained_until: end of the data that it was trained on, µs; None if it was not trained.
        errors: standard errors that an alarm needs.
    """
    name = row.name
    if trained_until is not None and trained_until > trial.times[trial.queries[0]]:
        yield f"{name}: it was trained on data up to {format_time(trained_until)}, past the first query; its figures are not out of sample."
    broken = count_violations(trial.times, trial.times, found.indices, embargo=trial.embargo, same_day=trial.same_day)
    if broken:
        yield f"{name}: {broken} neighbors lie inside the embargo or on the query's own day."
    yield from _judge_auc(name, "next return", row.auc, errors)
    control = metrics.r2(*trial.align(trial.shuffled, found.mean(trial.shuffled)))
    if control.exceeds(0.0, errors):
        yield f"{name}: R2 of shuffled targets is {control}, over {errors:.3g} standard errors above 0."
    for target in LEVELS:
        excess = _foresight(trial, found, trial.next[target], trial.previous[target])
        if excess.exceeds(_ASYMMETRY, errors):
            yield (
                f"{name}: knows {target} of the next slice better than that of the previous one: R2 is higher by {excess}, which is more "
                f"than {_ASYMMETRY} by over {errors:.3g} standard errors."
            )


def find_target_leaks(trial: Trial, name: str, found: Neighbors, target: np.ndarray, before: np.ndarray, errors: float) -> Iterator[str]:
    """The alarms of inputs that know a target: because they have seen it, or because it tells what was known before.

    Args:
        trial: in which they are judged.
        name: of the inputs.
        found: their neighbors for all n slices.
        target: of each slice, NaN where it is not known [n].
        before: the same quantity, as long before the slice as the target is after it [n].
        errors: standard errors that an alarm needs.
    """
    signs = np.where(target == 0, np.nan, np.sign(target))
    sign, score, _ = trial.align(signs, found.mean(signs))
    yield from _judge_auc(name, "target", metrics.auc(sign > 0, score), errors)
    excess = _foresight(trial, found, target, before)
    if excess.exceeds(_ASYMMETRY, errors):
        yield (
            f"{name}: knows the target better than the same quantity as long before the slice: R2 is higher by {excess}, which is more than "
            f"{_ASYMMETRY} by over {errors:.3g} standard errors."
        )


def _judge_auc(name: str, target: str, auc: Estimate, errors: float) -> Iterator[str]:
    if auc.value > _AUC_BOUND and auc.exceeds(_AUC_OF_MARKETS, errors):
        yield (
            f"{name}: the AUC of the sign of the {target} is {auc}, above {_AUC_BOUND} and over {errors:.3g} standard errors above "
            f"{_AUC_OF_MARKETS}."
        )


def _foresight(trial: Trial, found: Neighbors, after: np.ndarray, before: np.ndarray) -> Estimate:
    """R2 of what comes after each slice minus R2 of what came before it, of values [n].

    Autocorrelations are symmetric in time, so the content of a slice predicts both about equally well. Only information taken from
    what comes after predicts that better.
    """
    known = np.isfinite(after) & np.isfinite(before)
    series: list[np.ndarray] = []
    for values in (before, after):
        actual, forecast, mean = trial.align(np.where(known, values, np.nan), found.mean(values))
        series += [(actual - forecast) ** 2, (actual - mean) ** 2]
    return metrics.estimate_from_sums(
        lambda before, before_spread, after, after_spread: before / before_spread - after / after_spread, *series
    )
