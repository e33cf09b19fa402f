"""The statements that change the registry, `landing.raw_blobs_5m`. No other module changes a status or `loaded_at`.

`landing/states.py` says which transitions they make. Many rows go in one statement, as arrays; parameters for each row would cost more
than everything else in registering. Where text is in arrays, they go in binary (%b), because psycopg escapes text arrays in Python,
which takes as long as decoding them from Parquet.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import NamedTuple

import psycopg
from psycopg import sql

from btc_assets.domain.feeds import Feeds
from btc_assets.domain.objects import ObjectVersion
from btc_assets.domain.slices import Window
from btc_assets.landing.objects import LandedObject
from btc_assets.landing.rivals import IdRange, Leaving, find_slices_to_give_back
from btc_assets.landing.sources import Source
from btc_assets.landing.states import Status
from btc_assets.store.errors import server_errors

_LOCKED_OBJECTS = 256  # in one transaction: the lock table of a server with default settings has room for it

# ---- what the registry knows of the landing zone

# A range for each folder that was listed, one beside the other, because that is how the planner estimates them well.
_CURRENT_VERSIONS = """
SELECT DISTINCT uri, etag, status, last_modified FROM landing.raw_blobs_5m
WHERE ({ranges} OR uri = ANY(%b)) AND status IN ('noticed', 'registered', 'rejected')
"""
_RANGE = sql.SQL("(uri >= %s AND uri < %s)")

_CURRENT_VERSIONS_OF = """
SELECT DISTINCT uri, etag, status, last_modified FROM landing.raw_blobs_5m
WHERE uri = ANY(%b) AND status IN ('noticed', 'registered', 'rejected')
"""

_UNREAD_URIS = """
SELECT DISTINCT uri FROM landing.raw_blobs_5m
WHERE bucket_5m >= %s AND bucket_5m < %s AND status = 'noticed' AND uri >= %s AND uri < %s ORDER BY uri
"""


def read_current_versions(
    connection: psycopg.Connection, uris: Mapping[str, tuple[str, str]], listed: Sequence[LandedObject]
) -> dict[ObjectVersion, Status]:
    """The versions that the registry believes to be in the landing zone, with their status.

    A version that was rejected and written again since, as the reason advises, is left out: on S3 the same bytes have the same ETag, but
    the object has to be read again.

    Args:
        connection: to the store.
        uris: half-open ranges, at least one, by the prefix that each is of.
        listed: objects that listings of these prefixes show; their versions are returned also outside the ranges.
    """
    # An object outside the minute folders, such as .../13/dump.zip, sorts behind them and is looked up by name.
    outside = [obj.uri for obj in listed if not uris[obj.prefix][0] <= obj.uri < uris[obj.prefix][1]]
    statement = sql.SQL(_CURRENT_VERSIONS).format(ranges=sql.SQL(" OR ").join([_RANGE] * len(uris)))
    with server_errors(), connection.transaction():
        rows = connection.execute(statement, [*chain.from_iterable(uris.values()), outside]).fetchall()
    return _without_written_again(rows, {obj.version: obj for obj in listed})


def _without_written_again(
    rows: Iterable[tuple[str, str, str, datetime]], objects: Mapping[ObjectVersion, LandedObject]
) -> dict[ObjectVersion, Status]:
    versions: dict[ObjectVersion, Status] = {}
    for uri, etag, status, last_modified in rows:
        version = ObjectVersion(uri, etag)
        if not (status == Status.REJECTED and version in objects and objects[version].is_newer_than(last_modified)):
            versions[version] = Status(status)
    return versions


def read_unread_uris(connection: psycopg.Connection, window: Window, uris: tuple[str, str]) -> list[str]:
    """URIs in a half-open range of objects that were noticed under slices of `window` and have not been read since."""
    with server_errors(), connection.transaction():
        return [uri for (uri,) in connection.execute(_UNREAD_URIS, (window.start, window.end, *uris))]


# ---- an object is seen

_NOTICE = """
INSERT INTO landing.raw_blobs_5m (bucket_5m, asset, uri, etag, size_bytes, row_count, status, last_modified)
SELECT bucket_5m, asset, uri, etag, size_bytes, 0, 'noticed', last_modified
FROM unnest(%b::timestamptz[], %b::text[], %b::text[], %b::text[], %b::bigint[], %b::timestamptz[])
    AS landed (bucket_5m, asset, uri, etag, size_bytes, last_modified)
