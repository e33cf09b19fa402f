"""Due slices: what must be made again because the ticks it is made of changed.

The loader marks a slice due for every asset that follows the ticks, in the transaction that writes them. Whoever makes the
slice of such an asset settles it. So nothing is forgotten when a run fails half-way, when one run carries a hundred
slices, or when Dagster loses its storage.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

import psycopg

from btc_assets.domain.slices import Window
from btc_assets.ingestion.requests import DueSlice
from btc_assets.store.errors import server_errors

# Slices without an entry in the registry hold nothing and held nothing.
_MARK = """
INSERT INTO ingestion.due_slices (asset, bucket_5m)
SELECT asset, bucket_5m FROM unnest(%(assets)s::text[]) AS asset,
    (SELECT DISTINCT bucket_5m FROM landing.raw_blobs_5m WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s) AS slices
ORDER BY bucket_5m, asset
ON CONFLICT (bucket_5m, asset) DO UPDATE SET changed_at = clock_timestamp()
"""

# Read before they are made: what lies below may be made, and settled, while these are made of what it was before.
_TO_MAKE = """
SELECT bucket_5m, changed_at FROM ingestion.due_slices AS due WHERE asset = %s AND bucket_5m >= %s AND bucket_5m < %s
    AND NOT EXISTS (SELECT 1 FROM ingestion.due_slices AS below WHERE below.bucket_5m = due.bucket_5m AND below.asset = %s)
"""

_SETTLE = """
DELETE FROM ingestion.due_slices AS due USING unnest(%s::timestamptz[], %s::timestamptz[]) AS made (bucket_5m, changed_at)
WHERE asset = %s AND (due.bucket_5m, due.changed_at) = (made.bucket_5m, made.changed_at)
"""

_DUE = """
SELECT bucket_5m, min(due_since), md5(string_agg(asset || changed_at || due_since, ' ' ORDER BY asset))
FROM (
    SELECT * FROM ingestion.makeable_slices WHERE asset = ANY(%s)
    ORDER BY bucket_5m DESC LIMIT %s
) AS newest
GROUP BY bucket_5m ORDER BY bucket_5m
"""
_MOST = 100_000  # rows that one look takes in; the rest waits for these

Due = tuple[datetime, datetime]  # a slice, and when it changed


def mark_due(cursor: psycopg.Cursor, assets: Sequence[str], window: Window) -> None:
    """Note, in the transaction that replaces ticks, that the window's slices of `assets` must be made again."""
    cursor.execute(_MARK, {"assets": list(assets), "start": window.start, "end": window.end})


def read_due(connection: psycopg.Connection, asset: str, window: Window, *, below: str | None = None) -> list[Due]:
    """What of an asset's window is due, to be settled once it is made.

    Args:
        connection: in autocommit, so that what changed before is seen by whoever makes the slices.
        asset: its key, such as `market_data/candles_1m`.
        window: the slices that are to be made.
        below: the asset that they are made of, if it is one that can be due itself; slices of which it is stay due.
    """
    with server_errors():
        return connection.execute(_TO_MAKE, (asset, window.start, window.end, below or "")).fetchall()


def settle(cursor: psycopg.Cursor | psycopg.Connection, asset: str, made: Sequence[Due]) -> None:
    """What was due before it was made and has not changed meanwhile is due no longer."""
    if made:
        cursor.execute(_SETTLE, (*map(list, zip(*made, strict=True)), asset))


@contextmanager
def settling(connection: psycopg.Connection, asset: str, window: Window, *, below: str | None = None) -> Iterator[None]:
    """Around the making of an asset's slices that commits by itself: `read_due`, then `settle`."""
    due = read_due(connection, asset, window, below=below)
    yield
    with server_errors():
        settle(connection, asset, due)


def read_due_slices(connection: psycopg.Connection, assets: Iterable[str]) -> list[DueSlice]:
    """The slices that are due for any of `assets`, ascending; the newest, where they are very many."""
    with server_errors():
        return [DueSlice(*row) for row in connection.execute(_DUE, (list(assets), _MOST)).fetchall()]
