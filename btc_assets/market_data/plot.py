"""A candlestick chart with volume, as a PNG."""

from __future__ import annotations

import io
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from btc_assets.domain.slices import DAY

UP, DOWN = "#1a9850", "#d73027"


def plot_candles(candles: pa.Table, width: timedelta | None, what: str, *, generated: bool = False) -> bytes:
    """Draw candles.

    Args:
        candles: their `bucket`, prices, `volume` and `trade_count`, ascending; at least one.
        width: of each candle; None for those of a calendar, which are as wide as the shortest one.
        what: they are, for the title.
        generated: whether the title says that the trades are.

    Returns:
        The bytes of a PNG.
    """
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
    from matplotlib.figure import Figure  # without pyplot: no global state, no display

    column = {name: candles[name].to_pylist() for name in ("bucket", "open", "high", "low", "close", "volume", "trade_count")}
    starts = column["bucket"]
    width = width or min((later - earlier for earlier, later in pairwise(starts)), default=DAY)
    middle = date2num(starts) + width / DAY / 2
    figure = Figure(figsize=(12, 6.5), layout="constrained")
    price_axes, volume_axes = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    _draw(price_axes, volume_axes, column, middle, width / DAY * 0.8)
    first, end = starts[0], starts[-1] + width
    price_axes.set_title(_title(what, first, end, sum(column["trade_count"]), generated=generated))
    price_axes.set_ylabel("price (quote)")
    volume_axes.set_ylabel("volume (base)")
    price_axes.yaxis.set_major_formatter("{x:,.10g}")
    locator = AutoDateLocator()
    volume_axes.xaxis.set_major_locator(locator)
    # Without the formatter's offset, which is the date of the last label: at midnight, that of the day after the candles.
    volume_axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=False))
    days = f"{first:%Y-%m-%d}" + (f" to {last:%Y-%m-%d}" if (last := starts[-1]).date() != first.date() else "")
    volume_axes.set_xlabel(f"{days}, UTC")
    for axes in (price_axes, volume_axes):
        axes.grid(alpha=0.25)
        axes.margins(x=0.01)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _title(what: str, first: datetime, end: datetime, trades: int, *, generated: bool) -> str:
    until = f"{end:%H:%M}" if end.date() == first.date() else f"{end:%Y-%m-%d %H:%M}"
    return f"{what}, {first:%Y-%m-%d %H:%M} to {until} UTC, {trades:,} {'generated ' * generated}trades"


def _draw(price_axes: Any, volume_axes: Any, column: dict[str, list[Any]], middle: Any, width: float) -> None:
    """Draw wicks and bodies into one pair of axes, and bars of volume into the other.

    Each is one collection of shapes: `Axes.bar` and `vlines` make an object of each, and a day of seconds would take minutes.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgba

    open_, high, low, close, volume = (np.array(column[name], float) for name in ("open", "high", "low", "close", "volume"))
    colors = np.where((close >= open_)[:, None], to_rgba(UP), to_rgba(DOWN))
    smallest = (high.max() - low.min()) / 1000  # so that an empty body can be seen
    bottom = np.minimum(open_, close)
    wicks = np.stack([np.stack([middle, low], axis=1), np.stack([middle, high], axis=1)], axis=1)
    price_axes.add_collection(LineCollection(list(wicks), colors=colors, linewidths=0.8))
    _draw_bars(price_axes, middle, width, bottom, np.maximum(np.abs(close - open_), smallest), colors)
    _draw_bars(volume_axes, middle, width, np.zeros(len(volume)), volume, colors)
    volume_axes.set_ylim(bottom=0)


def _draw_bars(axes: Any, middle: np.ndarray, width: float, bottom: np.ndarray, height: np.ndarray, colors: np.ndarray) -> None:
    from matplotlib.collections import PolyCollection

    x = np.stack([middle - width / 2, middle - width / 2, middle + width / 2, middle + width / 2], axis=1)
    y = np.stack([bottom, bottom + height, bottom + height, bottom], axis=1)
    axes.add_collection(PolyCollection(list(np.stack([x, y], axis=2)), facecolors=colors, linewidths=0))
    axes.autoscale_view()
