"""Ranges of time as a researcher writes them: `"2024-01-10"`, `("2024-01-10", "2024-01-12T13:35")`, dates, datetimes or a `Window`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import DAY, MICROSECOND, SLICE, Window, floor_slice, parse_time

BITCOIN_BEGAN = datetime(2009, 1, 3, tzinfo=UTC)

_WRITE = 'write a day such as "2024-01-10", a month such as "2024-01", or a pair such as ("2024-01-10", "2024-01-12T13:35")'
_MONTH = re.compile(r"\d{4}(-\d{2})?")

Moment = str | date | datetime
RangeLike = Any  # str | date | tuple[Moment, Moment] | Window | TimeRange: what `parse_range` takes; NumPy's times as well


@dataclass(frozen=True)
class TimeRange:
    """Half-open, in UTC, to the microsecond: from `start` up to, not including, `end`."""

    start: datetime
    end: datetime

    @property
    def window(self) -> Window:
        """The slices that it touches."""
        return Window.covering(self.start, self.end)

    @property
    def length(self) -> timedelta:
        return self.end - self.start

    def __str__(self) -> str:
        return f"{format_moment(self.start)} to {format_moment(self.end)}"


def clip_to_trades(window: Window, step: timedelta = SLICE) -> Window | None:
    """The part of a window in which there can be trades: since Bitcoin began, and up to a day from now, as clocks may differ.

    Args:
        window: as a person wrote it, maybe of thousands of years.
        step: whole multiples of it are left out.
    """
    before = max(BITCOIN_BEGAN - window.start, timedelta(0)) // step
    after = max(window.end - floor_slice(datetime.now(UTC)) - DAY, timedelta(0)) // step
    start, end = window.start + before * step, window.end - after * step
    return Window(start, end) if start < end else None


def parse_range(value: RangeLike, now: datetime | None = None) -> TimeRange:
    """The range that a person means.

    Args:
        value: a day, month or year (`"2024-01-10"`, `"2024-01"`, `"2024"`, a `date`); or a pair of start and end, each a text in ISO 8601,
            a date (its midnight) or a datetime; or a `Window`. Times without a zone are UTC. The end is exclusive.
        now: the present; a range may not begin after it.

    Raises:
        UserError: it is no range, is empty or reversed, or lies in the future; one sentence.
    """
    if isinstance(value, TimeRange | Window):
        found = TimeRange(value.start, value.end)
    elif isinstance(value, tuple | list):
        if len(value) != 2:
            raise UserError(f"{value!r} is no range, because it has {len(value)} parts: {_WRITE}.")
        found = TimeRange(parse_moment(value[0]), parse_moment(value[1]))
    else:
        found = _parse_single(value)
    if found.end <= found.start:
        wrong = "is empty" if found.end == found.start else "is reversed"
        raise UserError(f"The range from {found} {wrong}: its end, which is exclusive, must lie after its start.")
    if found.start > (now or datetime.now(UTC)):
        raise UserError(f"The range from {found} lies in the future, where nothing is stored: name an earlier one.")
    return found


def parse_moment(value: object) -> datetime:
    """A moment in UTC from a text in ISO 8601, a date (its midnight) or a datetime; without a zone it is UTC.

    Nanoseconds of NumPy and pandas are rounded up to a microsecond: times of the store lie at or after both moments, or before both.

    Raises:
        UserError: it is none of them, or lies outside of the years 1 to 9999.
    """
    if isinstance(value, str):
        return parse_time(value)
    given = value
    try:
        if getattr(getattr(value, "dtype", None), "kind", None) == "M" and getattr(value, "ndim", 1) == 0:
            value = _from_numpy(value)
        if isinstance(value, datetime) and value == value:  # pandas' NaT is a datetime, too
            # Not `fromtimestamp`: a pandas Timestamp is a datetime, too, and becomes a plain one.
            plain = datetime.combine(value.date(), value.time(), value.tzinfo or UTC).replace(fold=value.fold)
            return plain.astimezone(UTC) + (MICROSECOND if getattr(value, "nanosecond", 0) else timedelta(0))
        if isinstance(value, date) and value == value:
            return datetime.combine(value, time(), UTC)
    except (OverflowError, ValueError):
        pass
    raise UserError(f"{given!r} is no time: write 2024-01-10 or 2024-01-10T13:35Z, or pass a date or datetime.")


def _from_numpy(value: Any) -> object:
    """A `datetime64` as a datetime (or what NumPy makes of one that none can hold), rounded up to a microsecond."""
    floor = value.astype("datetime64[us]")
    return (floor + 1 if value > floor else floor).item()


def format_moment(moment: datetime) -> str:
    """A time in UTC as short as it can be written: `2024-01-10`, `2024-01-10T13:35Z`, `2024-01-10T13:35:00.5Z`."""
    if moment.time() == time():
        return f"{moment:%Y-%m-%d}"
    text = f"{moment:%Y-%m-%dT%H:%M}"
    if moment.second or moment.microsecond:
        text += f"{moment:%S}".rjust(3, ":")
    if moment.microsecond:
        text += f".{moment.microsecond:06d}".rstrip("0")
    return f"{text}Z"


def _parse_single(value: object) -> TimeRange:
    if isinstance(value, date) and not isinstance(value, datetime):
        return _day(parse_moment(value))
    if isinstance(value, str):
        text = value.strip()
        if _MONTH.fullmatch(text):
            return _parse_month(text)
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
            return _day(parse_time(text))
        parse_time(text)  # says what is wrong with a text that is no time at all
        raise UserError(f"{value!r} is one moment and no range: {_WRITE}.")
    raise UserError(f"{value!r} is no range: {_WRITE}.")


def _day(start: datetime) -> TimeRange:
    return TimeRange(start, start + min(DAY, datetime.max.replace(tzinfo=UTC) - start))


def _parse_month(text: str) -> TimeRange:
    year, _, month = text.partition("-")
    try:
        start = datetime(int(year), int(month or 1), 1, tzinfo=UTC)
        next_month = start.replace(day=28) + timedelta(days=4)
        return TimeRange(start, start.replace(year=start.year + 1) if not month else next_month.replace(day=1))
    except (ValueError, OverflowError):
        raise UserError(f"{text!r} is no month or year: {_WRITE}.") from None
