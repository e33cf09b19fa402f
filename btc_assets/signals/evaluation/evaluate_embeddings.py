"""Do slices that look alike evolve alike? An evaluation of embeddings that cannot look ahead.

Slices are split by time: the last part are queries, and each query looks for neighbors among the admissible slices before it
(`neighbors.admissible`), so the index grows as the queries proceed. Its forecast of the next slice is the mean of what followed its
neighbors. Everything fitted (scalers, regressions, means) is fitted on the slices that are admissible for the first query. If a method
has no forecast for a query, the training mean replaces it, so all methods answer the same queries.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import DAY_US, HOUR_US
from btc_assets.signals.evaluation import baselines, metrics
from btc_assets.signals.evaluation.dataset import VARIANCE, Dataset, format_time
from btc_assets.signals.evaluation.leakage import find_leaks
from btc_assets.signals.evaluation.neighbors import nearest_neighbors, random_neighbors
from btc_assets.signals.evaluation.report import Evaluation
from btc_assets.signals.evaluation.trial import EvaluationOptions, Trial

_FEW_QUERIES = 1000


def evaluate_embeddings(
    dataset: Dataset,
    candidates: Mapping[str, np.ndarray],
    options: EvaluationOptions | None = None,
    *,
    trained_until: Mapping[str, int] | None = None,
) -> Evaluation:
    """Compare embeddings with each other and with methods that need none.

    Args:
        dataset: the slices.
        candidates: embeddings [n, d] by name; a row that is not finite counts as no vector. One of them should be an untrained encoder.
        options: by default, those of `EvaluationOptions`.
        trained_until: the end of the data that a candidate was trained on, µs, by name; without candidates that were not trained.

    Raises:
        UserError: an embedding has another number of rows than the data set, `trained_until` names an unknown one, or there are too
            few slices.
    """
    options, trained_until = options or EvaluationOptions(), trained_until or {}
    for name, vectors in candidates.items():
        if vectors.ndim != 2 or len(vectors) != len(dataset.times):
            raise UserError(
                f"The embedding {name!r} has the shape {vectors.shape}, but there are {len(dataset.times)} slices: give one row per slice."
            )
    if unknown := sorted(trained_until.keys() - candidates.keys()):
        raise UserError(f"An end of training is given for {', '.join(unknown)}, but no such embedding: use the same names for both.")
    trial = Trial(dataset, options)
    rows = [
        trial.judge("persistence", trial.own),
        trial.judge("time of day", trial.forecast_time_of_day()),
        trial.judge("HAR", trial.forecast_har()),
        trial.judge_neighbors("random neighbors", random_neighbors(trial.ends, options.k, options.seed)),
    ]
    alarms: list[str] = []
    embeddings = {"raw features": baselines.scale_robustly(dataset.features, trial.fitted), **candidates}
    for name, vectors in embeddings.items():
        found = nearest_neighbors(vectors, trial.ends, np.arange(len(trial.times)), options.k)
        row = trial.judge_neighbors(name, found, metrics.effective_rank(vectors))
        rows.append(row)
        alarms += find_leaks(trial, row, found, trained_until.get(name))
    return Evaluation(rows, options.k, _describe_trial(trial), alarms, questions=_describe_questions(trial))


def _describe_questions(trial: Trial) -> str:
    first, last = (format_time(trial.times[trial.queries[place]]) for place in (0, -1))
    return f"{len(trial.queries):,} questions, {first} to {last}"


def _describe_trial(trial: Trial) -> list[str]:
    """What a reader of the table has to know, in sentences."""
    first, last = trial.queries[0], trial.queries[-1]
    count = len(trial.queries)
    embargo = f"embargo {trial.embargo / HOUR_US:g} h"
    other_days = "" if trial.same_day else ", never of the query's own day"
    notes = [
        f"{count:,} queries from {format_time(trial.times[first])} to {format_time(trial.times[last])}; {int(trial.ends[first]):,} slices are "
        f"admissible for the first and {int(trial.ends[last]):,} for the last; {trial.k} neighbors, {embargo}{other_days}.",
        f"± is a standard error: from a bootstrap of blocks of {metrics.block_length(count)} queries, for the AUC by Hanley and McNeil.",
    ]
    if trial.same_day:
        days = len(np.unique(trial.times // DAY_US))
        notes.append(f"{'One day' if days == 1 else f'{days} days'} only: same-day neighbors admitted, {embargo}.")
    if absent := int((~np.isfinite(trial.next[VARIANCE][trial.queries])).sum()):
        notes.append(f"{absent:,} of the queries have no next slice and are not judged.")
    if count < _FEW_QUERIES:
        notes.append(f"A small sample: {count:,} queries reveal large differences only.")
    return notes
