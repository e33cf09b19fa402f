"""Arrivals: new objects are noticed, and the slices that they belong to become due.

Listing is the truth. It starts a look-back before the newest folder that was ever listed, never at the last key seen: keys inside a
minute are unordered, and an object may be late. A version that a listing shows and the registry does not know is recorded as `noticed`
before anything is read. A slice is due once it is closed and quiet, as long as it has unsettled rows in the registry.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import psycopg

from btc_assets.domain.feeds import Feeds
from btc_assets.domain.slices import SLICE, ceil_slice, floor_slice
from btc_assets.ingestion.due import read_open_loads
from btc_assets.ingestion.offsets import Listed, read_listing_positions, record_listings
from btc_assets.ingestion.requests import DueSlice
from btc_assets.landing.known_zone import require_known_zone
from btc_assets.landing.objects import LandedObject
from btc_assets.landing.registry import notice
from btc_assets.landing.states import Status
from btc_assets.landing.strays import Stray, record_strays
from btc_assets.store.errors import server_errors

if TYPE_CHECKING:
    from btc_assets.landing.zone import LandingZone

LIST_SECONDS = 20.0  # Dagster gives the tick of a sensor 60
RELIST_AFTER = timedelta(seconds=30)  # listings cost money; when a slice closes, it is listed at once
QUIET = timedelta(seconds=30)  # an object that lands now is rarely the last one of its slice
_NOTICED_TOGETHER = 5_000  # objects, of which most are known
PATIENCE = 5 * QUIET  # a collector that lands an object every few seconds does not put off a slice for ever

# If an object of the slice is gone, only noticed objects count: one may be that object, restored under another ETag, or hold trades of
# other slices. Loading the others would be refused.
_WAITING = """
SELECT bucket_5m, min(noticed_at), max(noticed_at), max(least(last_modified, noticed_at)),
       md5(string_agg(uri || etag || status || noticed_at, ' ' ORDER BY uri, etag, asset))
FROM landing.raw_blobs_5m AS unsettled
WHERE landing.is_unsettled(status, loaded_at) AND asset = ANY(coalesce(%(symbols)s::text[], ARRAY[asset]))
    AND (status = %(noticed)s OR NOT EXISTS (
        SELECT 1 FROM landing.raw_blobs_5m AS lost
        WHERE lost.bucket_5m = unsettled.bucket_5m AND lost.asset = ANY(coalesce(%(symbols)s::text[], ARRAY[lost.asset]))
            AND landing.is_source_gone(lost.status, lost.loaded_at)
    ))
GROUP BY bucket_5m ORDER BY bucket_5m DESC LIMIT %(most)s
"""
_MOST_SLICES = 20_000  # that are read at a time, newest first

_SOURCE_GONE = """
SELECT DISTINCT bucket_5m FROM landing.raw_blobs_5m AS lost
WHERE bucket_5m = ANY(%(buckets)s) AND landing.is_source_gone(status, loaded_at)
    AND asset = ANY(coalesce(%(symbols)s::text[], ARRAY[asset]))
