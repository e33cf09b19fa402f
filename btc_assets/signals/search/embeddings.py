"""The table `signals.btc_embeddings`: a vector for each slice and model, computed from stored features and bars."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import psycopg
import pyarrow as pa

from btc_assets.domain.slices import KEY_FORMAT, SLICE, Window, to_microseconds
from btc_assets.domain.ticks import TIME
from btc_assets.ingestion import due
from btc_assets.signals.encoders.interface import Encoder
from btc_assets.signals.encoders.models import Model
from btc_assets.signals.features.slice_arrays import SliceArrays
from btc_assets.signals.features.table import read_feature_version, read_features
from btc_assets.signals.keys import EMBEDDINGS
from btc_assets.store.database import Store, only_row
from btc_assets.store.errors import server_errors
from btc_assets.store.replace import CreatedAt, Replacement, Replacements, Stale
from btc_assets.store.tables import Target
from btc_assets.store.writers import replace_all

TABLE = "signals.btc_embeddings"

_DAYS = 7  # embedded at once: 2,016 slices, enough batches for every thread of PyTorch


class Embeddings(Replacements):
    """The vectors of one model for a window of slices, day by day; iterate over it once.

    Rows go to the partition of the model, so the vectors of other models stay.

    Args:
        store: read through separate connections while rows are written.
        model: whose vectors.
        encoder: of the model.
        window: the slices.
        settles: slices that were due before anything was read; writing them settles them.
        progress: called with the number of committed slices.
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
        for days in _split_weeks(self._window):
            yield from self.days(days)

    def days(self, days: Sequence[Window]) -> Iterator[Replacement]:
        """The vectors of consecutive days, or parts of days."""
        with self._store.connect() as connection:  # versions first: features that change while they are read make the rows stale
            versions = [read_feature_version(connection, self._model.symbol, day) for day in days]
        one_more = Window(days[0].start, days[-1].end + SLICE)  # for the label of the last slice
        slices = read_features(self._store, self._model.symbol, one_more)
        labels = _compute_labels(slices)
        slices = slices.where(slices.times < to_microseconds(days[-1].end))
        rows = embeddings_as_table(slices, labels.slice(0, len(slices)), self._model, self._encoder)
        for day, version in zip(days, versions, strict=True):
            first, last = np.searchsorted(slices.times, [to_microseconds(day.start), to_microseconds(day.end)])
            yield _Day(self, day, rows.slice(first, last - first), version)

    def require_version(self, cursor: psycopg.Cursor, window: Window, version: object) -> None:
        """Raise `Stale` if features of the window changed since `version` was read."""
        if read_feature_version(cursor, self._model.symbol, window) != version:
            raise Stale("features were computed again")

    def committed(self, replacement: Replacement) -> None:
        self._rows += len(replacement.rows)
        self._without_vector += replacement.rows["embedding"].null_count
        # Not in the transaction that wrote the rows: of two runs that write adjacent windows, the later one sees both.
        with self._store.connect() as connection:
            fill_labels(connection, self._model, replacement.window)
            # Last, so that the slices stay due if the process is killed before.
            due.clear_due_marks(connection, EMBEDDINGS, [one for one in self._settles if one[0] in replacement.window])
        self._done += len(replacement.window)
        self._progress(self._done)

    def summary(self) -> str:
        """What was committed, in words."""
        return f"{self._rows:,} slices, {self._without_vector:,} of them with too few ticks for a vector"


def _split_weeks(window: Window) -> Iterator[list[Window]]:
    days = list(window.days())
    return (days[first : first + _DAYS] for first in range(0, len(days), _DAYS))


class _Day(Replacement):
    # A vector that is the same as before its features changed is one of the new features all the same. Labels come and go.
    created_at = CreatedAt(
        ("embedding", "tick_count"),
        unless="EXISTS (SELECT FROM signals.slice_features AS made_of WHERE made_of.bucket_5m = old.bucket_5m AND made_of.symbol = old.symbol "
        "AND made_of.created_at > old.created_at)",
    )

    def __init__(self, source: Embeddings, window: Window, rows: pa.Table, version: object) -> None:
        super().__init__(window, rows)
        self._source, self._version = source, version

    def confirm(self, cursor: psycopg.Cursor) -> None:
        self._source.require_version(cursor, self.window, self._version)

    def rebuild(self) -> Iterator[Replacement]:
        return self._source.days([self.window])


