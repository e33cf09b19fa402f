"""The sources of a slice: which objects its ticks come from, as the registry says before a load and as the load marks it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import psycopg

from btc_assets.domain.objects import ObjectVersion
from btc_assets.domain.slices import Window
from btc_assets.store.database import only_row
from btc_assets.store.errors import server_errors

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

_ROWS_BY_SLICE = """
SELECT bucket_5m, sum(row_count)::bigint FROM landing.raw_blobs_5m
WHERE bucket_5m >= %s AND bucket_5m < %s AND status = 'registered' GROUP BY bucket_5m ORDER BY bucket_5m
"""

_ROWS_OF_OBJECT = """
SELECT bucket_5m, sum(row_count)::bigint FROM landing.raw_blobs_5m
WHERE uri = %s AND etag = %s AND status = 'registered' AND bucket_5m >= %s AND bucket_5m < %s GROUP BY bucket_5m
"""

_TOTALS = """
SELECT (SELECT count(DISTINCT (uri, etag)) FROM landing.raw_blobs_5m
        WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s AND loaded_at IS NOT NULL AND row_count > 0),
       (SELECT count(*) FROM landing.rejected_rows WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s)
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


class SourceKey(NamedTuple):
    """What identifies a source: a slice, a symbol's label, and one version of an object."""

    bucket_5m: datetime
    asset: str
    version: ObjectVersion


@dataclass(frozen=True, order=True)
class Source:
    """The part of an object that belongs to one slice and symbol, as registered."""

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

    @property
    def key(self) -> SourceKey:
        """What identifies it."""
        return SourceKey(self.bucket_5m, self.asset, self.version)


def read_sources(cursor: psycopg.Cursor, window: Window) -> list[Source]:
    """The registered sources of a window, by slice, symbol and URI."""
    cursor.execute(_SOURCES, (window.start, window.end))
    return [Source(*row) for row in cursor]


def read_orphaned(cursor: psycopg.Cursor, window: Window) -> list[tuple[datetime, str]]:
    """Slices that were loaded from an object which is gone since, each with the URI of such an object."""
    cursor.execute(_ORPHANED, (window.start, window.end))
    return [(bucket, uri) for bucket, uri in cursor]


def count_rows_by_slice(connection: psycopg.Connection, window: Window) -> list[tuple[datetime, int]]:
    """Registered rows of each slice of a window, before de-duplication, ascending."""
    with server_errors():
        return connection.execute(_ROWS_BY_SLICE, (window.start, window.end)).fetchall()


def count_object_rows(connection: psycopg.Connection, version: ObjectVersion, window: Window) -> dict[datetime, int]:
    """Registered rows of one object in each slice of a window."""
    with server_errors(), connection.transaction():
        return dict(connection.execute(_ROWS_OF_OBJECT, (*version, window.start, window.end)).fetchall())


def count_sources(connection: psycopg.Connection, window: Window) -> tuple[int, int]:
    """The objects that a window is loaded from, and its rejected rows; the server counts, because a set here would grow with the range."""
    with server_errors():
        objects, rejected_rows = only_row(connection.execute(_TOTALS, {"start": window.start, "end": window.end}))
    return objects, rejected_rows


def mark_loaded(cursor: psycopg.Cursor, window: Window, sources: Sequence[Source], rows: Sequence[int]) -> None:
    """Record that the rows of a window come from `sources` and from nothing else.

    Args:
        cursor: in the transaction that wrote the rows.
        window: the slices that were replaced.
        sources: all sources of the window.
        rows: for each source, its rows in the table after de-duplication.
    """
    columns: list[list[object]] = [[], [], [], [], []]
    for source, kept in zip(sources, rows, strict=True):
        for column, value in zip(columns, (source.bucket_5m, source.asset, source.uri, source.etag, kept), strict=True):
            column.append(value)
    cursor.execute(_MARK_LOADED, columns)
    cursor.execute(_MARK_EMPTY_LOADED, (window.start, window.end))
    cursor.execute(_MARK_UNLOADED, (window.start, window.end))
