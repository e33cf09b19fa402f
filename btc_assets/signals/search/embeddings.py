"""The table `signals.btc_embeddings`: a vector for each slice and model, made of stored features and bars."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import psycopg
import pyarrow as pa

from btc_assets.domain.slices import SLICE, Window, to_microseconds
from btc_assets.domain.ticks import TIME
from btc_assets.ingestion import due
from btc_assets.signals.encoders.models import Model
from btc_assets.signals.features import table as slice_features
from btc_assets.signals.keys import EMBEDDINGS
from btc_assets.store.database import Store
from btc_assets.store.errors import server_errors
from btc_assets.store.replace import Replacement, Replacements, Stale
from btc_assets.store.tables import Target
from btc_assets.store.writers import replace_all

if TYPE_CHECKING:
    from btc_assets.signals.encoders.encoder import Encoder

TABLE = "signals.btc_embeddings"

# With fewer, most features stand at their degenerate values, and all such slices would look alike.
FEWEST_TICKS = 10

_DAYS = 7  # that are embedded at once: 2,016 slices, so that each of PyTorch's threads has some


class Embeddings(Replacements):
    """The vectors of one model for a window of slices, a day after the other; iterate over it once.

    Rows go to the model's own table, so that those of other models stay.

    Args:
        store: read by connections of its own while others write.
        model: whose vectors.
        encoder: the model itself.
        window: the slices.
        settles: what was due before anything was read, and is not any more once this is written.
        progress: told how many slices are committed.
    """

    def __init__(
        self,
        store: Store,
        model: Model,
        encoder: Encoder,
        window: Window,
        *,
        settles: Sequence[due.DueMark] = (),
        progress: Callable[[int], None] = lambda done: None,
    ) -> None:
        self.table = model.table
        self._store, self._model, self._encoder, self._window = store, model, encoder, window
        self._settles, self._progress = settles, progress
        self._done = self._rows = self._without_vector = 0

    def __iter__(self) -> Iterator[Replacement]:
        for days in _weeks(self._window):
            yield from self.days(days)

    def days(self, days: Sequence[Window]) -> Iterator[Replacement]:
        """The vectors of days, or parts of days, that follow each other."""
        with self._store.connect() as connection:
            versions = [slice_features.read_feature_version(connection, self._model.symbol, day) for day in days]  # before they are read
        stored = slice_features.read_features(
            self._store, self._model.symbol, Window(days[0].start, days[-1].end + SLICE)
        )  # for the last label
        labels = _labels(stored)
        stored = stored.where(stored.times < to_microseconds(days[-1].end))
        rows = embeddings_as_table(stored, labels.slice(0, len(stored)), self._model, self._encoder)
        for day, version in zip(days, versions, strict=True):
            first, last = np.searchsorted(stored.times, [to_microseconds(day.start), to_microseconds(day.end)])
            yield _Day(self, day, rows.slice(first, last - first), version)

    def require(self, cursor: psycopg.Cursor, window: Window, version: object) -> None:
        """Raises `Stale` where the features of a window are not those of `version` any more."""
        if slice_features.read_feature_version(cursor, self._model.symbol, window) != version:
            raise Stale("features were made again")

    def committed(self, replacement: Replacement) -> None:
        self._rows += len(replacement.rows)
        self._without_vector += replacement.rows["embedding"].null_count
        # Not in the transaction that wrote the rows: of two neighbouring windows, whoever comes last sees both.
        with self._store.connect() as connection:
            fill_labels(connection, self._model, replacement.window)
            # Last, so that what is killed in between stays due.
            due.clear_due_marks(connection, EMBEDDINGS, [one for one in self._settles if one[0] in replacement.window])
        self._done += len(replacement.window)
        self._progress(self._done)

    def summary(self) -> str:
        """What was committed, for people."""
        return f"{self._rows:,} slices, {self._without_vector:,} of them with too few ticks for a vector"


def _weeks(window: Window) -> Iterator[list[Window]]:
    days = list(window.days())
    return (days[first : first + _DAYS] for first in range(0, len(days), _DAYS))


class _Day(Replacement):
    def __init__(self, maker: Embeddings, window: Window, rows: pa.Table, version: object) -> None:
        super().__init__(window, rows)
        self._maker, self._version = maker, version

    def confirm(self, cursor: psycopg.Cursor) -> None:
        self._maker.require(cursor, self.window, self._version)

    def rebuild(self) -> Iterator[Replacement]:
        return self._maker.days([self.window])


def embeddings_as_table(stored: slice_features.StoredSlices, labels: pa.Array, model: Model, encoder: Encoder) -> pa.Table:
    """Slices as rows of `signals.btc_embeddings`; those with fewer than `FEWEST_TICKS` ticks have no vector."""
    from btc_assets.signals.encoders.encoder import embed

    enough = np.flatnonzero(stored.tick_count >= FEWEST_TICKS)
    vectors = embed(encoder, stored.bars[enough], stored.features[enough])
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), model.dim).cast(pa.list_(pa.float32()))
    place = np.full(len(stored), -1)
    place[enough] = np.arange(len(enough))
    return pa.table(
        {
            "bucket_5m": pa.array(stored.times).cast(TIME),
            "symbol": pa.repeat(model.symbol, len(stored)),
            "model_id": pa.repeat(model.model_id, len(stored)),
            "embedding": lists.take(pa.array(place, mask=place < 0)),
            "tick_count": pa.array(stored.tick_count),
            "label_snapshot": labels,
        }
    )


_NEXT = {
    "next_return": "log_return",
    "next_realized_volatility": "realized_volatility",
    "next_volume": "volume",
    "next_trade_count": "trade_count",
}


def _labels(stored: slice_features.StoredSlices) -> pa.Array:
    """What the slice after each brought, as `signals.fill_labels` writes it; null where that is not stored."""
    *values, counts = (stored.feature(name).tolist() for name in _NEXT.values())
    own = [json.dumps(dict(zip(_NEXT, row, strict=True))) for row in zip(*values, map(int, counts), strict=True)]
    return pa.array([own[row + 1] if followed else None for row, followed in enumerate(stored.followed.tolist())], pa.string())


def fill_labels(connection: psycopg.Connection, model: Model, window: Window) -> int:
    """Write what the next slice brought to the slices of a window and the one before it; returns how many changed."""
    with server_errors(), connection.transaction():
        # One at a time, because two that change the same rows in different orders would wait for each other.
        connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (f"labels of {model.table}",))
        row = connection.execute("SELECT signals.fill_labels(%s, %s, %s)", (model.model_id, window.start, window.end)).fetchone()
    assert row is not None
    return row[0]


def read_missing_windows(connection: psycopg.Connection, model: Model) -> list[Window]:
    """Where slices are that a model has not embedded since their features were made, in whole days that follow each other; ascending."""
    with server_errors(), connection.transaction():
        rows = connection.execute(
            """
            SELECT min(bucket_5m), max(bucket_5m) FROM signals.slice_features AS slice
            WHERE symbol = %s AND NOT EXISTS (
                SELECT 1 FROM signals.btc_embeddings AS made
                WHERE made.model_id = %s AND made.bucket_5m = slice.bucket_5m AND made.symbol = slice.symbol
                    AND made.created_at >= slice.created_at
            )
            GROUP BY date_trunc('day', bucket_5m, 'UTC') ORDER BY 1
            """,
            (model.symbol, model.model_id),
        ).fetchall()
    windows: list[Window] = []
    for first, last in rows:
        start = windows.pop().start if windows and windows[-1].end == first else first
        windows.append(Window(start, last + SLICE))
    return windows


def backfill_embeddings(
    connection: psycopg.Connection,
    store: Store,
    model: Model,
    encoder: Encoder,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Embed with a model every slice that is not embedded with it since its features were made; returns how many rows it wrote.

    Args:
        connection: to the store, in autocommit.
        store, model, encoder: as `Embeddings` takes them.
        progress: told how many slices of how many are done.
    """
    windows = read_missing_windows(connection, model)
    total, done, written = sum(map(len, windows)), 0, 0
    for window in windows:
        made = Embeddings(store, model, encoder, window, progress=partial(lambda before, inside: progress(before + inside, total), done))
        written += replace_all(connection, Target.of(connection, model.table), made)
        done += len(window)
    stored = connection.execute(
        "SELECT min(bucket_5m), max(bucket_5m) FROM signals.btc_embeddings WHERE model_id = %s", (model.model_id,)
    ).fetchone()
    if stored and stored[0]:
        fill_labels(connection, model, Window(stored[0], stored[1] + SLICE))  # those, too, that an earlier attempt was killed before
    return written


_DIFFERENCES = """
SELECT bucket_5m, CASE WHEN made.bucket_5m IS NULL THEN 'is not embedded' ELSE 'was embedded before its features were made' END
FROM signals.slice_features AS slice
LEFT JOIN (SELECT bucket_5m, symbol, created_at FROM signals.btc_embeddings WHERE model_id = %(model)s) AS made USING (bucket_5m, symbol)
WHERE symbol = %(symbol)s AND bucket_5m >= %(start)s AND bucket_5m < %(end)s
    AND (made.bucket_5m IS NULL OR made.created_at < slice.created_at)
ORDER BY 1
"""


def read_embedding_differences(connection: psycopg.Connection, model: Model, window: Window) -> list[str]:
    """Slices that a model has not embedded since their features were made, a sentence each."""
    parameters = {"model": model.model_id, "symbol": model.symbol, "start": window.start, "end": window.end}
    with server_errors():
        rows = connection.execute(_DIFFERENCES, parameters).fetchall()
    return [f"{model.symbol} {bucket:%Y-%m-%dT%H:%MZ} {what} ({model.model_id})" for bucket, what in rows]
