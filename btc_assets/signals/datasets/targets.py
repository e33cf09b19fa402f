"""Targets: what the price did in a span of time that begins when a row is known.

The price before a moment is that of the last trade (the one with the highest id) whose trade time lies before it. Candles tell it
exactly: it is the close of the last candle that ends at that moment or before it, for every width that the moment is a multiple of. So
targets need no ticks, which are dropped one day, but candles, which are kept.

* `return`: log of the price before the end of the span over the price before its beginning.
* `direction`: the sign of that return: 1, -1, or 0 if both prices are equal.
* `volatility`: sqrt of the realised variance, the sum of the squares of the log returns over the steps of 30 seconds that the span
  consists of (Andersen and Bollerslev 1998); log price per span, not annualized.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import numpy as np

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import MICROSECOND, SLICE_US
from btc_assets.signals.datasets.spans import SECOND_US

SAMPLING_US = 30 * SECOND_US  # of volatility
KINDS = ("return", "direction", "volatility")
UNITS = {"return": "log price", "direction": "sign", "volatility": "log price, per horizon"}

# The widths of candles that every store keeps and that slices are multiples of.
_WIDTHS = {"5m": SLICE_US, "1m": 60 * SECOND_US, "30s": 30 * SECOND_US, "1s": SECOND_US}
_STALE_US = SLICE_US  # a price that is older than a slice is not known
_CELLS = 1 << 20  # returns that are added up at once


@dataclass(frozen=True)
class Target:
    """What to forecast.

    Attributes:
        kind: one of `KINDS`.
        horizon: the span, µs: whole seconds, for volatility whole steps of 30 seconds.

    Raises:
        UserError: there is no such kind, or the horizon does not fit it.
    """

    kind: str
    horizon: int

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(
                f"There is no target {self.kind!r}: name one of {', '.join(KINDS)}, or pass a table of your own to with_target."
            )
        step, text = (SAMPLING_US, "30 seconds") if self.kind == "volatility" else (SECOND_US, "a second")
        if self.horizon <= 0 or self.horizon % step:
            raise UserError(
                f"The horizon of {self.horizon * MICROSECOND} does not fit the target {self.kind!r}: give a multiple of {text}, above 0."
            )

    def interval(self, starts_after: int) -> str:
        """The coarsest candles that tell the prices of spans that begin this long (µs) after the start of a slice."""
        common = gcd(starts_after, self.horizon, SAMPLING_US if self.kind == "volatility" else 0)
        return next(name for name, width in _WIDTHS.items() if common % width == 0)


@dataclass(frozen=True)
class Prices:
    """Closes of candles: when each candle ended, int64 µs, ascending [m], and its close, float64 [m]."""

    ends: np.ndarray
    closes: np.ndarray

    def before(self, times: np.ndarray) -> np.ndarray:
        """The log price before each moment (µs); NaN if no trade of the five minutes before it is known."""
        if not len(self.ends):
            return np.full(np.shape(times), np.nan)
        at = np.searchsorted(self.ends, times, side="right") - 1
        known = (at >= 0) & (times - self.ends[at] < _STALE_US)
        return np.where(known, np.log(self.closes)[at], np.nan)


NO_PRICES = Prices(np.empty(0, np.int64), np.empty(0))


def compute_targets(target: Target, prices: Prices, starts: np.ndarray) -> np.ndarray:
    """The target of each span.

    Args:
        target: what to compute.
        prices: from five minutes before the first span to the end of the last.
        starts: of the spans, µs, multiples of the width of the candles [n].

    Returns:
        float64 [n]; NaN where a price is not known.
    """
    if target.kind == "volatility":
        steps = target.horizon // SAMPLING_US
        pieces = np.array_split(starts, max(-(-len(starts) * steps // _CELLS), 1))
        return np.concatenate([_volatility(prices, piece, steps) for piece in pieces])
    change = prices.before(starts + target.horizon) - prices.before(starts)
    return change if target.kind == "return" else np.sign(change)


def _volatility(prices: Prices, starts: np.ndarray, steps: int) -> np.ndarray:
    path = prices.before(starts[:, None] + SAMPLING_US * np.arange(steps + 1))
    return np.sqrt((np.diff(path, axis=1) ** 2).sum(axis=1))
