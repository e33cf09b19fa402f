"""The candles of a slice and of its neighbours side by side, as a PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import psycopg

from btc_assets.market_data.plot import DOWN, UP
from btc_assets.signals.features.bars import CHANNELS, STEPS
from btc_assets.signals.search.similar import Neighbour
from btc_assets.store.errors import server_errors

_ACROSS = 4


@dataclass(frozen=True)
class Picture:
    """One slice to draw: its title, and its bars as float32 [60, 16] in the order of `CHANNELS`."""

    title: str
    bars: np.ndarray


def read_pictures(connection: psycopg.Connection, query: datetime, found: Sequence[Neighbour]) -> list[Picture]:
    """The slice that was asked about, then its neighbours; what their candles are drawn from is stored with the features."""
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
    return [Picture(title, bars[bucket]) for bucket, title in titles.items() if bucket in bars]


def plot_neighbours(pictures: Sequence[Picture]) -> bytes:
    """Draw 5-second candles of slices, in basis points from the first price of each, with volume below; one scale for all.

    Args:
        pictures: the query first, at least one.

    Returns:
        The bytes of a PNG.
    """
    from matplotlib.figure import Figure  # without pyplot: no global state, no display

    down = math.ceil(len(pictures) / _ACROSS)
    figure = Figure(figsize=(3.4 * min(len(pictures), _ACROSS), 2.6 * down), layout="constrained")
    grid = figure.subplots(down, min(len(pictures), _ACROSS), sharex=True, sharey=True, squeeze=False).flat
    channel = {one.name: i for i, one in enumerate(CHANNELS)}
    most = max(float(one.bars[:, channel["volume"]].max()) for one in pictures) or 1.0
    prices = [_prices(one.bars, channel) for one in pictures]
    low, high = min(p["low"].min() for p in prices), max(p["high"].max() for p in prices)
    span = max(high - low, 1e-9)
    for axes, picture, price in zip(grid, pictures, prices, strict=False):
        at = np.arange(STEPS) * 5 + 2.5
        colors = [UP if rise else DOWN for rise in price["close"] >= price["open"]]
        traded = picture.bars[:, channel["trade_count"]] > 0
        axes.vlines(at[traded], price["low"][traded], price["high"][traded], colors=np.array(colors)[traded], linewidth=0.7)
        axes.bar(
            at,
            np.maximum(np.abs(price["close"] - price["open"]), span / 300) * traded,
            4,
            np.minimum(price["open"], price["close"]),
            color=colors,
        )
        axes.bar(at, 0.25 * span * picture.bars[:, channel["volume"]] / most, 4, low - 0.3 * span, color="#9aa5b1")
        axes.set_title(picture.title, fontsize=9, fontweight="bold" if picture is pictures[0] else "normal")
        axes.grid(alpha=0.25)
    for axes in list(grid)[len(pictures) :]:
        axes.set_visible(False)
    figure.supxlabel("seconds of the slice", fontsize=9)
    figure.supylabel("basis points from its first price", fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _prices(bars: np.ndarray, channel: dict[str, int]) -> dict[str, np.ndarray]:
    """Basis points from the first price of the slice, each [60]."""
    close = bars[:, channel["close"]]
    before = close - bars[:, channel["log_return"]]
    return {
        "open": 1e4 * before,
        "close": 1e4 * close,
        "high": 1e4 * (before + bars[:, channel["high"]]),
        "low": 1e4 * (before + bars[:, channel["low"]]),
    }
