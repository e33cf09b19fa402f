"""Slices: 5-minute, half-open, UTC-aligned intervals of event time, and windows of them; times as datetimes and as integers.

Everything works on time windows; nothing enumerates partition keys, because a store that starts in 2017 has close to a
million of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from btc_assets.domain.errors import UserError

MICROSECOND = timedelta(microseconds=1)
SLICE = timedelta(minutes=5)
DAY = timedelta(days=1)

# The same spans in microseconds, the unit of times in Arrow and NumPy.
SLICE_US = 300_000_000
HOUR_US = 3_600_000_000
DAY_US = 86_400_000_000

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST_SLICE = datetime(9999, 12, 31, 23, 55, tzinfo=UTC)  # no later time can be computed with
KEY_FORMAT = "%Y-%m-%dT%H:%MZ"


def floor_slice(time: datetime) -> datetime:
    """The start of the slice that contains `time`, which must be timezone-aware."""
    return time - (time - EPOCH) % SLICE


def ceil_slice(time: datetime) -> datetime:
    """The first slice start at or after `time`, but not after the last one that a datetime can hold."""
    return min(-(-(time - EPOCH) // SLICE) * SLICE, LAST_SLICE - EPOCH) + EPOCH


def floor_day(time: datetime) -> datetime:
    """Midnight UTC of the day that contains `time`."""
    return time - (time - EPOCH) % DAY


def slice_number(time: datetime) -> int:
    """Slices since 1970: a 32-bit number that identifies a slice in advisory locks."""
    return (time - EPOCH) // SLICE


def to_microseconds(time: datetime) -> int:
    """Microseconds since 1970, as Arrow and NumPy store times."""
    return (time - EPOCH) // MICROSECOND


def from_microseconds(microseconds: int) -> datetime:
    """The time, in UTC, from microseconds since 1970; also takes NumPy's integers."""
    return EPOCH + int(microseconds) * MICROSECOND


def parse_time(text: str) -> datetime:
    """Parse `2020-02-22`, `2020-02-22T13:35Z` or any other ISO 8601 time; without an offset, it is in UTC.

    Raises:
        UserError: the text is not an ISO 8601 date or time.
    """
    try:
        time = datetime.fromisoformat(text.strip())
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):  # the latter for a time zone that leads out of the years 1 to 9999
        raise UserError(f"{text!r} is not a date or time: write it as 2020-02-22 or 2020-02-22T13:35Z.") from None


@dataclass(frozen=True, order=True)
class Window:
    """The slices from `start` up to, not including, `end`; both are slice starts in UTC."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        for edge in (self.start, self.end):
            if edge.tzinfo is None or floor_slice(edge) != edge:
                raise UserError(f"{edge} is not the start of a 5-minute slice in UTC: use a minute divisible by five.")
        if self.end <= self.start:
            raise UserError(f"The range from {self.start} to {self.end} is empty: its end must lie after its start.")

    @classmethod
    def covering(cls, start: datetime, end: datetime) -> Window:
        """The smallest window that contains all of `[start, end)`."""
        return cls(floor_slice(start), ceil_slice(end))

    @classmethod
    def of_slice(cls, bucket: datetime) -> Window:
        """The window of the one slice that starts at `bucket`."""
        return cls(bucket, bucket + SLICE)

    def __len__(self) -> int:
        """Number of slices."""
        return (self.end - self.start) // SLICE

    def __contains__(self, time: datetime) -> bool:
        return self.start <= time < self.end

    def __str__(self) -> str:
        return f"{self.start.strftime(KEY_FORMAT)} to {self.end.strftime(KEY_FORMAT)}"

    def slices(self) -> Iterator[datetime]:
        """The start of each slice, ascending."""
        return (self.start + i * SLICE for i in range(len(self)))

    def widened(self, margin: timedelta) -> Window:
        """The window with `margin` added on both sides, rounded outward to whole slices."""
        return Window.covering(self.start - margin, self.end + margin)

    def until(self, end: datetime) -> Window | None:
        """The slices of the window that are over at `end`; None if none is."""
        end = min(self.end, floor_slice(end))
        return Window(self.start, end) if end > self.start else None

    def widened_to(self, step: timedelta) -> Window:
        """The window rounded outward to multiples of `step` since 1970."""
        return Window(self.start - (self.start - EPOCH) % step, self.end + (EPOCH - self.end) % step)

    def days(self) -> Iterator[Window]:
        """The window split at each midnight UTC."""
        start = self.start
        while start < self.end:
            end = min(floor_day(start) + DAY, self.end)
            yield Window(start, end)
            start = end
