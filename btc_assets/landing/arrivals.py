"""Arrivals: noticing what landed, and which slices are to be loaded for it.

Listing is the truth. It goes from a look-back before the newest folder that was ever listed, never from the last key seen:
keys inside a minute are unordered, and an object may be late. What a listing shows and the registry does not know is
written into the registry as `noticed`, before anything is read. A slice is due once it is closed and quiet, for as long as
the registry says that the landing zone holds something else for it than the table.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import psycopg

from btc_assets.domain.feeds import Feeds
from btc_assets.domain.slices import SLICE, ceil_slice, floor_slice
from btc_assets.ingestion.offsets import read_listing_position, record_listing
from btc_assets.ingestion.requests import DueSlice
from btc_assets.landing.objects import LandedObject
from btc_assets.landing.zone import LandingZone
from btc_assets.store.errors import server_errors

LIST_SECONDS = 20.0  # a tick of Dagster's has 60
RELIST = timedelta(seconds=30)  # listings cost money; a slice that closes is listed for at once
QUIET = timedelta(seconds=30)  # an object that lands now is rarely the last one
PATIENCE = 5 * QUIET  # who lands something every few seconds does not put a slice off for ever

_KNOWN = "SELECT uri, etag, status, last_modified FROM landing.raw_blobs_5m WHERE uri = ANY(%s) AND status IN ('noticed', 'registered', 'rejected')"

_NOTICE = """
INSERT INTO landing.raw_blobs_5m (bucket_5m, asset, uri, etag, size_bytes, row_count, status, last_modified)
SELECT bucket_5m, asset, uri, etag, size_bytes, 0, 'noticed', last_modified
FROM unnest(%s::timestamptz[], %s::text[], %s::text[], %s::text[], %s::bigint[], %s::timestamptz[])
    AS landed (bucket_5m, asset, uri, etag, size_bytes, last_modified)
ORDER BY bucket_5m, asset, uri, etag
ON CONFLICT (bucket_5m, asset, uri, etag) DO UPDATE SET
    status = 'noticed', reason = NULL, noticed_at = now(), last_modified = excluded.last_modified
WHERE raw_blobs_5m.status IN ('superseded', 'gone', 'rejected')
"""

# What was noticed is read also where an object is gone: it may be that object, restored under another ETag, or hold trades
# of other slices.
_WAITING = """
SELECT bucket_5m, min(noticed_at), max(noticed_at), max(least(last_modified, noticed_at)),
       md5(string_agg(uri || etag || status || noticed_at, ' ' ORDER BY uri, etag, asset))
FROM landing.raw_blobs_5m AS unsettled
WHERE landing.is_unsettled(status, loaded_at)
    AND (status = 'noticed' OR NOT EXISTS (
        SELECT 1 FROM landing.raw_blobs_5m AS lost
        WHERE lost.bucket_5m = unsettled.bucket_5m AND lost.status = 'gone' AND lost.loaded_at IS NOT NULL
    ))
