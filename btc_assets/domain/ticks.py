"""Ticks in Arrow: the canonical schema that every format decodes to, and the order and uniqueness of ticks."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

TABLE = "market_data.btc_ticks"

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
    ]
)


def tick_order(ticks: pa.Table) -> np.ndarray:
    """Indices that sort by the key `(bucket_5m, symbol, trade_id)`; rows with equal keys keep their order."""
    trade_id, symbol, bucket = keys = _keys(ticks)
    in_order = (bucket[1:] > bucket[:-1]) | ((bucket[1:] == bucket[:-1]) & (trade_id[1:] >= trade_id[:-1]))
    if in_order.all() and not np.diff(symbol).any():
        return np.arange(len(ticks))  # the common case, one symbol in order: nothing to sort
    return np.lexsort(keys)


def repeats(ordered: pa.Table) -> np.ndarray:
    """For each row of an ordered table, whether it repeats the key of the row before."""
    same = np.zeros(len(ordered), bool)
    same[1:] = np.logical_and.reduce([key[1:] == key[:-1] for key in _keys(ordered)])
    return same


def _keys(ticks: pa.Table) -> list[np.ndarray]:
    """The columns of the key as numbers, the last one first, as `numpy.lexsort` expects."""
    return [ticks["trade_id"].to_numpy(), symbol_codes(ticks), int64(ticks["bucket_5m"])]


def conflicts(ordered: pa.Table, repeated: np.ndarray) -> int:
    """How many repeated rows differ from the first row with the same key, which is kept."""
    if not repeated.any():
        return 0
    kept = np.maximum.accumulate(np.where(repeated, 0, np.arange(len(ordered))))
    dropped_rows, kept_rows = ordered.take(np.flatnonzero(repeated)), ordered.take(kept[repeated])
    differs = np.zeros(len(dropped_rows), bool)
    for name in ordered.column_names:
        left, right = dropped_rows[name], kept_rows[name]
        equal = pc.fill_null(pc.equal(left, right), False)
        both_null = pc.and_(pc.is_null(left), pc.is_null(right))
        differs |= ~pc.or_(equal, both_null).to_numpy()
    return int(differs.sum())


def symbol_codes(ticks: pa.Table) -> np.ndarray:
    """The symbols as small integers, in alphabetical order."""
    encoded = ticks["symbol"].combine_chunks().dictionary_encode()
    rank = np.argsort(np.argsort(np.array(encoded.dictionary.to_pylist(), dtype=object)))
    return rank[encoded.indices.to_numpy(zero_copy_only=False)]


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


def int64(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """A column of times, without nulls, as microseconds since 1970."""
    return column.cast(pa.int64()).to_numpy()
