"""Reconciling: landing zone, registry and tables compared from scratch.

The sensors see what is new. Reconciling reads everything in a range, and so finds an object in a folder that no listing reached, a
lost event, a row that somebody deleted, and a slice that keeps failing. Healing writes a difference into the registry as work to
do, for which the landing sensor requests the runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

import psycopg

from btc_assets.domain.feeds import Feeds
from btc_assets.domain.slices import DAY, EPOCH, KEY_FORMAT, SLICE, Window
from btc_assets.landing.known_zone import require_known_zone
from btc_assets.landing.registration import Folders, compare_days, record_listed, record_missing
from btc_assets.landing.registry import notice, renew_unsettled, withdraw_loaded
from btc_assets.landing.states import SliceState
from btc_assets.landing.strays import Stray, record_strays
from btc_assets.landing.zone import LandingZone
from btc_assets.market_data.registry_equality import find_unequal_slices
from btc_assets.ops.differences import Differences
from btc_assets.ops.reconciliations import record_reconciliation
from btc_assets.store.database import only_row
from btc_assets.store.errors import server_errors

STUCK_AFTER = timedelta(hours=1)  # runs of a whole day work off a backlog faster than this
_STUCK_STATES = [SliceState.PENDING.value, SliceState.STALE.value, SliceState.SOURCE_GONE.value]

# An object that is gone blocks a slice only if there is something else to load for that slice.
_STUCK = """
SELECT bucket_5m, asset, state, objects + noticed_objects FROM landing.slices AS slice
WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s AND bucket_5m + interval '5 minutes' < %(before)s
    AND state = ANY(%(states)s) AND asset = ANY(%(symbols)s)
    AND (SELECT max(blob.noticed_at) < %(before)s FROM landing.raw_blobs_5m AS blob
         WHERE blob.bucket_5m = slice.bucket_5m AND blob.asset = slice.asset AND landing.is_unsettled(blob.status, blob.loaded_at))
ORDER BY bucket_5m, asset
"""

_BEHIND = """
SELECT asset, count(*), min(bucket_5m), max(bucket_5m) FROM ingestion.makeable_slices
WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s AND due_since < %(before)s
GROUP BY asset ORDER BY min(due_since)
"""

_REBUILD_AGAIN = """
UPDATE ingestion.due_slices SET due_since = now() WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s AND due_since < %(before)s
"""

# The first object of each day below each prefix, by one probe of the index a day, however many objects there are.
_DAYS_WITH_OBJECTS = """
SELECT prefix, day FROM unnest(%(prefixes)s::text[], %(folders)s::text[], %(ends)s::text[]) AS known (prefix, folder, following), LATERAL (
    WITH RECURSIVE first (uri) AS (
        SELECT min(uri) FROM landing.raw_blobs_5m WHERE uri >= known.folder AND uri < known.following
        UNION ALL
        SELECT (SELECT min(uri) FROM landing.raw_blobs_5m WHERE uri >= left(first.uri, length(known.folder) + 10) || '0'
                AND uri > first.uri AND uri < known.following)
        FROM first WHERE first.uri IS NOT NULL
    )
    SELECT substr(uri, length(known.folder) + 1, 10) AS day FROM first WHERE uri IS NOT NULL
) AS days
"""

_REGISTERED_RANGE = """
SELECT least((SELECT min(bucket_5m) FROM landing.raw_blobs_5m), (SELECT min(bucket_5m) FROM market_data.btc_ticks)),
       greatest((SELECT max(bucket_5m) FROM landing.raw_blobs_5m), (SELECT max(bucket_5m) FROM market_data.btc_ticks))