GROUP BY bucket_5m ORDER BY bucket_5m DESC LIMIT %s
"""
_MOST = 20_000  # slices that one look takes in; the rest waits for these


@dataclass
class Arrivals:
    """What looking found: objects `listed` and `noticed` now, and whether the listing got to its end."""

    listed: int = 0
    noticed: int = 0
    complete: bool = True

    def __iadd__(self, other: Arrivals) -> Arrivals:
        self.listed += other.listed
        self.noticed += other.noticed
        self.complete &= other.complete
        return self


@dataclass
class Waiting:
    """Slices with something to load: those that are `due`, ascending, and how many are open or not quiet yet."""

    due: list[DueSlice] = field(default_factory=list)
    open: int = 0
    restless: int = 0


def look(
    connection: psycopg.Connection,
    zone: LandingZone,
    feeds: Feeds,
    now: datetime,
    *,
    lookback: timedelta,
    grace: timedelta,
    clock: Callable[[], float] = time.monotonic,
) -> Arrivals | None:
    """List what may be new and notice what is.

    A listing that takes too long stops and goes on from there the next time.

    Args:
        connection: to the store; in autocommit.
        zone: the landing zone.
        feeds: what lands there.
        now: the present, in UTC.
        lookback: how far before the newest folder an object is still looked for.
        grace: how long after its end a slice is closed.
        clock: to tell how long listing takes, in seconds.

    Returns:
        None where it is too soon to list again: 30 seconds, or until a slice closes.

    Raises:
        UserError: the landing zone or the server fails.
    """
    until = clock() + LIST_SECONDS
    total: Arrivals | None = None
    for prefix, own in feeds.groups():
        before, listed_at = read_listing_position(connection, prefix)
        if listed_at and listed_at <= now < listed_at + RELIST and closed_before(now, grace) == closed_before(listed_at, grace):
            continue
        total = total or Arrivals()
        total += _look(connection, zone, own, now, before, lookback, lambda: clock() > until)
    return total


def _look(
    connection: psycopg.Connection,
    zone: LandingZone,
    feeds: Feeds,
    now: datetime,
    before: datetime | None,
    lookback: timedelta,
    tired: Callable[[], bool],
) -> Arrivals:
    prefix, found = feeds[0].prefix, Arrivals()
    newest = min(before or now, now)
    for objects in zone.list_from(prefix, newest - lookback, now):
        found.listed += len(objects)
        found.noticed += notice(connection, feeds, objects)
        # A clock that runs ahead must not carry the position past what still lands.
        newest = max(newest, *(min(obj.folder_time, now) for obj in objects if obj.folder_time))
        if tired():
            found.complete = False
            break
    record_listing(connection, prefix, before, newest, now if found.complete else None)
    return found


def notice(connection: psycopg.Connection, feeds: Feeds, objects: Iterable[LandedObject]) -> int:
    """Write objects that the registry does not know, or rejected before they were written last, into it, as work to be done.

    Args:
        connection: to the store; in autocommit.
        feeds: those of the objects' one prefix.
        objects: as they are in the landing zone now.

    Returns:
        How many.
    """
    found = {(obj.uri, obj.etag): obj for obj in objects}
    with server_errors(), connection.transaction():
        known = {
            (uri, etag)
            for uri, etag, status, modified in connection.execute(_KNOWN, ([uri for uri, _ in found],))
            if not (status == "rejected" and (uri, etag) in found and found[uri, etag].is_newer_than(modified))
        }
        new = [obj for key, obj in found.items() if key not in known]
        if new:
            rows = [(obj.home_slice, feeds[0].label, obj.uri, obj.etag, obj.size, obj.last_modified) for obj in new]
            connection.execute(_NOTICE, [list(column) for column in zip(*rows, strict=True)])
    return len(new)


def next_close(now: datetime, grace: timedelta) -> datetime:
    """When the next slice is closed."""
    return ceil_slice(now - grace) + grace


def closed_before(now: datetime, grace: timedelta) -> datetime:
    """The end of the last slice that is closed."""
    return floor_slice(now - grace)


def waiting(connection: psycopg.Connection, now: datetime, *, grace: timedelta) -> Waiting:
    """The slices of which the landing zone holds something else than the table, but for those that a person must decide on.

    Args:
        connection: to the store.
        now: the present, in UTC.
        grace: how long after its end a slice is closed.
    """
    with server_errors(), connection.transaction():
        rows = connection.execute(_WAITING, (_MOST,)).fetchall()
    result, quiet = Waiting(), min(QUIET, grace)
    for bucket, first, last, landed, digest in reversed(rows):
        if bucket + SLICE + grace > now:
            result.open += 1
        elif landed + quiet > now and first + PATIENCE > now:
            result.restless += 1
        else:
            result.due.append(DueSlice(bucket, last, digest))
    return result
