"""Decoding: raw tables of any known producer into ticks of the canonical schema, to the last digit.

Nothing in here fails for a bad row: a row that is no valid trade of its feed comes back with the reason. Whole columns
are converted at once; only where that fails does a slow path look at single values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import partial

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from btc_assets.landing.feeds import Feed
from btc_assets.landing.formats import UNPARSED, ObjectRejected
from btc_assets.market_data.ticks import PRICE, QUANTITY, TICK_SCHEMA, TIME
from btc_assets.slices import SLICE_US

# How producers spell the nine fields: the collector, the exchange's messages, the exchange's dumps.
_SPELLINGS = {
    "event_time": ("event_time", "vent_time", "E"),
    "trade_time": ("trade_time", "T", "time"),
    "symbol": ("symbol", "s"),
    "trade_id": ("trade_id", "t", "id"),
    "price": ("price", "p"),
    "quantity": ("quantity", "q", "qty"),
    "buyer_order_id": ("buyer_order_id", "b"),
    "seller_order_id": ("seller_order_id", "a"),
    "is_market_maker": ("is_market_maker", "m", "is_buyer_maker", "isBuyerMaker"),
}
_OPTIONAL = {"event_time", "symbol", "buyer_order_id", "seller_order_id"}
# What producers send besides, and nobody misses: e, M and X of messages, columns of dumps.
_IGNORED = {"e", "M", "X", "quote_qty", "quoteQty", "is_best_match", "isBestMatch", "stream", UNPARSED, "__index_level_0__"}

_FIRST_TIME = int(datetime(2009, 1, 3, tzinfo=UTC).timestamp()) * 1_000_000  # the first block
_LAST_TIME = int(datetime(2100, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
_INT64_MAX = (1 << 63) - 1


@dataclass
class Decoded:
    """Rows of raw tables, decoded.

    Attributes:
        ticks: valid rows in `TICK_SCHEMA`, in the order in which they came; `symbol` is the feed's label.
        index: for each tick, the position of its row among all rows that were given.
        rejected: `index` int64, `bucket_us` int64 (slice of the row, null where unknown), `reason` string, `record` string.
        extra_columns: columns that no known producer sends.
    """

    ticks: pa.Table
    index: np.ndarray
    rejected: pa.Table
    extra_columns: tuple[str, ...]


def decode(raw: pa.Table, feeds: Sequence[Feed]) -> Decoded:
    """Decode one raw table that landed under the prefix of `feeds`.

    Args:
        raw: rows with the producer's own column names and types.
        feeds: the feeds of that prefix; where there is one, a table without a symbol column is taken to be its.

    Raises:
        ObjectRejected: a column that every trade has is missing.
    """
    columns = _columns(raw)
    rows = _Rows(len(raw))
    if UNPARSED in raw.column_names:
        rows.reject(pc.is_valid(_array(raw[UNPARSED])), "the row cannot be taken apart")

    symbol = _symbols(columns["symbol"], feeds, rows)
    trade_id = rows.required("trade_id", columns["trade_id"], _int64)
    trade_time = rows.required("trade_time", columns["trade_time"], _time)
    event_time = rows.optional("event_time", columns["event_time"], _time, TIME)
    event_time = pc.coalesce(event_time, trade_time)
    for name, times in (("trade_time", trade_time), ("event_time", event_time)):
        us = times.cast(pa.int64())
        out = pc.or_(pc.less(us, _FIRST_TIME), pc.greater_equal(us, _LAST_TIME))
        rows.reject(out, lambda i, name=name, times=times: f"{name} {times[i].as_py():%Y-%m-%dT%H:%M:%SZ} lies outside 2009 to 2100")
    price = rows.required("price", columns["price"], partial(_decimal, type=PRICE))
    quantity = rows.required("quantity", columns["quantity"], partial(_decimal, type=QUANTITY))
    for name, value in (("price", price), ("quantity", quantity)):
        rows.reject(pc.less_equal(value, pa.scalar(0, value.type)), lambda i, name=name, value=value: f"{name} {value[i].as_py().normalize():f} is not above zero")
    buyer = rows.optional("buyer_order_id", columns["buyer_order_id"], _int64, pa.int64())
    seller = rows.optional("seller_order_id", columns["seller_order_id"], _int64, pa.int64())
    maker = rows.required("is_market_maker", columns["is_market_maker"], _bool)

    us = event_time.cast(pa.int64()).to_numpy(zero_copy_only=False) if event_time.null_count == 0 else pc.fill_null(event_time.cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
    bucket = us // SLICE_US * SLICE_US
    ticks = pa.table(
        [pa.array(bucket).cast(TIME), event_time, trade_time, symbol, trade_id, price, quantity, buyer, seller, maker],
        names=TICK_SCHEMA.names,
    )
    bad = rows.bad
    if bad.any():
        good = np.flatnonzero(~bad)
        ticks = ticks.take(good)
    else:
        good = np.arange(len(raw))
    ticks = ticks.cast(TICK_SCHEMA)
    return Decoded(ticks, good, _rejected(raw, rows, bucket, event_time), _extra(raw))


def _rejected(raw: pa.Table, rows: _Rows, bucket: np.ndarray, event_time: pa.Array) -> pa.Table:
    index = np.flatnonzero(rows.bad)
    known = (bucket[index] >= _FIRST_TIME - SLICE_US) & (bucket[index] < _LAST_TIME)
    return pa.table(
        {
            "index": pa.array(index, pa.int64()),
            "bucket_us": pa.array(bucket[index], pa.int64(), mask=~known),
            "reason": pa.array([rows.reasons[i] for i in index], pa.string()),
            "record": pa.array([_record(raw, int(i)) for i in index], pa.string()),
        }
    )


def _record(raw: pa.Table, index: int) -> str:
    row = {name: raw[name][index].as_py() for name in raw.column_names}
    if row.get(UNPARSED) is not None:
        return row[UNPARSED]
    row.pop(UNPARSED, None)
    return orjson.dumps(row, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def _extra(raw: pa.Table) -> tuple[str, ...]:
    known = _IGNORED.union(*_SPELLINGS.values())
    return tuple(name for name in raw.column_names if name not in known)


def _columns(raw: pa.Table) -> dict[str, pa.Array | None]:
    """The nine fields under their own names, whatever the producer calls them and in whatever order they come."""
    found: dict[str, pa.Array | None] = {}
    for field, spellings in _SPELLINGS.items():
        present = [raw[name] for name in raw.column_names if name in spellings]
        found[field] = pc.coalesce(*map(_array, present)) if len(present) > 1 else _array(present[0]) if present else None
    missing = [field for field, column in found.items() if column is None and field not in _OPTIONAL]
    if missing and not (UNPARSED in raw.column_names and set(raw.column_names) <= {UNPARSED}):
        shown = ", ".join(raw.column_names[:12]) or "none"
        raise ObjectRejected(
            f"it is of another schema: no column for {', '.join(missing)} (its columns: {shown}); move it out of the landing zone "
            "or land it as trades"
        )
    return found


def _array(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks else pa.array([], column.type)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_large_string(array.type) or pa.types.is_string_view(array.type) or pa.types.is_binary(array.type):
        array = array.cast(pa.string())
    return array


class _Rows:
    """Which rows are rejected and why; the first reason of a row stands."""

    def __init__(self, count: int) -> None:
        self.bad = np.zeros(count, bool)
        self.reasons: dict[int, str] = {}

    def reject(self, mask: pa.Array | np.ndarray, reason: str | Callable[[int], str]) -> None:
        if isinstance(mask, pa.Array):
            if not pc.any(mask).as_py():
                return
            mask = pc.fill_null(mask, False).to_numpy(zero_copy_only=False)
        for i in np.flatnonzero(mask & ~self.bad):
            self.reasons[int(i)] = reason if isinstance(reason, str) else reason(int(i))
        self.bad |= mask

    def required(self, name: str, column: pa.Array | None, convert: Callable[[pa.Array], tuple[pa.Array, dict[int, str]]]) -> pa.Array:
        if column is None:
            column = pa.nulls(len(self.bad))
        values = self.optional(name, column, convert, None)
        if values.null_count:
            self.reject(pc.is_null(values), f"{name} is null")
        return values

    def optional(
        self, name: str, column: pa.Array | None, convert: Callable[[pa.Array], tuple[pa.Array, dict[int, str]]], type: pa.DataType | None
    ) -> pa.Array:
        if column is None or (type is not None and pa.types.is_null(column.type)):
            return pa.nulls(len(self.bad), type)
        values, unreadable = convert(column)
        if unreadable:
            mask = np.zeros(len(self.bad), bool)
            mask[list(unreadable)] = True
            self.reject(mask, lambda i: f"{name} {unreadable[i]}")
        return values


def _symbols(column: pa.Array | None, feeds: Sequence[Feed], rows: _Rows) -> pa.Array:
    if column is None:
        if len(feeds) > 1:
            raise ObjectRejected("it has no symbol column, but its prefix is shared by several symbols: land each under its own prefix")
        return pa.repeat(feeds[0].label, len(rows.bad))
    column = column.cast(pa.string())
    rows.reject(pc.is_null(column), "symbol is null")
    if len(feeds) == 1 and pc.all(pc.equal(column, feeds[0].symbol), skip_nulls=False).as_py():
        return column if feeds[0].symbol == feeds[0].label else pa.repeat(feeds[0].label, len(column))
    position = pc.index_in(column, pa.array([feed.symbol for feed in feeds]))
    wanted = " or ".join(feed.symbol for feed in feeds)
    rows.reject(pc.is_null(position), lambda i: f"symbol {column[i].as_py()} is not {wanted}, which this prefix is for")
    return pa.array([feed.label for feed in feeds]).take(position)


def _by_value(column: pa.Array, convert: Callable[[object], object], type: pa.DataType, what: str) -> tuple[pa.Array, dict[int, str]]:
    """The slow path: one value at a time, keeping what cannot be read apart."""
    values: list[object] = []
    unreadable: dict[int, str] = {}
    for i, value in enumerate(column.to_pylist()):
        try:
            values.append(None if value is None else convert(value))
        except (ValueError, ArithmeticError, TypeError):
            values.append(None)
            unreadable[i] = f"{value!r} is not {what}"
    return pa.array(values, type), unreadable


# ---- integers


def _int64(column: pa.Array) -> tuple[pa.Array, dict[int, str]]:
    if pa.types.is_int64(column.type):
        return column, {}
    if pa.types.is_null(column.type):
        return column.cast(pa.int64()), {}
    if pa.types.is_integer(column.type) or pa.types.is_string(column.type):
        try:
            return column.cast(pa.int64()), {}
        except pa.ArrowInvalid:
            pass
    if pa.types.is_floating(column.type):
        # pandas turns integers with gaps into floats: NaN is a gap, and below 2^53 every integer is exact.
        column = column.cast(pa.float64())
        values = pc.if_else(pc.is_nan(column), pa.scalar(None, pa.float64()), column)
        whole = pc.all(pc.and_(pc.equal(values, pc.floor(values)), pc.less(pc.abs(values), float(1 << 53)))).as_py()
        if whole in (True, None):
            return values.cast(pa.int64()), {}
        column = values
    return _by_value(column, _to_int64, pa.int64(), "an integer")


def _to_int64(value: object) -> int | None:
    if isinstance(value, str) and not value.strip():
        return None
    number = Decimal(str(value))
    if number != number.to_integral_value() or abs(number) > _INT64_MAX or (isinstance(value, float) and abs(value) >= 1 << 53):
        raise ValueError
    return int(number)


# ---- times


def _time(column: pa.Array) -> tuple[pa.Array, dict[int, str]]:
    kind = column.type
    if pa.types.is_null(kind):
        return column.cast(TIME), {}
    if pa.types.is_timestamp(kind):
        if kind.unit == "ns":
            column = pc.floor_temporal(column, unit="microsecond")
        column = column.cast(pa.timestamp("us", kind.tz))
        return (column.cast(TIME) if kind.tz else pc.assume_timezone(column, "UTC")), {}
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        epoch, unreadable = _int64(column)
        return _epoch(epoch), unreadable
    if pa.types.is_string(kind):
        try:
            return column.cast(TIME), {}
        except pa.ArrowInvalid:
            pass
        try:
            return _epoch(column.cast(pa.int64())), {}
        except pa.ArrowInvalid:
            return _by_value(column, _to_time, TIME, "a time")
    return _by_value(column, _to_time, TIME, "a time")


def _epoch(column: pa.Array) -> pa.Array:
    """Milli-, micro- or nanoseconds since 1970, told apart by their size: no two of them overlap between 1973 and 5138."""
    value = pc.fill_null(column, 0).to_numpy(zero_copy_only=False)
    size = np.abs(value)
    us = np.where(size < 10**14, np.clip(value, -(10**14), 10**14) * 1000, np.where(size < 10**17, value, value // 1000))
    return pa.array(us, pa.int64(), mask=column.is_null().to_numpy(zero_copy_only=False)).cast(TIME)


def _to_time(value: object) -> datetime | None:
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value
    text = str(value).strip()
    if not text:
        return None
    if text.lstrip("+-").isdigit():
        return _epoch(pa.array([int(text)], pa.int64()))[0].as_py()
    time = datetime.fromisoformat(text)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


# ---- decimals


def _decimal(column: pa.Array, type: pa.Decimal128Type) -> tuple[pa.Array, dict[int, str]]:
    kind = column.type
    if pa.types.is_floating(kind) and kind != pa.float64():
        column = column.cast(pa.string())  # the shortest text that gives the same float32 is what was meant
    elif pa.types.is_floating(kind):
        return _decimal_of_floats(column, type)
    try:
        return column.cast(type), {}
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        places = type.scale
        return _by_value(
            column, partial(_to_decimal, type=type), type, f"a decimal with at most {type.precision - places} digits before and {places} after the point"
        )


def _decimal_of_floats(column: pa.Array, type: pa.Decimal128Type) -> tuple[pa.Array, dict[int, str]]:
    """Rounding to 8 decimals recovers the exchange's own decimal below 9e7; as integers, 10 times faster than Arrow's cast."""
    valid = ~column.is_null().to_numpy(zero_copy_only=False)
    value = pc.fill_null(column, 0.0).to_numpy(zero_copy_only=False)
    units = np.rint(value * 1e8)
    limit = 9.2e18 / 10 ** (type.scale - 8)
    fits = np.abs(units) < limit  # False for NaN and infinities as well
    if not fits[valid].all():
        return _by_value(column, partial(_to_decimal, type=type), type, "a finite decimal that the column can hold")
    return decimal128(units.astype(np.int64) * 10 ** (type.scale - 8), type, valid), {}


def decimal128(units: np.ndarray, type: pa.Decimal128Type, valid: np.ndarray | None = None) -> pa.Array:
    """Integers of the type's smallest unit as decimals, without a conversion: the high 64 bits repeat the sign."""
    words = np.empty((len(units), 2), np.int64)
    words[:, 0] = units
    words[:, 1] = units >> 63
    mask = None if valid is None or valid.all() else pa.array(valid).buffers()[1]
    return pa.Array.from_buffers(type, len(units), [mask, pa.py_buffer(words)])


