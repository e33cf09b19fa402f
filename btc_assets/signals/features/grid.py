"""Sums of ticks over the 5-second bars of slices: the common basis of features and of the sequence of bars."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from btc_assets.domain.segments import reduce_segments
from btc_assets.domain.slices import SLICE_US
from btc_assets.signals.features.tick_arrays import TickArrays

STEPS = 60
STEP_US = SLICE_US // STEPS


@dataclass(frozen=True)
class Grid:
    """Bars of slices by arrival time, each array [n, 60]; log prices are relative to the first price of the slice.

    Attributes:
        count: trades.
        signed_count: trades in which the taker bought, less those in which the taker sold.
        volume: base units.
        signed_volume: base units bought by takers, less those sold; 0 if the difference is a rounding error.
        largest: base units of the largest trade.
        quote_volume: quote units.
        excess: sum of base units times the price's excess over the first price of the slice, relative to that price.
        close: log price of the last trade so far; 0 before the first trade.
        high: highest log price of a trade; `close` if the bar has no trade.
        low: lowest log price of a trade; `close` if the bar has no trade.
        variation: sum of squared log returns from trade to trade.
        pairs: trades that follow another trade of the slice.
        same_price: the pairs at equal prices.
        same_side: the pairs on the same side.
        longest_wait: the longest time without a trade inside the bar, in µs.
    """

    count: np.ndarray
    signed_count: np.ndarray
    volume: np.ndarray
    signed_volume: np.ndarray
    largest: np.ndarray
    quote_volume: np.ndarray
    excess: np.ndarray
    close: np.ndarray
    high: np.ndarray
    low: np.ndarray
    variation: np.ndarray
    pairs: np.ndarray
    same_price: np.ndarray
    same_side: np.ndarray
    longest_wait: np.ndarray

    @property
    def previous_close(self) -> np.ndarray:
        """`close` of the previous bar; 0 for the first."""
        return np.concatenate([np.zeros((len(self.close), 1)), self.close[:, :-1]], axis=1)

    @property
    def log_return(self) -> np.ndarray:
        """Return from close to close; the first starts at the first price of the slice."""
        return self.close - self.previous_close


def compute_grid(ticks: TickArrays) -> Grid:
    """Compute the bars of every slice."""
    edges = ticks.starts[:, None] + STEP_US * np.arange(STEPS)
    offsets = np.clip(np.searchsorted(ticks.arrival, edges), ticks.offsets[:-1, None], ticks.offsets[1:, None])
    offsets[:, 0] = ticks.offsets[:-1]
    offsets = np.append(offsets, len(ticks.time))

    def total(values: np.ndarray, dtype: type = float) -> np.ndarray:
        return reduce_segments(np.add, values, offsets, dtype=dtype).reshape(-1, STEPS)

    def extreme(ufunc: np.ufunc, values: np.ndarray, empty: float = 0) -> np.ndarray:
        return reduce_segments(ufunc, values, offsets, empty=empty).reshape(-1, STEPS)

    count = np.diff(offsets).reshape(-1, STEPS)
    filled = count > 0
    volume = total(ticks.quantity)
    signed_volume = total(ticks.quantity * ticks.side)
    signed_volume[np.abs(signed_volume) < 1e-9 * volume] = 0.0  # nothing may be divided by a rounding error
    last = np.maximum.accumulate(np.where(filled, offsets[1:].reshape(-1, STEPS) - 1, -1), axis=1)
    close = np.append(ticks.path, 0.0)[last]
    return Grid(
        count=count,
        signed_count=total(ticks.side, np.int64),
        volume=volume,
        signed_volume=signed_volume,
        largest=extreme(np.maximum, ticks.quantity),
        quote_volume=total(ticks.quantity * ticks.price),
        excess=total(ticks.quantity * ticks.excess),
        close=close,
        high=np.where(filled, extreme(np.maximum, ticks.path), close),
        low=np.where(filled, extreme(np.minimum, ticks.path), close),
        variation=total(ticks.change**2),
        pairs=total(ticks.follows, np.int64),
        same_price=total(ticks.follows & same_as_before(ticks.price), np.int64),
        same_side=total(ticks.follows & same_as_before(ticks.buy), np.int64),
        longest_wait=_longest_wait(ticks, offsets, edges),
    )


def same_as_before(values: np.ndarray) -> np.ndarray:
    """bool [m]: equal to the previous value, even if that belongs to another slice; False for the first."""
    same = np.zeros(len(values), bool)
    same[1:] = values[1:] == values[:-1]
    return same


def _longest_wait(ticks: TickArrays, offsets: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """µs [n, 60]; the edges of the bar bound the first and the last wait."""
    begin, stop = offsets[:-1].reshape(-1, STEPS), offsets[1:].reshape(-1, STEPS)
    filled = begin < stop
    wait = ticks.wait.copy()
    wait[begin[filled]] = ticks.arrival[begin[filled]] - edges[filled]
    longest = reduce_segments(np.maximum, wait, offsets).reshape(-1, STEPS)
    longest[filled] = np.maximum(longest[filled], edges[filled] + STEP_US - ticks.arrival[stop[filled] - 1])
    return np.where(filled, np.clip(longest, 0, STEP_US), STEP_US)
