"""The candles of a slice and of its neighbors side by side, with what came next, as a PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg

from btc_assets.domain.slices import SLICE
from btc_assets.market_data.plot import DOWN, UP
from btc_assets.signals.features.bars import CHANNELS, STEPS
from btc_assets.signals.features.grid import STEP_US
from btc_assets.signals.search.similar import Neighbor
from btc_assets.store.errors import server_errors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ACROSS = 4
_COLUMNS_OF_GRID = 12  # divisible by every number of pictures in a row
_VOLUME_COLOR, _NEXT_COLOR = "#9aa5b1", "#f4f1e8"
_COLUMNS = {channel.name: column for column, channel in enumerate(CHANNELS)}
_SECONDS = STEP_US / 1e6

_SLICES = """
SELECT bucket_5m, bars::real[], CASE WHEN volume > 0 THEN ln(quote_volume / volume) + close_to_vwap - log_return END
FROM signals.slice_features WHERE symbol = %s AND bucket_5m = ANY(%s)
"""


@dataclass(frozen=True)
class SlicePicture:
    """One slice to draw, with the slice after it.

    Attributes:
        title: above it.
        bars: float32 [60, 16] in the order of `CHANNELS`.
        next_bars: those of the next slice; None if it is not stored or has no trade.
        step: log of the first price of the next slice over that of this one.
    """

    title: str
    bars: np.ndarray
    next_bars: np.ndarray | None = None
    step: float = 0.0

    def channel(self, name: str) -> np.ndarray:
        """One channel of the bars of both slices, [60] or [120]."""
        both = [self.bars] if self.next_bars is None else [self.bars, self.next_bars]
        return np.concatenate([bars[:, _COLUMNS[name]] for bars in both])

    @cached_property
    def prices(self) -> dict[str, np.ndarray]:
        """open, high, low and close in basis points from the first price of the slice, each [60] or [120]."""
        close = self.channel("close").astype(float)
        close[STEPS:] += self.step
        before = close - self.channel("log_return")
        return {
            "open": 1e4 * before,
            "close": 1e4 * close,
            "high": 1e4 * (before + self.channel("high")),
            "low": 1e4 * (before + self.channel("low")),
        }


def read_slice_pictures(connection: psycopg.Connection, query: datetime, found: Sequence[Neighbor]) -> list[SlicePicture]:
    """The query, then its neighbors. Their bars are stored with their features, so they can be drawn after the ticks are dropped."""
    symbol = found[0].symbol
    buckets = [query, *(one.bucket_5m for one in found)]
    with server_errors(), connection.transaction():
        rows = connection.execute(_SLICES, (symbol, [*buckets, *(bucket + SLICE for bucket in buckets)])).fetchall()
    bars = {bucket: np.array(channels, np.float32).reshape(STEPS, len(CHANNELS)) for bucket, channels, _ in rows}
    first = {bucket: price for bucket, _, price in rows if price is not None}  # log of the first price
    titles = {query: f"{symbol} {query:%Y-%m-%d %H:%M} UTC"} | {
        one.bucket_5m: f"{one.bucket_5m:%Y-%m-%d %H:%M} UTC, distance {one.distance:.3f}" for one in found
    }

    def draw(bucket: datetime, title: str) -> SlicePicture:
        after = bucket + SLICE
        if bucket not in first or after not in first:
            return SlicePicture(title, bars[bucket])
        return SlicePicture(title, bars[bucket], bars[after], first[after] - first[bucket])

    return [draw(bucket, title) for bucket, title in titles.items() if bucket in bars]


def plot_slices(pictures: Sequence[SlicePicture], *, generated: bool = False) -> bytes:
    """The bytes of a PNG; see `draw_slices`."""
    buffer = io.BytesIO()
    draw_slices(pictures, generated=generated).savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def draw_slices(pictures: Sequence[SlicePicture], *, generated: bool = False) -> Figure:
    """Draw 5-second candles of slices and, on a colored ground, of the slices after them; below, their volume; all on the same scales.

    Prices are in basis points from the first price of each slice.

    Args:
        pictures: the query first; at least one.
        generated: whether the picture says that the trades are.
    """
    from matplotlib.figure import Figure  # without pyplot: no global state, no display

    rows = list(_rows(len(pictures)))
    figure = Figure(figsize=(4.2 * max(rows), 3.3 * len(rows)), layout="constrained")
    for (prices, volumes, first), picture in zip(_axes(figure, rows), pictures, strict=True):
        _draw_prices(prices, picture)
        _draw_volumes(volumes, picture)
        prices.set_title(picture.title, fontsize=9, fontweight="bold" if picture is pictures[0] else "normal")
        prices.tick_params(labelbottom=False, labelleft=first)
        volumes.tick_params(labelleft=first)
        if first:
            volumes.set_ylabel("volume", fontsize=8)
    volumes.set_ylim(0, 1.05 * max(float(picture.channel("volume").max()) for picture in pictures) or 1.0)  # of all, which share it
    figure.supxlabel(
        f"seconds since the start of the slice; the shaded half is the slice after it{'; generated trades' * generated}", fontsize=9
    )
    figure.supylabel(f"basis points from its first price; volume in base units in {_SECONDS:g} s", fontsize=9)
    return figure


def _rows(count: int) -> Iterator[int]:
    """How many pictures each row holds: as even as can be, so that no place is empty."""
    down = math.ceil(count / _ACROSS)
    for row in range(down):
        yield count // down + (row < count % down)


def _axes(figure: Figure, rows: Sequence[int]) -> Iterator[tuple[Axes, Axes, bool]]:
    """For each picture, the axes of its prices and of its volumes, all with the same scales, and whether it is the first of its row."""
    grid = figure.add_gridspec(2 * len(rows), _COLUMNS_OF_GRID, height_ratios=[3, 1] * len(rows))
    shared: tuple[Any, Any] = (None, None)
    for row, count in enumerate(rows):
        width = _COLUMNS_OF_GRID // count
        for place in range(count):
            across = slice(place * width, (place + 1) * width)
            prices = figure.add_subplot(grid[2 * row, across], sharex=shared[0], sharey=shared[0])
            volumes = figure.add_subplot(grid[2 * row + 1, across], sharex=prices, sharey=shared[1])
            shared = shared if shared[0] else (prices, volumes)
            yield prices, volumes, place == 0


def _draw_prices(axes: Axes, picture: SlicePicture) -> None:
    price, traded = picture.prices, picture.channel("trade_count") > 0
    colors = np.where(price["close"] >= price["open"], UP, DOWN)
    at = _middles(picture)
    axes.vlines(at[traded], price["low"][traded], price["high"][traded], colors=colors[traded].tolist(), linewidth=0.7)
    least = float(np.ptp([price["low"], price["high"]])) / 300  # so that an empty body can be seen
    bodies = np.maximum(np.abs(price["close"] - price["open"]), least) * traded
    axes.bar(at, bodies, 0.8 * _SECONDS, np.minimum(price["open"], price["close"]), color=colors.tolist())
    _shade_next(axes)
    if picture.next_bars is None:
        middle = 1.5 * STEPS * _SECONDS
        axes.text(middle, 0.5, "no trades stored", transform=axes.get_xaxis_transform(), ha="center", color="grey", fontsize=8)


def _draw_volumes(axes: Axes, picture: SlicePicture) -> None:
    axes.bar(_middles(picture), picture.channel("volume"), 0.8 * _SECONDS, color=_VOLUME_COLOR)
    _shade_next(axes)


def _middles(picture: SlicePicture) -> np.ndarray:
    return (np.arange(len(picture.prices["close"])) + 0.5) * _SECONDS


def _shade_next(axes: Axes) -> None:
    end = STEPS * _SECONDS
    axes.set_xlim(0, 2 * end)
    axes.set_xticks([0, end / 2, end, 1.5 * end, 2 * end])
    axes.axvspan(end, 2 * end, color=_NEXT_COLOR, zorder=0)
    axes.grid(alpha=0.25)
