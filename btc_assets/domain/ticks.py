"""Ticks in Arrow: the canonical schema that every format decodes to, the order of ticks, and which version of a trade counts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from btc_assets.domain.tables import TICKS

TABLE = TICKS

TIME = pa.timestamp("us", "UTC")
PRICE = pa.decimal128(18, 8)
QUANTITY = pa.decimal128(24, 12)

TICK_SCHEMA = pa.schema(
    [
        pa.field("bucket_5m", TIME, nullable=False),
        pa.field("event_time", TIME, nullable=False),
        pa.field("trade_time", TIME, nullable=False),
        pa.field("symbol", pa.string(), nullable=False),
        pa.field("trade_id", pa.int64(), nullable=False),
        pa.field("price", PRICE, nullable=False),
        pa.field("quantity", QUANTITY, nullable=False),
        pa.field("buyer_order_id", pa.int64()),
        pa.field("seller_order_id", pa.int64()),
        pa.field("is_market_maker", pa.bool_(), nullable=False),
        pa.field("trade_kind", pa.string()),
    ]
)

# As decoded: a version of a trade whose producer sends no event time has none. It is stored with its trade time instead.
DECODED_SCHEMA = TICK_SCHEMA.set(TICK_SCHEMA.get_field_index("event_time"), pa.field("event_time", TIME))

# What the exchange says of a trade once and for all. Its event time and its order ids depend on how it was fetched.
CONTENT = ("trade_time", "price", "quantity", "is_market_maker")

# The kind of an ordinary trade. Others, such as those of a futures exchange's insurance fund, are no part of the market: the exchange
# leaves them out of its candles. Most feeds do not tell the kind; all their trades are ordinary ones.
MARKET = "MARKET"

_EXACT_FLOATS = 1 << 53  # float64 holds all integers up to this one,
_EXACT_POWERS = 22  # and all powers of ten up to this one


def market_trades(ticks: pa.Table) -> pa.Table:
    """The ticks that are part of the market, as `market_data.is_market_trade` says in SQL."""
    if ticks["trade_kind"].null_count == len(ticks):
        return ticks
    return ticks.filter(pc.fill_null(pc.equal(ticks["trade_kind"], MARKET), True))


def tick_order(ticks: pa.Table) -> np.ndarray:
    """Indices that sort by the key `(bucket_5m, symbol, trade_id)`; rows with equal keys keep their order."""
    trade_id, symbol, bucket = keys = _keys(ticks)
    in_order = (bucket[1:] > bucket[:-1]) | ((bucket[1:] == bucket[:-1]) & (trade_id[1:] >= trade_id[:-1]))
    if in_order.all() and not np.diff(symbol).any():
        return np.arange(len(ticks))  # the common case, one symbol in order: nothing to sort
    return np.lexsort(keys)


def _keys(ticks: pa.Table) -> list[np.ndarray]:
    """The columns of the key as numbers, the last one first, as `numpy.lexsort` expects."""
    return [ticks["trade_id"].to_numpy(), symbol_codes(ticks), int64(ticks["bucket_5m"])]


class Versions(NamedTuple):
    """Rows that are versions of the same trades.

    Attributes:
        rows: positions of all rows whose symbol and trade id occur more than once.
        chosen: for each of them, the position of the version that counts.
    """

    rows: np.ndarray
    chosen: np.ndarray

    @property
    def lost(self) -> Versions:
        """Those that do not count."""
        lost = self.rows != self.chosen
        return Versions(self.rows[lost], self.chosen[lost])


def choose_versions(ticks: pa.Table, rank: np.ndarray | None = None) -> Versions:
    """Find the trades that stand in a table more than once, in one slice or in several, and choose the version of each that counts.

    A version with an event time counts before one without; then the earliest event time (without any, the earliest trade time); then
    the version that tells more (order ids, kind); then the first row.

    Args:
        ticks: in `DECODED_SCHEMA`.
        rank: of each row, to be compared before everything else; the lowest counts.
    """
    rows = _rows_of_repeated_trades(ticks)
    if not len(rows):
        return Versions(rows, rows)
    some = ticks.take(rows)
    trade_id, symbol, _ = _keys(some)
    trade = np.cumsum(np.concatenate([[0], (trade_id[1:] != trade_id[:-1]) | (symbol[1:] != symbol[:-1])]))
    untold = np.sum([some[name].is_null().to_numpy() for name in ("buyer_order_id", "seller_order_id", "trade_kind")], axis=0)
    without_event_time = some["event_time"].is_null().to_numpy()
    time = int64(pc.coalesce(some["event_time"], some["trade_time"]))
    ranks = np.zeros(len(rows)) if rank is None else rank[rows]
    order = np.lexsort((rows, untold, time, without_event_time, ranks, trade))
    first = np.flatnonzero(np.diff(trade[order], prepend=-1))
    chosen = np.repeat(rows[order][first], np.diff(first, append=len(rows)))
    return Versions(rows[order], chosen)


def _rows_of_repeated_trades(ticks: pa.Table) -> np.ndarray:
    """Positions of the rows whose trade occurs more than once, trade by trade."""
    trade_id = ticks["trade_id"].to_numpy()
    if (trade_id[1:] > trade_id[:-1]).all():
        return np.empty(0, np.int64)  # the common case, ids that ascend throughout
    symbol = symbol_codes(ticks)
    order = np.argsort(symbol.astype(np.int16), kind="stable") if np.diff(symbol).any() else None
    by_symbol, id_by_symbol = (symbol, trade_id) if order is None else (symbol[order], trade_id[order])
    if ((id_by_symbol[1:] > id_by_symbol[:-1]) | (by_symbol[1:] != by_symbol[:-1])).all():
        return np.empty(0, np.int64)  # with several symbols, the ids of each of them ascend
    order = np.lexsort((trade_id, symbol))
    same = (trade_id[order][1:] == trade_id[order][:-1]) & (symbol[order][1:] == symbol[order][:-1])
    return order[np.concatenate([same, [False]]) | np.concatenate([[False], same])]


def contradict(ticks: pa.Table, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each pair of rows, given by position, whether they differ in what the exchange says of a trade once and for all."""
    differs = np.zeros(len(rows), bool)
    for name in CONTENT if len(rows) else ():
        differs |= pc.not_equal(ticks[name].take(rows), ticks[name].take(others)).to_numpy()
    return differs