ORDER BY bucket_5m, asset, uri, etag
ON CONFLICT (bucket_5m, asset, uri, etag) DO UPDATE SET
    status = 'noticed', reason = NULL, noticed_at = now(), last_modified = excluded.last_modified
WHERE raw_blobs_5m.status IN ('superseded', 'gone', 'rejected')
"""


def notice(connection: psycopg.Connection, feeds: Feeds, objects: Iterable[LandedObject]) -> int:
    """Record objects as work to do, except versions that the registry believes to be in the landing zone already.

    Args:
        connection: to the store; in autocommit.
        feeds: what lands there.
        objects: as they are in the landing zone now.

    Returns:
        How many were recorded.
    """
    landed = {obj.version: obj for obj in objects}
    if not landed:
        return 0
    with server_errors(), connection.transaction():
        rows = connection.execute(_CURRENT_VERSIONS_OF, ([version.uri for version in landed],)).fetchall()
        current = _without_written_again(rows, landed)
        new = [obj for version, obj in landed.items() if version not in current]
        if new:
            labels = {prefix: feeds.by_prefix(prefix)[0].label for prefix in {obj.prefix for obj in new}}
            values = [(obj.home_slice, labels[obj.prefix], obj.uri, obj.etag, obj.size, obj.last_modified) for obj in new]
            connection.execute(_NOTICE, _columns(values))
    return len(new)


# A refused object stays noticed, and so requested, with the reason; whatever is noticed or read again loses it.
_NOTE_REFUSAL = """
UPDATE landing.raw_blobs_5m AS blob SET reason = refused.reason FROM unnest(%b::text[], %b::text[], %b::text[]) AS refused (uri, etag, reason)
WHERE (blob.uri, blob.etag) = (refused.uri, refused.etag) AND blob.status = 'noticed'
"""


def notice_refused(connection: psycopg.Connection, feeds: Feeds, refused: Mapping[LandedObject, str]) -> None:
    """Record that the landing zone does not hand out these objects, each with the reason.

    Args:
        connection: to the store; in autocommit.
        feeds: what lands there.
        refused: objects and the sentence about each.
    """
    if not refused:
        return
    notice(connection, feeds, refused)
    with server_errors(), connection.transaction():
        connection.execute(_NOTE_REFUSAL, _columns([(obj.uri, obj.etag, reason) for obj, reason in refused.items()]))


# ---- an object is read

# A noticed row stands under the slice of the object's folder; the rows of a version that was read, under the slices that it covers.
# If ticks of the table come from the noticed row (the version was gone and came back), the row has to stay.
_SETTLE_NOTICED = """
WITH read AS (SELECT * FROM unnest(%b::text[], %b::text[]) AS read (uri, etag)),
deleted AS (
    DELETE FROM landing.raw_blobs_5m AS blob USING read
    WHERE (blob.uri, blob.etag) = (read.uri, read.etag) AND blob.status = 'noticed' AND blob.loaded_at IS NULL
)
UPDATE landing.raw_blobs_5m AS blob SET status = 'superseded', reason = 'read again with another result' FROM read
WHERE (blob.uri, blob.etag) = (read.uri, read.etag) AND blob.status = 'noticed' AND blob.loaded_at IS NOT NULL
"""

# Newer versions are left alone: another process may have been faster. Removing the ticks of the older ones is new work.
_SUPERSEDE_OLDER = """
UPDATE landing.raw_blobs_5m AS old
SET status = 'superseded', reason = 'overwritten by ETag ' || new.etag, noticed_at = now()
FROM unnest(%b::text[], %b::text[], %b::timestamptz[]) AS new (uri, etag, last_modified)
WHERE old.uri = new.uri AND old.etag <> new.etag AND old.status <> 'superseded' AND old.last_modified <= new.last_modified
RETURNING old.bucket_5m, old.asset, old.first_trade_id, old.last_trade_id, old.loaded_at
"""

# The slices that a version covered when it was read under other settings. Those that it still covers follow in `_UPSERT`.
_SUPERSEDE_EARLIER_READING = """
UPDATE landing.raw_blobs_5m SET status = 'superseded', reason = 'read again with another result', noticed_at = now()
WHERE uri = %s AND etag = %s AND status <> 'superseded'
RETURNING bucket_5m, asset, first_trade_id, last_trade_id, loaded_at
"""

_UPSERT = """
INSERT INTO landing.raw_blobs_5m (bucket_5m, asset, uri, etag, size_bytes, row_count, first_event_time, last_event_time,
                                  first_trade_id, last_trade_id, event_times, format, status, reason, metadata, last_modified)
