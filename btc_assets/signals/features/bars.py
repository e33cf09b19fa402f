"""The sequence of a slice: 60 bars of 5 seconds by arrival time, 16 channels each, in raw units.

Encoders scale the channels themselves. A bar without trades carries the price forward, has no activity, and takes the neutral value
of each share. If event times step back in the order of trade ids, a trade arrives with the trade before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from btc_assets.signals.features.grid import STEPS, Grid, compute_grid
from btc_assets.signals.features.tick_arrays import TickArrays, log_excess

__all__ = ["CHANNELS", "STEPS", "Channel", "compute_bars"]


@dataclass(frozen=True)
class Channel:
    """One channel of the sequence.

    Attributes:
        name: in the field's own terms.
        unit: of its values.
        description: its meaning, and its value in a bar without trades unless that is 0. The database stores this text as a comment.
    """

    name: str
    unit: str
    description: str


CHANNELS = tuple(
    Channel(*texts)
    for texts in (
        ("log_return", "log", "from the close before (in the first bar, from the first price of the slice) to the close"),
        ("close", "log", "last price so far against the first price of the slice; carried forward"),
        ("high", "log", "highest price of the bar against the close before; below 0 where every trade was lower"),
        ("low", "log", "lowest price of the bar against the close before; above 0 where every trade was higher"),
        ("vwap", "log", "volume-weighted average price of the bar against the close before"),
        ("tick_volatility", "log", "square root of the sum of squared returns from trade to trade"),
        ("volume", "base", "quantity traded"),
        ("signed_volume", "base", "quantity that takers bought less what they sold"),
        ("trade_count", "trades", "number of trades"),
        ("signed_trade_count", "trades", "trades in which takers bought less those in which they sold"),
        ("mean_trade_size", "base", "volume over the number of trades"),
        ("largest_trade", "base", "quantity of the largest trade"),
        ("taker_buy_share", "share", "part of the volume that takers bought; 0.5 without trades"),
        ("same_side_share", "share", "trades on the side of the trade before them; 0.5 where none has one before it in the slice"),
        ("zero_tick_share", "share", "trades at the price of the trade before them; 0 where none has one before it in the slice"),
        ("longest_wait", "s", "longest time without a trade inside the bar, its edges included; 5 without trades"),
    )
)


def compute_bars(ticks: TickArrays) -> np.ndarray:
    """Compute the sequence of every slice, from its own ticks alone.

    Returns:
        float32 [n, 60, 16], channels in the order of `CHANNELS`, always finite.
    """
    result = np.empty((len(ticks), STEPS, len(CHANNELS)), np.float32)
    first = 0
    for part in ticks.parts():
        fill_bars(result[first : first + len(part)], compute_grid(part))
        first += len(part)
    return result


def fill_bars(result: np.ndarray, grid: Grid) -> None:
    """Compute the sequences of the slices of a grid, into float32 [n, 60, 16]."""
    columns = _channels(grid)
    for place, channel in enumerate(CHANNELS):
        result[:, :, place] = columns[channel.name]


def _channels(grid: Grid) -> dict[str, np.ndarray]:
    before = grid.previous_close
    filled = grid.count > 0
    volume = np.where(filled, grid.volume, 1.0)
    trades = np.maximum(grid.count, 1)
    pairs = np.maximum(grid.pairs, 1)
    return {
        "log_return": grid.log_return,
        "close": grid.close,
        "high": grid.high - before,
        "low": grid.low - before,
        "vwap": np.where(filled, log_excess(grid.excess / volume) - before, 0.0),
        "tick_volatility": np.sqrt(grid.variation),
        "volume": grid.volume,
        "signed_volume": grid.signed_volume,
        "trade_count": grid.count,
        "signed_trade_count": grid.signed_count,
        "mean_trade_size": grid.volume / trades,
        "largest_trade": grid.largest,
        "taker_buy_share": 0.5 + 0.5 * grid.signed_volume / volume,
        "same_side_share": np.where(grid.pairs > 0, grid.same_side / pairs, 0.5),
        "zero_tick_share": grid.same_price / pairs,
        "longest_wait": grid.longest_wait / 1e6,
    }
