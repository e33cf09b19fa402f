"""A generated market that switches between known regimes; the same for the same seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import product

import numpy as np
import pyarrow as pa

from btc_assets.domain.slices import DAY, to_microseconds
from btc_assets.simulation.trade_table import FIRST_TRADE, FirstTrade, TradeArrays, autoregression, sent_after

_DAY_SECONDS, _SLICE_SECONDS, _DAY_SLICES = 86_400, 300, 288


@dataclass(frozen=True)
class Regime:
    """A state of `generate_market`: one of three volatilities, five flows and two sizes."""

    volatility: str
    flow: str
    size: str

    def __str__(self) -> str:
        return f"{self.volatility} volatility, {self.flow} flow, {self.size} sizes"


@dataclass(frozen=True)
class _Flow:
    """How trades follow each other.

    Attributes:
        buyers: share of buyers among trades that do not repeat the side of the trade before.
        persistence: share of trades that repeat the side of the trade before: the lag-1 autocorrelation of signs.
        clustering: variance of the activity of three seconds over its squared mean.
        spread: half of the bid-ask bounce, over the volatility of a slice.
        reversion: standard deviation of the part of the price that reverts in 15 s, over the volatility of a slice.
    """

    buyers: float = 0.5
    persistence: float = 0.45
    clustering: float = 0.5
    spread: float = 0.05
    reversion: float = 0.0


_VOLATILITIES = {"low": 5e-4, "middle": 9e-4, "high": 16e-4}  # of the log price over a slice
_FLOWS = {
    "balanced": _Flow(),
    "buying": _Flow(buyers=0.62),
    "selling": _Flow(buyers=0.38),
    "bouncing": _Flow(persistence=0.25, spread=0.1, reversion=0.2),
    "bursty": _Flow(persistence=0.65, clustering=1.3),
}
_SIZES = {"small": 0.0, "large": 0.12}  # share of trades that are some seven times as large

REGIMES = tuple(Regime(*names) for names in product(_VOLATILITIES, _FLOWS, _SIZES))


def generate_market(
    day: datetime,
    days: int,
    *,
    slice_ticks: int = 300,
    regime_slices: float = 6.0,
    seed: int = 1,
    first: FirstTrade = FIRST_TRADE,
) -> Iterator[tuple[pa.Table, np.ndarray]]:
    """Days of trades, with contiguous ids, of a market that switches between the 30 `REGIMES`.

    A regime lasts for an exponentially distributed time, then its volatility, its flow or its size (each equally likely) changes.
    Switches fall anywhere in a slice; a slice is labeled with the regime that most of its seconds lie in.

    What differs: volatility in the standard deviation of the price (5, 9 and 16 basis points a slice) and, by its fourth
    root, in the number of trades; *buying* and *selling* in the share of buyers (.62, .38); *bouncing* in signs that persist
    less, a wider spread and a price that partly reverts in seconds; *bursty* in clustered arrivals and longer runs of one
    side; *large* in a second, larger kind of trade. What hides it: activity has a daily pattern and varies from day to day
    and from minute to minute, and each slice has its own volatility, share of buyers, persistence, clustering and typical
    size around those of its regime, so no single feature of a slice reveals its regime. Only surprises in the flow move the
    price for good (Lillo and Farmer 2004), so buying does not predict rising prices.

    Args:
        day: midnight UTC of the first day.
        days: number of days.
        slice_ticks: trades a slice, on average over long times; at least 1.
        regime_slices: mean duration of a regime, in slices.
        seed: the same seed gives the same trades.
        first: where the trades begin.

    Yields:
        For each day its trades in `TICK_SCHEMA`, ordered by event time and trade id, and the regime of each of its 288
        slices, an index into `REGIMES`.
    """
    random = np.random.default_rng(seed)
    trade_id, log_price = first.trade_id, float(np.log(first.price))
    regimes = _regimes(random, days * _DAY_SECONDS, regime_slices * _SLICE_SECONDS)
    for number in range(days):
        market = _MarketDay(random, regimes[number * _DAY_SECONDS : (number + 1) * _DAY_SECONDS], slice_ticks)
        trades, log_price = market.trades(to_microseconds(day + number * DAY), log_price)
        yield trades.as_ticks(first.symbol, trade_id), _majority(market.regimes)
        trade_id += len(trades)


def _regimes(random: np.random.Generator, seconds: int, mean: float) -> np.ndarray:
    """The regime of each second, an index into `REGIMES`."""
    shape = np.array([len(_VOLATILITIES), len(_FLOWS), len(_SIZES)])
    state = random.integers(0, shape)
    regimes, at = np.empty(seconds, np.int64), 0
    while at < seconds:
        end = at + max(round(random.exponential(mean)), 1)
        regimes[at:end] = np.ravel_multi_index(tuple(state), tuple(shape))
        part = random.integers(0, 3)
        state[part] = (state[part] + random.integers(1, shape[part])) % shape[part]
        at = end
    return regimes


def _majority(regimes: np.ndarray) -> np.ndarray:
    """The regime of each slice: the most frequent one among its seconds."""
    of_slice = regimes.reshape(_DAY_SLICES, _SLICE_SECONDS)
    return np.stack([(of_slice == regime).sum(axis=1) for regime in range(len(REGIMES))]).argmax(axis=0)


def _of_regime(values: dict[str, float], part: str) -> np.ndarray:
    """For each regime, the value that belongs to its volatility, flow or size."""
    return np.array([values[getattr(regime, part)] for regime in REGIMES])


def _of_flow(name: str) -> np.ndarray:
    """For each regime, one parameter of its flow."""
    return _of_regime({flow: getattr(parameters, name) for flow, parameters in _FLOWS.items()}, "flow")


def _slice_noise(random: np.random.Generator, deviation: float) -> np.ndarray:
    """For each second of a day the deviation of its slice: one normal draw around 0 for each slice."""
    return np.repeat(random.normal(0.0, deviation, _DAY_SLICES), _SLICE_SECONDS)


def _reverting(random: np.random.Generator, seconds: float) -> np.ndarray:
    """For each second of a day, a first-order autoregression of variance 1 with a memory of `seconds`."""
    keep = float(np.exp(-1 / seconds))
    level = random.normal()
    return autoregression(level, keep, random.normal(0.0, (1 - keep**2) ** 0.5, _DAY_SECONDS))


def _activity(random: np.random.Generator, regimes: np.ndarray) -> np.ndarray:
    """Trades expected in each second, 1 on average over long times."""
    hour = np.arange(_DAY_SECONDS) / 3600
    daily = 1 + 0.4 * np.cos((hour - 15) * np.pi / 12)  # Europe's afternoon and America's morning trade the most
    clustering = _of_flow("clustering")[regimes[::3]] * np.exp(_slice_noise(random, 0.35)[::3])
    cluster = np.repeat(random.gamma(1 / clustering, clustering), 3)
    volatility = _of_regime(_VOLATILITIES, "volatility")[regimes] / _VOLATILITIES["middle"]
    noise = np.exp(0.3 * _reverting(random, 600) + random.normal(0.0, 0.2) - (0.3**2 + 0.2**2) / 2)
    return daily * cluster * volatility**0.25 * noise


class _MarketDay:
    """One day of the market.

    Args:
        random: drawn from in a fixed order, so that a seed gives the same trades for ever.
        regimes: of each second of the day.
        slice_ticks: trades a slice, on average.
    """

    def __init__(self, random: np.random.Generator, regimes: np.ndarray, slice_ticks: int) -> None:
        self.regimes = regimes
        self._random, self._slice_ticks = random, slice_ticks
        second = np.repeat(np.arange(_DAY_SECONDS), random.poisson(_activity(random, regimes) * slice_ticks / _SLICE_SECONDS))
        self._trade_ms = np.sort(second * 1000 + random.integers(0, 1000, len(second)))
        self._event_ms = sent_after(random, self._trade_ms, _DAY_SECONDS * 1000 - 1)
        self._second = self._trade_ms // 1000  # of each trade
        self._regime = regimes[self._second]

    def trades(self, start: int, log_price: float) -> tuple[TradeArrays, float]:
        """The day's trades and the lasting log price after the last one.

        Args:
            start: of the day, in microseconds since 1970.
            log_price: lasting log price before the first trade.
        """
        sides, surprise = self._sides()
        path, log_price = self._path(sides, surprise, log_price)
        cents = np.maximum(np.rint(np.exp(path) * 100), 1).astype(np.int64)
        event_us, trade_us = start + self._event_ms * 1000, start + self._trade_ms * 1000
        return TradeArrays(event_us, trade_us, cents, self._quantities(), sides < 0), log_price

    def _sides(self) -> tuple[np.ndarray, np.ndarray]:
        """The taker's side of each trade, +1 or -1, and its difference from what the trade before it let expect."""
        random, count = self._random, len(self._second)
        persistence = np.clip(_of_flow("persistence")[self._regime] + _slice_noise(random, 0.06)[self._second], 0.0, 0.95)
        buyers = np.clip(_of_flow("buyers")[self._regime] + _slice_noise(random, 0.04)[self._second], 0.05, 0.95)
        repeated = random.random(count) < persistence
        repeated[:1] = False
        drawn = np.where(random.random(count) < buyers, 1.0, -1.0)
        sides = drawn[np.maximum.accumulate(np.where(repeated, 0, np.arange(count)))]
        before = np.concatenate([[0.0], sides[:-1]])[:count]
        return sides, sides - persistence * before - (1 - persistence) * (2 * buyers - 1)

    def _path(self, sides: np.ndarray, surprise: np.ndarray, log_price: float) -> tuple[np.ndarray, float]:
        """The log price of each trade, and the lasting log price after the last one.

        The lasting part is a martingale in which one trade in five moves the price; the spread and the reverting part are added.
        """
        random, count = self._random, len(self._second)
        noise = np.exp(_slice_noise(random, 0.12) + 0.12 * _reverting(random, 7200))[self._second]
        volatility = _of_regime(_VOLATILITIES, "volatility")[self._regime] * noise
        moves = random.random(count) < 0.2
        shocks = 0.7 * surprise + 0.7 * random.normal(size=count)
        lasting = log_price + np.cumsum(np.where(moves, shocks, 0.0) * volatility * (5 / self._slice_ticks) ** 0.5)
        passing = _of_flow("spread")[self._regime] * sides + _of_flow("reversion")[self._regime] * _reverting(random, 15)[self._second]
        return lasting + volatility * passing, float(lasting[-1]) if count else log_price

    def _quantities(self) -> np.ndarray:
        """Quantities in units of 0.00001: log-normal, with a second kind of larger trades if the regime has them."""
        random, count = self._random, len(self._second)
        large = random.random(count) < _of_regime(_SIZES, "size")[self._regime]
        logs = np.where(large, random.normal(-3.0, 0.8, count), random.normal(-5.0, 1.3, count)) + _slice_noise(random, 0.2)[self._second]
        return np.maximum(np.rint(np.exp(logs) * 1e5), 1).astype(np.int64)