SELECT * FROM unnest(%b::timestamptz[], %b::text[], %b::text[], %b::text[], %b::bigint[], %b::bigint[], %b::timestamptz[],
                     %b::timestamptz[], %b::bigint[], %b::bigint[], %b::bigint[], %b::text[], %b::text[], %b::text[], %b::jsonb[],
                     %b::timestamptz[])
ON CONFLICT (bucket_5m, asset, uri, etag) DO UPDATE SET
    size_bytes = excluded.size_bytes, row_count = excluded.row_count, first_event_time = excluded.first_event_time,
    last_event_time = excluded.last_event_time, first_trade_id = excluded.first_trade_id,
    last_trade_id = excluded.last_trade_id, event_times = excluded.event_times, format = excluded.format, status = excluded.status,
    reason = excluded.reason, metadata = excluded.metadata, last_modified = excluded.last_modified
"""

_DELETE_REJECTED_ROWS = "DELETE FROM landing.rejected_rows WHERE uri = ANY(%s)"

_INSERT_REJECTED_ROW = """
INSERT INTO landing.rejected_rows (uri, etag, row_number, bucket_5m, reason, record, row_count) VALUES (%s, %s, %s, %s, %s, %s, %s)
"""

# Versions with the same or a later time. They need not be newer: S3 has times of whole seconds, and the older version of a file can have
# the later time, as `cp -p` and `rsync -t` leave it.
_CONTESTED = """
SELECT DISTINCT other.uri, other.etag FROM landing.raw_blobs_5m AS other
JOIN unnest(%b::text[], %b::text[], %b::timestamptz[]) AS new (uri, etag, last_modified) ON other.uri = new.uri
WHERE other.etag <> new.etag AND other.last_modified >= new.last_modified AND other.status <> 'superseded'
"""

_SUPERSEDE = """
UPDATE landing.raw_blobs_5m AS blob SET status = 'superseded', reason = 'overwritten by ETag ' || %s, noticed_at = now()
FROM unnest(%b::text[], %b::text[]) AS old (uri, etag)
WHERE (blob.uri, blob.etag) = (old.uri, old.etag) AND blob.status <> 'superseded'
RETURNING blob.bucket_5m, blob.asset, blob.first_trade_id, blob.last_trade_id, blob.loaded_at
"""


class RegistryRow(NamedTuple):
    """What a version that was read holds for one slice, in the order of the columns of `_UPSERT`."""

    bucket_5m: datetime
    asset: str
    uri: str
    etag: str
    size_bytes: int
    row_count: int
    first_event_time: datetime | None
    last_event_time: datetime | None
    first_trade_id: int | None
    last_trade_id: int | None
    event_times: int | None
    format: str | None
    status: str
    reason: str | None
    metadata: str  # JSON
    last_modified: datetime


class RejectedRow(NamedTuple):
    """A row of a readable object that is no valid trade of its feed."""

    uri: str
    etag: str
    row_number: int
    bucket_5m: datetime
    reason: str
    record: str
    row_count: int  # more than one if it stands for rows that are not kept as well


@dataclass(frozen=True)
class Readings:
    """What was read of some objects: their versions, the slices that these cover, and rows that are no valid trades."""

    objects: Sequence[LandedObject]
    rows: Sequence[RegistryRow]
    rejected_rows: Sequence[RejectedRow]

    def select(self, wanted: Callable[[str], bool]) -> Readings:
        """What was read of the objects with certain URIs."""
        return Readings(
            [obj for obj in self.objects if wanted(obj.uri)],
            [row for row in self.rows if wanted(row.uri)],
            [row for row in self.rejected_rows if wanted(row.uri)],
        )


def register(
    connection: psycopg.Connection, readings: Readings, *, reread: bool = False, outdated: Collection[ObjectVersion] = ()
) -> dict[str, set[ObjectVersion]]:
    """Record what was read, in one transaction; older versions of the same objects become superseded.

    Of each object at most one version is registered at any time, whoever else registers: those who record the same object take turns, and
    an object of which another version may be current is left out.

    Args:
        connection: to the store; not inside a transaction.
        readings: what was read.
        reread: versions that were registered before may cover other slices now.
        outdated: versions that are not current, although their time is later; they become superseded as well.

    Returns:
        The objects that were left out, each with the versions that may be current: ask the landing zone, and register them again.
    """
    with server_errors(), connection.transaction(), connection.cursor() as cursor:
        _lock_objects(cursor, {obj.uri for obj in readings.objects})
        contested: dict[str, set[ObjectVersion]] = {}
        for version in cursor.execute(_CONTESTED, _versions(readings)).fetchall():
            if version not in outdated:
                contested.setdefault(version[0], set()).add(ObjectVersion(*version))
        if contested:
            readings = readings.select(lambda uri: uri not in contested)
        uris, etags, modified = _versions(readings)
        cursor.execute(_SETTLE_NOTICED, (uris, etags))
        left = cursor.execute(_SUPERSEDE_OLDER, (uris, etags, modified)).fetchall()
        for obj in readings.objects:
            if others := [version for version in outdated if version.uri == obj.uri]:
                left += cursor.execute(_SUPERSEDE, (obj.etag, *_columns(others))).fetchall()
        for version in zip(uris, etags, strict=True) if reread else ():
            left += cursor.execute(_SUPERSEDE_EARLIER_READING, version).fetchall()
        if readings.rows:
            # In one order for all processes, so that none of them deadlock.
            rows = sorted(readings.rows, key=lambda row: row[:4])
            cursor.execute(_UPSERT, _columns(rows))
        _give_back(cursor, left)
        cursor.execute(_DELETE_REJECTED_ROWS, (uris,))
        cursor.executemany(_INSERT_REJECTED_ROW, readings.rejected_rows)
        return contested


def supersede(connection: psycopg.Connection, versions: Sequence[ObjectVersion], current: ObjectVersion) -> None:
    """Record that versions of an object are not in the landing zone any more, because another one is current."""
    if not versions:
        return
    with server_errors(), connection.transaction(), connection.cursor() as cursor:
        _lock_objects(cursor, {current.uri})
        _give_back(cursor, cursor.execute(_SUPERSEDE, (current.etag, *_columns(versions))).fetchall())


def _versions(readings: Readings) -> list[list[object]]:
    """URIs, ETags and times, in one order for all processes."""
    versions = sorted((obj.uri, obj.etag, obj.last_modified) for obj in readings.objects)
    return _columns(versions) if versions else [[], [], []]


# A version that another transaction records is not seen before that commits, so no statement alone could keep two of them apart. In
# the order of their keys, so that no two transactions deadlock.
_LOCK_OBJECTS = """
SELECT count(pg_advisory_xact_lock(hashtext('landing.raw_blobs_5m'), key))
FROM (SELECT DISTINCT hashtext(uri) AS key FROM unnest(%b::text[]) AS uri ORDER BY key) AS keys
"""


def _lock_objects(cursor: psycopg.Cursor, uris: Collection[str]) -> None:
    """Let those who record versions of the same object take turns, until the transaction ends."""
    cursor.execute(_LOCK_OBJECTS, (list(uris),))


def _give_back(cursor: psycopg.Cursor, left: Iterable[tuple[datetime, str, int | None, int | None, datetime | None]]) -> None:
    """Have slices loaded again that left trades to versions of other slices which are registered no longer.

    Only for versions that were not loaded: until they are replaced, the ticks of a loaded one stay.
    """
    leaving = [
        Leaving(bucket, IdRange(asset, first, last))
        for bucket, asset, first, last, loaded_at in left
        if loaded_at is None and first is not None and last is not None
    ]
    withdraw_loaded(cursor, sorted(find_slices_to_give_back(cursor, leaving)))


# ---- an object disappears

# Also superseded versions whose ticks the table holds, so that the ticks stay (promise 6). An object that nobody could read is no loss.
_MARK_GONE = """
UPDATE landing.raw_blobs_5m SET
    status = CASE WHEN status = 'rejected' AND loaded_at IS NULL THEN 'superseded' ELSE 'gone' END,
    reason = CASE WHEN status = 'rejected' AND loaded_at IS NULL THEN 'deleted after it was rejected'
                  ELSE 'the object is no longer in the landing zone' END,
    noticed_at = now()
