"""Whether a data set's inputs know what they cannot know: the alarms of evaluations, for each of its columns and all of them together."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import MICROSECOND, SLICE, SLICE_US, Window
from btc_assets.domain.ticks import int64
from btc_assets.signals.datasets.own_columns import look_up
from btc_assets.signals.datasets.plan import Plan, Split
from btc_assets.signals.datasets.targets import Target
from btc_assets.signals.evaluation import baselines
from btc_assets.signals.evaluation.dataset import SOURCES, Dataset
from btc_assets.signals.evaluation.leakage import errors_of, find_leaks, find_target_leaks
from btc_assets.signals.evaluation.neighbors import nearest_neighbors
from btc_assets.signals.evaluation.trial import FEWEST, EvaluationOptions, Trial


def newest_windows(split: Split, slices: int) -> list[Window]:
    """The newest slices of all that train and test, in order."""
    found: list[Window] = []
    for window in sorted([*split.train, *split.test], reverse=True):
        end = min([window.end, *(each.start for each in found)])
        start = max(window.start, end - slices * SLICE)
        if start < end:
            found.insert(0, Window(start, end))
            slices -= len(found[0])
    return found


def find_dataset_leaks(plan: Plan, split: Split, rows: pa.Table, features: pa.Table) -> list[str]:
    """The alarms of a data set.

    Neighbors of a slice by one column, or by all of them, forecast what came after it; see `evaluate_embeddings` and `leakage`.

    Args:
        plan: of the rows.
        split: its purge is the embargo of the neighbors, whose targets have ended besides.
        rows: complete ones, in order of time; nothing before the first or after the last of them is judged.
        features: of all stored slices of the same windows, with the columns `SOURCES`.

    Returns:
        A sentence for each; none for honest rows.

    Raises:
        UserError: too few slices.
    """
    buckets = int64(rows["bucket_5m"])
    times = int64(features["bucket_5m"])
    covered = np.flatnonzero((times >= buckets[0]) & (times <= buckets[-1])) if len(rows) else np.empty(0, np.int64)
    times = times[covered]
    dataset = Dataset(times, np.column_stack([features[name].to_numpy()[covered] for name in SOURCES]), SOURCES)
    reach = int((plan.ends(times) - times).max(initial=0)) - SLICE_US
    trial = Trial(dataset, EvaluationOptions(embargo=max(split.purge, reach) * MICROSECOND))
    inputs = np.column_stack([rows[name].to_numpy() for name in plan.inputs]) if plan.inputs else np.empty((len(rows), 0))
    vectors = look_up(buckets, inputs, times)
    if (asked := np.isfinite(vectors[trial.queries]).all(axis=1).sum()) < FEWEST:
        raise UserError(
            f"Only {asked} of the newest {len(trial.queries)} slices are complete rows, and leaks show in {FEWEST} or more: give a longer range."
        )
    candidates = {name: vectors[:, [place]] for place, name in enumerate(plan.inputs)}
    if len(candidates) > 1:
        fitted = trial.fitted[np.isfinite(vectors[trial.fitted]).all(axis=1)]
        candidates["all features"] = baselines.scale_robustly(vectors, fitted)
    target, before = _targets(plan, rows, times)
    errors, alarms = errors_of(len(candidates)), list[str]()
    for name, each in candidates.items():
        found = nearest_neighbors(each, trial.ends, np.arange(len(times)), trial.k)
        alarms += find_leaks(trial, trial.judge_neighbors(name, found), found, None, errors)
        if plan.target:
            alarms += find_target_leaks(trial, name, found, target, before, errors)
    return alarms


def _targets(plan: Plan, rows: pa.Table, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The targets of slices, and those of as long before them: rounded to slices, away from them."""
    if not plan.target:
        return np.empty(0), np.empty(0)
    buckets, values = int64(rows["bucket_5m"]), rows["target"].to_numpy()
    if not isinstance(plan.target, Target) or plan.target.kind == "volatility":
        values = _with_ranks(values)
    after = int64(rows["target_start"]) - buckets
    length = int64(rows["target_end"]) - int64(rows["target_start"])
    back = -(-int(np.median(2 * after + length - SLICE_US)) // SLICE_US) * SLICE_US if len(rows) else 0
    return look_up(buckets, values, times), look_up(buckets, values, times - back)


def _with_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks in place of sizes, from -1 to 1 with the signs that values have, so that a few large ones do not decide; zeros stay."""
    sizes, place = np.unique(np.abs(values), return_inverse=True)
    return np.sign(values) * (place + 1) / max(len(sizes), 1)
