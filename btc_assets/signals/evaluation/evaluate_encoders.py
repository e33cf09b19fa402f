"""Evaluating encoders on stored slices, or on a generated market whose regimes are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import psycopg
import pyarrow as pa

from btc_assets.domain.errors import UserError
from btc_assets.domain.progress import Listener, ignore_progress
from btc_assets.domain.slices import MICROSECOND, SLICE_US, Window, to_microseconds
from btc_assets.landing.generated import holds_generated
from btc_assets.landing.zone import LandingZone
from btc_assets.signals.encoders.artifacts import load_encoder
from btc_assets.signals.encoders.fitting import fit_encoder
from btc_assets.signals.encoders.interface import Encoder
from btc_assets.signals.encoders.kinds import Kinds
from btc_assets.signals.encoders.models import Model
from btc_assets.signals.encoders.options import FitOptions
from btc_assets.signals.encoders.windows import TrainingWindows
from btc_assets.signals.evaluation.dataset import Dataset
from btc_assets.signals.evaluation.evaluate_embeddings import evaluate_embeddings
from btc_assets.signals.evaluation.purging import keeps_clear
from btc_assets.signals.evaluation.report import Evaluation
from btc_assets.signals.evaluation.robustness import measure_robustness
from btc_assets.signals.evaluation.trial import EvaluationOptions
from btc_assets.signals.features.compute import read_tick_arrays
from btc_assets.signals.features.formulas import FEATURES
from btc_assets.signals.features.slice_arrays import SliceArrays
from btc_assets.signals.features.table import read_features, read_stored_window
from btc_assets.signals.features.tick_arrays import TickArrays
from btc_assets.simulation.generate_market import generate_market
from btc_assets.store.database import Store

_NEWEST = timedelta(days=90)  # evaluated by default
_ROBUSTNESS_SLICES = 1000
_GENERATED_START = datetime(2024, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class EvaluationPlan:
    """What to evaluate on stored slices.

    Attributes:
        symbol: whose slices.
        window: the slices; the last 30 % are queries.
        models: to evaluate. If none is given, an encoder is trained on the slices before the queries, which makes its figures out of
            sample.
        kind, seed: of that encoder.
        device: of PyTorch; by default, the GPU if there is one.
        kinds: of encoders that this process may use; by default, those that no setting names.
    """

    symbol: str
    window: Window
    models: Sequence[Model] = ()
    kind: str = "rocket-pca"
    seed: int = 0
    device: str | None = None
    kinds: Kinds = field(default_factory=Kinds)


@dataclass(frozen=True)
class _Candidate:
    """An encoder, and the end of the data that it was trained on, in µs."""

    encoder: Encoder
    trained_until: int

    def embed_slices(self, slices: SliceArrays) -> np.ndarray:
        """float32 [n, dim]; NaN if a slice has too few ticks."""
        vectors = np.full((len(slices), self.encoder.dim), np.nan, np.float32)
        enough = slices.embeddable
        vectors[enough] = self.encoder.embed(slices.bars[enough], slices.features[enough])
        return vectors

    def embed_ticks(self, ticks: TickArrays) -> np.ndarray:
        """The same, from ticks."""
        return self.embed_slices(SliceArrays.of(ticks))


def read_newest_window(connection: psycopg.Connection, symbol: str, start: datetime | None, end: datetime | None) -> Window:
    """The window to evaluate: from `start` to `end`, or by default the newest 90 days that are stored."""
    stored = read_stored_window(connection, symbol, start, end)
    return stored if start else Window(max(stored.start, stored.end - _NEWEST), stored.end)


def evaluate_stored(store: Store, artifacts: LandingZone, plan: EvaluationPlan, *, progress: Listener = ignore_progress) -> Evaluation:
    """Compare forecasts from similar slices with simpler forecasts, on stored slices.

    Args:
        store: holds the slices.
        artifacts: where encoders are stored.
        plan: what to evaluate.
        progress: called with stage, done and total.

    Raises:
        UserError: too few slices are stored in the window, or a model cannot be loaded.
    """
    slices = read_features(store, plan.symbol, plan.window)
    if not len(slices):
        raise UserError(f"No features of {plan.symbol} are stored in {plan.window}: load that range first (btc-assets load).")
    candidates = {
        model.model_id: _Candidate(
            load_encoder(model.model_id, artifacts, kinds=plan.kinds, device=plan.device), to_microseconds(model.trained_to)
        )
        for model in plan.models
    }
    ticks = _read_newest_ticks(store, plan.symbol, slices)
    before = _training_slices(slices)
    if not candidates:
        candidates[plan.kind] = _fit_candidate(plan.kind, before, FitOptions(seed=plan.seed, device=plan.device), progress, plan.kinds)
    candidates["untrained"] = _fit_candidate("tcn", before, FitOptions(seed=plan.seed, epochs=0, device=plan.device))
    found = _evaluate_candidates(_dataset(slices), slices, candidates, ticks, seed=plan.seed, progress=progress)
    with store.connect() as connection:
        generated = holds_generated(connection, plan.symbol, plan.window)
    return replace(found, market=f"{plan.symbol}{', generated trades' * generated}")


def evaluate_generated(
    *,
    days: int = 10,
    kind: str = "rocket-pca",
    seed: int = 0,
    device: str | None = None,
    kinds: Kinds | None = None,
    progress: Listener = ignore_progress,
) -> Evaluation:
    """The same on a generated market. Its regimes are known, so the table also shows how many neighbors share the regime of the query.

    Args:
        days: of 288 slices with about 300 trades each.
        kind: of the encoder, which is trained on the slices before the queries.
        seed: of the market and the encoder.
        device: of PyTorch; by default, the GPU if there is one.
        kinds: of encoders that this process may use; by default, those that no setting names.
        progress: called with stage, done and total.
    """
    parts, regimes = [], []
    for number, (trades, labels) in enumerate(generate_market(_GENERATED_START, days, seed=seed + 1), start=1):
        parts.append(trades)
        regimes.append(labels)
        progress("market", number, days)
    starts = to_microseconds(_GENERATED_START) + SLICE_US * np.arange(288 * days)
    ticks = TickArrays.of(pa.concat_tables(parts), starts)
    slices = SliceArrays.of(ticks)
    before = _training_slices(slices)
    candidates = {
        kind: _fit_candidate(kind, before, FitOptions(seed=seed, device=device), progress, kinds),
        "untrained": _fit_candidate("tcn", before, FitOptions(seed=seed, epochs=0, device=device)),
    }
    dataset = replace(_dataset(slices), regimes=np.concatenate(regimes))
    newest = ticks.part(max(len(ticks) - _ROBUSTNESS_SLICES, 0), len(ticks))
    found = _evaluate_candidates(dataset, slices, candidates, newest, seed=seed, progress=progress)
    return replace(found, market=f"a generated market of {days} days")


def _training_slices(slices: SliceArrays) -> SliceArrays:
    """The slices that an encoder may be trained on: their next slice has ended an embargo before the first query."""
    options = EvaluationOptions()
    first_query = slices.times[round(len(slices) * (1 - options.query_share))] if len(slices) > 1 else slices.times[0]
    ended = keeps_clear(slices.times, slices.times + 2 * SLICE_US, first_query, purge=options.embargo // MICROSECOND)
    before = slices.where(slices.embeddable[ended[slices.embeddable]])
    if len(before) < 2:
        raise UserError(f"Only {len(before)} slices lie before the first query: give a longer range.")
    return before


def _fit_candidate(
    kind: str, slices: SliceArrays, options: FitOptions, progress: Listener = ignore_progress, kinds: Kinds | None = None
) -> _Candidate:
    encoder = fit_encoder(kind, TrainingWindows.of(slices), options, kinds=kinds, progress=progress)
    return _Candidate(encoder, int(slices.times[-1] + 2 * SLICE_US))


def _dataset(slices: SliceArrays) -> Dataset:
    return Dataset(slices.times, slices.features, [feature.name for feature in FEATURES])


def _evaluate_candidates(
    dataset: Dataset,
    slices: SliceArrays,
    candidates: Mapping[str, _Candidate],
    ticks: TickArrays | None,
    *,
    seed: int,
    progress: Listener,
) -> Evaluation:
    vectors = {}
    for number, (name, candidate) in enumerate(candidates.items(), start=1):
        vectors[name] = candidate.embed_slices(slices)
        progress("embeddings", number, len(candidates))
    known_until = {name: candidate.trained_until for name, candidate in candidates.items()}
    result = evaluate_embeddings(dataset, vectors, EvaluationOptions(seed=seed), trained_until=known_until)
    if ticks is None:
        note = "The ticks of the newest slices are no longer stored, so robustness is not measured."
        return replace(result, notes=[*result.notes, note])
    robustness = {}
    for number, (name, candidate) in enumerate(candidates.items(), start=1):
        robustness[name] = measure_robustness(ticks, candidate.embed_ticks, seed=seed)
        progress("robustness", number, len(candidates))
    note = f"Robustness is measured on the newest {len(ticks):,} slices among themselves."
    return replace(result, robustness=robustness, notes=[*result.notes, note])


def _read_newest_ticks(store: Store, symbol: str, slices: SliceArrays) -> TickArrays | None:
    """Ticks of the newest slices; None if some of them are no longer stored."""
    newest = slices.where(np.arange(max(len(slices) - _ROBUSTNESS_SLICES, 0), len(slices)))
    ticks = read_tick_arrays(store, symbol, Window(*newest.range), newest.times)
    return ticks if (ticks.counts == newest.tick_count).all() else None
