"""Generated ticks: a day that looks like a market, and a market whose regimes are known; the same for the same seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import product

import numpy as np
import pyarrow as pa

from btc_assets.domain.slices import DAY, HOUR_US, SLICE_US, to_microseconds
from btc_assets.domain.ticks import PRICE, QUANTITY, TICK_SCHEMA, TIME, decimal128

_DAY_SECONDS, _SLICE_SECONDS, _DAY_SLICES = 86_400, 300, 288


def generate_day(
    day: datetime, ticks: int, *, seed: int = 1, symbol: str = "BTCUSDT", first_trade_id: int = 1_000_000_000, price: float = 42_000.0
) -> Iterator[pa.Table]:
    """A day of trades, hour by hour, with contiguous ids.

    Arrivals come in bursts (a log-normal intensity that forgets in half a minute), buyers and sellers in runs, sizes are
    log-normal, and some trades move the price their way, in steps of 0.01, by about 2% in a day however many there are.

    Args:
        day: midnight UTC.
        ticks: how many trades, about evenly over the hours.
        seed: the same seed gives the same trades.
        symbol: their symbol.
        first_trade_id: of the first trade; each next one is one higher.
        price: before the first trade.

    Yields:
        24 tables in `TICK_SCHEMA`, ordered by event time and trade id.
    """
    random = np.random.default_rng(seed)
    hours = np.full(24, ticks // 24)
    hours[: ticks % 24] += 1
    trade_id, cents = first_trade_id, round(price * 100)
    move = 0.03 * cents / max(ticks, 1) ** 0.5  # cents; one trade in seven moves the price, and four of a kind come together
    for hour, count in enumerate(hours.tolist()):
        start = to_microseconds(day) + hour * HOUR_US
        seconds = np.empty(3600)
        level = 0.0
        for i, shock in enumerate(random.normal(0.0, 0.25, 3600).tolist()):
            level = 0.97 * level + shock
            seconds[i] = level
        weights = np.exp(seconds)
        second = np.sort(random.choice(3600, count, p=weights / weights.sum()))
        ms = second * 1000 + random.integers(0, 1000, count)
        trade_ms = np.sort(ms)
        # The exchange sends a trade some milliseconds after it was made, and never out of order.
        event_ms = np.maximum.accumulate(np.minimum(trade_ms + random.poisson(2.0, count), 3_600_000 - 1))
        run = np.repeat(random.random(count) < 0.5, random.geometric(0.25, count))[:count]
        moves = np.where(random.random(count) < 0.15, np.ceil(random.exponential(move, count)), 0).astype(np.int64)
        cents_path = np.maximum(cents + np.cumsum(np.where(run, -moves, moves)), 1)
        quantity = np.maximum(np.rint(np.exp(random.normal(-5.0, 1.6, count)) * 1e5), 1).astype(np.int64)
        yield _table(start + event_ms * 1000, start + trade_ms * 1000, symbol, trade_id, cents_path, quantity, run)
        trade_id += count
        cents = int(cents_path[-1]) if count else cents


def generate_days(
    day: datetime,
    days: int,
    ticks: int,
    *,
    seed: int = 1,
    symbol: str = "BTCUSDT",
    first_trade_id: int = 1_000_000_000,
    price: float = 42_000.0,
) -> Iterator[pa.Table]:
    """Days of trades, hour by hour; each goes on from the id and the price at which the one before it ended.

    Args:
        day: midnight UTC of the first.
        days: how many.
        ticks: trades a day.
        seed: the same seed gives the same trades, and fewer days of it the same first ones.
        symbol, first_trade_id, price: as of `generate_day`.

    Yields:
        24 tables a day in `TICK_SCHEMA`, ordered by event time and trade id.
    """
    for number, own in enumerate(np.random.SeedSequence(seed).spawn(days)):
        hours = generate_day(
            day + number * DAY,
            ticks,
            seed=int(own.generate_state(1)[0]),
            symbol=symbol,
            first_trade_id=first_trade_id + number * ticks,
            price=price,
        )
        for hour in hours:
            yield hour
            price = float(hour["price"][-1].as_py()) if len(hour) else price


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

    Args:
        buyers: share of buyers among trades that do not repeat the side of the one before.
        persistence: share of trades that repeat the side of the one before: the lag-1 autocorrelation of signs.
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
    symbol: str = "BTCUSDT",
    first_trade_id: int = 1_000_000_000,
    price: float = 42_000.0,
) -> Iterator[tuple[pa.Table, np.ndarray]]:
    """Days of trades, with contiguous ids, of a market that switches between the 30 `REGIMES`.

    A regime lasts for an exponential time, then its volatility, its flow or its size (each as likely) becomes another
    one. Switches fall anywhere in a slice; a slice is labelled with the regime that most of its seconds lie in.

    What differs: volatility in the standard deviation of the price (5, 9 and 16 basis points a slice) and, by its fourth
    root, in the number of trades; *buying* and *selling* in the share of buyers (.62, .38); *bouncing* in signs that persist
    less, a wider spread and a price that partly reverts in seconds; *bursty* in clustered arrivals and longer runs of one
    side; *large* in a second, larger kind of trade. What hides it: activity has a daily pattern and varies from day to day
    and from minute to minute, and each slice has its own volatility, share of buyers, persistence, clustering and typical
    size around those of its regime, so no single figure of a slice tells its regime. Only surprises in the flow move the
    price for good (Lillo and Farmer 2004), so buying does not foretell rising.

    Args:
        day: midnight UTC of the first day.
        days: how many.
        slice_ticks: trades a slice, on average over long times; at least 1.
        regime_slices: how long a regime lasts on average, in slices.
        seed: the same seed gives the same trades.
        symbol: their symbol.
        first_trade_id: of the first trade; each next one is one higher.
        price: before the first trade.

    Yields:
        For each day its trades in `TICK_SCHEMA`, ordered by event time and trade id, and the regime of each of its 288
        slices, an index into `REGIMES`.
    """
    random = np.random.default_rng(seed)
    trade_id, log_price = first_trade_id, float(np.log(price))
    seconds = _regimes(random, days * _DAY_SECONDS, regime_slices * _SLICE_SECONDS)
    for number in range(days):
        regimes = seconds[number * _DAY_SECONDS : (number + 1) * _DAY_SECONDS]
        second = np.repeat(np.arange(_DAY_SECONDS), random.poisson(_activity(random, regimes) * slice_ticks / _SLICE_SECONDS))
        count = len(second)
        trade_ms = np.sort(second * 1000 + random.integers(0, 1000, count))
        event_ms = np.maximum.accumulate(np.minimum(trade_ms + random.poisson(2.0, count), _DAY_SECONDS * 1000 - 1))
        at = trade_ms // 1000
        sides, surprise = _sides(random, regimes, at)
        path, log_price = _path(random, regimes, at, sides, surprise, slice_ticks, log_price)
        start = to_microseconds(day + number * DAY)
        yield (
            _table(
                start + event_ms * 1000,
                start + trade_ms * 1000,
                symbol,
                trade_id,
                np.maximum(np.rint(np.exp(path) * 100), 1).astype(np.int64),
                _quantities(random, regimes, at),
                sides < 0,
            ),
            _majority(regimes),
        )
        trade_id += count


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
    """The most frequent regime of each slice's seconds."""
    of_slice = regimes.reshape(_DAY_SLICES, _SLICE_SECONDS)
    return np.stack([(of_slice == regime).sum(axis=1) for regime in range(len(REGIMES))]).argmax(axis=0)


