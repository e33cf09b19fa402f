"""A calendar of days: weeks across, weekdays down, as for a year of contributions; how each day is marked, and the picture.

Every mark has a letter besides its color, for who sees no colors, and for terminals without them.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_YEAR_WEEKS = 54  # a year touches so many weeks at most
_FEWEST_WEEKS = 26  # as wide as a title and a legend need


@dataclass(frozen=True)
class Mark:
    """How a day is shown: what it is, a letter, and colors of the picture and of the terminal."""

    word: str
    letter: str
    color: str
    style: str


# By the states of `ClientStore.coverage`.
MARKS = {
    mark.word: mark
    for mark in (
        Mark("complete", ".", "#2a9d8f", "black on green"),
        Mark("dropped", "D", "#8d99ae", "black on bright_black"),
        Mark("partial", "/", "#a8dadc", "black on cyan"),
        Mark("pending", "P", "#f3b61f", "black on yellow"),
        Mark("gaps", "G", "#e4572e", "bold white on red"),
        Mark("rejected", "R", "#b5179e", "bold white on magenta"),
        Mark("nothing", " ", "#e9ecef", ""),
    )
}


@dataclass(frozen=True)
class Calendar:
    """The days of one symbol.

    Attributes:
        symbol: its label.
        first, last: the days that are shown; both are.
        words: for each day of which something is known, the word of its mark.
    """

    symbol: str
    first: date
    last: date
    words: Mapping[date, str]

    @property
    def weeks(self) -> int:
        """Number of weeks, from that of the first day to that of the last."""
        return self.place(self.last)[0] + 1

    def place(self, day: date) -> tuple[int, int]:
        """The week of a day, counted from that of the first day, and its weekday, from Monday as 0."""
        return (day - self.first + timedelta(self.first.weekday())).days // 7, day.weekday()

    def __contains__(self, day: date) -> bool:
        return self.first <= day <= self.last

    def days(self) -> Iterator[tuple[date, Mark]]:
        """Each day and its mark."""
        for number in range((self.last - self.first).days + 1):
            day = self.first + timedelta(number)
            yield day, MARKS[self.words.get(day, "nothing")]

    def counts(self) -> dict[Mark, int]:
        """How many days have each mark, without those that none has."""
        marks = [mark for _, mark in self.days()]
        return {mark: marks.count(mark) for mark in MARKS.values() if mark in marks}

    def months(self) -> dict[int, str]:
        """For each week in which a month begins, the month's name; for the first week as well, if the next name leaves room."""
        begun = {self.place(day)[0]: f"{day:%b}" for day, _ in self.days() if day.day == 1}
        return begun if min(begun, default=2) < 2 else {0: f"{self.first:%b}"} | begun

    def years(self) -> list[Calendar]:
        """The calendar itself, or if it is longer than a year, one for each year."""
        if self.weeks <= _YEAR_WEEKS:
            return [self]
        years = range(self.first.year, self.last.year + 1)
        return [Calendar(self.symbol, max(self.first, date(year, 1, 1)), min(self.last, date(year, 12, 31)), self.words) for year in years]


def format_days(count: int) -> str:
    """`1 day`, `2 days`."""
    return f"{count:,} day{'s' if count != 1 else ''}"


def plot_calendars(calendars: list[Calendar]) -> bytes:
    """Draw calendars, one below the other, with one legend.

    Args:
        calendars: of several symbols, or of several years; at least one.

    Returns:
        The bytes of a PNG.
    """
    from matplotlib.figure import Figure  # without pyplot: no global state, no display

    parts = [part for calendar in calendars for part in calendar.years()]
    weeks = max(_FEWEST_WEEKS, *(part.weeks for part in parts))
    figure = Figure(figsize=(1.2 + 0.21 * weeks, 0.8 + 2.15 * len(parts)), layout="constrained")
    for axes, part in zip(figure.subplots(len(parts), 1, squeeze=False)[:, 0], parts, strict=True):
        _draw(axes, part, weeks)
    _draw_legend(figure, calendars)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _draw(axes: Any, calendar: Calendar, weeks: int) -> None:
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    squares, colors = [], []
    for day, mark in calendar.days():
        week, weekday = calendar.place(day)
        squares.append(Rectangle((week - 0.45, weekday - 0.45), 0.9, 0.9))
        colors.append(mark.color)
        if mark.letter not in " .":
            ink = "white" if "white" in mark.style else "black"
            axes.text(week, weekday, mark.letter, ha="center", va="center", fontsize=6, color=ink)
    axes.add_collection(PatchCollection(squares, facecolors=colors, linewidths=0))
    axes.set_xlim(-0.6, weeks - 0.4)
    axes.set_ylim(6.6, -0.6)
    axes.set_aspect("equal", anchor="W")
    axes.set_title(f"Coverage of {calendar.symbol}, {calendar.first} to {calendar.last} (UTC)", loc="left", fontsize=10)
    months = calendar.months()
    axes.set_xticks(list(months), list(months.values()), fontsize=8, ha="left")
    axes.set_yticks(range(7), WEEKDAYS, fontsize=7)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)


def _draw_legend(figure: Any, calendars: list[Calendar]) -> None:
    from matplotlib.patches import Patch

    totals: dict[Mark, int] = {}
    for calendar in calendars:
        for mark, count in calendar.counts().items():
            totals[mark] = totals.get(mark, 0) + count
    handles = [
        Patch(
            facecolor=mark.color, label=f"{mark.word}{f' ({mark.letter})' if mark.letter not in ' .' else ''}: {format_days(totals[mark])}"
        )
        for mark in MARKS.values()
        if mark in totals
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=min(len(handles), 3), frameon=False, fontsize=8)