"""


@dataclass(frozen=True)
class ArrivalTiming:
    """When objects are expected.

    Attributes:
        lookback: how far before the newest folder an object is still looked for.
        grace: how long after its end a slice is closed.
    """

    lookback: timedelta
    grace: timedelta

    def is_too_soon(self, now: datetime, listed_at: datetime | None) -> bool:
        """Whether a prefix that was listed at `listed_at` need not be listed again yet: for 30 seconds, or until a slice closes."""
        if listed_at is None or not listed_at <= now < listed_at + RELIST_AFTER:
            return False
        return last_close(now, self.grace) == last_close(listed_at, self.grace)


@dataclass
class Arrivals:
    """How many objects were listed, how many of them were noticed, and whether the listing is complete."""

    listed: int = 0
    noticed: int = 0
    complete: bool = True


@dataclass
class WaitingSlices:
    """Slices with something to load.

    Attributes:
        due: those that may be requested now, ascending.
        open: how many are not closed yet.
        still_receiving: how many still receive objects.
        before_history: how many lie before the history of the store, where nothing is requested.
    """

    due: list[DueSlice] = field(default_factory=list)
    open: int = 0
    still_receiving: int = 0
    before_history: int = 0


def notice_arrivals(
    connection: psycopg.Connection,
    zone: LandingZone,
    feeds: Feeds,
    now: datetime,
    timing: ArrivalTiming,
    clock: Callable[[], float] = time.monotonic,
) -> Arrivals | None:
    """List the folders in which objects may be new, and record those that are.

    A listing that takes too long stops, and the next one continues from there.

    Args:
        connection: to the store; in autocommit.
        zone: the landing zone.
        feeds: of the store.
        now: the present, in UTC.
        timing: when objects are expected.
        clock: measures how long listing takes, in seconds.

    Returns:
        None if it is too soon to list again.

    Raises:
        UserError: the landing zone or the server fails.
    """
    require_known_zone(connection, zone, feeds)
    deadline = clock() + LIST_SECONDS
    positions = read_listing_positions(connection, feeds.prefixes)
    listings = [
        _Listing(zone, prefix, before, now, timing.lookback)
        for prefix, (before, listed_at) in positions.items()
        if not timing.is_too_soon(now, listed_at)
    ]
    if not listings:
        return None
    total = _notice_listed(connection, zone, feeds, listings, lambda: clock() > deadline)
    complete = [one for one in listings if one.complete]
    record_strays(connection, [one.uris for one in complete], {feeds.by_prefix(one.prefix)[0].label: one.strays for one in complete})
    record_listings(connection, [Listed(one.prefix, one.before, one.newest, now if one.complete else None) for one in listings])
    return total


class _Listing:
    """What may be new below one prefix, a page at a time.

    Attributes:
        prefix: of a feed.
        before, newest: the newest folder that was listed before, and by now.
        uris: the half-open range of URIs.
        strays: what lies among the objects that were listed by now and cannot be one of them.
        complete: whether everything is listed.
    """

    def __init__(self, zone: LandingZone, prefix: str, before: datetime | None, now: datetime, lookback: timedelta) -> None:
        self.prefix, self.before, self.newest, self._now = prefix, before, min(before or now, now), now
        start, self.strays, self.complete = self.newest - lookback, set[Stray](), False
        self.uris = zone.uris_from(prefix, start, now)
        self._pages = zone.list_from(prefix, start, now, self.strays)

    def next_page(self) -> list[LandedObject]:
        """The next objects; none if everything is listed."""
        objects = next(self._pages, [])
        self.complete = not objects
        # A collector whose clock runs ahead must not carry the position past folders in which objects still land.
        self.newest = max([self.newest, *(min(obj.folder_time, self._now) for obj in objects if obj.folder_time)])
        return objects


def _notice_listed(
    connection: psycopg.Connection, zone: LandingZone, feeds: Feeds, listings: Sequence[_Listing], past_deadline: Callable[[], bool]
) -> Arrivals:
    """List all prefixes, several at once, and notice what they hold; after the deadline, no more than the first page of each."""
    total, waiting, untouched = Arrivals(), deque(listings), len(listings)
    found: list[LandedObject] = []
    with ThreadPoolExecutor(min(zone.concurrency, len(listings)), thread_name_prefix="list") as pool:
        while waiting:
            some = [waiting.popleft() for _ in range(min(zone.concurrency, len(waiting)))]
            for objects in pool.map(_Listing.next_page, some):
                found += objects
            waiting += [one for one in some if not one.complete]
            untouched -= len(some)
            total.complete = not waiting or not past_deadline() or untouched > 0
            if len(found) >= _NOTICED_TOGETHER or not waiting or not total.complete:
                total.listed += len(found)
                total.noticed += notice(connection, feeds, found)
                found = []
            if not total.complete:
                break
    return total


def next_close(now: datetime, grace: timedelta) -> datetime:
    """When the next slice is closed."""
    return ceil_slice(now - grace) + grace


def last_close(now: datetime, grace: timedelta) -> datetime:
    """The end of the last slice that is closed."""
    return floor_slice(now - grace)


def read_waiting_slices(
    connection: psycopg.Connection,
    now: datetime,
    *,
    grace: timedelta,
    history_start: datetime | None = None,
    symbols: Sequence[str] | None = None,
) -> WaitingSlices:
    """The slices with something to load, except those that a person must decide on because an object is gone.

    A slice that was loaded while it was open has something to load, whatever has landed since: its closed load.

    Args:
        connection: to the store.
        now: the present, in UTC.
        grace: how long after its end a slice is closed.
        history_start: slices before it are never requested, so they do not wait.
        symbols: labels of the feeds of today; what belongs to others is left alone. None counts all.
    """
    names = list(symbols) if symbols is not None else None
    with server_errors(), connection.transaction():
        rows = connection.execute(_WAITING, {"noticed": Status.NOTICED, "most": _MOST_SLICES, "symbols": names}).fetchall()
    waiting, quiet = WaitingSlices(), min(QUIET, grace)
    for bucket, first_noticed, last_noticed, last_landed, digest in reversed(rows):
        if history_start is not None and bucket < history_start:
            waiting.before_history += 1
        elif bucket + SLICE + grace > now:
            waiting.open += 1
        elif last_landed + quiet > now and first_noticed + PATIENCE > now:
            waiting.still_receiving += 1
        else:
            waiting.due.append(DueSlice(bucket, last_noticed, digest))
    _add_open_loads(connection, waiting, {row[0] for row in rows}, now - grace, names)
    return waiting


def _add_open_loads(
    connection: psycopg.Connection, waiting: WaitingSlices, known: set[datetime], closed: datetime, names: list[str] | None
) -> None:
    """Add the slices that were loaded while they were open; `known` have something else to load."""
    loads = [load for load in read_open_loads(connection) if load.bucket not in known]
    if not loads:
        return
    with server_errors(), connection.transaction():
        rows = connection.execute(_SOURCE_GONE, {"buckets": [load.bucket for load in loads], "symbols": names}).fetchall()
    gone = {bucket for (bucket,) in rows}
    for load in loads:
        if load.bucket + SLICE > closed:
            waiting.open += 1
        elif load.bucket not in gone:
            waiting.due.append(load)
    waiting.due.sort()
