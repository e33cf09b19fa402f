"""Reconciling: what the landing zone holds, what the registry says and what the tables hold, compared from scratch.

The sensors look at what is new. This looks at everything in a range, so that an object which landed where nobody looked, a
lost event, a row deleted by hand or a slice that keeps failing does not stay unseen. To heal is to write the difference into
the registry as work to be done: the landing sensor asks for the runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import psycopg
from psycopg.types.json import Jsonb

from btc_assets.domain.feeds import Feeds
from btc_assets.domain.slices import DAY, EPOCH, SLICE, Window
from btc_assets.landing.registration import compare_folders
from btc_assets.landing.registry import mark_gone, notice, renew_unsettled, withdraw_loaded
from btc_assets.landing.states import SliceState
from btc_assets.landing.zone import LandingZone
from btc_assets.market_data.registry_equality import table_differences
from btc_assets.store.errors import server_errors

STUCK_AFTER = timedelta(hours=1)  # a backlog is worked off in ranges of a day; what waits for longer does not move
_STUCK_STATES = [SliceState.PENDING.value, SliceState.STALE.value, SliceState.SOURCE_GONE.value]
_SHOWN = 20  # sentences of each kind
_STRAY = "{} lies in no minute folder, so it is in no slice: move it to where its trades belong"

# An object that is gone holds up a slice only if there is something else to load for it.
_STUCK = """
SELECT bucket_5m, asset, state, objects + noticed_objects FROM landing.slices AS slice
WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s AND bucket_5m + interval '5 minutes' < %(before)s
    AND state = ANY(%(states)s)
    AND (SELECT max(blob.noticed_at) < %(before)s FROM landing.raw_blobs_5m AS blob
         WHERE blob.bucket_5m = slice.bucket_5m AND blob.asset = slice.asset AND landing.is_unsettled(blob.status, blob.loaded_at))
