"""Models and vectors for tests of searches, without an encoder."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import psycopg
import pyarrow as pa

from btc_assets.domain.slices import EPOCH, SLICE, SLICE_US, Window
from btc_assets.domain.ticks import TIME
from btc_assets.signals.encoders.models import Model, register_model
from btc_assets.store.cut import ArrowReplacements
from btc_assets.store.tables import Target
from btc_assets.store.writers import replace_all


def registered_model(
    connection: psycopg.Connection, name: str = "rocket-pca-0000000000000001", *, dim: int = 8, symbol: str = "BTCUSDT"
) -> Model:
    """A registered model without an artifact."""
    model = unregistered_model(name, dim=dim, symbol=symbol)
    register_model(connection, model)
    return model


def unregistered_model(
    name: str, *, kind: str = "rocket-pca", dim: int = 8, symbol: str = "BTCUSDT", metrics: dict[str, object] | None = None
) -> Model:
    """A model that is neither trained nor registered."""
    return Model(name, kind, symbol, dim, "schema", EPOCH, EPOCH + SLICE, metrics or {}, "memory:///nowhere")


def market_like(rows: int, dim: int, *, states: int = 12, seed: int = 0) -> np.ndarray:
    """Unit vectors, float32 [rows, dim], of a market whose few hidden states drift, so that vectors close in time are similar."""
    random = np.random.default_rng(seed)
    state = np.empty((rows, states))
    state[0] = random.normal(size=states)
    shocks = random.normal(size=(rows, states)) * np.sqrt(1 - 0.9**2)
    for row in range(1, rows):
        state[row] = 0.9 * state[row - 1] + shocks[row]
    vectors = np.tanh(state @ random.normal(size=(states, 4 * states)) / 2) @ random.normal(size=(4 * states, dim))
    vectors = (vectors + random.normal(size=(rows, dim))).astype(np.float32) * (0.98 ** np.arange(dim, dtype=np.float32))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def write_vectors(
    connection: psycopg.Connection, model: Model, vectors: np.ndarray, start: datetime, *, missing: tuple[int, ...] = ()
) -> Window:
    """Write vectors of consecutive slices; the slices at `missing` get none."""
    window = Window(start, start + len(vectors) * SLICE)
    first = (start - EPOCH) // SLICE
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), model.dim).cast(pa.list_(pa.float32()))
    places = np.arange(len(vectors))
    rows = pa.table(
        {
            "bucket_5m": pa.array((first + places) * SLICE_US).cast(TIME),
            "symbol": pa.repeat(model.symbol, len(vectors)),
            "model_id": pa.repeat(model.model_id, len(vectors)),
            "embedding": lists.take(pa.array(places, mask=np.isin(places, missing))),
            "tick_count": pa.array(places),
        }
    )
    replace_all(connection, Target.of(connection, model.table), ArrowReplacements(rows, window, "bucket_5m", 65_536))
    return window


def index_names(connection: psycopg.Connection, model: Model) -> list[str]:
    """The approximate indexes on the vectors of a model."""
    rows = connection.execute(
        "SELECT indexname FROM pg_indexes WHERE schemaname = 'signals' AND tablename = %s AND indexdef ~ 'ivfflat|hnsw' ORDER BY 1",
        (model.table.removeprefix("signals."),),
    ).fetchall()
    return [name for (name,) in rows]
