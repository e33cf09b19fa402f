"""The sources of a slice: what the registry says its ticks come from, read before a load and marked by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import psycopg

from btc_assets.domain.objects import ObjectVersion
from btc_assets.domain.slices import Window

_SOURCES = """
SELECT bucket_5m, asset, uri, etag, size_bytes, row_count, last_modified
FROM landing.raw_blobs_5m
WHERE bucket_5m >= %s AND bucket_5m < %s AND status = 'registered' AND row_count > 0
ORDER BY bucket_5m, asset, uri
"""

_ORPHANED = """
SELECT DISTINCT bucket_5m, uri FROM landing.raw_blobs_5m AS loaded
WHERE bucket_5m >= %s AND bucket_5m < %s AND loaded_at IS NOT NULL AND row_count > 0 AND status IN ('gone', 'superseded')
    AND NOT EXISTS (
        SELECT 1 FROM landing.raw_blobs_5m AS now WHERE now.uri = loaded.uri AND now.status IN ('registered', 'rejected')
    )
ORDER BY bucket_5m, uri
"""

_MARK_LOADED = """
UPDATE landing.raw_blobs_5m AS blob SET loaded_at = now(), loaded_rows = source.loaded_rows
FROM unnest(%b::timestamptz[], %b::text[], %b::text[], %b::text[], %b::bigint[]) AS source (bucket_5m, asset, uri, etag, loaded_rows)
WHERE (blob.bucket_5m, blob.asset, blob.uri, blob.etag) = (source.bucket_5m, source.asset, source.uri, source.etag)
"""

_MARK_EMPTY_LOADED = """
UPDATE landing.raw_blobs_5m SET loaded_at = now(), loaded_rows = 0
WHERE bucket_5m >= %s AND bucket_5m < %s AND status = 'registered' AND row_count = 0
"""

_MARK_UNLOADED = """
UPDATE landing.raw_blobs_5m SET loaded_at = NULL, loaded_rows = NULL
WHERE bucket_5m >= %s AND bucket_5m < %s AND status <> 'registered' AND loaded_at IS NOT NULL
"""


@dataclass(frozen=True, order=True)
class Source:
    """What one object has for one slice, as registered."""

    bucket_5m: datetime
    asset: str
    uri: str
    etag: str
    size_bytes: int
    row_count: int
    last_modified: datetime

    @property
    def version(self) -> ObjectVersion:
        """The content that was registered."""
        return ObjectVersion(self.uri, self.etag)


def read_sources(cursor: psycopg.Cursor, window: Window) -> list[Source]:
    """What is registered for a window, by slice, symbol and URI."""
    cursor.execute(_SOURCES, (window.start, window.end))
    return [Source(*row) for row in cursor]


def read_orphaned(cursor: psycopg.Cursor, window: Window) -> list[tuple[datetime, str]]:
    """Slices whose rows come from an object that is gone, with one such object."""
    cursor.execute(_ORPHANED, (window.start, window.end))
    return [(bucket, uri) for bucket, uri in cursor]


def mark_loaded(cursor: psycopg.Cursor, window: Window, sources: Sequence[Source], rows: Sequence[int]) -> None:
    """Record that the rows of a window come from `sources`, and from nothing else.

    Args:
        cursor: in the transaction that wrote the rows.
        window: the slices that were replaced.
        sources: all sources of the window.
        rows: rows of the table that come from each source, after de-duplication.
    """
    columns: list[list[object]] = [[], [], [], [], []]
    for source, kept in zip(sources, rows, strict=True):
        for column, value in zip(columns, (source.bucket_5m, source.asset, source.uri, source.etag, kept), strict=True):
            column.append(value)
    cursor.execute(_MARK_LOADED, columns)
    cursor.execute(_MARK_EMPTY_LOADED, (window.start, window.end))
    cursor.execute(_MARK_UNLOADED, (window.start, window.end))
