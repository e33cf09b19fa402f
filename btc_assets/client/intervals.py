"""Intervals of candles: which can be built from the candles that a store keeps, and where each of them starts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import numpy as np

from btc_assets.client.ranges import TimeRange
from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import MICROSECOND, to_microseconds

CALENDAR = ("day", "week", "month", "quarter", "year")

_UNITS = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "min": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}
_FIXED = re.compile(r"([1-9]\d{0,8})\s*(ms|s|m|min|h|d)")


@dataclass(frozen=True)
class Grid:
    """The starts of consecutive candles, in microseconds since 1970, without one that is computed before it is needed.

    Attributes:
        first: start of the first candle.
        count: how many.
        step: from one start to the next; 0 where `edges` has them.
        edges: of a calendar: the starts, and the end of the last one.
    """

    first: int
    count: int
    step: int = 0
    edges: np.ndarray | None = None

    @property
    def end(self) -> int:
        """End of the last candle."""
        return int(self.starts(self.count, self.count + 1)[0])

    def starts(self, begin: int, end: int) -> np.ndarray:
        """The starts from one number to another, exclusive; int64. The start after the last candle is its end."""
        if self.edges is not None:
            return self.edges[begin:end]
        return self.first + self.step * np.arange(begin, end, dtype=np.int64)

    def ends_of(self, starts: np.ndarray) -> np.ndarray:
        """The ends of candles by their starts."""
        if self.edges is None:
            return starts + self.step
        return self.edges[np.searchsorted(self.edges, starts) + 1]

    def count_before(self, time: int) -> int:
        """How many candles start before a time."""
        if self.edges is None:
            return min(max(-(-(time - self.first) // self.step), 0), self.count)
        return int(np.searchsorted(self.edges[:-1], time))

    def numbers(self, starts: np.ndarray) -> np.ndarray:
        """The numbers of candles by their starts; int64."""
        if self.edges is None:
            return (starts - self.first) // self.step
        return np.searchsorted(self.edges, starts)


@dataclass(frozen=True)
class Interval:
    """A length of candles.

    Attributes:
        name: as it was asked for.
        width: of each candle; None for a calendar's, which differ in length.
        zone: of the calendar; UTC for a fixed width.
    """

    name: str
    width: timedelta | None
    zone: tzinfo = UTC

    def __str__(self) -> str:
        return self.name if self.width else f"{self.name} in {self.zone}"

    def grid(self, span: TimeRange) -> Grid:
        """The candles that start in a range.

        A fixed width counts from 1970-01-01 UTC, whatever the range; a week begins on Monday. A candle does not depend on the range that
        it is asked for with.

        Raises:
            UserError: no candle starts in the range.
        """
        start, end = to_microseconds(span.start), to_microseconds(span.end)
        if self.width:
            step = self.width // MICROSECOND
            first = -(-start // step) * step
            grid = Grid(first, -(-(end - first) // step), step)
        else:
            edges = self._calendar_edges(span)
            grid = Grid(int(edges[0]), len(edges) - 1, edges=edges)
        if grid.count < 1:
            raise UserError(f"No candle of {self.name} starts in the range from {span}: name a longer one, or a shorter interval.")
        return grid

    def _calendar_edges(self, span: TimeRange) -> np.ndarray:
        """The first moments of days of the zone from the start of a range to its end, and the next one; each once.

        Where clocks are set forward at midnight, the day begins later; where they are set back, at the first of two midnights.
        """
        day = self._floor(span.start.astimezone(self.zone).date())
        edges: list[int] = []
        while not edges or edges[-1] < to_microseconds(span.end):
            moment = to_microseconds(datetime(day.year, day.month, day.day, tzinfo=self.zone).astimezone(UTC))
            if moment >= to_microseconds(span.start):
                edges.append(moment)
            day = self._next(day)
        return np.unique(np.array(edges, np.int64))  # a day that a zone leaves out begins with the next one

    def _floor(self, day: date) -> date:
        if self.name == "week":
            return day - timedelta(days=day.weekday())
        months = {"month": 1, "quarter": 3, "year": 12}.get(self.name)
        return day if months is None else day.replace(month=(day.month - 1) // months * months + 1, day=1)

    def _next(self, day: date) -> date:
        days = {"day": 1, "week": 7}.get(self.name)
        return (
            day + timedelta(days=days) if days else self._floor(day + timedelta(days={"month": 31, "quarter": 92, "year": 366}[self.name]))
        )


def parse_interval(interval: str | timedelta, tz: str = "UTC") -> Interval:
    """The interval that a person means.

    Args:
        interval: a number and a unit (`ms`, `s`, `m`, `h`, `d`), a timedelta, or one of `CALENDAR`.
        tz: the zone of a calendar interval, such as `America/New_York`.

    Raises:
        UserError: it is none, or the zone does not exist or says nothing about a fixed width.
    """
    zone = _parse_zone(tz)
    if isinstance(interval, str) and interval in CALENDAR:
        return Interval(interval, None, zone)
    found = _FIXED.fullmatch(interval.strip()) if isinstance(interval, str) else None
    try:
        width = interval if isinstance(interval, timedelta) else int(found[1]) * _UNITS[found[2]] if found else timedelta(0)
    except OverflowError:
        width = timedelta(0)
    if width <= timedelta(0):
        raise UserError(f"{str(interval)!r} is no interval: write one such as 3m, 4h or 7d, or {', '.join(CALENDAR)}.")
    if zone is not UTC:
        raise UserError(f"A time zone says nothing about an interval of {interval}: name {', '.join(CALENDAR)} with it.")
    return Interval(str(interval), width)


def choose_level(interval: Interval, grid: Grid, levels: Mapping[str, timedelta]) -> str:
    """The longest kept candles of which whole ones make each candle.

    Args:
        interval: what is asked for.
        grid: its candles.
        levels: the candles that are kept.

    Raises:
        UserError: none fits; the sentence tells what can be built.
    """
    fitting = [name for name, width in levels.items() if _fits(grid, width // MICROSECOND)]
    if not fitting:
        shortest = min(levels, key=levels.__getitem__)
        raise UserError(
            f"Candles of {interval.name} cannot be built from those that this store keeps ({', '.join(levels)}): name a multiple of "
            f"{shortest}, such as 3m, 4h or 7d, or {', '.join(CALENDAR)}."
        )
    return max(fitting, key=levels.__getitem__)


def _fits(grid: Grid, width: int) -> bool:
    return not np.any(grid.edges % width) if grid.edges is not None else grid.step % width == 0


def _parse_zone(tz: str) -> tzinfo:
    if tz == "UTC":
        return UTC
    try:
        return ZoneInfo(str(tz))  # also a ZoneInfo, which shows its name
    except (KeyError, ValueError, OSError):  # KeyError: ZoneInfoNotFoundError
        raise UserError(f"There is no time zone {tz!r}: name one such as UTC, Europe/Berlin or America/New_York.") from None
