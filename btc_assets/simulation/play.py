"""Playing: a recording landed live, as if the collector received it, in the present or on the way to it.

The event clock of a play starts where its plan says, runs at the requested speed, and never passes the present: once it has caught
up, it continues in real time. A trade is received when the event clock reaches it, and a batch lands when the collector would have
closed it. So the speed does not decide which trades form a batch, and however a play ends, what has landed is a complete beginning
of the recording.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from btc_assets.domain.feeds import Feed
from btc_assets.domain.slices import EPOCH, floor_slice, from_microseconds, to_microseconds
from btc_assets.domain.ticks import TICK_SCHEMA, int64
from btc_assets.landing.zone import LandingZone
from btc_assets.simulation.batches import GROUP_BATCHES, BatchLimits, encode_batches
from btc_assets.simulation.clocks import Clock
from btc_assets.simulation.play_plan import PlayPlan
from btc_assets.simulation.recordings import LATE
from btc_assets.simulation.replay import Landed
from btc_assets.simulation.slice_log import SliceLog

_PROGRESS_SECONDS = 1.0  # how long a wait lasts at most before progress is reported


@dataclass
class PlayProgress:
    """How far a play is, for people.

    Attributes:
        plan: what was planned.
        now: wall clock.
        landed: what has landed.
        played_to: event time up to which trades have landed or are in a batch that is still open.
        behind: how long ago the newest landed batch was due; more than some seconds means that the machine is too slow for the speed.
    """

    plan: PlayPlan
    now: datetime
    landed: Landed = field(default_factory=Landed)
    played_to: datetime = EPOCH
    behind: timedelta = timedelta()

    @property
    def speed(self) -> float:
        """The speed reached since the beginning; in the first second, the requested speed."""
        taken = self.now - self.plan.began
        return (self.played_to - self.plan.start) / taken if taken > timedelta(seconds=1) else self.plan.options.speed

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
    plan: PlayPlan,
    clock: Clock,
    *,
    report: Callable[[PlayProgress], None] = lambda progress: None,
    log: SliceLog | None = None,
) -> Landed:
    """Land a plan's trades as their time comes, until the recording or the plan's time is over or the clock ends the play.

    However it ends, the batch that is open then lands with the trades that the event clock has reached.

    Args:
        zone: where to land them.
        feed: whose folders, and how the exchange spells the symbol.
        plan: which trades, when.
        clock: wall clock; it may end the play.
        report: called with the progress, about every second.
        log: of the slices.
    """
    player = _Player(zone, feed, clock, PlayProgress(plan, clock.now(), played_to=plan.start), report, log)
    due: list[_Batch] = []
    for batch in _receive(plan.tables(), plan.options.limits):
        if len(due) == GROUP_BATCHES or plan.reached(batch.closes) > clock.now():
            player.land(due)
            due = []
        if not player.wait(batch):
            due.append(batch.until(plan.event_clock(clock.now())))
            break
        due.append(batch)
    player.land(due)
    player.close()
    return player.progress.landed


class _Player:
    """A play in progress; takes the arguments of `play`."""

    def __init__(
        self,
        zone: LandingZone,
        feed: Feed,
        clock: Clock,
        progress: PlayProgress,
        report: Callable[[PlayProgress], None],
        log: SliceLog | None,
    ) -> None:
        self.progress = progress
        self._zone, self._feed, self._clock, self._report, self._log = zone, feed, clock, report, log
        self._pool = ThreadPoolExecutor(min(zone.concurrency, 8))

    def wait(self, batch: _Batch) -> bool:
        """Wait until the batch is due; False if the play ends before."""
        progress, plan = self.progress, self.progress.plan
        due, end = plan.reached(batch.closes), plan.end
        while True:
            progress.now = self._clock.now()
            if due > progress.now:
                progress.behind, progress.played_to = timedelta(), plan.event_clock(progress.now)
            self._report(progress)
            if end and progress.now >= end:
                return False
            left = (min(due, end) if end else due) - progress.now
            if self._clock.wait(min(max(left.total_seconds(), 0), _PROGRESS_SECONDS)):
                return False
            if due <= self._clock.now():
                return True

    def land(self, batches: list[_Batch]) -> None:
        """Put batches into the landing zone."""
        batches = [batch for batch in batches if len(batch.ticks)]
        if not batches:
            return
        tables = [batch.ticks for batch in batches]
        paths, contents = zip(*encode_batches(tables, self._feed, [batch.opened for batch in batches]), strict=True)
        list(self._pool.map(self._zone.put, paths, contents))
        now, last, progress = self._clock.now(), batches[-1], self.progress
        progress.landed.add(tables, sum(map(len, contents)))
        progress.behind, progress.played_to = max(now - progress.plan.reached(last.closes), timedelta()), last.closes
        if self._log:
            for ticks in tables:
                self._log.add(ticks, now)
            self._log.write(progress.plan, last.opened - LATE, now)  # later batches hold nothing older

    def close(self) -> None:
        """Stop the threads, and write the slices that remain into the log."""
        self._pool.shutdown()
        if self._log:
            self._log.write(self.progress.plan, datetime.max.replace(tzinfo=UTC), self._clock.now())


@dataclass(frozen=True)
class _Batch:
    """A batch of the collector: when it opens and closes on the event clock, and when each trade is received (microseconds)."""

    opened: datetime
    closes: datetime
    ticks: pa.Table
    arrival: np.ndarray

    def until(self, at: datetime) -> _Batch:
        """The batch with what it has received by a time before it closes."""
        received = int(np.searchsorted(self.arrival, to_microseconds(at), side="right"))
        return replace(self, closes=min(at, self.closes), ticks=self.ticks.slice(0, received), arrival=self.arrival[:received])


def _receive(tables: Iterator[pa.Table], limits: BatchLimits) -> Iterator[_Batch]:
    """Batch trades by the times at which they are received."""
    ticks, arrival, last = TICK_SCHEMA.empty_table(), np.empty(0, np.int64), 0
    for table in filter(len, tables):
        # A trade whose time steps back is received right after the one before it.
        arrival = np.append(arrival, np.maximum(np.maximum.accumulate(int64(table["event_time"])), last))
        ticks, last, start = pa.concat_tables([ticks, table]), arrival[-1], 0
        while start < len(arrival):
            closes = arrival[start] + limits.width_us
            stop = int(np.searchsorted(arrival, closes))
            if stop - start >= limits.rows:
                stop = start + limits.rows
                closes = arrival[stop - 1]
            elif stop == len(arrival):
                break
            yield _Batch(
                from_microseconds(arrival[start]), from_microseconds(closes), ticks.slice(start, stop - start), arrival[start:stop]
            )
            start = stop
        ticks, arrival = ticks.slice(start), arrival[start:]
    if len(arrival):
        yield _Batch(from_microseconds(arrival[0]), from_microseconds(arrival[0] + limits.width_us), ticks, arrival)
