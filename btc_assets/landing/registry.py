"""The registry: which objects cover which slice, kept equal to what the landing zone holds.

Registering lists the folders of a window, reads every object version that the registry does not know yet, once, and
records it under each slice that it covers, also those outside the window. It never touches ticks: `loaded_at` belongs
to the loader.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import numpy as np
import orjson
import psycopg

from btc_assets.domain.errors import TransientError, UserError
from btc_assets.domain.feeds import Feeds
from btc_assets.domain.slices import EPOCH, Window
from btc_assets.landing.objects import LandedObject, ObjectChanged, ObjectGone
from btc_assets.landing.reading import Fetched, Piece, count_by_slice, decode_group, fetch, fetch_groups
from btc_assets.landing.spool import Spool
from btc_assets.landing.zone import LandingZone
from btc_assets.store.errors import server_errors

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]  # objects done, objects in all

# One statement for a group of objects; parameters a row would cost more than everything else in registering. Arrays go in
# binary (%b), because the escaping of text ones in Python takes as long as their decoding from Parquet.
_UPSERT = """
INSERT INTO landing.raw_blobs_5m (bucket_5m, asset, uri, etag, size_bytes, row_count, first_event_time, last_event_time,
                                  format, status, reason, metadata, last_modified)
SELECT * FROM unnest(%b::timestamptz[], %b::text[], %b::text[], %b::text[], %b::bigint[], %b::bigint[], %b::timestamptz[],
                     %b::timestamptz[], %b::text[], %b::text[], %b::text[], %b::jsonb[], %b::timestamptz[])
ON CONFLICT (bucket_5m, asset, uri, etag) DO UPDATE SET
    size_bytes = excluded.size_bytes, row_count = excluded.row_count, first_event_time = excluded.first_event_time,
    last_event_time = excluded.last_event_time, format = excluded.format, status = excluded.status,
    reason = excluded.reason, metadata = excluded.metadata, last_modified = excluded.last_modified