def _to_decimal(value: object, type: pa.Decimal128Type) -> Decimal | None:
    if isinstance(value, str) and not value.strip():
        return None
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError
    number = round(Decimal(repr(value)), 8) if isinstance(value, float) else Decimal(str(value).strip())
    exponent = Decimal(1).scaleb(-type.scale)
    if not number.is_finite() or number.quantize(exponent) != number or abs(number) >= Decimal(10) ** (type.precision - type.scale):
        raise InvalidOperation
    return number.quantize(exponent)


# ---- booleans

_TRUE, _FALSE = {"true", "t", "1", "1.0"}, {"false", "f", "0", "0.0"}


def _bool(column: pa.Array) -> tuple[pa.Array, dict[int, str]]:
    if pa.types.is_boolean(column.type):
        return column, {}
    if pa.types.is_null(column.type):
        return column.cast(pa.bool_()), {}
    if pa.types.is_string(column.type):
        try:
            return column.cast(pa.bool_()), {}
        except pa.ArrowInvalid:
            pass
    return _by_value(column, _to_bool, pa.bool_(), "true or false")


def _to_bool(value: object) -> bool | None:
    text = str(value).strip().lower()
    if text in ("", "nan"):
        return None
    if text not in _TRUE | _FALSE:
        raise ValueError
    return text in _TRUE