def _of_regime(values: dict[str, float], part: str) -> np.ndarray:
    return np.array([values[getattr(regime, part)] for regime in REGIMES])


def _of_flow(name: str) -> np.ndarray:
    return _of_regime({flow: getattr(parameters, name) for flow, parameters in _FLOWS.items()}, "flow")


def _own(random: np.random.Generator, deviation: float) -> np.ndarray:
    """For each second, what is its slice's own: normal around 0."""
    return np.repeat(random.normal(0.0, deviation, _DAY_SLICES), _SLICE_SECONDS)


def _reverting(random: np.random.Generator, seconds: float) -> np.ndarray:
    """For each second of a day, a first-order autoregression that forgets in `seconds`, of variance 1."""
    keep = float(np.exp(-1 / seconds))
    level, levels = random.normal(), np.empty(_DAY_SECONDS)
    for i, shock in enumerate(random.normal(0.0, (1 - keep**2) ** 0.5, _DAY_SECONDS).tolist()):
        level = keep * level + shock
        levels[i] = level
    return levels


def _activity(random: np.random.Generator, regimes: np.ndarray) -> np.ndarray:
    """Trades expected in each second, 1 on average over long times."""
    hour = np.arange(_DAY_SECONDS) / 3600
    daily = 1 + 0.4 * np.cos((hour - 15) * np.pi / 12)  # Europe's afternoon and America's morning trade the most
    clustering = _of_flow("clustering")[regimes[::3]] * np.exp(_own(random, 0.35)[::3])
    cluster = np.repeat(random.gamma(1 / clustering, clustering), 3)
    volatility = _of_regime(_VOLATILITIES, "volatility")[regimes] / _VOLATILITIES["middle"]
    noise = np.exp(0.3 * _reverting(random, 600) + random.normal(0.0, 0.2) - (0.3**2 + 0.2**2) / 2)
    return daily * cluster * volatility**0.25 * noise


