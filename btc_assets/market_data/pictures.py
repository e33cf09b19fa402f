"""Pictures for the UI, drawn as SVG: what a range of ticks holds and lacks, and its candles.

Small and quick on purpose, for they are made in every run and kept in the event log; importing matplotlib alone would cost
a run half a second. The colours are legible on light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from btc_assets.domain.slices import DAY, EPOCH, MICROSECOND, SLICE, Window, to_microseconds
from btc_assets.domain.ticks import int64
from btc_assets.market_data.candles import COLUMNS, WIDTHS
from btc_assets.market_data.continuity import Gap

_WIDTH, _LEFT, _RIGHT, _BOTTOM = 960, 12, 78, 22  # pixels; the right margin holds the labels
_UP, _DOWN, _VOLUME, _AMISS, _TEXT = "#26a269", "#d73027", "#5b8def", "#e5484d", "#808b98"
_STEPS = [timedelta(seconds=s) for s in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)]
_STEPS += [DAY * days for days in (2, 7, 14, 28, 91, 364, 1820)]


def step_for(span: timedelta, most: int) -> timedelta:
    """The smallest round step that divides `span` into at most `most` parts."""
    return next((step for step in _STEPS if span <= step * most), _STEPS[-1])


@dataclass(frozen=True)
class _Axes:
    """Where times and values lie in a picture."""

    window: Window
    low: float
    high: float
    top: int
    height: int

    def x(self, time: datetime) -> float:
        return round(_LEFT + (time - self.window.start) / (self.window.end - self.window.start) * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        return round(self.height - _BOTTOM - (value - self.low) / (self.high - self.low) * (self.height - self.top - _BOTTOM), 1)

    def times(self) -> Iterator[str]:
        step = step_for(self.window.end - self.window.start, 10)
        time = self.window.start + (EPOCH - self.window.start) % step
        while time <= self.window.end:
            text = (
                f"{time:%b %d}"
                if (time - EPOCH) % DAY == timedelta(0)
                else f"{time:%H:%M}"
                if step.seconds % 60 == 0
                else f"{time:%H:%M:%S}"
            )
            if _LEFT + 14 <= (x := self.x(time)) <= _WIDTH - 20:
                yield f'<text x="{x}" y="{self.height - 6}" text-anchor="middle">{text}</text>'
            yield f'<path d="M{x} {self.top}V{self.height - _BOTTOM}" stroke="{_TEXT}" stroke-opacity=".15"/>'
            time += step

    def values(self, most: int) -> Iterator[str]:
        rough = (self.high - self.low) / most
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
        digits = max(0, -math.floor(math.log10(step)))
        for number in range(math.ceil(self.low / step), math.floor(self.high / step) + 1):
            y = self.y(number * step)
            yield f'<path d="M{_LEFT} {y}H{_WIDTH - _RIGHT}" stroke="{_TEXT}" stroke-opacity=".25"/>'
            yield f'<text x="{_WIDTH - _RIGHT + 6}" y="{round(y + 4, 1)}">{number * step:,.{digits}f}</text>'


def _svg(height: int, title: str, parts: Iterable[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'font-family="Inter,Helvetica,Arial,sans-serif" font-size="12" fill="{_TEXT}">'
        f'<text x="{_LEFT}" y="17" font-size="13">{title}</text>{"".join(parts)}</svg>'
    )


def _range(window: Window) -> str:
    end = f"{window.end:%H:%M}" if window.end.date() == window.start.date() else f"{window.end:%Y-%m-%d %H:%M}"
    return f"{window.start:%Y-%m-%d %H:%M} to {end} UTC"


def _sticks(lines: Iterable[tuple[float, float, float]], color: str, width: float) -> str:
    """Vertical lines (x, top, bottom) as one path.

    In tenths of a pixel, and each from where the last one ended, which makes it a third shorter.
    """
    path, at_x, at_y = [], 0, 0
    for line in lines:
        x, top, bottom = (round(10 * value) for value in line)
        path.append(f"m{x - at_x} {top - at_y}v{bottom - top}")
        at_x, at_y = x, bottom
    return f'<path transform="scale(.1)" d="{"".join(path)}" stroke="{color}" stroke-width="{round(10 * width)}"/>' if path else ""


class VolumeStrips:
    """Volume of a window in at most 300 bars, collected as its ticks are written, for each symbol apart."""

    def __init__(self, window: Window, symbols: Iterable[str]) -> None:
        self._window = window
        self._width = step_for(window.end - window.start, 300)
        bars = -(-(window.end - window.start) // self._width)
        self._volume = {symbol: np.zeros(bars) for symbol in symbols}
        self._trades = {symbol: np.zeros(len(window), np.int64) for symbol in symbols}

    def add(self, ticks: pa.Table) -> None:
        """Count ticks of the window."""
        offset = int64(ticks["event_time"]) - to_microseconds(self._window.start)
        volume = pc.cast(ticks["quantity"], pa.float64()).to_numpy()
        for symbol, bars in self._volume.items():
            own = pc.equal(ticks["symbol"], symbol).to_numpy()
            times = offset if own.all() else offset[own]
            bars += np.bincount(times // (self._width // MICROSECOND), volume if own.all() else volume[own], len(bars))
            self._trades[symbol] += np.bincount(times // (SLICE // MICROSECOND), minlength=len(self._window))

    def draw(self, gaps: Sequence[Gap]) -> dict[str, str]:
        """An SVG of each symbol, with what is missing in red."""
        return {symbol: self._draw(symbol, [gap for gap in gaps if gap.symbol == symbol]) for symbol in self._volume}

    def _draw(self, symbol: str, gaps: Sequence[Gap]) -> str:
        volume, trades = self._volume[symbol], self._trades[symbol]
        axes = _Axes(self._window, 0.0, float(volume.max()) or 1.0, 52, 188)
        base, last = axes.height - _BOTTOM, self._window.end
        bar = (_WIDTH - _LEFT - _RIGHT) * (self._width / (last - self._window.start))
        starts = (self._window.start + i * self._width for i in range(len(volume)))
        bars = [(axes.x(start) + bar / 2, min(axes.y(v), base - 1), base) for start, v in zip(starts, volume.tolist(), strict=True) if v]
        # Where a bar is more than a slice, one empty slice shades all of it, so that it is seen, and the picture stays small.
        unit = max(self._width, SLICE)
        empty = "".join(
            f"M{axes.x(start)} {axes.top}H{axes.x(min(end, last))}V{base}H{axes.x(start)}Z"
            for start, end in _runs(self._window.start, unit, np.flatnonzero(trades == 0) // (unit // SLICE))
        )
        places = sorted({(gap.after - self._window.start) // unit for gap in gaps})
        marks = "".join(f"M{axes.x(self._window.start + place * unit)} {axes.top - 2}l-5 -9h10z" for place in places)
        amiss = [*_empty_text(int((trades == 0).sum())), *_gap_text(gaps)]
        title = f"{escape(symbol)}, volume, {_range(self._window)}: {int(trades.sum()):,} trades, {volume.sum():,.2f} traded"
        told = f'<tspan fill="{_AMISS}">{", ".join(amiss)}</tspan>' if amiss else "nothing is missing"
        return _svg(
            axes.height,
            title,
            [
                f'<text x="{_LEFT}" y="35">{told}</text>',
                *axes.times(),
                *axes.values(4),
                f'<path d="{empty}" fill="{_AMISS}" fill-opacity=".3"/>',
                _sticks(bars, _VOLUME, max(bar * 0.8, 0.8)),
                f'<path d="{marks}" fill="{_AMISS}"/>',
            ],
        )


def _runs(start: datetime, unit: timedelta, numbers: np.ndarray) -> Iterator[tuple[datetime, datetime]]:
    """Units of time that follow each other, by their ascending numbers since `start`, as one span."""
    for run in np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1):
        if len(run):
            yield start + int(run[0]) * unit, start + (int(run[-1]) + 1) * unit


def _empty_text(count: int) -> Iterator[str]:
    if count:
        yield f"{count:,} slice{'s' * (count != 1)} without trades (shaded)"


def _gap_text(gaps: Sequence[Gap]) -> Iterator[str]:
    if gaps:
        yield f"{sum(gap.missing for gap in gaps):,} trade ids missing before ▼"


def draw_candles(rows: Sequence[tuple[Any, ...]], interval: str, symbol: str, window: Window) -> str:
    """Candles as an SVG.

    Args:
        rows: as `candles.read` gives them; at least one.
        interval: a key of `candles.WIDTHS`.
        symbol: for the title.
        window: what the picture spans; a candle that is missing in it leaves its place empty.
    """
    at = {name: COLUMNS.index(name) for name in COLUMNS}
    high, low = float(max(row[at["high"]] for row in rows)), float(min(row[at["low"]] for row in rows))
    room = (high - low) * 0.04 or max(abs(high) * 0.001, 0.01)  # of a constant price, too
    axes = _Axes(window, low - room, high + room, 34, 320)
    width = (_WIDTH - _LEFT - _RIGHT) * (WIDTHS[interval] / (window.end - window.start))
    wicks: dict[str, list[tuple[float, float, float]]] = {_UP: [], _DOWN: []}
    bodies: dict[str, list[tuple[float, float, float]]] = {_UP: [], _DOWN: []}
    for row in rows:
        open_, close, top, bottom = (axes.y(float(row[at[name]])) for name in ("open", "close", "high", "low"))
        color = _UP if row[at["close"]] >= row[at["open"]] else _DOWN
        x = axes.x(row[at["bucket"]]) + width / 2
        if bottom - top > abs(open_ - close):
            wicks[color].append((x, top, bottom))
        bodies[color].append((x, min(open_, close), max(open_, close, min(open_, close) + 1)))  # one without a body is still seen
    paths = [_sticks(lines, color, 1) for color, lines in wicks.items()]
    paths += [_sticks(lines, color, min(max(width * 0.75, 0.8), 40)) for color, lines in bodies.items()]
    first, last = rows[0][at["open"]], rows[-1][at["close"]]
    change = f"{first.normalize():,f} to {last.normalize():,f} ({float(last / first - 1):+.2%})"
    title = f"{escape(symbol)}, {interval} candles, {_range(window)}: {len(rows):,} of them, {change}"
    return _svg(axes.height, title, [*axes.times(), *axes.values(8), *paths])
