"""Plans of plays: which trades get which times and ids, so that they continue what the store holds and end in the present."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import psycopg
import pyarrow as pa
import pyarrow.compute as pc

from btc_assets.domain.errors import UserError
from btc_assets.domain.feeds import Feed
from btc_assets.domain.slices import MICROSECOND, SLICE, SLICE_US
from btc_assets.domain.ticks import TICK_SCHEMA, TIME, int64
from btc_assets.ingestion.offsets import rewind_listing
from btc_assets.landing.zone import LandingZone
from btc_assets.simulation.batches import BATCH_LIMITS, BatchLimits
from btc_assets.simulation.newest_tick import NewestTick, read_newest_tick
from btc_assets.simulation.recordings import Recording
from btc_assets.store.errors import server_errors

_MS = timedelta(milliseconds=1)


@dataclass(frozen=True)
class PlayOptions:
    """How a recording is played.

    Attributes:
        speed: event time for each second of the wall clock, at least 1.
        minutes: of the wall clock after which the play ends; None plays the whole recording.
        limits: when the collector closes a batch, on the event clock.
        not_before: where the store's partitions start.
    """

    speed: float = 1.0
    minutes: float | None = None
    limits: BatchLimits = BATCH_LIMITS
    not_before: datetime | None = None

    @property
    def ends_after(self) -> timedelta | None:
        """`minutes` as a duration."""
        return None if self.minutes is None else timedelta(minutes=self.minutes)


@dataclass(frozen=True)
class PlayPlan:
    """Which trades are played when.

    Attributes:
        recording: what is played.
        began: wall clock at the beginning.
        start: event clock at the beginning, which is the new time of the earliest trade.
        id_shift: added to every trade id.
        options: how it is played.
    """

    recording: Recording
    began: datetime
    start: datetime
    id_shift: int
    options: PlayOptions

    @property
    def shift(self) -> timedelta:
        """Added to every time; whole milliseconds."""
        return self.start - self.recording.first

    @property
    def end(self) -> datetime | None:
        """Wall clock at which the play ends; None if it plays the whole recording."""
        return None if self.options.ends_after is None else self.began + self.options.ends_after

    @property
    def present_after(self) -> timedelta:
        """How long it takes to catch up with the present."""
        behind = max(self.began - self.start, timedelta())
        return behind / (self.options.speed - 1) if behind and self.options.speed > 1 else timedelta()

    def event_clock(self, now: datetime) -> datetime:
        """The event clock at a time of the wall clock."""
        return min(self.start + (now - self.began) * self.options.speed, now)

    def reached(self, event_time: datetime) -> datetime:
        """The wall clock when the event clock reaches a time."""
        # Rounded up, so that the clock is there and not a microsecond before.
        return max(self.began + math.ceil((event_time - self.start) / MICROSECOND / self.options.speed) * MICROSECOND, event_time)

    def describe(self, place: str) -> str:
        """What will happen, for people; `place` is where the trades land."""
        text = f"Playing {self.recording.ticks:,} trades of {self.recording.name} into {place} from {self.start:%Y-%m-%d %H:%M} "
        catching_up, ends_after = self.present_after, self.options.ends_after
        if not catching_up:
            text += "in real time"
        else:
            text += f"at {self.options.speed:g}x"
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


def plan_play(recording: Recording, newest: NewestTick | None, now: datetime, options: PlayOptions) -> PlayPlan:
    """Begin where the store ends, but no earlier than the play can catch up from by its own end.

    Args:
        recording: what to play.
        newest: where the store ends; the new ids follow its ids. If it is empty, ids stay as they are.
        now: the present.
        options: how to play it.

    Raises:
        UserError: the store ends in the future.
    """
    if newest and newest.time > now + SLICE:
        raise UserError(f"The store's newest trade is of {newest.time}, which lies in the future, so nothing can follow it yet: remove it.")
    start = now - recording.length * (1 - 1 / options.speed)
    if newest:
        start = max(start, newest.time + _MS)
    if options.not_before:
        start = max(start, options.not_before)
    shift = -((recording.first - start) // _MS) * _MS  # rounded up
    return PlayPlan(recording, now, recording.first + shift, newest.trade_id + 1 - recording.first_id if newest else 0, options)


def prepare_play(
    connection: psycopg.Connection, zone: LandingZone, feed: Feed, recording: Recording, now: datetime, options: PlayOptions
) -> PlayPlan:
    """Plan a play on this store, and send the sensor back to where it begins.

    While `connection` is open, no other play into the feed's prefix can be prepared.

    Raises:
        UserError: another play is running, the store ends in the future, or the server or the landing zone fails.
    """
    with server_errors():
        row = connection.execute("SELECT pg_try_advisory_lock(hashtext(%s))", (f"play {feed.prefix}",)).fetchone()
    if row != (True,):
        raise UserError(f"Another play into {feed.prefix} is running: end that one first.")
    plan = plan_play(recording, read_newest_tick(connection, zone, feed), now, options)
    rewind_listing(connection, feed.prefix, plan.start.replace(second=0, microsecond=0))
    return plan


def _duration(time: timedelta) -> str:
    seconds = round(time.total_seconds())
    if seconds <= 1:
        return "a second"
    return f"{seconds} seconds" if seconds < 120 else f"{round(seconds / 60)} minutes"