WHERE uri = ANY(%s) AND (status IN ('noticed', 'registered', 'rejected') OR (status = 'superseded' AND loaded_at IS NOT NULL))
RETURNING bucket_5m, asset, first_trade_id, last_trade_id, loaded_at
"""


def mark_gone(connection: psycopg.Connection, uris: Sequence[str]) -> None:
    """Record that objects are no longer in the landing zone."""
    for start in range(0, len(uris), _LOCKED_OBJECTS):
        some = list(uris[start : start + _LOCKED_OBJECTS])
        with server_errors(), connection.transaction(), connection.cursor() as cursor:
            _lock_objects(cursor, some)
            _give_back(cursor, cursor.execute(_MARK_GONE, (some,)).fetchall())


# ---- a slice is loaded

# Slices of which the same numbers of rows come from the same sources as before.
_SAME_SOURCES = """
SELECT bucket_5m, asset FROM (
    SELECT * FROM unnest(%b::timestamptz[], %b::text[], %b::text[], %b::text[], %b::bigint[], %b::bigint[])
        AS of_source (bucket_5m, asset, uri, etag, row_count, loaded_rows)
) AS source FULL JOIN (
    SELECT * FROM landing.raw_blobs_5m WHERE bucket_5m >= %s AND bucket_5m < %s AND loaded_at IS NOT NULL AND row_count > 0
) AS blob USING (bucket_5m, asset, uri, etag)
GROUP BY bucket_5m, asset HAVING bool_and(coalesce(source.loaded_rows = blob.loaded_rows, false))
"""

_MARK_LOADED = """
UPDATE landing.raw_blobs_5m AS blob
SET loaded_at = CASE WHEN source.same THEN blob.loaded_at ELSE now() END, loaded_rows = source.loaded_rows
FROM unnest(%b::timestamptz[], %b::text[], %b::text[], %b::text[], %b::bigint[], %b::bigint[], %b::boolean[])
    AS source (bucket_5m, asset, uri, etag, row_count, loaded_rows, same)
