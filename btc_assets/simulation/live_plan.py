"""Plans of plays: which trades get which times and ids, so that they follow on what the store holds and end in the present."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc

from btc_assets.domain.errors import UserError
from btc_assets.domain.feeds import Feed
from btc_assets.domain.slices import MICROSECOND, SLICE, SLICE_US, Window, from_microseconds
from btc_assets.domain.ticks import TABLE, TICK_SCHEMA, TIME, int64
from btc_assets.ingestion.offsets import rewind_listing
from btc_assets.landing.objects import LandedObject, ObjectChanged, ObjectGone
from btc_assets.landing.reading import decode_group, fetch_groups
from btc_assets.landing.zone import LandingZone
from btc_assets.simulation.generate import generate_day
from btc_assets.simulation.replay import Landed, read_trades
from btc_assets.store.errors import server_errors

GENERATED = "generated"  # instead of a file: a day that nobody needs to have
LATE = timedelta(minutes=1)  # how far event times may step back from one trade to a later one
_MS = timedelta(milliseconds=1)
_SEAM = timedelta(minutes=5)  # of folders, read to find the newest trade: ids and times are not quite in order
_GENERATED_DAY = datetime(2024, 1, 10, tzinfo=UTC)
_GENERATED_TICKS = 500_000


@dataclass(frozen=True)
class Recording:
    """Trades to be played, read once to know how many they are and how long they take.

    Attributes:
        name: for people.
        tables: opens them anew; canonical ticks, in order of event time but for `LATE`.
        ticks, first, last, first_id: their number, earliest and latest event time, and lowest id.
        rejected: of the rows that are no trades, the first few with the reason.
        rejected_rows: how many there are.
    """

    name: str
    tables: Callable[[], Iterator[pa.Table]]
    ticks: int
    first: datetime
    last: datetime
    first_id: int
    rejected: list[str] = field(default_factory=list)
    rejected_rows: int = 0

    @property
    def length(self) -> timedelta:
        return self.last - self.first


def record(source: str, feed: Feed) -> Recording:
    """Read through the trades file `source`, or make the generated day.

    Raises:
        UserError: the file cannot be read, holds no trade, or is not in order of time.
    """
    if source == GENERATED:
        return survey("a generated day", lambda: generate_day(_GENERATED_DAY, _GENERATED_TICKS, symbol=feed.label))
    landed = Landed()
    recording = survey(source, lambda: read_trades(Path(source), feed, landed))
    return replace(
        recording,
        tables=lambda: read_trades(Path(source), feed, Landed()),
        rejected=landed.rejected,
        rejected_rows=landed.rejected_rows,
    )


def survey(name: str, tables: Callable[[], Iterator[pa.Table]]) -> Recording:
    """One pass over the trades.

    Raises:
        UserError: there is no trade, or they are not in order of time.
    """
    count, first, last, first_id = 0, None, 0, 0
    for table in filter(len, tables()):
        times, ids = int64(table["event_time"]), table["trade_id"].to_numpy()
        first, first_id = (times[0], ids[0]) if first is None else (first, first_id)
        arrival = np.maximum(np.maximum.accumulate(times), last)
        if (arrival - times).max() > LATE // MICROSECOND:
            late = from_microseconds(times[np.argmax(arrival - times)])
            raise UserError(f"{name} is not in order of time (a trade of {late} stands behind later ones): sort it by event time first.")
        count, first, last, first_id = count + len(table), min(first, times.min()), arrival[-1], min(first_id, ids.min())
    if first is None:
        raise UserError(f"{name} holds no valid trade: give a file with at least one.")
    return Recording(name, tables, count, from_microseconds(first), from_microseconds(last), int(first_id))


@dataclass(frozen=True)
class Newest:
    """Where a feed ends: the latest event time and the highest trade id in the store or on the way to it."""

    time: datetime
    trade_id: int


def newest_tick(connection: psycopg.Connection, zone: LandingZone, feed: Feed) -> Newest | None:
    """The end of a feed: of what is loaded, of what is registered but not loaded, and of what landed but nobody noticed.

    Raises:
        UserError: the server or the landing zone fails.
    """
    with server_errors():
        loaded = connection.execute(
            "SELECT last_ts, last_sequence FROM ingestion.stream_offsets WHERE source = %s AND last_sequence IS NOT NULL",
            (f"{TABLE}/{feed.label}",),
        ).fetchone()
        not_loaded = connection.execute(
            "SELECT DISTINCT uri FROM landing.raw_blobs_5m WHERE asset = %(label)s AND loaded_at IS NULL "
            "AND bucket_5m = (SELECT max(bucket_5m) FROM landing.raw_blobs_5m WHERE asset = %(label)s)",
            {"label": feed.label},
        ).fetchall()
    objects = {obj for (uri,) in not_loaded if (obj := zone.head(uri, feed.prefix)) is not None}
    if (minute := zone.newest_minute(feed.prefix)) is not None:
        objects.update(zone.list_window(feed.prefix, Window.covering(minute - _SEAM, minute + _MS)))
    ends = [*([Newest(*loaded)] if loaded else []), *_ends(zone, feed, sorted(objects))]
    return Newest(max(end.time for end in ends), max(end.trade_id for end in ends)) if ends else None


def _ends(zone: LandingZone, feed: Feed, objects: Sequence[LandedObject]) -> Iterator[Newest]:
    for group in fetch_groups(zone, objects):
        for fetched in group:
            if fetched.error is not None and not isinstance(fetched.error, ObjectGone | ObjectChanged):
                raise fetched.error
        for piece in decode_group(group, [feed]):
            if len(ticks := piece.decoded.ticks):
                yield Newest(pc.max(ticks["event_time"]).as_py(), pc.max(ticks["trade_id"]).as_py())


@dataclass(frozen=True)
class Plan:
    """Which trades are played when.

    Attributes:
        recording: what is played.
        began: wall clock at the beginning.
        start: event clock at the beginning; the earliest trade's time.
        id_shift: added to every trade id.
        speed: event time a second of wall clock, at least 1.
    """

    recording: Recording
    began: datetime
    start: datetime
    id_shift: int
    speed: float

    @property
    def shift(self) -> timedelta:
        """Added to every time; whole milliseconds."""
        return self.start - self.recording.first

    @property
    def present_after(self) -> timedelta:
        """How long it takes to catch up with the present."""
        behind = max(self.began - self.start, timedelta())
        return behind / (self.speed - 1) if behind and self.speed > 1 else timedelta()

    def event_clock(self, now: datetime) -> datetime:
        """Where the event clock stands at a time of the wall clock."""
        return min(self.start + (now - self.began) * self.speed, now)

    def reached(self, event_time: datetime) -> datetime:
        """When the event clock gets to a time."""
        # Rounded up, so that the clock is there and not a microsecond before.
        return max(self.began + math.ceil((event_time - self.start) / MICROSECOND / self.speed) * MICROSECOND, event_time)

    def describe(self, place: str, minutes: float | None = None) -> str:
        """What will happen, for people."""
        text = f"Playing {self.recording.ticks:,} trades of {self.recording.name} into {place} from {self.start:%Y-%m-%d %H:%M} "
        catching_up, ends_after = self.present_after, timedelta(minutes=minutes) if minutes else None
        if not catching_up:
            text += "in real time"
        else:
            text += f"at {self.speed:g}x"
            if not ends_after or catching_up <= ends_after:
                text += f"; it reaches the present after {_duration(catching_up)}"
        return f"{text}.{f' It ends after {_duration(ends_after)}.' if ends_after else ''} Ctrl-C ends it."

    def tables(self) -> Iterator[pa.Table]:
        """The recording's trades with their new times and ids."""
        shift = pa.scalar(self.shift // MICROSECOND, pa.int64()).cast(pa.duration("us"))
        for ticks in self.recording.tables():
            event_time = pc.add(ticks["event_time"], shift)
            moved = {
                "bucket_5m": pa.array(int64(event_time) // SLICE_US * SLICE_US).cast(TIME),
                "event_time": event_time,
                "trade_time": pc.add(ticks["trade_time"], shift),
                "trade_id": pc.add(ticks["trade_id"], self.id_shift),
            }
            yield pa.table([moved.get(name, ticks[name]) for name in TICK_SCHEMA.names], schema=TICK_SCHEMA)


def plan(recording: Recording, newest: Newest | None, now: datetime, speed: float, *, not_before: datetime | None = None) -> Plan:
    """Begin where the store ends, but no longer ago than it takes the play to reach the present at its own end.

    Args:
        recording: what to play.
        newest: where the store ends; its ids are followed on from, and kept as they are where it is empty.
        now: the present.
        speed: of the event clock, at least 1.
        not_before: where the store's partitions start.

    Raises:
        UserError: the store ends in the future.
    """
    if newest and newest.time > now + SLICE:
        raise UserError(f"The store's newest trade is of {newest.time}, which lies in the future, so nothing can follow it yet: remove it.")
    start = now - recording.length * (1 - 1 / speed)
    if newest:
        start = max(start, newest.time + _MS)
    if not_before:
        start = max(start, not_before)
    shift = -((recording.first - start) // _MS) * _MS  # rounded up
    return Plan(recording, now, recording.first + shift, newest.trade_id + 1 - recording.first_id if newest else 0, speed)


def prepare(
    connection: psycopg.Connection,
    zone: LandingZone,
    feed: Feed,
    recording: Recording,
    now: datetime,
    speed: float,
    *,
    not_before: datetime | None = None,
) -> Plan:
    """Plan a play on this store and send the sensor back to where it begins. Only one play a prefix, while `connection` is open.

    Raises:
        UserError: another play is under way, the store ends in the future, or the server or the landing zone fails.
    """
    with server_errors():
        row = connection.execute("SELECT pg_try_advisory_lock(hashtext(%s))", (f"play {feed.prefix}",)).fetchone()
    if row != (True,):
        raise UserError(f"Another play into {feed.prefix} is under way: end that one first.")
    planned = plan(recording, newest_tick(connection, zone, feed), now, speed, not_before=not_before)
    rewind_listing(connection, feed.prefix, planned.start.replace(second=0, microsecond=0))
    return planned


def _duration(time: timedelta) -> str:
    seconds = round(time.total_seconds())
    if seconds <= 1:
        return "a second"
    return f"{seconds} seconds" if seconds < 120 else f"{round(seconds / 60)} minutes"