"""

# An older version of an object that was overwritten. Newer ones are left alone: another process may have been faster.
# That its rows are to be removed is new work.
_SUPERSEDE = """
UPDATE landing.raw_blobs_5m AS old
SET status = 'superseded', reason = 'overwritten by ETag ' || new.etag, noticed_at = now()
FROM unnest(%b::text[], %b::text[], %b::timestamptz[]) AS new (uri, etag, last_modified)
WHERE old.uri = new.uri AND old.etag <> new.etag AND old.status <> 'superseded' AND old.last_modified <= new.last_modified
"""

# What is left: of a file, the older version can have the later time (as cp -p and rsync -t leave it).
_OTHER_VERSIONS = """
SELECT DISTINCT old.uri FROM landing.raw_blobs_5m AS old JOIN unnest(%b::text[], %b::text[]) AS new (uri, etag) ON old.uri = new.uri
WHERE old.etag <> new.etag AND old.status IN ('noticed', 'registered', 'rejected')
"""

_SUPERSEDE_OTHERS = """
UPDATE landing.raw_blobs_5m SET status = 'superseded', reason = 'overwritten by ETag ' || %(etag)s
WHERE uri = %(uri)s AND etag <> %(etag)s AND status <> 'superseded'
"""

# Noticed objects stand under the slice of their folder until they are read; then under those that they cover. Where
# the table holds rows of this very version (it was gone and came back), that must not be forgotten.
_READ = """
WITH now_read AS (SELECT * FROM unnest(%b::text[], %b::text[]) AS now_read (uri, etag)),
forgotten AS (
    DELETE FROM landing.raw_blobs_5m AS noticed USING now_read
    WHERE (noticed.uri, noticed.etag) = (now_read.uri, now_read.etag) AND noticed.status = 'noticed' AND noticed.loaded_at IS NULL
)
UPDATE landing.raw_blobs_5m AS noticed SET status = 'superseded', reason = 'read again with another result' FROM now_read
WHERE (noticed.uri, noticed.etag) = (now_read.uri, now_read.etag) AND noticed.status = 'noticed' AND noticed.loaded_at IS NOT NULL
"""

# Slices that this version covered when it was read under other settings.
_FORGET = """
UPDATE landing.raw_blobs_5m SET status = 'superseded', reason = 'read again with another result', noticed_at = now()
WHERE uri = %s AND etag = %s AND status <> 'superseded'
"""


@dataclass
class Registration:
    """What registering a window did; what was `refused` is as if it was not read yet, so that it is asked for again."""

    listed: int = 0
    read: int = 0
    registered: int = 0
    rejected: int = 0
    rejected_rows: int = 0
    gone: int = 0
    bytes: int = 0
    rejections: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def __iadd__(self, other: Registration) -> Registration:
        for name in ("listed", "read", "registered", "rejected", "rejected_rows", "gone", "bytes"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.rejections = (self.rejections + other.rejections)[:20]
        self.refused = (self.refused + other.refused)[:20]
        return self


def register_window(
    connection: psycopg.Connection,
    zone: LandingZone,
    feeds: Feeds,
    window: Window,
    *,
    margin: timedelta,
    reread: bool = False,
    spool: Spool | None = None,
    progress: Progress = lambda done, total: None,
) -> Registration:
    """Bring the registry up to date with the objects whose folders lie in `window` or within `margin` of it.

    Commits after every group of objects, so that a killed run keeps what it registered.

    Args:
        connection: to the store; not inside a transaction.
        zone: the landing zone.
        feeds: what lands there.
        window: slices.
        margin: how far an object's folder may lie from the event times in it.
        reread: read objects again that are registered already.
        spool: keeps what was decoded for a loader in the same process.
        progress: told how many objects are done, day by day.

    Raises:
        UserError: the landing zone or the server fails, or it refuses all that there was to read.
    """
    total, tried = Registration(), set[str]()
    for day in window.widened(margin).days():
        for prefix, own in feeds.groups():
            listed = zone.list_window(prefix, day)
            done = total.listed
            total.listed += len(listed)
            versions = known(connection, zone.uri_range(prefix, day), listed)
            new = [obj for obj in listed if reread or versions.get((obj.uri, obj.etag)) not in ("registered", "rejected")]
            gone = missing(zone, prefix, {uri for uri, _ in versions} - {obj.uri for obj in listed})
            mark_gone(connection, gone)
            total.gone += len(gone)
            done += len(listed) - len(new)
            progress(done, total.listed)
            for group in fetch_groups(zone, new):
                tried.update(fetched.obj.uri for fetched in group if fetched.error)  # all others are no longer noticed
                total += register_group(connection, zone, group, own, reread=reread, spool=spool)
                done += len(group)
                progress(done, total.listed)
    for prefix, own in feeds.groups():
        apart = _noticed(connection, zone, window, prefix, tried)
        total.listed += len(apart)
        for group in fetch_groups(zone, apart):
            total += register_group(connection, zone, group, own, spool=spool)
    if total.refused and not total.read:
        raise UserError(total.refused[0])
    return total


def _noticed(connection: psycopg.Connection, zone: LandingZone, window: Window, prefix: str, tried: set[str]) -> list[LandedObject]:
    """What was noticed for these slices and lies in folders far from them, as of a collector whose clock is wrong.

    Not what was `tried` already: an object that a listing shows and nobody can get is not gone, or it would be noticed anew, and
    asked for, after every listing.
    """
    with server_errors(), connection.transaction():
        noticed = connection.execute(
            "SELECT DISTINCT uri FROM landing.raw_blobs_5m "
            "WHERE bucket_5m >= %s AND bucket_5m < %s AND status = 'noticed' AND uri >= %s AND uri < %s ORDER BY uri",
            (window.start, window.end, f"{zone.url}/{prefix}/", f"{zone.url}/{prefix}0"),  # "0" follows "/"
        ).fetchall()
    uris = [uri for (uri,) in noticed if uri not in tried]
    with ThreadPoolExecutor(zone.concurrency) as pool:
        found = dict(zip(uris, pool.map(lambda uri: zone.head(uri, prefix), uris), strict=True))
    mark_gone(connection, [uri for uri, obj in found.items() if obj is None])
    return [obj for obj in found.values() if obj is not None]


def known(connection: psycopg.Connection, uris: tuple[str, str], listed: Sequence[LandedObject]) -> dict[tuple[str, str], str]:
    """Status by URI and ETag of what the registry knows in a range of URIs, and of what is listed outside it.

    Not of what was rejected and has been written since, which the reasons advise: on S3 the same bytes have the same ETag.
    """
    # An object outside the minute folders, such as .../13/dump.zip, sorts behind them and is asked for by name.
    apart = [obj.uri for obj in listed if not uris[0] <= obj.uri < uris[1]]
    with server_errors(), connection.transaction():
        rows = connection.execute(
            "SELECT DISTINCT uri, etag, status, last_modified FROM landing.raw_blobs_5m "
            "WHERE ((uri >= %s AND uri < %s) OR uri = ANY(%s)) AND status IN ('noticed', 'registered', 'rejected')",
            (*uris, apart),
        ).fetchall()
    found = {(obj.uri, obj.etag): obj for obj in listed}
    return {
        (uri, etag): status
        for uri, etag, status, modified in rows
        if not (status == "rejected" and (uri, etag) in found and found[uri, etag].is_newer_than(modified))
    }


def missing(zone: LandingZone, prefix: str, uris: Iterable[str]) -> list[str]:
    """Those of the objects that a listing does not show that are not there either when asked for by name."""
    uris = sorted(uris)
    if not uris:
        return []
    with ThreadPoolExecutor(zone.concurrency) as pool:
        return [uri for uri, obj in zip(uris, pool.map(lambda uri: zone.head(uri, prefix), uris), strict=True) if obj is None]


def mark_gone(connection: psycopg.Connection, uris: Sequence[str]) -> None:
    """Record that objects are no longer there; also older versions, where it is their rows that the table holds."""
    with server_errors(), connection.transaction():
        connection.execute(
            "UPDATE landing.raw_blobs_5m SET status = 'gone', reason = 'the object is no longer in the landing zone' "
            "WHERE uri = ANY(%s) AND (status IN ('noticed', 'registered', 'rejected') OR (status = 'superseded' AND loaded_at IS NOT NULL))",
            (list(uris),),
        )


def register_group(
    connection: psycopg.Connection,
    zone: LandingZone,
    group: list[Fetched],
    feeds: Feeds,
    *,
    reread: bool = False,
    spool: Spool | None = None,
) -> Registration:
    """Decode fetched objects of one prefix and record them, in one transaction; those that are refused hold up no others."""
    refused = [str(fetched.error) for fetched in group if _is_refused(fetched)]
    group = [fetched for fetched in group if not _is_refused(fetched)]
    group = [fetched for fetched in (_settled(zone, fetched) for fetched in group) if fetched is not None]
    result = Registration(read=len(group), bytes=sum(fetched.obj.size for fetched in group))
    result.refused = refused
    pieces: list[Piece] = []
    contents = _contents(group, feeds, pieces if spool is not None else None)
    rows: list[tuple[object, ...]] = []
    rejects: list[tuple[object, ...]] = []
    for fetched, content in zip(group, contents, strict=True):
        obj, home = fetched.obj, fetched.obj.home_slice
        metadata: dict[str, object] = {"verified": fetched.verified}
        if fetched.rejected:
            result.rejected += 1
            result.rejections.append(f"{obj.uri}: {fetched.rejected}")
            content = _Content()
        else:
            result.registered += 1
        if content.bad_rows:
            metadata["rejected_rows"] = len(content.bad_rows)
            result.rejected_rows += len(content.bad_rows)
        if content.extra_columns:
            metadata["extra_columns"] = sorted(content.extra_columns)
        rejects += [(obj.uri, obj.etag, number, bucket or home, reason, record) for number, bucket, reason, record in content.bad_rows]
        # An object without a valid row still gets a row, under the slice of its folder: it landed, and was read.
        slices = content.slices or {(feeds[0].label, home): (0, None, None)}
        status, as_json = "rejected" if fetched.rejected else "registered", orjson.dumps(metadata).decode()
        rows += [
            (bucket, label, obj.uri, obj.etag, obj.size, *counted, fetched.format, status, fetched.rejected, as_json, obj.last_modified)
            for (label, bucket), counted in slices.items()
        ]
    rows.sort(key=lambda row: row[:4])  # one order for all, so that none deadlock
    versions = sorted((fetched.obj.uri, fetched.obj.etag, fetched.obj.last_modified) for fetched in group)
    uris, etags, modified = map(list, zip(*versions, strict=True)) if versions else ([], [], [])
    with server_errors(), connection.transaction(), connection.cursor() as cursor:
        cursor.execute(_READ, (uris, etags))
        cursor.execute(_SUPERSEDE, (uris, etags, modified))
        if reread:
            cursor.executemany(_FORGET, [version[:2] for version in versions])
        if rows:
            cursor.execute(_UPSERT, [list(column) for column in zip(*rows, strict=True)])
        cursor.execute("DELETE FROM landing.rejected_rows WHERE uri = ANY(%s)", (uris,))
        cursor.executemany(
            "INSERT INTO landing.rejected_rows (uri, etag, row_number, bucket_5m, reason, record) VALUES (%s, %s, %s, %s, %s, %s)", rejects
        )
        contested = cursor.execute(_OTHER_VERSIONS, (uris, etags)).fetchall()
    for (uri,) in contested:
        _keep_current(connection, zone, uri, feeds[0].prefix)
    if spool is not None:
        spool.put([fetched.obj.version for fetched in group], [(piece.decoded.ticks, piece.tick_object) for piece in pieces])
    return result


def _is_refused(fetched: Fetched) -> bool:
    """Whether a person must mend something before the object can be read."""
    return isinstance(fetched.error, UserError) and not isinstance(fetched.error, TransientError)


def _keep_current(connection: psycopg.Connection, zone: LandingZone, uri: str, prefix: str) -> None:
    """Of several versions of an object, have only the one that is there now count."""
    current = zone.head(uri, prefix)
    if current is not None:
        with server_errors(), connection.transaction():
            connection.execute(_SUPERSEDE_OTHERS, {"uri": uri, "etag": current.etag})


def _settled(zone: LandingZone, fetched: Fetched) -> Fetched | None:
    """The object as it is now: read again where it was overwritten meanwhile, None where it has disappeared."""
    for _ in range(5):
        if isinstance(fetched.error, ObjectChanged):
            obj = zone.head(fetched.obj.uri, fetched.obj.prefix)
            if obj is None:
                return None
            fetched = fetch(zone, obj)
        elif isinstance(fetched.error, ObjectGone):
            return None
        elif fetched.error is not None:
            raise fetched.error
        else:
            return fetched
    return replace(fetched, error=None, rejected="it changes faster than it can be read: land each batch under a name of its own")


@dataclass
class _Content:
    """What the pieces of one object add up to.

    Attributes:
        slices: by label and slice, the number of ticks with the first and the last event time.
        bad_rows: number, slice where it is known, reason and text of each rejected row.
        extra_columns: columns that no known producer sends.
    """

    slices: dict[tuple[str, datetime], tuple[int, datetime | None, datetime | None]] = field(default_factory=dict)
    bad_rows: list[tuple[int, datetime | None, str, str]] = field(default_factory=list)
    extra_columns: set[str] = field(default_factory=set)


def _contents(group: Sequence[Fetched], feeds: Feeds, kept: list[Piece] | None) -> list[_Content]:
    """The content of each object of a group; the pieces of small objects are added to `kept`."""
    contents = [_Content() for _ in group]
    for piece in decode_group(group, feeds):
        if kept is not None and all(fetched.path is None for fetched in group):
            kept.append(piece)
        counted = count_by_slice(piece.decoded.ticks, piece.tick_object)
        for position, *key, count, first, last in zip(*(column.to_pylist() for column in counted.columns), strict=True):
            slices = contents[position].slices
            before = slices.get(tuple(key), (0, first, last))
            slices[tuple(key)] = before[0] + count, min(before[1], first), max(before[2], last)
        if piece.decoded.extra_columns:
            for position in np.unique(piece.tick_object).tolist():
                contents[position].extra_columns.update(piece.decoded.extra_columns)
        for position, number, row in zip(
            piece.rejected_object.tolist(), piece.rejected_row.tolist(), piece.decoded.rejected.to_pylist(), strict=True
        ):
            bucket = None if row["bucket_us"] is None else EPOCH + timedelta(microseconds=row["bucket_us"])
            contents[position].bad_rows.append((number, bucket, row["reason"], row["record"]))
    return contents