ORDER BY bucket_5m, asset
"""

_BEHIND = """
SELECT asset, count(*), min(bucket_5m), max(bucket_5m) FROM ingestion.makeable_slices
WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s AND due_since < %(before)s
GROUP BY asset ORDER BY min(due_since)
"""

_MAKE_AGAIN = """
UPDATE ingestion.due_slices SET due_since = now() WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s AND due_since < %(before)s
"""


@dataclass
class Differences:
    """What was found, a sentence for each of the first of a kind, and the number of each.

    Kinds: `missing` (landed, not registered), `changed` (overwritten since), `extra` (registered, no longer there), `stray`
    (in no minute folder, so in no slice), `stuck` (something to load for more than an hour), `unequal` (the table has other
    rows than the registry says), `behind` (candles that were not made for more than an hour).
    """

    counts: dict[str, int] = field(default_factory=dict)
    sentences: list[str] = field(default_factory=list)
    healed: int = 0

    def add(self, kind: str, sentence: str, count: int = 1) -> None:
        seen = self.counts[kind] = self.counts.get(kind, 0) + count
        if seen <= _SHOWN or seen == count:
            self.sentences.append(sentence)


@dataclass(frozen=True)
class ReconcileOptions:
    """How to reconcile.

    Attributes:
        since: what is older does not belong in the store.
        heal: write what is missing, changed or gone into the registry, and have stuck and unequal slices loaded again.
        ask_again: with `heal`, request stuck slices at once; otherwise the sensors do, at growing intervals.
        settled: objects that landed less than this ago are left to the sensors.
    """

    since: datetime = EPOCH
    heal: bool = False
    ask_again: bool = True
    settled: timedelta = timedelta(minutes=10)


def reconcile(
    connection: psycopg.Connection,
    zone: LandingZone,
    feeds: Feeds,
    window: Window | None,
    now: datetime,
    options: ReconcileOptions = ReconcileOptions(),
) -> Differences:
    """Compare a range of folders and slices, or everything.

    Args:
        connection: to the store.
        zone: the landing zone.
        feeds: what lands there.
        window: the range; None for all that is in the landing zone or the registry.
        now: the present, in UTC.
        options: what else to do.

    Raises:
        UserError: the landing zone or the server fails.
    """
    found = Differences()
    for prefix, own in feeds.groups():
        days = window.days() if window else _days(connection, zone, prefix, found)
        for day in days:
            if day.end > options.since:
                _compare_objects(connection, zone, own, day, now, options, found)
    for day in window.days() if window else _registered_days(connection):
        _compare_slices(connection, day, now, options, found)
    with server_errors():
        connection.execute(
            "INSERT INTO ops.reconciliations (reconciled_at, range_start, range_end, problems, sentences, healed) "
            "VALUES (%s, %s, %s, %s, %s, %s)",
            (now, window and window.start, window.end if window else now, Jsonb(found.counts), found.sentences, found.healed),
        )
    return found


def _compare_objects(  # seven: all of them are what one comparison is about
    connection: psycopg.Connection,
    zone: LandingZone,
    feeds: Feeds,
    day: Window,
    now: datetime,
    options: ReconcileOptions,
    found: Differences,
) -> None:
    prefix, strays, before = feeds.prefixes[0], set[str](), now - options.settled
    folders = compare_folders(connection, zone, prefix, day, strays)
    registered = {uri for uri, _ in folders.versions}
    for uri in sorted(strays):
        found.add("stray", _STRAY.format(uri))
    new = [obj for obj in folders.unknown if obj.last_modified < before]
    for obj in new:
        at = f"{obj.last_modified:%Y-%m-%d %H:%M:%S}"
        if obj.uri in registered:
            found.add("changed", f"{obj.uri} was overwritten at {at} and the registry has the older version")
        else:
            found.add("missing", f"{obj.uri} landed at {at} and is not registered")
    for uri in folders.missing:
        found.add("extra", f"{uri} is registered and no longer in the landing zone")
    if options.heal:
        found.healed += notice(connection, feeds, new) + len(folders.missing)
        mark_gone(connection, folders.missing)


def _compare_slices(connection: psycopg.Connection, day: Window, now: datetime, options: ReconcileOptions, found: Differences) -> None:
    limits = {"start": day.start, "end": day.end, "before": now - STUCK_AFTER}
    with server_errors():
        stuck = connection.execute(_STUCK, limits | {"states": _STUCK_STATES}).fetchall()
        behind = connection.execute(_BEHIND, limits).fetchall()
    for bucket, asset, state, objects in stuck:
        what = (
            "an object that it was loaded from is gone: restore it, or load the slice with --force"
            if state == SliceState.SOURCE_GONE
            else f"{state} for more than an hour, with {objects} objects: look at the last failed run of its range"
        )
        found.add("stuck", f"{asset} {bucket:%Y-%m-%dT%H:%MZ}: {what}")
    unequal = table_differences(connection, day, unloaded=False)
    for _, sentence in unequal:
        found.add("unequal", sentence)
    for asset, count, first, last in behind:
        found.add(
            "behind",
            f"{asset}: {count} slices from {first:%Y-%m-%dT%H:%MZ} to {last:%Y-%m-%dT%H:%MZ} are not made since their ticks changed",
            count,
        )
    if not options.heal:
        return
    with server_errors(), connection.transaction(), connection.cursor() as cursor:
        found.healed += withdraw_loaded(cursor, [bucket for bucket, _ in unequal])
        if options.ask_again:
            again = [bucket for bucket, _, state, _ in stuck if state != SliceState.SOURCE_GONE]
            renew_unsettled(cursor, again)
            cursor.execute(_MAKE_AGAIN, limits)
            found.healed += len(again) + sum(count for _, count, *_ in behind)


def _days(connection: psycopg.Connection, zone: LandingZone, prefix: str, found: Differences) -> list[Window]:
    """The days on which anything landed or is registered; what lies in no folder of a day is a stray."""
    days, strays = zone.days(prefix)
    for uri in strays:
        found.add("stray", _STRAY.format(uri))
    with server_errors():
        # One probe of the index a day, however many objects there are.
        rows = connection.execute(
            """
            WITH RECURSIVE folder (uri) AS (
                SELECT min(uri) FROM landing.raw_blobs_5m WHERE uri >= %(prefix)s AND uri < %(end)s
                UNION ALL
                SELECT (SELECT min(uri) FROM landing.raw_blobs_5m WHERE uri >= left(folder.uri, %(length)s) || '0'
                        AND uri > folder.uri AND uri < %(end)s)
                FROM folder WHERE folder.uri IS NOT NULL
            )
            SELECT substr(uri, %(from)s, 10) FROM folder WHERE uri IS NOT NULL
            """,
            {
                "prefix": f"{zone.url}/{prefix}/", "end": f"{zone.url}/{prefix}0", "length": len(f"{zone.url}/{prefix}/") + 10,
                "from": len(f"{zone.url}/{prefix}/") + 1,
            },
        ).fetchall()  # fmt: skip
    for (text,) in rows:
        try:
            days.add(datetime.strptime(f"{text} +0000", "%Y/%m/%d %z"))
        except ValueError:
            continue
    return [Window(day, day + DAY) for day in sorted(days)]


def _registered_days(connection: psycopg.Connection) -> list[Window]:
    with server_errors():
        first, last = connection.execute(
            "SELECT least((SELECT min(bucket_5m) FROM landing.raw_blobs_5m), (SELECT min(bucket_5m) FROM market_data.btc_ticks)), "
            "greatest((SELECT max(bucket_5m) FROM landing.raw_blobs_5m), (SELECT max(bucket_5m) FROM market_data.btc_ticks))"
        ).fetchone() or (None, None)
    return list(Window(first, last + SLICE).days()) if first else []


@dataclass(frozen=True)
class Reconciliation:
    """A comparison that was made: when, of which slices (`start` None: all), problems by kind and in words, and how many were healed."""

    at: datetime
    start: datetime | None
    end: datetime
    problems: dict[str, int]
    sentences: list[str]
    healed: int


def read_last_reconciliations(connection: psycopg.Connection) -> list[Reconciliation]:
    """The newest one, and before it the newest of everything if that found what it could not mend."""
    with server_errors():
        rows = connection.execute(
            "SELECT DISTINCT ON (range_start IS NULL) reconciled_at, range_start, range_end, problems, sentences, healed "
            "FROM ops.reconciliations ORDER BY range_start IS NULL, reconciled_at DESC"
        ).fetchall()
    found = sorted((Reconciliation(*row) for row in rows), key=lambda one: one.at)
    return [one for one in found if one is found[-1] or (one.start is None and one.healed < sum(one.problems.values()))]
