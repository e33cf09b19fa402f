"""The drawing of charts as SVG text: axes of time and value, vertical lines, and the document around them.

Drawn without matplotlib, because every run draws charts and importing matplotlib alone would add half a second to it. The colors are
legible on light and dark backgrounds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from btc_assets.domain.slices import DAY, EPOCH, Window

WIDTH, LEFT, RIGHT, BOTTOM = 960, 12, 78, 22  # pixels; the right margin holds the labels of values
TEXT_COLOR = "#808b98"
_STEPS = [timedelta(seconds=s) for s in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)]
_STEPS += [DAY * days for days in (2, 7, 14, 28, 91, 364, 1820)]

Stick = tuple[float, float, float]  # x, top and bottom of a vertical line, in pixels


def step_for(span: timedelta, most: int) -> timedelta:
    """The smallest round step that divides `span` into at most `most` parts."""
    return next((step for step in _STEPS if span <= step * most), _STEPS[-1])


@dataclass(frozen=True)
class Axes:
    """Where times and values lie in a chart.

    Attributes:
        window: the times from the left to the right margin.
        low, high: the values at the bottom and at the top.
        top, height: of the plotting area and of the chart, in pixels.
    """

    window: Window
    low: float
    high: float
    top: int
    height: int

    @property
    def base(self) -> int:
        """y of the lowest value."""
        return self.height - BOTTOM

    def x(self, time: datetime) -> float:
        return round(LEFT + (time - self.window.start) / (self.window.end - self.window.start) * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        return round(self.base - (value - self.low) / (self.high - self.low) * (self.height - self.top - BOTTOM), 1)

    def width(self, span: timedelta) -> float:
        """Pixels of a span of time."""
        return (WIDTH - LEFT - RIGHT) * (span / (self.window.end - self.window.start))

    def times(self) -> Iterator[str]:
        """Labels of times, with a vertical grid."""
        step = step_for(self.window.end - self.window.start, 10)
        time = self.window.start + (EPOCH - self.window.start) % step
        while time <= self.window.end:
            if LEFT + 14 <= (x := self.x(time)) <= WIDTH - 20:
                yield f'<text x="{x}" y="{self.height - 6}" text-anchor="middle">{_time_label(time, step)}</text>'
            yield f'<path d="M{x} {self.top}V{self.base}" stroke="{TEXT_COLOR}" stroke-opacity=".15"/>'
            time += step

    def values(self, most: int) -> Iterator[str]:
        """At most about `most` labels of values, with a horizontal grid."""
        rough = (self.high - self.low) / most
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
        digits = max(0, -math.floor(math.log10(step)))
        for number in range(math.ceil(self.low / step), math.floor(self.high / step) + 1):
            y = self.y(number * step)
            yield f'<path d="M{LEFT} {y}H{WIDTH - RIGHT}" stroke="{TEXT_COLOR}" stroke-opacity=".25"/>'
            yield f'<text x="{WIDTH - RIGHT + 6}" y="{round(y + 4, 1)}">{number * step:,.{digits}f}</text>'


def _time_label(time: datetime, step: timedelta) -> str:
    if (time - EPOCH) % DAY == timedelta(0):
        return f"{time:%b %d}"
    return f"{time:%H:%M}" if step.seconds % 60 == 0 else f"{time:%H:%M:%S}"


def document(height: int, title: str, parts: Iterable[str]) -> str:
    """A chart with its title, which must be escaped."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="Inter,Helvetica,Arial,sans-serif" font-size="12" fill="{TEXT_COLOR}">'
        f'<text x="{LEFT}" y="17" font-size="13">{title}</text>{"".join(parts)}</svg>'
    )


def sticks(lines: Iterable[Stick], color: str, width: float) -> str:
    """Vertical lines as one path; empty without lines.

    Coordinates are in tenths of a pixel and relative to the end of the line before, which makes the path a third shorter.
    """
    path, at_x, at_y = [], 0, 0
    for line in lines:
        x, top, bottom = (round(10 * value) for value in line)
        path.append(f"m{x - at_x} {top - at_y}v{bottom - top}")
        at_x, at_y = x, bottom
    return f'<path transform="scale(.1)" d="{"".join(path)}" stroke="{color}" stroke-width="{round(10 * width)}"/>' if path else ""
