"""A generated perpetual that follows generated trades of the spot market, so that there is a basis to look at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from btc_assets.domain.slices import HOUR_US
from btc_assets.domain.ticks import PRICE, decimal128, int64

_MEAN, _SWING = 4e-4, 3e-4  # of the basis, as a share of the price
_PERIODS_US = 8 * HOUR_US, 37 * HOUR_US // 60  # that of funding, and one that fits into an hour
_TICK_CENTS = 10  # the perpetual's price moves in steps of 0.1


def follow_spot(spot: Iterable[pa.Table], label: str, *, first_trade_id: int = 5_000_000_000) -> Iterator[pa.Table]:
    """Trades of a perpetual: those of the spot market, at prices that differ by a basis of 1 to 7 basis points.

    The basis is a sum of two sine waves of the trade time, so it is the same for the same times, however the trades are cut into tables.

    Args:
        spot: tables in `TICK_SCHEMA`, such as those of `generate_day`.
        label: of the perpetual.
        first_trade_id: of the first trade; each next one is one higher.

    Yields:
        A table in `TICK_SCHEMA` for each one of `spot`, with the same times, quantities and sides.
    """
    for ticks in spot:
        phases = (2 * np.pi * int64(ticks["trade_time"]) / period for period in _PERIODS_US)
        slow, fast = map(np.sin, phases)
        prices = ticks["price"].cast(pa.float64()).to_numpy() * (1 + _MEAN + _SWING * (2 * slow + fast) / 3)
        steps = np.rint(prices * 100 / _TICK_CENTS).astype(np.int64)
        ids = pa.array(np.arange(first_trade_id, first_trade_id + len(ticks)))
        first_trade_id += len(ticks)
        columns = {"symbol": pa.repeat(label, len(ticks)), "trade_id": ids, "price": decimal128(steps * _TICK_CENTS * 10**6, PRICE)}
        yield pa.table([columns.get(name, ticks[name]) for name in ticks.column_names], schema=ticks.schema)
