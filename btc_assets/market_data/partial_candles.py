"""Partial candles of the ticks that a load has in memory: the rows that `market_data.partials_query` makes of stored ones.

A partial candle is what the ticks of one slice and symbol add to one candle. On plain PostgreSQL, where partial candles are rows of
tables, a load writes those of all intervals up to a slice with the ticks. On TimescaleDB they belong to continuous aggregates, which
only the engine refreshes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc

from btc_assets.domain.exact_sums import Units, product_sums, sums, units
from btc_assets.domain.slices import MICROSECOND, SLICE
from btc_assets.domain.ticks import PRICE, QUANTITY, TIME, int64, market_trades, symbol_codes
from btc_assets.market_data.candles import WIDTHS
from btc_assets.market_data.derived import Maker, Part
from btc_assets.market_data.keys import candles_key
from btc_assets.store.locks import lock_table
from btc_assets.store.tables import Target

_VOLUME = pa.decimal128(38, QUANTITY.scale)
_VALUE = pa.decimal128(38, PRICE.scale + QUANTITY.scale)

# The levels whose partial candles are rows of a table that the user of the session may write.
_WRITABLE = """
SELECT name FROM market_data.candle_levels
JOIN pg_class ON oid = to_regclass('market_data.candle_partials_' || name) AND relkind = 'r'
WHERE name = ANY(%s) AND has_table_privilege(oid, 'INSERT') AND has_table_privilege(oid, 'DELETE')
"""


class CandlesOfTicks:
    """Has a load make the candles of some intervals, as far as it can.

    Args:
        intervals: that the store keeps up to date.
    """

    def __init__(self, intervals: Sequence[str]) -> None:
        self._intervals = sorted((one for one in intervals if WIDTHS[one] <= SLICE), key=WIDTHS.__getitem__)

    def open(self, connection: psycopg.Connection) -> Maker | None:
        """None on TimescaleDB, and if only the owner of the tables may write them."""
        writable = {name for (name,) in connection.execute(_WRITABLE, (self._intervals,))}
        return _CandleMaker(connection, self._intervals) if writable.issuperset(self._intervals) else None


class _CandleMaker(Maker):
    def __init__(self, connection: psycopg.Connection, intervals: Sequence[str]) -> None:
        self._widths = [WIDTHS[interval] for interval in intervals]
        self._tables = [f"market_data.candle_partials_{interval}" for interval in intervals]
        targets = [Target.of(connection, table, "tick_bucket") for table in self._tables]
        super().__init__("candles", [candles_key(interval) for interval in intervals], targets)

    def make(self, part: Part) -> Sequence[pa.Table] | None:
        try:
            return make_partial_candles(market_trades(part.ticks), self._widths)
        except pa.ArrowInvalid:  # a sum of more than 38 digits, which the server can compute
            return None

    def lock(self, cursor: psycopg.Cursor) -> None:
        """Keep refreshes out, which take these locks exclusively one by one: in the order of `ops.drop_old_chunks`."""
        for table in self._tables:
            lock_table(cursor, table, exclusive=False)


class _Candles(NamedTuple):
    """Candles in the order of (slice, symbol, start), whose figures are integers that count small units.

    Attributes:
        keys: start of the slice, code of the symbol, start of the candle: int64 each [n].
        prices: open, high, low and close [n] each.
        sums: volume, quote volume, and both of takers that bought.
        trade_count, first_trade_id, last_trade_id: int64 [n].
    """

    keys: tuple[np.ndarray, np.ndarray, np.ndarray]
    prices: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
    sums: tuple[Units, Units, Units, Units]
    trade_count: np.ndarray
    first_trade_id: np.ndarray
    last_trade_id: np.ndarray


def make_partial_candles(ticks: pa.Table, widths: Sequence[timedelta]) -> list[pa.Table]:
    """The partial candles of some intervals.

    Args:
        ticks: market trades of whole slices, in the order of the key.
        widths: lengths of the candles, ascending; each a multiple of the one before it, the last one of a slice at most.

    Returns:
        For each width, rows of its table.

    Raises:
        pa.ArrowInvalid: a figure has more than 38 digits.
    """
    price, names = units(ticks["price"]), sorted(pc.unique(ticks["symbol"]).to_pylist())
    finest, *others = widths
    made = [_of_ticks(ticks, price.values, finest // MICROSECOND)]
    for width in others:
        made.append(_of_candles(made[-1], width // MICROSECOND))
    return [_as_table(candles, price.scale, names) for candles in made]


def _of_ticks(ticks: pa.Table, price: np.ndarray, width: int) -> _Candles:
    bucket, symbol, ids = int64(ticks["bucket_5m"]), symbol_codes(ticks), ticks["trade_id"].to_numpy()
    candle = int64(ticks["trade_time"]) // width * width
    quantity, bought = units(ticks["quantity"]), ~ticks["is_market_maker"].to_numpy()
    begins = _changes(bucket, symbol)
    if (np.diff(candle, prepend=0) < 0)[~begins].any():  # trade times step back in the order of ids
        order = np.lexsort((candle, symbol, bucket))
        bucket, symbol, candle, price, ids, bought = (column[order] for column in (bucket, symbol, candle, price, ids, bought))
        quantity = Units(quantity.values[order], quantity.scale)
    first = np.flatnonzero(_changes(bucket, symbol, candle))
    last = np.append(first, len(ids))[1:] - 1
    taken, priced = quantity.where(bought), Units(price, 0)
    return _Candles(
        keys=(bucket[first], symbol[first], candle[first]),
        prices=(price[first], _reduce(np.maximum, price, first), _reduce(np.minimum, price, first), price[last]),
        sums=(
            sums(quantity, first),
            product_sums(priced, quantity, first),
            sums(taken, first),
            product_sums(priced, taken, first),
        ),
        trade_count=last - first + 1,
        first_trade_id=ids[first],
        last_trade_id=ids[last],
    )


def _of_candles(below: _Candles, width: int) -> _Candles:
    """From candles of a shorter interval, whose order puts those of one candle together."""
    bucket, symbol, start = below.keys
    candle = start // width * width
    begins = _changes(bucket, symbol, candle)
    first = np.flatnonzero(begins)
    last = np.append(first, len(start))[1:] - 1
    group = np.cumsum(begins)
    opens = np.lexsort((below.first_trade_id, group))[first]  # as each group keeps its place
    closes = np.lexsort((below.last_trade_id, group))[last]
    open_, high, low, close = below.prices
    volume, value, bought, bought_value = below.sums
    return _Candles(
        keys=(bucket[first], symbol[first], candle[first]),
        prices=(open_[opens], _reduce(np.maximum, high, first), _reduce(np.minimum, low, first), close[closes]),
        sums=(sums(volume, first), sums(value, first), sums(bought, first), sums(bought_value, first)),
        trade_count=_reduce(np.add, below.trade_count, first),
        first_trade_id=below.first_trade_id[opens],
        last_trade_id=below.last_trade_id[closes],
    )


def _as_table(candles: _Candles, price_scale: int, names: Sequence[str]) -> pa.Table:
    bucket, symbol, start = candles.keys
    volume, value, bought, bought_value = candles.sums
    prices = (Units(figure, price_scale).arrow(PRICE) for figure in candles.prices)
    values = (Units(figure.values, figure.scale + price_scale).arrow(_VALUE) for figure in (value, bought_value))
    return pa.table(
        {
            "tick_bucket": pa.array(bucket).cast(TIME),
            "bucket": pa.array(start).cast(TIME),
            "symbol": pa.array(names, pa.string()).take(pa.array(symbol)),
            **dict(zip(("open", "high", "low", "close"), prices, strict=True)),
            "volume": volume.arrow(_VOLUME),
            "trade_count": candles.trade_count,
            "taker_buy_volume": bought.arrow(_VOLUME),
            **dict(zip(("quote_volume", "taker_buy_quote_volume"), values, strict=True)),
            "first_trade_id": candles.first_trade_id,
            "last_trade_id": candles.last_trade_id,
        }
    )


def _changes(*columns: np.ndarray) -> np.ndarray:
    """Where a row differs from the one before it in any column; the first one does."""
    changes = np.ones(len(columns[0]), bool)
    changes[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return changes


def _reduce(ufunc: np.ufunc, values: np.ndarray, first: np.ndarray) -> np.ndarray:
    return ufunc.reduceat(values, first) if len(first) else values[:0]
