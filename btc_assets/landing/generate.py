"""Generated ticks: a day that looks like a market, the same for the same seed, for demos, tests and benchmarks."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa

from btc_assets.landing.decode import decimal128
from btc_assets.market_data.ticks import PRICE, QUANTITY, TICK_SCHEMA, TIME
from btc_assets.slices import EPOCH, SLICE_US

_HOUR_US = 3_600_000_000


def generate_day(
    day: datetime, ticks: int, *, seed: int = 1, symbol: str = "BTCUSDT", first_trade_id: int = 1_000_000_000, price: float = 42_000.0
) -> Iterator[pa.Table]:
    """A day of trades, hour by hour, with contiguous ids.

    Arrivals come in bursts (a log-normal intensity that forgets in minutes), buyers and sellers in runs, sizes are
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
        start = (day - EPOCH) // timedelta(microseconds=1) + hour * _HOUR_US
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
        event_us, trade_us = start + event_ms * 1000, start + trade_ms * 1000
        yield pa.table(
            [
                pa.array(event_us // SLICE_US * SLICE_US).cast(TIME),
                pa.array(event_us).cast(TIME),
                pa.array(trade_us).cast(TIME),
                pa.repeat(symbol, count),
                pa.array(np.arange(trade_id, trade_id + count)),
                decimal128(cents_path * 10**6, PRICE),
                decimal128(quantity * 10**7, QUANTITY),
                pa.nulls(count, pa.int64()),
                pa.nulls(count, pa.int64()),
                pa.array(run),
            ],
            schema=TICK_SCHEMA,
        )
        trade_id += count
        cents = int(cents_path[-1]) if count else cents