def with_event_times(ticks: pa.Table) -> pa.Table:
    """Decoded ticks as they are stored: one without an event time gets its trade time."""
    if ticks["event_time"].null_count:
        position = TICK_SCHEMA.get_field_index("event_time")
        ticks = ticks.set_column(position, TICK_SCHEMA.field(position), pc.coalesce(ticks["event_time"], ticks["trade_time"]))
    return ticks


def symbol_codes(ticks: pa.Table) -> np.ndarray:
    """The symbols as small integers, in alphabetical order."""
    if not len(ticks) or pc.all(pc.equal(ticks["symbol"], ticks["symbol"][0])).as_py():
        return np.zeros(len(ticks), np.int64)  # the common case, five times as fast
    encoded = ticks["symbol"].combine_chunks().dictionary_encode()
    rank = np.argsort(np.argsort(np.array(encoded.dictionary.to_pylist(), dtype=object)))
    return rank[encoded.indices.to_numpy(zero_copy_only=False)]


def first_of_slices(ticks: pa.Table) -> np.ndarray:
    """Positions of the first tick of each slice and symbol, in a table in the order of the key."""
    if not len(ticks):
        return np.empty(0, np.int64)
    begins = np.diff(int64(ticks["bucket_5m"]), prepend=-1) != 0
    if (symbol := symbol_codes(ticks)).any():
        begins[1:] |= np.diff(symbol) != 0
    return np.flatnonzero(begins)


def decimal128(units: np.ndarray, type: pa.Decimal128Type, valid: np.ndarray | None = None) -> pa.Array:
    """Decimals from integers that count the type's smallest unit, without a conversion of each.

    Args:
        units: int64.
        type: its scale says how many decimal places a unit is worth.
        valid: which values are not null; all if omitted.
    """
    words = np.empty((len(units), 2), np.int64)
    words[:, 0] = units
    words[:, 1] = units >> 63  # the high 64 bits repeat the sign
    mask = None if valid is None or valid.all() else pa.array(valid).buffers()[1]
    return pa.Array.from_buffers(type, len(units), [mask, pa.py_buffer(words)])


def times(microseconds: np.ndarray) -> pa.Array:
    """Times from int64 microseconds since 1970; `pa.array` would import pandas, which takes longer than a day of ticks to make."""
    return pa.Array.from_buffers(TIME, len(microseconds), [None, pa.py_buffer(np.ascontiguousarray(microseconds, np.int64))])


def int64(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """A column of times, without nulls, as microseconds since 1970."""
    return column.cast(pa.int64()).to_numpy()


def float64(column: pa.ChunkedArray) -> np.ndarray:
    """A column of numbers without nulls as the floats that are nearest to them, as PostgreSQL's cast to double precision gives them.

    Arrow multiplies decimals by a power of ten that is rounded itself. Its parser of text rounds correctly, but takes 20 times as long as
    the division of two floats that are exact.
    """
    if not pa.types.is_decimal128(column.type):
        return column.cast(pa.float64()).to_numpy()
    words = [np.frombuffer(chunk.buffers()[1], np.int64, 2 * len(chunk), 16 * chunk.offset) for chunk in column.chunks if len(chunk)]
    low, high = np.concatenate([np.empty(0, np.int64), *words]).reshape(-1, 2).T
    exact = (high == low >> 63) & (low <= _EXACT_FLOATS) & (low >= -_EXACT_FLOATS)
    if exact.all() and 0 <= column.type.scale <= _EXACT_POWERS:
        return low / 10.0**column.type.scale
    return column.cast(pa.string()).cast(pa.float64()).to_numpy()
