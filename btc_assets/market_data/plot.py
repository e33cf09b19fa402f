"""A candlestick chart with volume, as a PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from btc_assets.market_data.candles import COLUMNS, WIDTHS

UP, DOWN = "#1a9850", "#d73027"


def plot_candles(rows: Sequence[tuple[Any, ...]], interval: str, symbol: str) -> bytes:
    """Draw candles.

    Args:
        rows: from `read_candles`; at least one.
        interval: a key of `candles.WIDTHS`.
        symbol: for the title.

    Returns:
        The bytes of a PNG.
    """
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
    from matplotlib.figure import Figure  # without pyplot: no global state, no display

    column = {name: [row[i] for row in rows] for i, name in enumerate(COLUMNS)}
    width = WIDTHS[interval] / timedelta(days=1)
    middle = date2num(column["bucket"]) + width / 2
    figure = Figure(figsize=(12, 6.5), layout="constrained")
    price_axes, volume_axes = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    _draw(price_axes, volume_axes, column, middle, width * 0.8)
    first, last = column["bucket"][0], column["bucket"][-1]
    trades = sum(column["trade_count"])
    price_axes.set_title(f"{symbol}, {interval} candles, {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC, {trades:,} trades")
    price_axes.set_ylabel("price")
    volume_axes.set_ylabel("volume")
    locator = AutoDateLocator()
    volume_axes.xaxis.set_major_locator(locator)
    volume_axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    for axes in (price_axes, volume_axes):
        axes.grid(alpha=0.25)
        axes.margins(x=0.01)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _draw(price_axes: Any, volume_axes: Any, column: dict[str, list[Any]], middle: Any, width: float) -> None:
    """Draw wicks and bodies into one pair of axes, and bars of volume into the other."""
    prices = {name: [float(value) for value in column[name]] for name in ("open", "high", "low", "close")}
    pairs = list(zip(prices["open"], prices["close"], strict=True))
    colors = [UP if close >= open_ else DOWN for open_, close in pairs]
    smallest = (max(prices["high"]) - min(prices["low"])) / 1000  # so that an empty body can be seen
    price_axes.vlines(middle, prices["low"], prices["high"], colors=colors, linewidth=0.8)
    heights = [max(abs(close - open_), smallest) for open_, close in pairs]
    price_axes.bar(middle, heights, width, bottom=[min(pair) for pair in pairs], color=colors)
    volume_axes.bar(middle, [float(volume) for volume in column["volume"]], width, color=colors)
