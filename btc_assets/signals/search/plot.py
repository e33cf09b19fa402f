"""The candles of a slice and of its neighbors side by side, as a PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import psycopg

from btc_assets.market_data.plot import DOWN, UP
from btc_assets.signals.features.bars import CHANNELS, STEPS
from btc_assets.signals.search.similar import Neighbor
from btc_assets.store.errors import server_errors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ACROSS = 4
_VOLUME_COLOR = "#9aa5b1"
_COLUMNS = {channel.name: column for column, channel in enumerate(CHANNELS)}


@dataclass(frozen=True)
class SlicePicture:
    """One slice to draw: its title, and its bars as float32 [60, 16] in the order of `CHANNELS`."""

    title: str
    bars: np.ndarray

    def channel(self, name: str) -> np.ndarray:
        """One channel of the bars, [60]."""
        return self.bars[:, _COLUMNS[name]]

    @cached_property
    def prices(self) -> dict[str, np.ndarray]:
        """open, high, low and close in basis points from the first price of the slice, each [60]."""
        close = self.channel("close")
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
    with server_errors(), connection.transaction():
        rows = connection.execute(
            "SELECT bucket_5m, bars::real[] FROM signals.slice_features WHERE symbol = %s AND bucket_5m = ANY(%s)",
            (symbol, [query, *(one.bucket_5m for one in found)]),
        ).fetchall()
    bars = {bucket: np.array(channels, np.float32).reshape(STEPS, len(CHANNELS)) for bucket, channels in rows}
    titles = {query: f"{symbol} {query:%Y-%m-%d %H:%M}"} | {
        one.bucket_5m: f"{one.bucket_5m:%Y-%m-%d %H:%M}, distance {one.distance:.3f}" for one in found
    }
    return [SlicePicture(title, bars[bucket]) for bucket, title in titles.items() if bucket in bars]


def plot_slices(pictures: Sequence[SlicePicture]) -> bytes:
    """Draw 5-second candles of slices, in basis points from the first price of each, above their volume; all on one scale.

    Args:
        pictures: the query first; at least one.

    Returns:
        The bytes of a PNG.
    """
    from matplotlib.figure import Figure  # without pyplot: no global state, no display

    down = math.ceil(len(pictures) / _ACROSS)
    figure = Figure(figsize=(3.4 * min(len(pictures), _ACROSS), 2.6 * down), layout="constrained")
    grid = list(figure.subplots(down, min(len(pictures), _ACROSS), sharex=True, sharey=True, squeeze=False).flat)
    scale = _Scale.of(pictures)
    for axes, picture in zip(grid, pictures, strict=False):
        _draw_slice(axes, picture, scale)
        axes.set_title(picture.title, fontsize=9, fontweight="bold" if picture is pictures[0] else "normal")
    for axes in grid[len(pictures) :]:
        axes.set_visible(False)
    figure.supxlabel("seconds of the slice", fontsize=9)
    figure.supylabel("basis points from its first price", fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


@dataclass(frozen=True)
class _Scale:
    """The common scale of all pictures: lowest price and span of prices in basis points, and the largest volume of a bar."""

    low: float
    span: float
    volume: float

    @classmethod
    def of(cls, pictures: Sequence[SlicePicture]) -> _Scale:
        low = min(float(one.prices["low"].min()) for one in pictures)
        high = max(float(one.prices["high"].max()) for one in pictures)
        return cls(low, max(high - low, 1e-9), max(float(one.channel("volume").max()) for one in pictures) or 1.0)


def _draw_slice(axes: Axes, picture: SlicePicture, scale: _Scale) -> None:
    at = np.arange(STEPS) * 5 + 2.5
    price = picture.prices
    colors = np.where(price["close"] >= price["open"], UP, DOWN)
    traded = picture.channel("trade_count") > 0
    axes.vlines(at[traded], price["low"][traded], price["high"][traded], colors=colors[traded].tolist(), linewidth=0.7)
    bodies = np.maximum(np.abs(price["close"] - price["open"]), scale.span / 300) * traded
    axes.bar(at, bodies, 4, np.minimum(price["open"], price["close"]), color=colors.tolist())
    axes.bar(at, 0.25 * scale.span * picture.channel("volume") / scale.volume, 4, scale.low - 0.3 * scale.span, color=_VOLUME_COLOR)
    axes.grid(alpha=0.25)