WHERE (blob.bucket_5m, blob.asset, blob.uri, blob.etag) = (source.bucket_5m, source.asset, source.uri, source.etag)
    AND blob.status = 'registered' AND blob.row_count = source.row_count
"""

# Whatever their status: a version may have been registered again since the sources were read.
_MARK_OTHERS_UNLOADED = """
UPDATE landing.raw_blobs_5m SET loaded_at = NULL, loaded_rows = NULL
WHERE bucket_5m >= %s AND bucket_5m < %s AND loaded_at IS NOT NULL AND asset <> ALL(%s)
    AND (bucket_5m, asset, uri, etag) NOT IN (SELECT * FROM unnest(%b::timestamptz[], %b::text[], %b::text[], %b::text[]))
RETURNING asset, status = 'gone' AND row_count > 0
"""

_RECORD_IDS = """
UPDATE landing.raw_blobs_5m AS blob
SET first_trade_id = known.first_trade_id, last_trade_id = known.last_trade_id, event_times = known.event_times
FROM unnest(%s::timestamptz[], %s::text[], %s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[])
    AS known (bucket_5m, asset, uri, etag, first_trade_id, last_trade_id, event_times)
WHERE (blob.bucket_5m, blob.asset, blob.uri, blob.etag) = (known.bucket_5m, known.asset, known.uri, known.etag)
"""

_MARK_EMPTY_LOADED = """
UPDATE landing.raw_blobs_5m SET loaded_at = coalesce(loaded_at, now()), loaded_rows = 0
WHERE bucket_5m >= %s AND bucket_5m < %s AND status = 'registered' AND row_count = 0
RETURNING bucket_5m, asset
"""

# Not if the slice cannot be loaded again because an object is gone.
_WITHDRAW_LOADED = """
UPDATE landing.raw_blobs_5m AS blob SET loaded_at = NULL, loaded_rows = NULL, noticed_at = now()
WHERE bucket_5m = ANY(%s) AND status = 'registered' AND NOT EXISTS (
    SELECT 1 FROM landing.raw_blobs_5m AS lost
    WHERE lost.bucket_5m = blob.bucket_5m AND landing.is_source_gone(lost.status, lost.loaded_at)
)
RETURNING bucket_5m
"""

# Whatever was loaded before is deleted; what is registered becomes work to do.
_UNLOAD = """
UPDATE landing.raw_blobs_5m AS blob SET loaded_at = NULL, loaded_rows = NULL, noticed_at = now()
WHERE bucket_5m = ANY(%s) AND asset = %s AND loaded_at IS NOT NULL AND NOT landing.is_source_gone(status, loaded_at)
"""

_RENEW = "UPDATE landing.raw_blobs_5m SET noticed_at = now() WHERE bucket_5m = ANY(%s) AND landing.is_unsettled(status, loaded_at)"


class Marks(NamedTuple):
    """What came of marking a window as loaded.

    Attributes:
        current: whether all sources are still registered, as they were read.
        lost: whether ticks of an object that is gone were replaced.
        unloaded: labels of the symbols of which ticks of other versions were replaced.
        empty: slices, each with a symbol, of which an object without any valid row is marked.
    """

    current: bool
    lost: bool
    unloaded: frozenset[str]
    empty: frozenset[tuple[datetime, str]]


def mark_loaded(
    cursor: psycopg.Cursor,
    window: Window,
    sources: Sequence[Source],
    rows: Sequence[int],
    kept_symbols: Sequence[str] = (),
    same: Collection[tuple[datetime, str]] = (),
) -> Marks:
    """Record that the ticks of a window come from `sources`, and from nothing else.

    The time of a slice's last load stays if nothing but that load is new.

    What is marked stays as it is until the transaction ends: whoever registers, overwrites or deletes one of these objects waits for it,
    and finds the marks of what the table holds. What changed before this is in the result, and the transaction must not commit.

    Args:
        cursor: in the transaction that wrote the ticks.
        window: the slices that were replaced.
        sources: all sources of the window.
        rows: ticks in the table that come from each source, after de-duplication.
        kept_symbols: symbols of which nothing was replaced; their marks stay.
        same: slices, each with a symbol, whose ticks are the same as before, as far as the ticks tell.
    """
    loaded = [(one.bucket_5m, one.asset, one.uri, one.etag, one.row_count, count) for one, count in zip(sources, rows, strict=True)]
    columns = _columns(loaded) if loaded else [[]] * 6
    unchanged = set(same) & set(cursor.execute(_SAME_SOURCES, [*columns, window.start, window.end]) if same else ())
    are_same = [(one.bucket_5m, one.asset) in unchanged for one in sources]
    current = cursor.execute(_MARK_LOADED, [*columns, are_same]).rowcount == len(sources)
    others = cursor.execute(_MARK_OTHERS_UNLOADED, (window.start, window.end, list(kept_symbols), *columns[:4])).fetchall()
    empty = cursor.execute(_MARK_EMPTY_LOADED, (window.start, window.end)).fetchall()
    return Marks(current, any(gone for _, gone in others), frozenset(label for label, _ in others), frozenset(empty))


def record_ids(cursor: psycopg.Cursor, known: Sequence[tuple[Source, IdRange, int]]) -> None:
    """Record the ids of sources that a former release registered, and how many event times they have."""
    if known:
        rows = [(one.bucket_5m, one.asset, one.uri, one.etag, ids.first, ids.last, count) for one, ids, count in known]
        cursor.execute(_RECORD_IDS, _columns(rows))


def withdraw_loaded(cursor: psycopg.Cursor, buckets: Sequence[datetime]) -> int:
    """Have slices loaded again, because the table holds other ticks than the registry says.

    Returns:
        How many of the slices; the others lost an object that they were loaded from.
    """
    return len({bucket for (bucket,) in cursor.execute(_WITHDRAW_LOADED, (list(buckets),))}) if buckets else 0


def unload_slices(cursor: psycopg.Cursor, symbol: str, buckets: Sequence[datetime]) -> None:
    """Record that the ticks of slices of a symbol were deleted, in the transaction that deleted them.

    No row of the slices may stand for an object that is gone: its ticks could not be loaded again.
    """
    cursor.execute(_UNLOAD, (list(buckets), symbol))


def renew_unsettled(cursor: psycopg.Cursor, buckets: Sequence[datetime]) -> None:
    """Make the unsettled rows of slices new work, so that the landing sensor requests the slices at once; no state changes."""
    cursor.execute(_RENEW, (list(buckets),))


# ---- an object or a symbol is forgotten

_FORGET = """
DELETE FROM landing.raw_blobs_5m WHERE bucket_5m = ANY(%(buckets)s) AND asset = %(symbol)s
    AND (%(uris)s::text[] IS NULL OR (uri COLLATE "C" >= (%(uris)s::text[])[1] AND uri COLLATE "C" < (%(uris)s::text[])[2]))