def _sides(random: np.random.Generator, regimes: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The taker's side of each trade, +1 or -1, and how far it is from what was to be expected after the one before."""
    regime = regimes[at]
    persistence = np.clip(_of_flow("persistence")[regime] + _own(random, 0.06)[at], 0.0, 0.95)
    buyers = np.clip(_of_flow("buyers")[regime] + _own(random, 0.04)[at], 0.05, 0.95)
    repeated = random.random(len(at)) < persistence
    repeated[:1] = False
    drawn = np.where(random.random(len(at)) < buyers, 1.0, -1.0)
    sides = drawn[np.maximum.accumulate(np.where(repeated, 0, np.arange(len(at))))]
    before = np.concatenate([[0.0], sides[:-1]])[: len(at)]
    return sides, sides - persistence * before - (1 - persistence) * (2 * buyers - 1)


def _path(
    random: np.random.Generator,
    regimes: np.ndarray,
    at: np.ndarray,
    sides: np.ndarray,
    surprise: np.ndarray,
    slice_ticks: int,
    log_price: float,
) -> tuple[np.ndarray, float]:
    """The log price of each trade, and the lasting log price after the last one.

    The lasting part is a martingale in which one trade in five moves the price; the spread and the reverting part lie on top.
    """
    regime = regimes[at]
    volatility = _of_regime(_VOLATILITIES, "volatility")[regime] * np.exp(_own(random, 0.12) + 0.12 * _reverting(random, 7200))[at]
    moves = random.random(len(at)) < 0.2
    shocks = 0.7 * surprise + 0.7 * random.normal(size=len(at))
    lasting = log_price + np.cumsum(np.where(moves, shocks, 0.0) * volatility * (5 / slice_ticks) ** 0.5)
    passing = _of_flow("spread")[regime] * sides + _of_flow("reversion")[regime] * _reverting(random, 15)[at]
    return lasting + volatility * passing, float(lasting[-1]) if len(at) else log_price


def _quantities(random: np.random.Generator, regimes: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Sizes in steps of 0.00001: log-normal, with a second kind of larger trades where the regime has them."""
    large = random.random(len(at)) < _of_regime(_SIZES, "size")[regimes[at]]
    logs = np.where(large, random.normal(-3.0, 0.8, len(at)), random.normal(-5.0, 1.3, len(at))) + _own(random, 0.2)[at]
    return np.maximum(np.rint(np.exp(logs) * 1e5), 1).astype(np.int64)


def _table(
    event_us: np.ndarray, trade_us: np.ndarray, symbol: str, first_trade_id: int, cents: np.ndarray, quantity: np.ndarray, sold: np.ndarray
) -> pa.Table:
    """Trades in `TICK_SCHEMA`, of prices in 0.01 and quantities in 0.00001."""
    count = len(cents)
    return pa.table(
        [
            pa.array(event_us // SLICE_US * SLICE_US).cast(TIME),
            pa.array(event_us).cast(TIME),
            pa.array(trade_us).cast(TIME),
            pa.repeat(symbol, count),
            pa.array(np.arange(first_trade_id, first_trade_id + count)),
            decimal128(cents * 10**6, PRICE),
            decimal128(quantity * 10**7, QUANTITY),
            pa.nulls(count, pa.int64()),
            pa.nulls(count, pa.int64()),
            pa.array(sold),
        ],
        schema=TICK_SCHEMA,
    )
