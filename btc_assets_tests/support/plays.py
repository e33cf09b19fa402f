"""Plays for tests: a clock on which waiting takes no time, and a landing zone that notes when objects land."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from btc_assets.domain.slices import floor_slice
from btc_assets.landing.zone import LandingZone
from btc_assets.simulation.newest_tick import NewestTick
from btc_assets.simulation.play_plan import PlayOptions, PlayPlan, plan_play
from btc_assets.simulation.recordings import survey
from btc_assets_tests.support.collected import decoded, ids
from btc_assets_tests.support.stores import FEED
from btc_assets_tests.support.trades import table

NOW = datetime(2024, 5, 1, 9, 30, 12, 345_000, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


class JumpingClock:
    """A wall clock that jumps ahead instead of waiting; at `end` it tells the play to end."""

    def __init__(self, now: datetime = NOW, end: datetime | None = None) -> None:
        self._now, self._end = now, end

    def now(self) -> datetime:
        return self._now

    def wait(self, seconds: float) -> bool:
        self._now += timedelta(seconds=seconds)
        if self._end and self._now >= self._end:
            self._now = self._end
            return True
        return False


class WatchedZone(LandingZone):
    """A landing zone in memory that notes when each object lands; writing an object takes `seconds` of the clock."""

    def __init__(self, clock: JumpingClock, seconds: float = 0) -> None:
        super().__init__(f"memory:///{uuid.uuid4().hex}", concurrency=1)
        self.clock, self.seconds = clock, seconds
        self.landed: list[tuple[datetime, datetime, pa.Table]] = []  # wall clock, folder, trades

    def put(self, path: str, data: bytes) -> str:
        self.clock.wait(self.seconds)
        folder = datetime.strptime(path.removeprefix(f"{FEED.prefix}/")[:16], "%Y/%m/%d/%H/%M").replace(tzinfo=UTC)
        self.landed.append((self.clock.now(), folder, decoded(data)))
        return super().put(path, data)

    def ticks(self) -> pa.Table:
        """All trades in the order in which they landed."""
        return pa.concat_tables([ticks for _, _, ticks in self.landed])

    def batches(self) -> list[list[int]]:
        """The trade ids of each object."""
        return [ids(ticks) for _, _, ticks in self.landed]


def planned(ticks: pa.Table, options: PlayOptions = PlayOptions(), *, newest: NewestTick | None = None) -> PlayPlan:  # noqa: B008  # immutable
    """A play of these trades that begins at `NOW`."""
    return plan_play(survey("trades", lambda: iter([ticks])), newest, NOW, options)


def shifted(ticks: pa.Table, by: timedelta, ids: int = 0) -> pa.Table:
    """The trades with other times and ids."""
    rows = ticks.to_pylist()
    for row in rows:
        row |= {"event_time": row["event_time"] + by, "trade_time": row["trade_time"] + by, "trade_id": row["trade_id"] + ids}
        row["bucket_5m"] = floor_slice(row["event_time"])
    return table(rows)
