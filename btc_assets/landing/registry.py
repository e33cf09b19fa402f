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

import psycopg
import pyarrow as pa
from psycopg.types.json import Jsonb

from btc_assets.database import server_errors
from btc_assets.landing.feeds import Feed, prefixes
from btc_assets.landing.objects import LandedObject, LandingZone, ObjectChanged, ObjectGone
from btc_assets.landing.reading import Fetched, Piece, decode_group, fetch, fetch_groups, tick_slices
from btc_assets.landing.spool import Spool
from btc_assets.slices import EPOCH, Window, floor_slice

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]  # objects done, objects in all

_UPSERT = """
INSERT INTO landing.raw_blobs_5m (bucket_5m, asset, uri, etag, size_bytes, row_count, first_event_time, last_event_time,
                                  format, status, reason, metadata, last_modified)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (bucket_5m, asset, uri, etag) DO UPDATE SET
    size_bytes = excluded.size_bytes, row_count = excluded.row_count, first_event_time = excluded.first_event_time,
    last_event_time = excluded.last_event_time, format = excluded.format, status = excluded.status,
    reason = excluded.reason, metadata = excluded.metadata, last_modified = excluded.last_modified
"""

# An older version of an object that was overwritten. Newer ones are left alone: another process may have been faster.
_SUPERSEDE = """
UPDATE landing.raw_blobs_5m AS old
SET status = 'superseded', reason = 'overwritten by ETag ' || new.etag
FROM unnest(%s::text[], %s::text[], %s::timestamptz[]) AS new (uri, etag, last_modified)
WHERE old.uri = new.uri AND old.etag <> new.etag AND old.status <> 'superseded' AND old.last_modified <= new.last_modified
"""

# Slices that this version covered when it was read under other settings.
_FORGET = """
UPDATE landing.raw_blobs_5m SET status = 'superseded', reason = 'read again with another result'
WHERE uri = %s AND etag = %s AND status <> 'superseded'
"""


