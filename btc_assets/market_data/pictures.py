"""Pictures for the UI: the volume of a range of ticks with what is missing, and candles. Small, because the event log keeps them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc

from btc_assets.domain.slices import MICROSECOND, SLICE, Window, to_microseconds
from btc_assets.domain.ticks import int64, market_trades
from btc_assets.market_data.candles import COLUMNS, INTERVALS, WIDTHS
from btc_assets.market_data.continuity import Gap
from btc_assets.market_data.svg import LEFT, Axes, Stick, document, step_for, sticks
from btc_assets.store.errors import server_errors

_UP, _DOWN, _VOLUME, _MISSING = "#26a269", "#d73027", "#5b8def", "#e5484d"
_MOST_BARS = 300
MOST_PICTURED = 8  # symbols, the first of the feeds: a picture takes some 20 kB, in the event log of every run


class VolumeStrips:
    """The volume of a window in at most 300 bars for each symbol, collected while its ticks are written.

    Args:
        window: the slices.
        symbols: labels; ticks of other symbols are not counted.
    """

    def __init__(self, window: Window, symbols: Iterable[str]) -> None:
        self._window = window
        self._width = step_for(window.end - window.start, _MOST_BARS)
        bars = -(-(window.end - window.start) // self._width)
        self._volume = {symbol: np.zeros(bars) for symbol in symbols}
        self._trades = {symbol: np.zeros(len(window), np.int64) for symbol in self._volume}

    @classmethod
    def of_candles(cls, connection: psycopg.Connection, window: Window, symbols: Iterable[str]) -> VolumeStrips:
        """The same from candles, by trade time: of any window at once, also after its ticks were dropped."""
        strips = cls(window, symbols)
        level = max((one for one, width in INTERVALS.items() if width <= SLICE and not strips._width % width), key=INTERVALS.__getitem__)
        with server_errors(), connection.transaction():
            for interval, width, figure in ((level, strips._width, "volume"), ("5m", SLICE, "trade_count")):
                rows = connection.execute(
                    f"SELECT symbol, floor(extract(epoch FROM bucket - %s) / %s)::int, sum({figure})::float8 "  # noqa: S608  # names of our own
                    f"FROM market_data.candles_{interval} WHERE symbol = ANY(%s) AND bucket >= %s AND bucket < %s GROUP BY 1, 2",
                    (window.start, width.total_seconds(), list(strips._volume), window.start, window.end),
                )
                into = strips._volume if figure == "volume" else strips._trades
                for symbol, place, total in rows:
                    into[symbol][place] = total
        return strips

    @property
    def empty(self) -> bool:
        """Whether there is no trade at all."""
        return not any(trades.any() for trades in self._trades.values())

    def add(self, ticks: pa.Table) -> None:
        """Count the market trades among ticks of the window."""
        ticks = market_trades(ticks)
        offset = int64(ticks["event_time"]) - to_microseconds(self._window.start)
        volume = pc.cast(ticks["quantity"], pa.float64()).to_numpy()
        for symbol, bars in self._volume.items():
            own = pc.equal(ticks["symbol"], symbol).to_numpy()
            times = offset if own.all() else offset[own]
            bars += np.bincount(times // (self._width // MICROSECOND), volume if own.all() else volume[own], len(bars))
            self._trades[symbol] += np.bincount(times // (SLICE // MICROSECOND), minlength=len(self._window))

    def draw(self, gaps: Sequence[Gap], unjudged: Collection[str] = (), *, generated: bool = False) -> dict[str, str]:
        """An SVG for each symbol, with empty slices and gaps in red.

        Args:
            gaps: of all symbols.
            unjudged: symbols whose ids say nothing about what is missing.
            generated: whether the pictures say that the trades are.
        """
        return {
            symbol: self._draw(symbol, [gap for gap in gaps if gap.symbol == symbol], judged=symbol not in unjudged, generated=generated)
            for symbol in self._volume
        }

    def _draw(self, symbol: str, gaps: Sequence[Gap], *, judged: bool, generated: bool) -> str:
        volume, trades = self._volume[symbol], self._trades[symbol]
        axes = Axes(self._window, 0.0, float(volume.max()) or 1.0, 52, 188)
        missing = [*_empty_text(int((trades == 0).sum())), *_gap_text(gaps)]
        text = f'<tspan fill="{_MISSING}">{", ".join(missing)}</tspan>' if missing else "nothing is missing" if judged else "no empty slice"
        if not judged:
            text += "; trade ids are not judged, because the exchange skips some"
        title = f"{escape(symbol)}, volume, {_range(self._window)}: {int(trades.sum()):,} {'generated ' * generated}trades"
        title += f", {volume.sum():,.2f} base units"
        parts = [
            f'<text x="{LEFT}" y="35">{text}</text>',
            *axes.times(),
            *axes.values(4),
            f'<path d="{self._shades(axes, trades)}" fill="{_MISSING}" fill-opacity=".3"/>',
            sticks(self._bars(axes, volume), _VOLUME, max(axes.width(self._width) * 0.8, 0.8)),
            f'<path d="{self._marks(axes, gaps)}" fill="{_MISSING}"/>',
        ]
        return document(axes.height, title, parts)

    def _bars(self, axes: Axes, volume: np.ndarray) -> list[Stick]:
        middle = axes.width(self._width) / 2
        starts = (self._window.start + i * self._width for i in range(len(volume)))
        return [
            (axes.x(start) + middle, min(axes.y(value), axes.base - 1), axes.base)
            for start, value in zip(starts, volume.tolist(), strict=True)
            if value
        ]

    @property
    def _unit(self) -> timedelta:
        """What is shaded at least: if a bar is wider than a slice, one empty slice shades all of it, so that it can be seen."""
        return max(self._width, SLICE)

    def _shades(self, axes: Axes, trades: np.ndarray) -> str:
        """The path of the areas without trades."""
        runs = _runs(self._window.start, self._unit, np.flatnonzero(trades == 0) // (self._unit // SLICE))
        return "".join(
            f"M{axes.x(start)} {axes.top}H{axes.x(min(end, self._window.end))}V{axes.base}H{axes.x(start)}Z" for start, end in runs
        )

    def _marks(self, axes: Axes, gaps: Sequence[Gap]) -> str:
        """The path of the triangles above gaps."""
        places = sorted({(gap.after - self._window.start) // self._unit for gap in gaps})
        return "".join(f"M{axes.x(self._window.start + place * self._unit)} {axes.top - 2}l-5 -9h10z" for place in places)


def _runs(start: datetime, unit: timedelta, numbers: np.ndarray) -> Iterator[tuple[datetime, datetime]]:
    """Join consecutive units of time, given by their ascending numbers since `start`, into spans."""
    for run in np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1):
        if len(run):
            yield start + int(run[0]) * unit, start + (int(run[-1]) + 1) * unit


def _range(window: Window) -> str:
    end = f"{window.end:%H:%M}" if window.end.date() == window.start.date() else f"{window.end:%Y-%m-%d %H:%M}"
    return f"{window.start:%Y-%m-%d %H:%M} to {end} UTC"


def _empty_text(count: int) -> Iterator[str]:
    if count:
        yield f"{count:,} slice{'s' * (count != 1)} without trades (shaded)"


def _gap_text(gaps: Sequence[Gap]) -> Iterator[str]:
    if gaps:
        yield f"{sum(gap.missing for gap in gaps):,} trade ids missing before ▼"


def draw_candles(rows: Sequence[tuple[Any, ...]], interval: str, symbol: str, window: Window) -> str:
    """Draw candles as an SVG.

    Args:
        rows: from `read_candles_of`; at least one.
        interval: a key of `candles.WIDTHS`.
        symbol: for the title.
        window: what the picture spans; the place of a missing candle stays empty.
    """
    at = {name: COLUMNS.index(name) for name in COLUMNS}
    high, low = float(max(row[at["high"]] for row in rows)), float(min(row[at["low"]] for row in rows))
    margin = (high - low) * 0.04 or max(abs(high) * 0.001, 0.01)  # a constant price needs one too
    axes = Axes(window, low - margin, high + margin, 34, 320)
    width = axes.width(WIDTHS[interval])
    wicks: dict[str, list[Stick]] = {_UP: [], _DOWN: []}
    bodies: dict[str, list[Stick]] = {_UP: [], _DOWN: []}
    for row in rows:
        open_, close, top, bottom = (axes.y(float(row[at[name]])) for name in ("open", "close", "high", "low"))
        color = _UP if row[at["close"]] >= row[at["open"]] else _DOWN
        x = axes.x(row[at["bucket"]]) + width / 2
        if bottom - top > abs(open_ - close):
            wicks[color].append((x, top, bottom))
        bodies[color].append((x, min(open_, close), max(open_, close, min(open_, close) + 1)))  # an empty body is drawn as a pixel
    paths = [sticks(lines, color, 1) for color, lines in wicks.items()]
    paths += [sticks(lines, color, min(max(width * 0.75, 0.8), 40)) for color, lines in bodies.items()]
    first, last = rows[0][at["open"]], rows[-1][at["close"]]
    change = f"{first.normalize():,f} to {last.normalize():,f} ({float(last / first - 1):+.2%})"
    title = f"{escape(symbol)}, {interval} candles, {_range(window)}: {len(rows):,} of them, {change}"
    return document(axes.height, title, [*axes.times(), *axes.values(8), *paths])
