"""Live: a file of trades played into the landing zone as if the collector received them, now or on the way to now.

The event clock of a play starts where its plan says, runs at the speed that was asked for, and never passes the present:
once it has caught up it goes on in real time. A trade is received when the event clock reaches it, and a batch lands when
the collector would have closed it. So which trades make a batch does not depend on the speed, and whatever ends a play,
what has landed is the beginning of the file, whole.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Protocol, TextIO

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from btc_assets.domain.errors import UserError
from btc_assets.domain.feeds import Feed
from btc_assets.domain.slices import EPOCH, SLICE, floor_slice, from_microseconds, to_microseconds
from btc_assets.domain.ticks import TICK_SCHEMA, int64
from btc_assets.landing.zone import LandingZone
from btc_assets.simulation.live_plan import LATE, Plan
from btc_assets.simulation.replay import BATCH_ROWS, BATCH_SECONDS, Landed, encode_batches

_BUNCH = 64  # batches that are encoded together where many are due
_LOOK_SECONDS = 1.0  # how long a wait lasts at most before the caller is told how it goes


# ---- clocks


class Clock(Protocol):
    """Wall clock of a play."""

    def now(self) -> datetime:
        """The present, in UTC."""

    def wait(self, seconds: float) -> bool:
        """Wait, but not longer than until the play is told to end; returns whether it is."""


class WallClock:
    """The real one. While it is entered, Ctrl-C and SIGTERM end the play; a second one ends the process."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def wait(self, seconds: float) -> bool:
        return bool(select.select([self._ended], [], [], seconds)[0])

    def __enter__(self) -> WallClock:
        # A pipe, because threading.Event must not be set by a signal's handler: it may interrupt whoever holds the lock.
        self._ended, self._end = os.pipe()
        self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _handle(self, *_: object) -> None:
        os.write(self._end, b".")
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __exit__(self, *_: object) -> None:
        self._restore()
        os.close(self._ended)
        os.close(self._end)


# ---- the log of slices


@dataclass
class _Tally:
    objects: int = 0
    ticks: int = 0
    first_trade_id: int = 1 << 63
    last_trade_id: int = -1
    trade_ids: int = 0  # their sum
    quantity: Decimal = Decimal(0)  # theirs, too
    landed_at: datetime | None = None


