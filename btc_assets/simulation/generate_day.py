"""Generated days that look like a market; the same for the same seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime

import numpy as np
import pyarrow as pa

from btc_assets.domain.slices import DAY, HOUR_US, SLICE, SLICE_US, to_microseconds
from btc_assets.simulation.trade_table import FIRST_TRADE, FirstTrade, TradeArrays, autoregression, sent_after

_HOUR_SECONDS, _SLICE_SECONDS = 3600, 300

# Of the worst day of spot BTCUSDT: the shares of two hours and of five minutes, and the deviation of the logarithm of a slice's trades,
# with which one slice in a hundred of a day has some four times as many as half of them.
_BURST, _PEAK, _SPREAD = 2_708_366 / 15_220_000, 340_785 / 15_220_000, 0.6


def generate_day(day: datetime, ticks: int, *, seed: int = 1, first: FirstTrade = FIRST_TRADE) -> Iterator[pa.Table]:
    """A day of trades, hour by hour, with contiguous ids.

    Arrivals come in bursts (a log-normal intensity that forgets in half a minute), buyers and sellers in runs, sizes are
    log-normal, and some trades move the price their way, in steps of 0.01, by about 2% in a day regardless of their number.

    Args:
        day: midnight UTC.
        ticks: number of trades, spread about evenly over the hours.
        seed: the same seed gives the same trades.
        first: where the trades begin.

    Yields:
        24 tables in `TICK_SCHEMA`, ordered by event time and trade id.
    """
    random = np.random.default_rng(seed)
    counts = np.full(24, ticks // 24)
    counts[: ticks % 24] += 1
    trade_id, cents = first.trade_id, round(first.price * 100)
    move = _mean_move(cents, ticks)
    for hour, count in enumerate(counts.tolist()):
        trades = _span(random, to_microseconds(day) + hour * HOUR_US, _HOUR_SECONDS, count, cents, move)
        yield trades.as_ticks(first.symbol, trade_id)
        trade_id += count
        cents = int(trades.cents[-1]) if count else cents


def generate_slices(day: datetime, counts: Sequence[int], *, seed: int = 1, first: FirstTrade = FIRST_TRADE) -> Iterator[pa.Table]:
    """A day whose slices have given numbers of trades; else as `generate_day`.

    Args:
        day: midnight UTC.
        counts: trades of each slice from midnight on, such as `worst_day_counts`.
        seed: the same seed gives the same trades.
        first: where the trades begin.

    Yields:
        A table in `TICK_SCHEMA` for each slice, ordered by event time and trade id.
    """
    random = np.random.default_rng(seed)
    trade_id, cents = first.trade_id, round(first.price * 100)
    move = _mean_move(cents, sum(counts))
    for number, count in enumerate(counts):
        trades = _span(random, to_microseconds(day) + number * SLICE_US, _SLICE_SECONDS, count, cents, move)
        yield trades.as_ticks(first.symbol, trade_id)
        trade_id += count
        cents = int(trades.cents[-1]) if count else cents


def worst_day_counts(ticks: int = 15_220_000, *, seed: int = 1) -> list[int]:
    """The trades of each slice of the worst day that spot BTCUSDT may bring, put together from the largest figures that were met.

    They are the most trades of a day (2023-03-14), the most of two hours, from 12:00 (of that day, 2,708,366), and in their midst the
    most of five minutes (2024-12-05 22:25, 340,785). The other slices are spread as real ones are: log-normal, and more alike the closer
    they lie. Of a smaller day, everything is as much smaller.

    Args:
        ticks: trades of the day.
        seed: the same seed gives the same counts.
    """
    random = np.random.default_rng(seed)
    weights = np.exp(autoregression(0.0, 0.9, random.normal(0.0, _SPREAD * (1 - 0.9**2) ** 0.5, DAY // SLICE)))
    burst, peak = slice(12 * 12, 14 * 12), 12 * 12 + 7
    share = np.zeros(len(weights))
    share[burst] = weights[burst] / (weights[burst].sum() - weights[peak]) * (_BURST - _PEAK)
    share[peak] = _PEAK
    rest = np.ones(len(weights), bool)
    rest[burst] = False
    share[rest] = weights[rest] / weights[rest].sum() * (1 - _BURST)
    ends = np.rint(np.cumsum(share) / share.sum() * ticks).astype(np.int64)  # so that the counts add up
    counts: list[int] = np.diff(ends, prepend=0).tolist()
    return counts


def generate_days(day: datetime, days: int, ticks: int, *, seed: int = 1, first: FirstTrade = FIRST_TRADE) -> Iterator[pa.Table]:
    """Days of trades, hour by hour; each day continues from the id and the price at which the one before it ended.

    Args:
        day: midnight UTC of the first day.
        days: number of days.
        ticks: trades a day.
        seed: the same seed gives the same trades, and fewer days of it the same first ones.
        first: where the trades begin.

    Yields:
        24 tables a day in `TICK_SCHEMA`, ordered by event time and trade id.
    """
    for number, sequence in enumerate(np.random.SeedSequence(seed).spawn(days)):
        day_seed = int(sequence.generate_state(1)[0])
        for hour in generate_day(day + number * DAY, ticks, seed=day_seed, first=replace(first, trade_id=first.trade_id + number * ticks)):
            yield hour
            first = replace(first, price=float(hour["price"][-1].as_py())) if len(hour) else first


def _mean_move(cents: int, ticks: int) -> float:
    """The mean of a price move, in cents, so that a day of that many trades moves the price by some 2%.

    One trade in seven moves it, and four of a kind come together.
    """
    return 0.03 * cents / max(ticks, 1) ** 0.5


def _span(  # six: a span of time, and what happens in it
    random: np.random.Generator, start: int, seconds: int, count: int, cents: int, move: float
) -> TradeArrays:
    """The trades of an hour or a slice.

    Args:
        random: drawn from in a fixed order, so that a seed gives the same trades for ever.
        start: microseconds since 1970.
        seconds: how long it lasts.
        count: number of trades.
        cents: price before the first of them.
        move: mean of a price move, in cents.
    """
    second = np.sort(random.choice(seconds, count, p=_intensity(random, seconds)))
    trade_ms = np.sort(second * 1000 + random.integers(0, 1000, count))
    event_ms = sent_after(random, trade_ms, seconds * 1000 - 1)
    sold = np.repeat(random.random(count) < 0.5, random.geometric(0.25, count))[:count]
    moves = np.where(random.random(count) < 0.15, np.ceil(random.exponential(move, count)), 0).astype(np.int64)
    path = np.maximum(cents + np.cumsum(np.where(sold, -moves, moves)), 1)
    quantity = np.maximum(np.rint(np.exp(random.normal(-5.0, 1.6, count)) * 1e5), 1).astype(np.int64)
    return TradeArrays(start + event_ms * 1000, start + trade_ms * 1000, path, quantity, sold)


def _intensity(random: np.random.Generator, seconds: int) -> np.ndarray:
    """The share of the trades that each second is expected to have."""
    weights = np.exp(autoregression(0.0, 0.97, random.normal(0.0, 0.25, seconds)))
    return weights / weights.sum()
