"""Generated days that look like a market; the same for the same seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

import numpy as np
import pyarrow as pa

from btc_assets.domain.slices import DAY, HOUR_US, to_microseconds
from btc_assets.simulation.trade_table import FIRST_TRADE, FirstTrade, TradeArrays, autoregression, sent_after

_HOUR_SECONDS = 3600


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
    move = 0.03 * cents / max(ticks, 1) ** 0.5  # cents; one trade in seven moves the price, and four of a kind come together
    for hour, count in enumerate(counts.tolist()):
        trades = _hour(random, to_microseconds(day) + hour * HOUR_US, count, cents, move)
        yield trades.as_ticks(first.symbol, trade_id)
        trade_id += count
        cents = int(trades.cents[-1]) if count else cents


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


def _hour(random: np.random.Generator, start: int, count: int, cents: int, move: float) -> TradeArrays:
    """The trades of one hour.

    Args:
        random: drawn from in a fixed order, so that a seed gives the same trades for ever.
        start: microseconds since 1970.
        count: number of trades.
        cents: price before the first of them.
        move: mean of a price move, in cents.
    """
    second = np.sort(random.choice(_HOUR_SECONDS, count, p=_intensity(random)))
    trade_ms = np.sort(second * 1000 + random.integers(0, 1000, count))
    event_ms = sent_after(random, trade_ms, _HOUR_SECONDS * 1000 - 1)
    sold = np.repeat(random.random(count) < 0.5, random.geometric(0.25, count))[:count]
    moves = np.where(random.random(count) < 0.15, np.ceil(random.exponential(move, count)), 0).astype(np.int64)
    path = np.maximum(cents + np.cumsum(np.where(sold, -moves, moves)), 1)
    quantity = np.maximum(np.rint(np.exp(random.normal(-5.0, 1.6, count)) * 1e5), 1).astype(np.int64)
    return TradeArrays(start + event_ms * 1000, start + trade_ms * 1000, path, quantity, sold)


def _intensity(random: np.random.Generator) -> np.ndarray:
    """The share of the hour's trades that each second is expected to have."""
    weights = np.exp(autoregression(0.0, 0.97, random.normal(0.0, 0.25, _HOUR_SECONDS)))
    return weights / weights.sum()