class SliceLog:
    """A file with a JSON line for each slice that was played: what is in it, when it ended, and when it had landed.

    `ended_at` is when the event clock passed the end of the slice (null where the play ended before), `landed_at` when its
    last batch had landed; both are times of the wall clock.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file: TextIO = path.open("w", buffering=1)
        except OSError as error:
            raise UserError(f"The log {path} cannot be written ({error.strerror}): name a file in a directory that exists.") from error
        self._open: dict[datetime, _Tally] = {}

    def landed(self, ticks: pa.Table, at: datetime) -> None:
        """Add a batch that has landed."""
        totals = ticks.group_by("bucket_5m", use_threads=False).aggregate(
            [("trade_id", "count"), ("trade_id", "min"), ("trade_id", "max"), ("trade_id", "sum"), ("quantity", "sum")]
        )
        for row in totals.to_pylist():
            tally = self._open.setdefault(row["bucket_5m"], _Tally())
            tally.objects += 1
            tally.ticks += row["trade_id_count"]
            tally.first_trade_id = min(tally.first_trade_id, row["trade_id_min"])
            tally.last_trade_id = max(tally.last_trade_id, row["trade_id_max"])
            tally.trade_ids += row["trade_id_sum"]
            tally.quantity += row["quantity_sum"]
            tally.landed_at = at

    def write(self, plan: Plan, before: datetime, now: datetime) -> None:
        """Write and forget the slices that end at or before a time."""
        for bucket in sorted(self._open):
            end = bucket + SLICE
            if end > before:
                break
            tally, ended_at = self._open.pop(bucket), plan.reached(end)
            line = {"slice": bucket, "ended_at": ended_at if ended_at <= now else None, **vars(tally), "quantity": str(tally.quantity)}
            self._file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE).decode())

    def __enter__(self) -> SliceLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._file.close()


# ---- playing


@dataclass
class Playing:
    """How far a play is, for people.

    Attributes:
        plan: what was planned.
        now: wall clock.
        landed: what has landed.
        played_to: up to where trades have landed or are in a batch that is still open.
        behind: how long ago the newest landed batch was due; above some seconds the machine is too slow for the speed.
    """

    plan: Plan
    now: datetime
    landed: Landed = field(default_factory=Landed)
    played_to: datetime = EPOCH
    behind: timedelta = timedelta()

    @property
    def speed(self) -> float:
        """What was reached since the beginning; in the first second, what is meant to be."""
        taken = self.now - self.plan.began
        return (self.played_to - self.plan.start) / taken if taken > timedelta(seconds=1) else self.plan.speed

    def __str__(self) -> str:
        pace = f"{self.speed:.0f}x" if self.speed >= 10 else f"{self.speed:.1f}x"
        if self.behind > timedelta(seconds=3):
            pace += f", {self.behind.total_seconds():.0f} s behind: as fast as this machine can"
        elif self.now - self.played_to < timedelta(seconds=1):
            pace = "in real time"
        return (
            f"slice {floor_slice(self.played_to):%m-%d %H:%M}, {self.landed.objects:,} objects, {self.landed.ticks:,} ticks; "
            f"event clock {self.played_to:%H:%M:%S}, now {self.now:%H:%M:%S}, {pace}"
        )


def play(
    zone: LandingZone,
    feed: Feed,
    plan: Plan,
    clock: Clock,
    *,
    batch_seconds: float = BATCH_SECONDS,
    batch_rows: int = BATCH_ROWS,
    minutes: float | None = None,
    tell: Callable[[Playing], None] = lambda playing: None,
    log: SliceLog | None = None,
) -> Landed:
    """Land a plan's trades as their time comes, until they are over or the clock says that it ends.

    However it ends, the batch that is open then is landed with the trades that the event clock has reached.

    Args:
        zone: where to.
        feed: whose folders, and how the exchange spells the symbol.
        plan: what and when.
        clock: wall clock; what it says ends the play.
        batch_seconds: of event clock, after which the collector closes a batch.
        batch_rows: trades after which it does; with the default no batch comes near the collector's third limit, 2 MB.
        minutes: of wall clock after which the play ends.
        tell: told how it goes, about every second.
        log: of the slices.
    """
    end = plan.began + timedelta(minutes=minutes) if minutes is not None else None
    player = _Player(zone, feed, clock, Playing(plan, clock.now(), played_to=plan.start), end, tell, log)
    due: list[_Batch] = []
    for batch in _batches(plan.tables(), batch_seconds, batch_rows):
        if len(due) == _BUNCH or plan.reached(batch.closes) > clock.now():
            player.land(due)
            due = []
        if not player.wait(batch):
            due.append(batch.until(plan.event_clock(clock.now())))
            break
        due.append(batch)
    player.land(due)
    player.close()
    return player.playing.landed


class _Player:
    def __init__(
        self,
        zone: LandingZone,
        feed: Feed,
        clock: Clock,
        playing: Playing,
        end: datetime | None,
        tell: Callable[[Playing], None],
        log: SliceLog | None,
    ) -> None:
        self.playing = playing
        self._zone, self._feed, self._clock, self._end, self._tell, self._log = zone, feed, clock, end, tell, log
        self._pool = ThreadPoolExecutor(min(zone.concurrency, 8))

    def wait(self, batch: _Batch) -> bool:
        """Until the batch is due; False where the play ends before."""
        playing, plan, end = self.playing, self.playing.plan, self._end
        due = plan.reached(batch.closes)
        while True:
            playing.now = self._clock.now()
            if due > playing.now:
                playing.behind, playing.played_to = timedelta(), plan.event_clock(playing.now)
            self._tell(playing)
            if end and playing.now >= end:
                return False
            left = (min(due, end) if end else due) - playing.now
            if self._clock.wait(min(max(left.total_seconds(), 0), _LOOK_SECONDS)):
                return False
            if due <= self._clock.now():
                return True

    def land(self, batches: list[_Batch]) -> None:
        """Put batches into the landing zone."""
        batches = [batch for batch in batches if len(batch.ticks)]
        if not batches:
            return
        objects = encode_batches([batch.ticks for batch in batches], self._feed, [batch.opened for batch in batches])
        paths, contents = zip(*objects, strict=True)
        list(self._pool.map(self._zone.put, paths, contents))
        now, last, plan, landed = self._clock.now(), batches[-1], self.playing.plan, self.playing.landed
        landed.objects += len(batches)
        landed.ticks += sum(len(batch.ticks) for batch in batches)
        landed.bytes += sum(map(len, contents))
        times = pc.min_max(pa.concat_tables([batch.ticks for batch in batches])["event_time"])
        landed.first_event_time = min(filter(None, (landed.first_event_time, times["min"].as_py())))
        landed.last_event_time = max(filter(None, (landed.last_event_time, times["max"].as_py())))
        self.playing.behind, self.playing.played_to = max(now - plan.reached(last.closes), timedelta()), last.closes
        if self._log:
            for batch in batches:
                self._log.landed(batch.ticks, now)
            self._log.write(plan, last.opened - LATE, now)  # later batches hold nothing older

    def close(self) -> None:
        self._pool.shutdown()
        if self._log:
            self._log.write(self.playing.plan, datetime.max.replace(tzinfo=UTC), self._clock.now())


@dataclass(frozen=True)
class _Batch:
    """A collector's batch, on the event clock: when it opened, when it closes, and when each trade is received."""

    opened: datetime
    closes: datetime
    ticks: pa.Table
    arrival: np.ndarray

    def until(self, at: datetime) -> _Batch:
        """The batch as it is at a time before it closes."""
        received = int(np.searchsorted(self.arrival, to_microseconds(at), side="right"))
        return replace(self, closes=min(at, self.closes), ticks=self.ticks.slice(0, received), arrival=self.arrival[:received])


def _batches(tables: Iterator[pa.Table], seconds: float, rows: int) -> Iterator[_Batch]:
    width = max(int(seconds * 1e6), 1)
    ticks, arrival, last = TICK_SCHEMA.empty_table(), np.empty(0, np.int64), 0
    for table in filter(len, tables):
        # A trade whose time steps back comes when it comes: right after the one before it.
        arrival = np.append(arrival, np.maximum(np.maximum.accumulate(int64(table["event_time"])), last))
        ticks, last, start = pa.concat_tables([ticks, table]), arrival[-1], 0
        while start < len(arrival):
            closes = arrival[start] + width
            stop = int(np.searchsorted(arrival, closes))
            if stop - start >= rows:
                stop = start + rows
                closes = arrival[stop - 1]
            elif stop == len(arrival):
                break
            yield _Batch(
                from_microseconds(arrival[start]), from_microseconds(closes), ticks.slice(start, stop - start), arrival[start:stop]
            )
            start = stop
        ticks, arrival = ticks.slice(start), arrival[start:]
    if len(arrival):
        yield _Batch(from_microseconds(arrival[0]), from_microseconds(arrival[0] + width), ticks, arrival)
