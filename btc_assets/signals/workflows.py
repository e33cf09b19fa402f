"""What commands and assets both do with encoders: train one, activate one, evaluate some."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import psycopg
import pyarrow as pa

from btc_assets.domain.errors import UserError
from btc_assets.domain.progress import Listener, ignore_progress
from btc_assets.domain.slices import SLICE, SLICE_US, Window, ceil_slice, floor_slice, to_microseconds
from btc_assets.landing.zone import LandingZone
from btc_assets.signals.encoders import models
from btc_assets.signals.encoders.artefacts import load, save
from btc_assets.signals.encoders.encoder import Encoder, embed
from btc_assets.signals.encoders.models import Model
from btc_assets.signals.encoders.training import fit
from btc_assets.signals.evaluation.evaluate import Dataset, evaluate
from btc_assets.signals.evaluation.report import Evaluation
from btc_assets.signals.evaluation.robustness import retrieval
from btc_assets.signals.features import schema
from btc_assets.signals.features import table as slice_features
from btc_assets.signals.features.bars import bars
from btc_assets.signals.features.formulas import FEATURES, features
from btc_assets.signals.features.table import StoredSlices
from btc_assets.signals.features.tick_arrays import TickArrays
from btc_assets.signals.search import embeddings, indexes
from btc_assets.signals.search.embeddings import FEWEST_TICKS
from btc_assets.simulation.generate_market import generate_market
from btc_assets.store.database import Store
from btc_assets.store.errors import server_errors

FEWEST_SLICES = 50
_LABELS = ("realized_volatility", "volume", "trade_count")


@dataclass(frozen=True)
class TrainingPlan:
    """What to train, and on what.

    Attributes:
        symbol: whose slices.
        kind: of encoder.
        start, end: the range to train on; by default, all that is stored.
        dim, seed, epochs, device: as `training.fit` takes them.
    """

    symbol: str
    kind: str = "rocket-pca"
    start: datetime | None = None
    end: datetime | None = None
    dim: int = 256
    seed: int = 0
    epochs: int | None = None
    device: str | None = None


def train(store: Store, artefacts: LandingZone, checkpoints: Path, plan: TrainingPlan, *, progress: Listener = ignore_progress) -> Model:
    """Train an encoder and register it. It is neither maintained nor active yet.

    Args:
        store: holds the slices, and the registry of models.
        artefacts: where models are stored.
        checkpoints: a directory; interrupted training continues from there, to the same model.
        plan: what to train.
        progress: called with stage, done and total.

    Raises:
        UserError: too few slices are stored, or an option is wrong.
    """
    with store.connect() as connection:
        window = _stored_window(connection, plan.symbol, plan.start, plan.end)
    stored = slice_features.read_features(store, plan.symbol, window)
    stored = stored.where(np.flatnonzero(stored.tick_count >= FEWEST_TICKS))
    if len(stored) < FEWEST_SLICES:
        raise UserError(
            f"Only {len(stored)} slices of {plan.symbol} with {FEWEST_TICKS} ticks or more are stored in {window}, and training takes "
            f"{FEWEST_SLICES}: load more (btc-assets load), or name another range."
        )
    started = datetime.now(UTC)
    checkpoints.mkdir(parents=True, exist_ok=True)
    checkpoint = checkpoints / f"{_training_id(plan, window, stored)}.pt"
    encoder = fit(
        plan.kind,
        stored.bars,
        stored.features.astype(np.float32),
        times=stored.times,
        next_labels=next_labels(stored),
        dim=plan.dim,
        seed=plan.seed,
        epochs=plan.epochs,
        device=plan.device,
        progress=progress,
        checkpoint=checkpoint,
    )
    model_id = save(encoder, artefacts)
    first, last = stored.range
    metrics = {"slices": len(stored), "seed": plan.seed, "training_seconds": round((datetime.now(UTC) - started).total_seconds(), 1)}
    uri = f"{artefacts.url}/models/{model_id}.safetensors"
    model = Model(model_id, plan.kind, plan.symbol, plan.dim, schema.digest(), first, last, metrics, uri)
    with store.connect() as connection:
        models.register_model(connection, model)
        checkpoint.unlink(missing_ok=True)
        return models.read_model(connection, model_id)


def _training_id(plan: TrainingPlan, window: Window, stored: StoredSlices) -> str:
    """Changes with everything that the trained model depends on."""
    features = hashlib.sha256(stored.features.tobytes()).hexdigest()
    text = f"{plan.kind} {plan.symbol} {window} {plan.dim} {plan.seed} {plan.epochs} {schema.digest()} {features}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def next_labels(stored: StoredSlices) -> np.ndarray:
    """What the slice after each brought: logarithms of realised volatility (+1e-6), volume and trade count (+1 each).

    Returns:
        float32 [n, 3]; NaN where the next slice is not stored.
    """
    logs = np.log(np.column_stack([stored.feature(name) for name in _LABELS]) + np.array([1e-6, 1.0, 1.0]))
    labels = np.full((len(stored), len(_LABELS)), np.nan, np.float32)
    followed = np.flatnonzero(stored.followed)
    labels[followed] = logs[followed + 1]
    return labels


def newest_window(connection: psycopg.Connection, symbol: str, start: datetime | None, end: datetime | None) -> Window:
    """What is to be evaluated: from start to end, or the newest 90 days that are stored."""
    if start:
        return _stored_window(connection, symbol, start, end)
    stored = _stored_window(connection, symbol, None, end)
    return Window(max(stored.start, stored.end - timedelta(days=90)), stored.end)


def _stored_window(connection: psycopg.Connection, symbol: str, start: datetime | None, end: datetime | None) -> Window:
    with server_errors(), connection.transaction():
        row = connection.execute(
            "SELECT min(bucket_5m), max(bucket_5m) FROM signals.slice_features WHERE symbol = %s", (symbol,)
        ).fetchone()
    if row is None or row[0] is None:
        raise UserError(f"No features of {symbol} are stored: load ticks first (btc-assets load).")
    first, last = floor_slice(start) if start else row[0], ceil_slice(end) if end else row[1] + SLICE
    return Window(first, last)


@dataclass(frozen=True)
class Activation:
    """What it took: rows that were written, the state of the index, and the model that answered until now."""

    model_id: str
    written: int
    maintenance: indexes.IndexMaintenance
    before: str | None

    def __str__(self) -> str:
        index = f"index: {self.maintenance.index}" if self.maintenance.index else self.maintenance.why
        return (
            f"{self.model_id} is active ({self.written:,} slices embedded; {index}){f', in place of {self.before}' if self.before else ''}"
        )


def activate(
    store: Store,
    artefacts: LandingZone,
    model: Model,
    *,
    method: str | None = None,
    element: str | None = None,
    progress: Listener = ignore_progress,
) -> Activation:
    """Let `model` answer the searches of its symbol. Until the last step, the active model goes on answering them.

    Args:
        store: holds the slices to embed.
        artefacts: where models are stored.
        model: a registered one.
        method, element: of its index, see `indexes.maintain_index`.
        progress: called with stage, done and total.

    Raises:
        UserError: there are no slices to embed, the artefact is missing or damaged, or the recall of the index is too low.
    """
    encoder = load(model.model_id, artefacts)
    with store.connect(owner=True) as connection:
        models.set_maintained(connection, model, True)  # first, so that slices which are loaded meanwhile are embedded as well
        try:
            written = embeddings.backfill_embeddings(
                connection, store, model, encoder, lambda done, total: progress("embeddings", done, total)
            )
            if not indexes.count_vectors(connection, model):
                raise UserError(
                    f"There is no slice of {model.symbol} with {FEWEST_TICKS} ticks or more to embed: load ticks first (btc-assets load)."
                )
            maintenance = indexes.maintain_index(connection, model, method=method, element=element)
            if maintenance.index is not None and maintenance.index.recall < indexes.LEAST_RECALL:
                raise UserError(
                    f"The index of {model.model_id} finds only {maintenance.index.recall:.3f} of the nearest slices: activate it with --method hnsw."
                )
        except UserError:
            models.set_maintained(connection, model, model.kept_up)
            raise
        return Activation(model.model_id, written, maintenance, models.activate_model(connection, model))


def evaluate_stored(
    store: Store,
    artefacts: LandingZone,
    symbol: str,
    window: Window,
    *,
    trained: Sequence[Model] = (),
    kind: str = "rocket-pca",
    seed: int = 0,
    progress: Listener = ignore_progress,
) -> Evaluation:
    """Compare what similar slices foretell with what simpler forecasts do, on stored slices.

    Args:
        store: holds the slices.
        artefacts: where models lie.
        symbol: whose slices.
        window: the slices; the last 30 % are asked about.
        trained: models to judge. Where none is named, an encoder is trained on what lies before the questions, which is what
            an honest figure needs.
        kind, seed: of that encoder.
        progress: told how far it is.

    Raises:
        UserError: too few slices are stored there, or a model cannot be loaded.
    """
    stored = slice_features.read_features(store, symbol, window)
    if not len(stored):
        raise UserError(f"No features of {symbol} are stored in {window}: load that range first (btc-assets load).")
    encoders = {model.model_id: load(model.model_id, artefacts) for model in trained}
    until = {model.model_id: to_microseconds(model.trained_to) for model in trained}
    ticks = _newest_ticks(store, symbol, stored)
    return _judge(stored, encoders, until, ticks, kind=kind, seed=seed, progress=progress)


def evaluate_generated(*, days: int = 10, kind: str = "rocket-pca", seed: int = 0, progress: Listener = ignore_progress) -> Evaluation:
    """The same on a generated market whose regimes are known, which adds how many neighbours share the regime of the query.

    Args:
        days: of 288 slices with about 300 trades each.
        kind: of the encoder, which is trained on what lies before the questions.
        seed: of the market and the encoder.
        progress: told how far it is.
    """
    parts, regimes = [], []
    for number, (trades, labels) in enumerate(generate_market(datetime(2024, 1, 1, tzinfo=UTC), days, seed=seed + 1), start=1):
        parts.append(trades)
        regimes.append(labels)
        progress("market", number, days)
    starts = to_microseconds(datetime(2024, 1, 1, tzinfo=UTC)) + SLICE_US * np.arange(288 * days)
    ticks = TickArrays.of(pa.concat_tables(parts), starts)
    return _judge(
        _computed(ticks),
        {},
        {},
        ticks.part(max(len(ticks) - _ROBUSTNESS_SLICES, 0), len(ticks)),
        regimes=np.concatenate(regimes),
        kind=kind,
        seed=seed,
        progress=progress,
    )


_ROBUSTNESS_SLICES = 1000
_QUERY_SHARE = 0.3
_EMBARGO = timedelta(hours=1)


def _judge(
    stored: StoredSlices,
    encoders: Mapping[str, Encoder],
    trained_until: Mapping[str, int],
    ticks: TickArrays | None,
    *,
    regimes: np.ndarray | None = None,
    kind: str,
    seed: int,
    progress: Listener,
) -> Evaluation:
    first_query = stored.times[round(len(stored) * (1 - _QUERY_SHARE))] if len(stored) > 1 else stored.times[0]
    before = stored.where(np.flatnonzero((stored.times + 2 * SLICE_US <= first_query - _EMBARGO // timedelta(microseconds=1)) & (stored.tick_count >= FEWEST_TICKS)))  # fmt: skip
    if len(before) < 2:
        raise UserError(f"Only {len(before)} slices lie before the first question: give a longer range.")
    until = int(before.times[-1] + 2 * SLICE_US)
    judged, known_until = dict(encoders), dict(trained_until)
    if not judged:
        judged[kind] = fit(
            kind,
            before.bars,
            before.features.astype(np.float32),
            times=before.times,
            next_labels=next_labels(before),
            seed=seed,
            progress=progress,
        )
        known_until[kind] = until
    judged["untrained"] = fit("tcn", before.bars, before.features.astype(np.float32), seed=seed, epochs=0)
    known_until["untrained"] = until
    dataset = Dataset(stored.times, stored.features, [feature.name for feature in FEATURES], regimes)
    vectors = {}
    for number, (name, encoder) in enumerate(judged.items(), start=1):
        vectors[name] = _vectors(encoder, stored)
        progress("embeddings", number, len(judged))
    result = evaluate(dataset, vectors, trained_until=known_until, query_share=_QUERY_SHARE, embargo=_EMBARGO, seed=seed)
    if ticks is None:
        return replace(
            result, notes=[*result.notes, "The ticks of the newest slices are not there any more, so robustness is not measured."]
        )
    found = {}
    for number, (name, encoder) in enumerate(judged.items(), start=1):
        found[name] = retrieval(ticks, partial(_vectors_of, encoder), seed=seed)
        progress("robustness", number, len(judged))
    return replace(
        result, retrieval=found, notes=[*result.notes, f"Robustness is that of the newest {len(ticks):,} slices among themselves."]
    )


def _vectors(encoder: Encoder, stored: StoredSlices) -> np.ndarray:
    """float32 [n, dim]; NaN where a slice has too few ticks."""
    vectors = np.full((len(stored), encoder.dim), np.nan, np.float32)
    enough = np.flatnonzero(stored.tick_count >= FEWEST_TICKS)
    vectors[enough] = embed(encoder, stored.bars[enough], stored.features[enough])
    return vectors


def _vectors_of(encoder: Encoder, ticks: TickArrays) -> np.ndarray:
    return _vectors(encoder, _computed(ticks))


def _computed(ticks: TickArrays) -> StoredSlices:
    return StoredSlices(ticks.starts, features(ticks), bars(ticks))


def _newest_ticks(store: Store, symbol: str, stored: StoredSlices) -> TickArrays | None:
    """Ticks of the newest slices, None where retention dropped them."""
    newest = stored.where(np.arange(max(len(stored) - _ROBUSTNESS_SLICES, 0), len(stored)))
    ticks = slice_features.read_ticks(store, symbol, Window(*newest.range), newest.times)
    return ticks if (ticks.counts == newest.tick_count).all() else None