@dataclass
class Registration:
    """What registering a window did."""

    listed: int = 0
    read: int = 0
    registered: int = 0
    rejected: int = 0
    rejected_rows: int = 0
    gone: int = 0
    bytes: int = 0
    rejections: list[str] = field(default_factory=list)

    def __iadd__(self, other: Registration) -> Registration:
        for name in ("listed", "read", "registered", "rejected", "rejected_rows", "gone", "bytes"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.rejections = (self.rejections + other.rejections)[:20]
        return self


def register_window(
    connection: psycopg.Connection,
    zone: LandingZone,
    feeds: Sequence[Feed],
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
        UserError: the landing zone or the server fails.
    """
    total = Registration()
    for day in window.widened(margin).days():
        for prefix in prefixes(tuple(feeds)):
            own = [feed for feed in feeds if feed.prefix == prefix]
            listed = zone.list_window(prefix, day)
            done = total.listed
            total.listed += len(listed)
            known = _known(connection, zone.uri_range(prefix, day), listed)
            new = [obj for obj in listed if reread or (obj.uri, obj.etag) not in known]
            total.gone += _mark_gone(connection, zone, prefix, {uri for uri, _ in known} - {obj.uri for obj in listed})
            done += len(listed) - len(new)
            progress(done, total.listed)
            for group in fetch_groups(zone, new):
                total += register_group(connection, zone, group, own, reread=reread, spool=spool)
                done += len(group)
                progress(done, total.listed)
    return total


def _known(connection: psycopg.Connection, uris: tuple[str, str], listed: Sequence[LandedObject]) -> set[tuple[str, str]]:
    # An object outside the minute folders, such as .../13/dump.zip, sorts behind them and is asked for by name.
    apart = [obj.uri for obj in listed if not uris[0] <= obj.uri < uris[1]]
    with server_errors(), connection.transaction():
        rows = connection.execute(
            "SELECT DISTINCT uri, etag FROM landing.raw_blobs_5m "
            "WHERE ((uri >= %s AND uri < %s) OR uri = ANY(%s)) AND status IN ('registered', 'rejected')",
            (*uris, apart),
        )
        return {(uri, etag) for uri, etag in rows}


def _mark_gone(connection: psycopg.Connection, zone: LandingZone, prefix: str, uris: Iterable[str]) -> int:
    """Mark objects that the listing does not show and that are not there either when asked for by name."""
    uris = sorted(uris)
    if not uris:
        return 0
    with ThreadPoolExecutor(zone.concurrency) as pool:
        gone = [uri for uri, obj in zip(uris, pool.map(lambda uri: zone.head(uri, prefix), uris), strict=True) if obj is None]
    mark_gone(connection, gone)
    return len(gone)


def mark_gone(connection: psycopg.Connection, uris: Sequence[str]) -> None:
    """Record that objects are no longer there."""
    with server_errors(), connection.transaction():
        connection.execute(
            "UPDATE landing.raw_blobs_5m SET status = 'gone', reason = 'the object is no longer in the landing zone' "
            "WHERE uri = ANY(%s) AND status IN ('registered', 'rejected')",
            (list(uris),),
        )


def register_group(
    connection: psycopg.Connection, zone: LandingZone, group: list[Fetched], feeds: Sequence[Feed], *, reread: bool = False, spool: Spool | None = None
) -> Registration:
    """Decode fetched objects of one prefix and record them, in one transaction."""
    group = [fetched for fetched in (_settled(zone, fetched) for fetched in group) if fetched is not None]
    result = Registration(read=len(group), bytes=sum(fetched.obj.size for fetched in group))
    covered: dict[int, list[tuple[object, ...]]] = {}
    extra: dict[int, set[str]] = {}
    bad_rows: dict[int, list[tuple[object, ...]]] = {}
    decoded: list[Piece] = []
    for piece in decode_group(group, feeds):
        if spool is not None and all(fetched.path is None for fetched in group):
            decoded.append(piece)
        for row in tick_slices(piece.decoded.ticks, piece.tick_object).to_pylist():
            covered.setdefault(row.pop("object"), []).append(tuple(row.values()))
        for position in set(piece.tick_object.tolist()) if piece.decoded.extra_columns else ():
            extra.setdefault(position, set()).update(piece.decoded.extra_columns)
        rejected = piece.decoded.rejected
        for i, position in enumerate(piece.rejected_object.tolist()):
            bucket = rejected["bucket_us"][i].as_py()
            bad_rows.setdefault(position, []).append(
                (
                    int(piece.rejected_row[i]),
                    None if bucket is None else EPOCH + timedelta(microseconds=bucket),
                    rejected["reason"][i].as_py(),
                    rejected["record"][i].as_py(),
                )
            )
    rows: list[tuple[object, ...]] = []
    rejects: list[tuple[object, ...]] = []
    for position, fetched in enumerate(group):
        obj, home = fetched.obj, _home_slice(fetched.obj)
        metadata: dict[str, object] = {"verified": fetched.verified}
        slices = [] if fetched.rejected else _merged(covered.get(position, []))
        for number, bucket, reason, record in [] if fetched.rejected else bad_rows.get(position, []):
            rejects.append((obj.uri, obj.etag, number, bucket or home, reason, record))
        if not fetched.rejected and position in bad_rows:
            metadata["rejected_rows"] = len(bad_rows[position])
            result.rejected_rows += len(bad_rows[position])
        if position in extra:
            metadata["extra_columns"] = sorted(extra[position])
        if fetched.rejected:
            result.rejected += 1
            result.rejections.append(f"{obj.uri}: {fetched.rejected}")
        else:
            result.registered += 1
        status = "rejected" if fetched.rejected else "registered"
        # An object without a valid row still gets a row, under the slice of its folder: it landed, and was read.
        for label, bucket, count, first, last in slices or [(feeds[0].label, home, 0, None, None)]:
            rows.append(
                (bucket, label, obj.uri, obj.etag, obj.size, count, first, last, fetched.format, status, fetched.rejected,
                 Jsonb(metadata), obj.last_modified)
            )  # fmt: skip
    rows.sort(key=lambda row: row[:4])  # one order for all, so that none deadlock
    versions = sorted((fetched.obj.uri, fetched.obj.etag, fetched.obj.last_modified) for fetched in group)
    with server_errors(), connection.transaction(), connection.cursor() as cursor:
        cursor.execute(_SUPERSEDE, tuple(map(list, zip(*versions, strict=True))) or ([], [], []))
        if reread:
            cursor.executemany(_FORGET, [version[:2] for version in versions])
        cursor.executemany(_UPSERT, rows)
        cursor.execute("DELETE FROM landing.rejected_rows WHERE uri = ANY(%s)", ([uri for uri, _, _ in versions],))
        cursor.executemany(
            "INSERT INTO landing.rejected_rows (uri, etag, row_number, bucket_5m, reason, record) VALUES (%s, %s, %s, %s, %s, %s)", rejects
        )
    if spool is not None:
        keys = [(fetched.obj.uri, fetched.obj.etag) for fetched in group]
        spool.put(keys, [(piece.decoded.ticks, piece.tick_object) for piece in decoded])
    return result


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


def _home_slice(obj: LandedObject) -> datetime:
    return floor_slice(obj.folder_time or obj.last_modified)


def _merged(slices: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """Rows `(label, bucket, count, first, last)` of one object from all of its pieces."""
    if len(slices) < 2:
        return slices
    table = pa.table(dict(zip("lbcfe", map(list, zip(*slices, strict=True)), strict=True)))
    merged = table.group_by(["l", "b"]).aggregate([("c", "sum"), ("f", "min"), ("e", "max")])
    return [(row["l"], row["b"], row["c_sum"], row["f_min"], row["e_max"]) for row in merged.to_pylist()]