RETURNING uri
"""
_FORGET_REJECTED_ROWS = """
DELETE FROM landing.rejected_rows AS rejected WHERE uri = ANY(%(gone)s)
    AND NOT EXISTS (SELECT 1 FROM landing.raw_blobs_5m AS blob WHERE blob.uri = rejected.uri)
"""
_FORGET_ACKNOWLEDGEMENTS = """
DELETE FROM landing.acknowledgements AS accepted WHERE what = ANY(%(gone)s)
    AND NOT EXISTS (SELECT 1 FROM landing.raw_blobs_5m AS blob WHERE blob.uri = accepted.what)
"""


def forget(cursor: psycopg.Cursor, symbol: str, buckets: Sequence[datetime], uris: tuple[str, str] | None = None) -> int:
    """Delete the rows of a symbol under some slices, and what is known of objects that no row names any more.

    Args:
        cursor: in the transaction that deletes the ticks.
        symbol: the label.
        buckets: starts of the slices.
        uris: a half-open range of URIs; None for all objects.

    Returns:
        How many rows were deleted.
    """
    parameters = {"buckets": list(buckets), "symbol": symbol, "uris": list(uris) if uris else None}
    deleted = [uri for (uri,) in cursor.execute(_FORGET, parameters)]
    for statement in (_FORGET_REJECTED_ROWS, _FORGET_ACKNOWLEDGEMENTS):
        cursor.execute(statement, {"gone": list(set(deleted))})
    return len(deleted)


# ---- the landing zone is moved

# A row under the new name is of the same bytes, and was made by somebody who switched the settings first.
_REMOVE_RENAMED = "DELETE FROM landing.raw_blobs_5m WHERE uri = ANY(%(new_uris)s) AND NOT uri = ANY(%(uris)s)"
_REMOVE_RENAMED_ROWS = "DELETE FROM landing.rejected_rows WHERE uri = ANY(%(new_uris)s) AND NOT uri = ANY(%(uris)s)"
_RENAMES = (
    """
    UPDATE landing.raw_blobs_5m AS blob SET uri = new.uri, etag = new.etag, last_modified = new.last_modified
    FROM unnest(%(uris)s::text[], %(etags)s::text[], %(new_uris)s::text[], %(new_etags)s::text[], %(modified)s::timestamptz[])
        AS new (old_uri, old_etag, uri, etag, last_modified)
    WHERE (blob.uri, blob.etag) = (new.old_uri, new.old_etag)
    """,
    """
    UPDATE landing.rejected_rows AS rejected SET uri = new.uri, etag = new.etag
    FROM unnest(%(uris)s::text[], %(etags)s::text[], %(new_uris)s::text[], %(new_etags)s::text[]) AS new (old_uri, old_etag, uri, etag)
    WHERE (rejected.uri, rejected.etag) = (new.old_uri, new.old_etag)
    """,
    """
    UPDATE landing.acknowledgements AS accepted SET what = new.uri, version = new.etag
    FROM unnest(%(uris)s::text[], %(etags)s::text[], %(new_uris)s::text[], %(new_etags)s::text[]) AS new (old_uri, old_etag, uri, etag)
    WHERE (accepted.what, accepted.version) = (new.old_uri, new.old_etag)
    """,
)


def rename_objects(cursor: psycopg.Cursor, names: Sequence[tuple[str, str, str, str, datetime]]) -> None:
    """Record that versions are the same in another place; no state changes.

    Args:
        cursor: in a transaction.
        names: at least one; URI and ETag as they are registered, then URI, ETag and time of the same version in its new place.
    """
    parameters = dict(zip(("uris", "etags", "new_uris", "new_etags", "modified"), _columns(names), strict=True))
    for statement in (_REMOVE_RENAMED, _REMOVE_RENAMED_ROWS, *_RENAMES):
        cursor.execute(statement, parameters)


def _columns(rows: Iterable[Sequence[object]]) -> list[list[object]]:
    """The columns of at least one row."""
    return [list(column) for column in zip(*rows, strict=True)]
