"""Training an encoder on stored slices, from the database to a registered artefact."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psycopg

from btc_assets.database import server_errors
from btc_assets.errors import UserError
from btc_assets.landing.objects import LandingZone
from btc_assets.signals import models, schema, slice_features
from btc_assets.signals.artefacts import save
from btc_assets.signals.embeddings import FEWEST_TICKS
from btc_assets.signals.features import FEATURES
from btc_assets.signals.models import Model
from btc_assets.signals.slice_features import StoredSlices
from btc_assets.signals.training import fit
from btc_assets.slices import SLICE, SLICE_US, Window, ceil_slice, floor_slice

FEWEST_SLICES = 50
_LABELS = ("realized_volatility", "volume", "trade_count")


def train(
    connection: psycopg.Connection,
    dsn: str,
    artefacts: LandingZone,
    checkpoints: Path,
    *,
    kind: str,
    symbol: str,
    start: datetime | None = None,
    end: datetime | None = None,
    dim: int = 256,
    seed: int = 0,
    epochs: int | None = None,
    device: str | None = None,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> Model:
    """Train an encoder and register it. It is neither kept up nor active yet.

    Args:
        connection: to the store.
        dsn: of the same store.
        artefacts: where models lie.
        checkpoints: a directory; training that was cut off goes on from there, to the same model.
        kind: of encoder.
        symbol: whose slices.
        start, end: of what it is trained on; everything stored unless they are given.
        dim, seed, epochs, device: as `training.fit` takes them.
        progress: told how far it is.

    Raises:
        UserError: too few slices are stored there, or an option is wrong.
    """
    window = _stored_window(connection, symbol, start, end)
    stored = slice_features.read(dsn, symbol, window)
    stored = stored.where(np.flatnonzero(stored.tick_count >= FEWEST_TICKS))
    if len(stored) < FEWEST_SLICES:
        raise UserError(
            f"Only {len(stored)} slices of {symbol} with {FEWEST_TICKS} ticks or more are stored in {window}, and training takes "
            f"{FEWEST_SLICES}: load more (btc-assets load), or name another range."
        )
    started = datetime.now(UTC)
    checkpoints.mkdir(parents=True, exist_ok=True)
    job = f"{kind} {symbol} {window} {dim} {seed} {epochs} {schema.digest()} {hashlib.sha256(stored.features.tobytes()).hexdigest()}"
    checkpoint = checkpoints / f"{hashlib.sha256(job.encode()).hexdigest()[:16]}.pt"
    encoder = fit(
        kind, stored.bars, stored.features.astype(np.float32), next_labels=next_labels(stored), dim=dim, seed=seed, epochs=epochs,
        device=device, progress=progress, checkpoint=checkpoint,
    )  # fmt: skip
    model_id = save(encoder, artefacts)
    first, last = stored.range
    metrics = {"slices": len(stored), "seed": seed, "training_seconds": round((datetime.now(UTC) - started).total_seconds(), 1)}
    model = Model(model_id, kind, symbol, dim, schema.digest(), first, last, metrics, f"{artefacts.url}/models/{model_id}.safetensors")
    models.register(connection, model)
    checkpoint.unlink(missing_ok=True)
    return models.read(connection, model_id)


def next_labels(stored: StoredSlices) -> np.ndarray:
    """What the slice after each brought: logarithms of realised volatility (+1e-6), volume and trade count (+1 each).

    Returns:
        float32 [n, 3]; NaN where the next slice is not stored.
    """
    names = [feature.name for feature in FEATURES]
    values = stored.features[:, [names.index(name) for name in _LABELS]]
    logs = np.log(values + np.array([1e-6, 1.0, 1.0]))
    labels = np.full((len(stored), len(_LABELS)), np.nan, np.float32)
    follows = np.flatnonzero(np.diff(stored.times) == SLICE_US)
    labels[follows] = logs[follows + 1]
    return labels


def _stored_window(connection: psycopg.Connection, symbol: str, start: datetime | None, end: datetime | None) -> Window:
    with server_errors(), connection.transaction():
        row = connection.execute(
            "SELECT min(bucket_5m), max(bucket_5m) FROM signals.slice_features WHERE symbol = %s", (symbol,)
        ).fetchone()
    if row is None or row[0] is None:
        raise UserError(f"No features of {symbol} are stored: load ticks first (btc-assets load).")
    first, last = floor_slice(start) if start else row[0], ceil_slice(end) if end else row[1] + SLICE
    return Window(first, last)
