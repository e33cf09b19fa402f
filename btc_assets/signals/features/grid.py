"""Sums of ticks over the 5-second bars of slices, which features and the sequence of bars are both made from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from btc_assets.domain.slices import SLICE_US
from btc_assets.signals.features.tick_arrays import TickArrays, reduce

STEPS = 60
STEP_US = SLICE_US // STEPS


@dataclass(frozen=True)
class Grid:
    """Bars of slices by arrival, each array [n, 60]; log prices are relative to the first price of the slice.

    Attributes:
        count: trades.
        signed_count: trades in which the taker bought, less those in which he sold.
        volume: base units.
        signed_volume: base units bought by takers, less those sold; 0 where the difference is one of rounding.
        largest: base units of the largest trade.
        quote_volume: quote units.
        excess: sum of base units times what the price is above the first price of the slice, relative to that.
        close: log price of the last trade so far; 0 before the first.
        high: highest log price of a trade; `close` where there is none.
        low: lowest log price of a trade; `close` where there is none.
        variation: sum of squared log returns from trade to trade.
        pairs: trades that follow another in the slice.
        same_price: those at the price of the trade before.
        same_side: those on the side of the trade before.
        longest_wait: the longest time without a trade in the bar, in µs; its edges bound it.
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
        """`close` of the bar before; 0 for the first."""
        return np.concatenate([np.zeros((len(self.close), 1)), self.close[:, :-1]], axis=1)

    @property
    def log_return(self) -> np.ndarray:
        """From close to close; the first from the slice's first price."""
        return self.close - self.previous_close


def grid(ticks: TickArrays) -> Grid:
    """The bars of every slice."""
    edges = ticks.starts[:, None] + STEP_US * np.arange(STEPS)
    offsets = np.clip(np.searchsorted(ticks.arrival, edges), ticks.offsets[:-1, None], ticks.offsets[1:, None])
    offsets[:, 0] = ticks.offsets[:-1]
    offsets = np.append(offsets, len(ticks.time))

    def total(values: np.ndarray, dtype: type = float) -> np.ndarray:
        return reduce(np.add, values, offsets, dtype=dtype).reshape(-1, STEPS)

    def extreme(ufunc: np.ufunc, values: np.ndarray, empty: float = 0) -> np.ndarray:
        return reduce(ufunc, values, offsets, empty=empty).reshape(-1, STEPS)

    count = np.diff(offsets).reshape(-1, STEPS)
    filled = count > 0
    volume = total(ticks.quantity)
    signed_volume = total(ticks.quantity * ticks.side)
    signed_volume[np.abs(signed_volume) < 1e-9 * volume] = 0.0  # nothing may be divided by what rounding left
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
    """bool [m]: equal to the value before, whatever its slice; False for the first."""
    same = np.zeros(len(values), bool)
    same[1:] = values[1:] == values[:-1]
    return same


def _longest_wait(ticks: TickArrays, offsets: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """µs [n, 60], waits at the edges of the bar included."""
    begin, stop = offsets[:-1].reshape(-1, STEPS), offsets[1:].reshape(-1, STEPS)
    filled = begin < stop
    wait = ticks.wait.copy()
    wait[begin[filled]] = ticks.arrival[begin[filled]] - edges[filled]
    longest = reduce(np.maximum, wait, offsets).reshape(-1, STEPS)
    longest[filled] = np.maximum(longest[filled], edges[filled] + STEP_US - ticks.arrival[stop[filled] - 1])
    return np.where(filled, np.clip(longest, 0, STEP_US), STEP_US)
