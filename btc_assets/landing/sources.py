"""What a slice is loaded from, according to the registry."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import psycopg

from btc_assets.domain.objects import ObjectVersion
from btc_assets.domain.slices import Window
from btc_assets.landing.states import Status
from btc_assets.store.database import only_row
from btc_assets.store.errors import server_errors

_SOURCES = """
SELECT bucket_5m, asset, uri, etag, size_bytes, row_count, last_modified, first_trade_id, last_trade_id, event_times
FROM landing.raw_blobs_5m
WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s AND status = %(registered)s AND row_count > 0
ORDER BY bucket_5m, asset, uri
"""

# An object that was overwritten is not lost: its rows give way to those of the version that is there.
_LOST_SOURCES = """
SELECT DISTINCT bucket_5m, uri FROM landing.raw_blobs_5m AS loaded
WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s AND loaded_at IS NOT NULL AND row_count > 0
    AND status IN (%(gone)s, %(superseded)s) AND asset = ANY(%(symbols)s)
    AND NOT EXISTS (
        SELECT 1 FROM landing.raw_blobs_5m AS other WHERE other.uri = loaded.uri AND other.status IN (%(registered)s, %(rejected)s)
    )
ORDER BY bucket_5m, uri
"""

_UNLOADED = """
SELECT DISTINCT bucket_5m FROM landing.raw_blobs_5m
WHERE bucket_5m = ANY(%(buckets)s) AND status <> %(noticed)s AND landing.is_unsettled(status, loaded_at) ORDER BY bucket_5m
"""

_OTHER_SYMBOLS = """
SELECT DISTINCT asset FROM landing.raw_blobs_5m WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s AND asset <> ALL(%(symbols)s)
"""

_ROWS_BY_SLICE = """
SELECT bucket_5m, (sum(row_count) + count(DISTINCT asset) * %(weight)s)::bigint FROM landing.raw_blobs_5m
WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s AND status = %(registered)s GROUP BY bucket_5m ORDER BY bucket_5m
"""

_EMPTY = """
SELECT DISTINCT bucket_5m, asset FROM landing.raw_blobs_5m
WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s AND status = %(registered)s AND row_count = 0 AND asset = ANY(%(symbols)s)
"""

_ROWS_OF_OBJECT = """
SELECT bucket_5m, sum(row_count)::bigint FROM landing.raw_blobs_5m
WHERE uri = %(uri)s AND etag = %(etag)s AND status = %(registered)s AND bucket_5m >= %(start)s AND bucket_5m < %(end)s
GROUP BY bucket_5m
"""

_COUNTS = """
SELECT (SELECT count(DISTINCT (uri, etag)) FROM landing.raw_blobs_5m
        WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s AND loaded_at IS NOT NULL AND row_count > 0),
       (SELECT coalesce(sum(row_count), 0)::bigint FROM landing.rejected_rows WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s)
"""

_OBJECTS = """
SELECT count(DISTINCT uri) FILTER (WHERE status IN (%(noticed)s, %(registered)s, %(rejected)s)), count(*) > 0
FROM landing.raw_blobs_5m WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s
"""

_STATUSES = {status.value: status.value for status in Status}


class SourceKey(NamedTuple):
    """What identifies a source: a slice, a symbol's label, and one version of an object."""

    bucket_5m: datetime
    asset: str
    version: ObjectVersion


@dataclass(frozen=True, order=True)
class Source:
    """The part of an object that belongs to one slice and symbol, as registered.

    The lowest and the highest trade id, and how many of its rows have an event time, are None if a former release registered it.
    """

    bucket_5m: datetime
    asset: str
    uri: str
    etag: str
    size_bytes: int
    row_count: int
    last_modified: datetime
    first_trade_id: int | None = None
    last_trade_id: int | None = None
    event_times: int | None = None

    @property
    def trade_ids(self) -> tuple[int, int] | None:
        """The lowest and the highest trade id; None if they are unknown."""
        return None if self.first_trade_id is None or self.last_trade_id is None else (self.first_trade_id, self.last_trade_id)

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
    cursor.execute(_SOURCES, _STATUSES | {"start": window.start, "end": window.end})
    return [Source(*row) for row in cursor]


def read_other_symbols(cursor: psycopg.Cursor, window: Window, symbols: Sequence[str]) -> set[str]:
    """The symbols in the registry of a window that are none of these: those of feeds that were retired."""
    cursor.execute(_OTHER_SYMBOLS, {"start": window.start, "end": window.end, "symbols": list(symbols)})
    return {symbol for (symbol,) in cursor}


def read_lost_sources(cursor: psycopg.Cursor, window: Window, symbols: Sequence[str]) -> list[tuple[datetime, str]]:
    """Slices that were loaded from an object of one of these symbols which is gone since, each with the URI of such an object."""
    cursor.execute(_LOST_SOURCES, _STATUSES | {"start": window.start, "end": window.end, "symbols": list(symbols)})
    return [(bucket, uri) for bucket, uri in cursor]


def read_unloaded_slices(connection: psycopg.Connection, buckets: Iterable[datetime]) -> list[datetime]:
    """Those of some slices that have something to load, ascending."""
    return [bucket for (bucket,) in connection.execute(_UNLOADED, _STATUSES | {"buckets": list(buckets)})]


def count_rows_by_slice(connection: psycopg.Connection, window: Window, weight: int = 0) -> list[tuple[datetime, int]]:
    """Registered rows of each slice of a window, before de-duplication, ascending; `weight` more for each of its symbols."""
    with server_errors():
        return connection.execute(_ROWS_BY_SLICE, _STATUSES | {"start": window.start, "end": window.end, "weight": weight}).fetchall()


def read_empty_slices(cursor: psycopg.Cursor, window: Window, symbols: Sequence[str]) -> set[tuple[datetime, str]]:
    """Slices of a window, each with a symbol, of which an object without any valid row is registered."""
    cursor.execute(_EMPTY, _STATUSES | {"start": window.start, "end": window.end, "symbols": list(symbols)})
    return {(bucket, symbol) for bucket, symbol in cursor}


def count_object_rows(connection: psycopg.Connection, version: ObjectVersion, window: Window) -> dict[datetime, int]:
    """Registered rows of one object in each slice of a window."""
    parameters = _STATUSES | {"uri": version.uri, "etag": version.etag, "start": window.start, "end": window.end}
    with server_errors(), connection.transaction():
        return dict(connection.execute(_ROWS_OF_OBJECT, parameters).fetchall())


def count_sources(connection: psycopg.Connection, window: Window) -> tuple[int, int]:
    """The objects that a window is loaded from, and its rejected rows; counted by the server, because a set here would grow with the range."""
    with server_errors():
        objects, rejected_rows = only_row(connection.execute(_COUNTS, {"start": window.start, "end": window.end}))
    return objects, rejected_rows


class ObjectCount(NamedTuple):
    """How many objects cover the slices of a window, each counted once, and whether any ever did: it may be gone."""

    objects: int
    any_ever: bool


def count_objects(connection: psycopg.Connection, window: Window) -> ObjectCount:
    """Count the objects that cover slices of a window, according to the registry."""
    with server_errors(), connection.transaction():
        return ObjectCount(*only_row(connection.execute(_OBJECTS, _STATUSES | {"start": window.start, "end": window.end})))
