"""Due slices: the slices of an asset that must be rebuilt because the ticks below them changed.

The loader marks a slice due for every asset that follows the ticks and that it does not make itself, in the transaction that writes
them. The code that rebuilds the slice of such an asset clears the mark. So no change is forgotten when a run fails halfway, when one run covers a hundred
slices, or when Dagster loses its storage.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import NamedTuple

import psycopg

from btc_assets.domain.slices import SLICE, Window
from btc_assets.ingestion.requests import DueSlice
from btc_assets.store.errors import server_errors

# Ticks that are due themselves: they were loaded while their slice was open, and are loaded once more when it is closed, by a run that
# Dagster records. Until then nothing else is made of them (ingestion.makeable_slices).
_TICKS = "market_data/btc_ticks"

# A slice without an entry in the registry has no rows and never had any.
_MARK = """
INSERT INTO ingestion.due_slices (asset, bucket_5m)
SELECT asset, bucket_5m FROM unnest(%(assets)s::text[]) AS asset,
    (SELECT DISTINCT bucket_5m FROM landing.raw_blobs_5m WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s) AS slices
ORDER BY bucket_5m, asset
ON CONFLICT (bucket_5m, asset) DO UPDATE SET changed_at = clock_timestamp()
"""

# While these slices are rebuilt from the old state of the asset below, another run may rebuild that asset and clear its marks.
# So a slice whose source is due when the marks are read stays due itself.
_READ = """
SELECT bucket_5m, changed_at FROM ingestion.due_slices AS due WHERE asset = %s AND bucket_5m >= %s AND bucket_5m < %s
    AND NOT EXISTS (SELECT 1 FROM ingestion.due_slices AS below WHERE below.bucket_5m = due.bucket_5m AND below.asset = %s)
"""

_READ_BUCKETS = "SELECT bucket_5m FROM ingestion.due_slices WHERE asset = %s AND bucket_5m >= %s AND bucket_5m < %s ORDER BY bucket_5m"

# In the order in which others change these rows.
_SETTLE = """
WITH made AS (
    SELECT bucket_5m, asset FROM ingestion.due_slices WHERE asset = ANY(%s) AND bucket_5m >= %s AND bucket_5m < %s
    ORDER BY bucket_5m, asset FOR UPDATE
)
DELETE FROM ingestion.due_slices AS due USING made WHERE (due.bucket_5m, due.asset) = (made.bucket_5m, made.asset)
"""

_CLEAR = """
DELETE FROM ingestion.due_slices AS due USING unnest(%s::timestamptz[], %s::timestamptz[]) AS rebuilt (bucket_5m, changed_at)
WHERE asset = %s AND (due.bucket_5m, due.changed_at) = (rebuilt.bucket_5m, rebuilt.changed_at)
"""

_DUE = """
SELECT bucket_5m, min(due_since), md5(string_agg(asset || changed_at || due_since, ' ' ORDER BY asset))
FROM (
    SELECT * FROM ingestion.makeable_slices WHERE asset = ANY(%s)
    ORDER BY bucket_5m DESC LIMIT %s
) AS newest
GROUP BY bucket_5m ORDER BY bucket_5m
"""
_OPEN_LOADS = """
SELECT bucket_5m, due_since, md5(asset || changed_at || due_since) FROM ingestion.due_slices WHERE asset = %s ORDER BY bucket_5m
"""
_MAX_ROWS = 100_000  # one read returns at most these; older slices follow once these are rebuilt


class DueMark(NamedTuple):
    """A slice of an asset that is due: the start of the slice, and when the ticks below it last changed."""

    bucket: datetime
    changed_at: datetime


def mark_due(cursor: psycopg.Cursor, assets: Sequence[str], window: Window) -> None:
    """Mark the window's slices of `assets` due, in the transaction that replaces the ticks."""
    cursor.execute(_MARK, {"assets": list(assets), "start": window.start, "end": window.end})


def settle(cursor: psycopg.Cursor, assets: Sequence[str], window: Window) -> None:
    """Clear all marks of the window's slices of `assets`, in the transaction that replaces the ticks and makes these slices of them."""
    if assets:
        cursor.execute(_SETTLE, (list(assets), window.start, window.end))


def read_due_windows(connection: psycopg.Connection, asset: str, window: Window) -> list[Window]:
    """What of a window is due for an asset: contiguous slices together, ascending."""
    with server_errors():
        rows = connection.execute(_READ_BUCKETS, (asset, window.start, window.end)).fetchall()
    found: list[Window] = []
    for (bucket,) in rows:
        start = found.pop().start if found and found[-1].end == bucket else bucket
        found.append(Window(start, bucket + SLICE))
    return found


def read_due_marks(connection: psycopg.Connection, asset: str, window: Window, *, below: str | None = None) -> list[DueMark]:
    """Read the due marks of an asset before its slices are rebuilt; clear them afterwards.

    Args:
        connection: in autocommit mode, so that the rebuild sees every change that was marked before.
        asset: its key, such as `market_data/candles_1m`.
        window: the slices that will be rebuilt.
        below: the asset that these slices are built from, if that one can be due too. Slices that are due there stay due.
    """
    with server_errors():
        return [DueMark(*row) for row in connection.execute(_READ, (asset, window.start, window.end, below or "")).fetchall()]


def clear_due_marks(cursor: psycopg.Cursor | psycopg.Connection, asset: str, marks: Sequence[DueMark]) -> None:
    """Clear the marks of slices that were rebuilt; a slice that changed again meanwhile stays due."""
    if marks:
        cursor.execute(_CLEAR, (*map(list, zip(*marks, strict=True)), asset))


@contextmanager
def clearing_due_marks(connection: psycopg.Connection, asset: str, window: Window, *, below: str | None = None) -> Iterator[None]:
    """Rebuild an asset's slices, with commits of its own, inside the block: the marks read before it are cleared after it.

    The arguments are those of `read_due_marks`. If the block raises, every mark stays.
    """
    marks = read_due_marks(connection, asset, window, below=below)
    yield
    with server_errors():
        clear_due_marks(connection, asset, marks)


def mark_open(cursor: psycopg.Cursor, window: Window) -> None:
    """Mark the ticks of the window's slices due, in the transaction that replaces them while the slices are open."""
    mark_due(cursor, [_TICKS], window)


def mark_closed(cursor: psycopg.Cursor, window: Window) -> None:
    """The opposite: they were loaded as any slice is."""
    settle(cursor, [_TICKS], window)


def read_open_loads(connection: psycopg.Connection) -> list[DueSlice]:
    """The slices whose ticks were loaded while they were open, and not since they were closed; ascending."""
    with server_errors():
        return [DueSlice(*row) for row in connection.execute(_OPEN_LOADS, (_TICKS,)).fetchall()]


def read_due_slices(connection: psycopg.Connection, assets: Iterable[str]) -> list[DueSlice]:
    """The slices that are due for any of `assets`, in ascending order; if there are very many, the newest."""
    with server_errors():
        return [DueSlice(*row) for row in connection.execute(_DUE, (list(assets), _MAX_ROWS)).fetchall()]