def embeddings_as_table(slices: SliceArrays, labels: pa.Array, model: Model, encoder: Encoder) -> pa.Table:
    """Slices as rows of `signals.btc_embeddings`; a slice with too few ticks has no vector."""

    enough = slices.embeddable
    vectors = encoder.embed(slices.bars[enough], slices.features[enough])
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), model.dim).cast(pa.list_(pa.float32()))
    place = np.full(len(slices), -1)
    place[enough] = np.arange(len(enough))
    return pa.table(
        {
            "bucket_5m": pa.array(slices.times).cast(TIME),
            "symbol": pa.repeat(model.symbol, len(slices)),
            "model_id": pa.repeat(model.model_id, len(slices)),
            "embedding": lists.take(pa.array(place, mask=place < 0)),
            "tick_count": pa.array(slices.tick_count),
            "label_snapshot": labels,
        }
    )


# What a label holds, and the feature of the next slice that it is.
LABELS = {
    "next_return": "log_return",
    "next_realized_volatility": "realized_volatility",
    "next_volume": "volume",
    "next_trade_count": "trade_count",
}


def _compute_labels(slices: SliceArrays) -> pa.Array:
    """Labels from the slice after each, as `signals.fill_labels` writes them; null if that slice is not stored."""
    *values, counts = (slices.feature(name).tolist() for name in LABELS.values())
    own = [json.dumps(dict(zip(LABELS, row, strict=True))) for row in zip(*values, map(int, counts), strict=True)]
    return pa.array([own[row + 1] if followed else None for row, followed in enumerate(slices.followed.tolist())], pa.string())


def fill_labels(connection: psycopg.Connection, model: Model, window: Window) -> int:
    """Write the labels of the slices of a window and of the slice before it; returns the number of changed rows."""
    with server_errors(), connection.transaction():
        # One at a time: two that change the same rows in different orders would deadlock.
        connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (f"labels of {model.table}",))
        (changed,) = only_row(connection.execute("SELECT signals.fill_labels(%s, %s, %s)", (model.model_id, window.start, window.end)))
    return changed


def read_missing_windows(connection: psycopg.Connection, model: Model) -> list[Window]:
    """Windows with slices that a model has not embedded since their features were computed; ascending, adjacent days merged."""
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
    """Embed every slice that a model has not embedded since its features were computed; returns the number of written rows.

    Args:
        connection: writes the rows; in autocommit mode.
        store: read while rows are written.
        model: whose vectors.
        encoder: of the model.
        progress: called with slices done and slices in total.
    """
    windows = read_missing_windows(connection, model)
    total, done, written = sum(map(len, windows)), 0, 0
    for window in windows:
        report = partial(lambda before, inside: progress(before + inside, total), done)
        rows = Embeddings(store, model, encoder, window, progress=report)
        written += replace_all(connection, Target.of(connection, model.table), rows)
        done += len(window)
    stored = connection.execute(
        "SELECT min(bucket_5m), max(bucket_5m) FROM signals.btc_embeddings WHERE model_id = %s", (model.model_id,)
    ).fetchone()
    if stored and stored[0]:
        fill_labels(connection, model, Window(stored[0], stored[1] + SLICE))  # including labels that a killed attempt did not reach
    return written


_DIFFERENCES = """
SELECT bucket_5m, CASE WHEN made.bucket_5m IS NULL THEN 'is not embedded' ELSE 'was embedded before its features were computed' END
FROM signals.slice_features AS slice
LEFT JOIN (SELECT bucket_5m, symbol, created_at FROM signals.btc_embeddings WHERE model_id = %(model)s) AS made USING (bucket_5m, symbol)
WHERE symbol = %(symbol)s AND bucket_5m >= %(start)s AND bucket_5m < %(end)s
    AND (made.bucket_5m IS NULL OR made.created_at < slice.created_at)
ORDER BY 1
"""


def read_embedding_differences(connection: psycopg.Connection, model: Model, window: Window) -> list[str]:
    """Slices that a model has not embedded since their features were computed; one sentence per slice."""
    parameters = {"model": model.model_id, "symbol": model.symbol, "start": window.start, "end": window.end}
    with server_errors():
        rows = connection.execute(_DIFFERENCES, parameters).fetchall()
    return [f"{model.symbol} {bucket:{KEY_FORMAT}} {what} ({model.model_id})" for bucket, what in rows]