"""


@dataclass(frozen=True)
class ReconcileOptions:
    """How to reconcile.

    Attributes:
        since: days before this are not compared with the landing zone.
        heal: write what is missing, changed or gone into the registry, and have stuck and unequal slices loaded again.
        ask_again: with `heal`, request stuck slices at once; otherwise the sensors do, at growing intervals.
        min_object_age: objects that landed less than this ago are left to the sensors.
    """

    since: datetime = EPOCH
    heal: bool = False
    ask_again: bool = True
    min_object_age: timedelta = timedelta(minutes=10)


def reconcile(  # six: what is compared, when, and how
    connection: psycopg.Connection,
    zone: LandingZone,
    feeds: Feeds,
    window: Window | None,
    now: datetime,
    options: ReconcileOptions = ReconcileOptions(),
) -> Differences:
    """Compare landing zone, registry and tables, and record what differs.

    Args:
        connection: to the store.
        zone: the landing zone.
        feeds: of the landing zone.
        window: the folders and slices to compare; None compares everything in the landing zone and the registry.
        now: the present, in UTC.
        options: what else to do.

    Raises:
        UserError: the landing zone or the server fails.
    """
    require_known_zone(connection, zone, feeds)
    comparison = _Comparison(connection, zone, feeds, now, options)
    days = ((day, feeds.prefixes) for day in window.days()) if window else comparison.days_with_objects()
    for folders in compare_days(connection, zone, feeds, ((day, prefixes) for day, prefixes in days if day.end > options.since)):
        comparison.compare_objects(folders)
    if window is None:
        strays = {feeds.by_prefix(prefix)[0].label: found for prefix, found in comparison.strays.items()}
        record_strays(connection, [zone.uris(prefix) for prefix in feeds.prefixes], strays)
    for day in window.days() if window else _registered_days(connection):
        comparison.compare_slices(day)
    record_reconciliation(connection, window, now, comparison.found)
    return comparison.found


class _StuckSlice(NamedTuple):
    """A slice that has had something to load for more than an hour: its state, and how many objects it has."""

    bucket: datetime
    asset: str
    state: str
    objects: int

    def __str__(self) -> str:
        if self.state == SliceState.SOURCE_GONE:
            problem = "an object that it was loaded from is gone: restore it, or load the slice with --force"
        else:
            problem = f"{self.state} for more than an hour, with {self.objects} objects: look at the last failed run of its range"
        return f"{self.asset} {self.bucket:{KEY_FORMAT}}: {problem}"


class _AssetBehind(NamedTuple):
    """An asset with slices that have been due for more than an hour: how many slices, the first and the last of them."""

    asset: str
    slices: int
    first: datetime
    last: datetime

    def __str__(self) -> str:
        return (
            f"{self.asset}: {self.slices} slices from {self.first:{KEY_FORMAT}} to {self.last:{KEY_FORMAT}} "
            "were not rebuilt since their ticks changed"
        )


@dataclass
class _Comparison:
    """One reconciliation in progress, which collects what it finds."""

    connection: psycopg.Connection
    zone: LandingZone
    feeds: Feeds
    now: datetime
    options: ReconcileOptions
    found: Differences = field(default_factory=Differences)
    strays: dict[str, set[Stray]] = field(default_factory=dict)  # by prefix

    def days_with_objects(self) -> Iterator[tuple[Window, list[str]]]:
        """The days on which an object landed or is registered, each with the prefixes that have one; objects in no folder of a day are strays."""
        prefixes = self.feeds.prefixes
        strays: dict[str, set[Stray]] = {prefix: set() for prefix in prefixes}
        days: dict[datetime, set[str]] = {}
        with ThreadPoolExecutor(self.zone.concurrency) as pool:
            landed = pool.map(lambda prefix: self.zone.days(prefix, strays[prefix]), prefixes)
            for prefix, landed_on in zip(prefixes, landed, strict=True):
                for day in landed_on:
                    days.setdefault(day, set()).add(prefix)
        for prefix, day in self._registered_days():
            days.setdefault(day, set()).add(prefix)
        self._add_strays(strays)
        return ((Window(day, day + DAY), sorted(days[day])) for day in sorted(days))

    def _registered_days(self) -> Iterator[tuple[str, datetime]]:
        """The prefixes and the days in whose folders objects are registered."""
        folders, ends = zip(*map(self.zone.uris, self.feeds.prefixes), strict=True)
        with server_errors():
            rows = self.connection.execute(
                _DAYS_WITH_OBJECTS, {"prefixes": list(self.feeds.prefixes), "folders": list(folders), "ends": list(ends)}
            ).fetchall()
        for prefix, text in rows:
            with suppress(ValueError):  # in no folder of a day
                yield prefix, datetime.strptime(f"{text} +0000", "%Y/%m/%d %z")

    def compare_objects(self, folders: Folders) -> None:
        """Report, and heal if that is wanted, what the folders of a day and the registry differ in."""
        registered = {uri for uri, _ in folders.versions}
        self._add_strays(folders.strays)
        folders.record_strays(self.connection, self.zone, self.feeds)
        before = self.now - self.options.min_object_age
        new = [obj for obj in folders.unknown if obj.last_modified < before]
        for obj in new:
            at = f"{obj.last_modified:%Y-%m-%d %H:%M:%S}"
            if obj.uri in registered:
                self.found.add("changed", f"{obj.uri} was overwritten at {at}, and the registry has the older version")
            else:
                self.found.add("missing", f"{obj.uri} landed at {at} and is not registered")
        for uri in folders.missing:
            self.found.add("extra", f"{uri} is registered and no longer in the landing zone")
        for uri, versions in folders.double.items():
            self.found.add("double", f"{uri} is registered in {len(versions)} versions, of which only one can be there")
        if self.options.heal:
            record_listed(self.connection, self.feeds, folders)
            self.found.healed += notice(self.connection, self.feeds, new) + len(folders.missing) + len(folders.double)
            record_missing(self.connection, self.zone, self.feeds, folders.missing)

    def compare_slices(self, day: Window) -> None:
        """Compare the slices of a day in registry and tables."""
        limits = {"start": day.start, "end": day.end, "before": self.now - STUCK_AFTER}
        with server_errors():
            stuck = [
                _StuckSlice(*row)
                for row in self.connection.execute(
                    _STUCK, limits | {"states": _STUCK_STATES, "symbols": list(self.feeds.labels)}
                ).fetchall()
            ]
            behind = [_AssetBehind(*row) for row in self.connection.execute(_BEHIND, limits).fetchall()]
        unequal = find_unequal_slices(self.connection, day, unloaded=False)
        for slice_ in stuck:
            self.found.add("stuck", str(slice_))
        for _, sentence in unequal:
            self.found.add("unequal", sentence)
        for asset in behind:
            self.found.add("behind", str(asset), asset.slices)
        if self.options.heal:
            with server_errors(), self.connection.transaction(), self.connection.cursor() as cursor:
                self.found.healed += withdraw_loaded(cursor, [bucket for bucket, _ in unequal])
                if self.options.ask_again:
                    buckets = [slice_.bucket for slice_ in stuck if slice_.state != SliceState.SOURCE_GONE]
                    renew_unsettled(cursor, buckets)
                    cursor.execute(_REBUILD_AGAIN, limits)
                    self.found.healed += len(buckets) + sum(asset.slices for asset in behind)

    def _add_strays(self, strays: Mapping[str, Iterable[Stray]]) -> None:
        for prefix, found in strays.items():
            self.strays.setdefault(prefix, set()).update(found)
            for stray in sorted(found):
                self.found.add("stray", str(stray))


def _registered_days(connection: psycopg.Connection) -> list[Window]:
    """The days from the first slice in registry or table to the last."""
    with server_errors():
        first, last = only_row(connection.execute(_REGISTERED_RANGE))
    return list(Window(first, last + SLICE).days()) if first else []
