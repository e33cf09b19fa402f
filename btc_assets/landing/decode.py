"""Decoding: raw tables of any known producer into ticks of the canonical schema, to the last digit.

Nothing in here fails for a bad row: a row that is no valid trade of its feed comes back with the reason. Whole columns
are converted at once; only where that fails does a slow path look at single values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import partial

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from btc_assets.domain.feeds import Feed
from btc_assets.domain.slices import SLICE_US
from btc_assets.domain.ticks import PRICE, QUANTITY, TICK_SCHEMA, TIME, int64
from btc_assets.landing.formats import NULLS, UNPARSED, ObjectRejected, shown, storable

# How producers spell the nine fields: the collector, the exchange's messages, the exchange's dumps. An earlier spelling
# goes before a later one: `id` beside `trade_id` is somebody's own number.
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

_Convert = Callable[[pa.Array], tuple[pa.Array, dict[int, str]]]  # the values, and why single ones cannot be read

# Other types that may hold text; each is cast to plain strings.
_TEXT = (
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
    pa.types.is_fixed_size_binary,
)

_REJECTED = pa.schema({"index": pa.int64(), "bucket_us": pa.int64(), "reason": pa.string(), "record": pa.string()})

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
    trade_id = rows.required("trade_id", columns, _int64, pa.int64())
    trade_time = rows.required("trade_time", columns, _time, TIME)
    event_time = pc.coalesce(rows.optional("event_time", columns, _time, TIME), trade_time)
    for name, times in (("trade_time", trade_time), ("event_time", event_time)):
        rows.within_time(name, times)
    price = rows.above_zero("price", columns, PRICE)
    quantity = rows.above_zero("quantity", columns, QUANTITY)
    buyer = rows.optional("buyer_order_id", columns, _int64, pa.int64())
    seller = rows.optional("seller_order_id", columns, _int64, pa.int64())
    maker = rows.required("is_market_maker", columns, _bool, pa.bool_())

    bucket = _us(event_time) // SLICE_US * SLICE_US
    ticks = pa.table(
        [pa.array(bucket).cast(TIME), event_time, trade_time, symbol, trade_id, price, quantity, buyer, seller, maker],
        names=TICK_SCHEMA.names,
    )
    good = np.flatnonzero(~rows.bad)
    if len(good) < len(raw):
        ticks = ticks.take(good)
    return Decoded(ticks.cast(TICK_SCHEMA), good, _rejected(raw, rows, bucket), _extra(raw))


def _us(times: pa.Array) -> np.ndarray:
    return int64(pc.fill_null(times.cast(pa.int64()), 0))


def _rejected(raw: pa.Table, rows: _Rows, bucket: np.ndarray) -> pa.Table:
    if not rows.bad.any():
        return _REJECTED.empty_table()
    index = np.flatnonzero(rows.bad)
    known = (bucket[index] >= _FIRST_TIME - SLICE_US) & (bucket[index] < _LAST_TIME)
    bucket_us = pa.array(bucket[index], mask=~known)
    reasons = [storable(rows.reasons[i]) for i in index.tolist()]
    columns = {name: raw[name].combine_chunks() for name in raw.column_names}
    records = [_record(columns, i) for i in index.tolist()]
    return pa.table([pa.array(index), bucket_us, pa.array(reasons), pa.array(records)], schema=_REJECTED)


def _record(columns: dict[str, pa.Array], index: int) -> str:
    """A row as JSON, or as the text that could not be taken apart."""
    row = {name: _python(column[index]) for name, column in columns.items()}
    text = row.pop(UNPARSED, None)
    return storable(str(text)) if text is not None else orjson.dumps(row, default=str).decode()


def _extra(raw: pa.Table) -> tuple[str, ...]:
    known = _IGNORED.union(*_SPELLINGS.values())
    return tuple(storable(name) for name in raw.column_names if name not in known)


def _columns(raw: pa.Table) -> dict[str, list[pa.Array]]:
    """The columns of each of the nine fields, whatever the producer calls them and in whatever order they come."""
    names = set(raw.column_names)
    found = {field: [_array(raw[name]) for name in spellings if name in names] for field, spellings in _SPELLINGS.items()}
    missing = [field for field, columns in found.items() if not columns and field not in _OPTIONAL]
    if missing and names != {UNPARSED}:
        raise ObjectRejected(
            f"it is of another schema: no column for {', '.join(missing)} (its columns: {shown(raw.column_names)}); "
            "move it out of the landing zone or land it as trades"
        )
    return found


def _array(column: pa.ChunkedArray) -> pa.Array:
    """The column in one piece, and text of any type as plain strings."""
    array = column.combine_chunks()
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if not pa.types.is_primitive(array.type) and any(is_text(array.type) for is_text in _TEXT):
        with suppress(pa.ArrowInvalid):  # where some bytes are no text, each value is looked at by itself
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
        for i in np.flatnonzero(mask & ~self.bad).tolist():
            self.reasons[i] = reason if isinstance(reason, str) else reason(i)
        self.bad |= mask

    def optional(self, name: str, columns: dict[str, list[pa.Array]], convert: _Convert, type: pa.DataType) -> pa.Array:
        """The field, of several columns the first that has a value in a row, and null where there is none."""
        return self._converted(name, columns[name], convert, type)

    def required(self, name: str, columns: dict[str, list[pa.Array]], convert: _Convert, type: pa.DataType) -> pa.Array:
        values = self._converted(name, columns[name][:1], convert, type)
        if values.null_count:
            self.reject(pc.is_null(values), f"{name} is null")
        return values

    def above_zero(self, name: str, columns: dict[str, list[pa.Array]], type: pa.Decimal128Type) -> pa.Array:
        values = self.required(name, columns, partial(_decimal, type=type), type)
        self.reject(pc.less_equal(values, pa.scalar(0, type)), lambda i: f"{name} {values[i].as_py().normalize():f} is not above zero")
        return values

    def within_time(self, name: str, times: pa.Array) -> None:
        us = _us(times)
        outside = ((us < _FIRST_TIME) | (us >= _LAST_TIME)) & times.is_valid().to_numpy(zero_copy_only=False)
        self.reject(outside, lambda i: f"{name} {np.datetime64(int(us[i]) // 1_000_000, 's')}Z lies outside 2009 to 2100")

    def _converted(self, name: str, columns: Sequence[pa.Array], convert: _Convert, type: pa.DataType) -> pa.Array:
        converted = [pa.nulls(len(self.bad), type)] if not columns else []
        for column in columns:
            values, unreadable = convert(column)
            converted.append(values)
            if unreadable:
                mask = np.zeros(len(self.bad), bool)
                mask[list(unreadable)] = True
                self.reject(mask, {i: f"{name} {reason}" for i, reason in unreadable.items()}.__getitem__)
        return pc.coalesce(*converted) if len(converted) > 1 else converted[0]


def _symbols(columns: Sequence[pa.Array], feeds: Sequence[Feed], rows: _Rows) -> pa.Array:
    if not columns:
        if len(feeds) > 1 and not rows.bad.all():
            raise ObjectRejected("it has no symbol column, but its prefix is shared by several symbols: land each under its own prefix")
        return pa.repeat(feeds[0].label, len(rows.bad))
    column = columns[0] if pa.types.is_string(columns[0].type) else _by_value(columns[0], str, pa.string(), "a symbol")[0]
    rows.reject(pc.is_null(column), "symbol is null")
    if len(feeds) == 1 and pc.all(pc.equal(column, feeds[0].symbol), skip_nulls=False).as_py():
        return column if feeds[0].symbol == feeds[0].label else pa.repeat(feeds[0].label, len(column))
    position = pc.index_in(column, pa.array([feed.symbol for feed in feeds]))
    wanted = " or ".join(feed.symbol for feed in feeds)
    rows.reject(pc.is_null(position), lambda i: f"symbol {column[i].as_py():.100} is not {wanted}, which this prefix is for")
    return pa.array([feed.label for feed in feeds]).take(position)


def _python(scalar: pa.Scalar) -> object:
    """The value as Python's own, or as text where Python has none (the year 20000, an unknown time zone)."""
    try:
        value = scalar.as_py()
        return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value
    except (ValueError, OverflowError, LookupError):
        return " ".join(pa.repeat(scalar, 1).to_string().split())[2:-2]


def _by_value(column: pa.Array, convert: Callable[[object], object], type: pa.DataType, what: str) -> tuple[pa.Array, dict[int, str]]:
    """The slow path: one value at a time, keeping what cannot be read apart."""
    values: list[object] = []
    unreadable: dict[int, str] = {}
    for i, value in enumerate(map(_python, column)):
        try:
            values.append(None if value is None or str(value).strip() in NULLS else convert(value))
        except (ValueError, ArithmeticError, TypeError):
            values.append(None)
            unreadable[i] = f"{repr(value) if isinstance(value, str) else str(value):.100} is not {what}"
    return pa.array(values, type), unreadable


# ---- integers


def _int64(column: pa.Array) -> tuple[pa.Array, dict[int, str]]:
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_null(kind):
        with suppress(pa.ArrowInvalid):
            return column.cast(pa.int64()), {}
    exact = 1 << 53
    if pa.types.is_floating(kind):
        # pandas turns integers with gaps into floats: NaN is a gap, and below 2^53 (2^24 for float32) every integer is exact.
        exact = 1 << (np.finfo(kind.to_pandas_dtype()).nmant + 1)
        column = column.cast(pa.float64())
        column = pc.if_else(pc.is_nan(column), None, column)
        if pc.all(pc.and_(pc.equal(column, pc.floor(column)), pc.less(pc.abs(column), float(exact)))).as_py():
            return column.cast(pa.int64()), {}
    return _by_value(column, partial(_to_int64, exact=exact), pa.int64(), "a 64-bit integer")


def _to_int64(value: object, exact: int = 1 << 53) -> int:
    number = Decimal(str(value))
    if number != number.to_integral_value() or abs(number) > _INT64_MAX or (isinstance(value, float) and abs(value) >= exact):
        raise ValueError
    return int(number)


# ---- times


def _time(column: pa.Array) -> tuple[pa.Array, dict[int, str]]:
    kind = column.type
    if pa.types.is_string(kind):
        for target in (TIME, pa.timestamp("us"), pa.int64()):
            with suppress(pa.ArrowInvalid):
                column.slice(0, 1).cast(target)  # fails in no time where the whole column would take its time to fail
                return _time(column.cast(target))
    elif pa.types.is_timestamp(kind):
        with suppress(pa.ArrowInvalid):  # a time beyond the year 290000
            utc = column.cast(pa.int64()).cast(pa.timestamp(kind.unit, "UTC"))  # its zone is only for show, and may not exist
            return utc.cast(TIME, safe=kind.unit != "ns"), {}
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind):
        if kind == pa.float64():  # nanoseconds are beyond 2^53: the microsecond next to them is what was meant
            column = pc.if_else(pc.greater_equal(pc.abs(column), 1e17), pc.round(pc.divide(column, 1e3)), column)
        epoch, unreadable = _int64(column)
        return _epoch(epoch), unreadable
    return _by_value(column, _to_time, TIME, "a time")


def _epoch(column: pa.Array) -> pa.Array:
    """Milli-, micro- or nanoseconds since 1970, told apart by their size: no two of them overlap between 1973 and 5138."""
    value = pc.fill_null(column, 0).to_numpy(zero_copy_only=False)
    size = np.abs(value)
    us = np.where(size < 10**14, np.clip(value, -(10**14), 10**14) * 1000, np.where(size < 10**17, value, value // 1000))
    return pa.array(us, pa.int64(), mask=column.is_null().to_numpy(zero_copy_only=False)).cast(TIME)


def _to_time(value: object) -> datetime:
    text = str(value).strip()
    with suppress(ValueError, ArithmeticError):
        return _epoch(pa.array([_to_int64(text)]))[0].as_py()
    time = datetime.fromisoformat(text)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


# ---- decimals


def _decimal(column: pa.Array, type: pa.Decimal128Type) -> tuple[pa.Array, dict[int, str]]:
    if column.type == pa.float64():
        return _decimal_of_floats(column, type)
    if pa.types.is_floating(column.type):
        column = column.cast(pa.string())  # the shortest text that gives the same float32 is what was meant
    try:
        # Arrow asks an integer's decimal to have room for any integer, so it goes through a wide one.
        wide = column.cast(pa.decimal128(38, type.scale)) if pa.types.is_integer(column.type) else column
        return wide.cast(type), {}
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return _decimal_by_value(column, type)


def _decimal_by_value(column: pa.Array, type: pa.Decimal128Type) -> tuple[pa.Array, dict[int, str]]:
    what = f"a decimal with at most {type.precision - type.scale} digits before and {type.scale} after the point"
    return _by_value(column, partial(_to_decimal, type=type), type, what)


def _decimal_of_floats(column: pa.Array, type: pa.Decimal128Type) -> tuple[pa.Array, dict[int, str]]:
    """Rounding to 8 decimals recovers the exchange's own decimal; as integers, 10 times faster than Arrow's cast.

    The product is off by less than half a unit up to 2^51 units (22.5 million). Above, each float's shortest text is taken.
    """
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    step = 10 ** (type.scale - 8)
    with np.errstate(over="ignore"):
        units = np.rint(pc.fill_null(column, 0.0).to_numpy(zero_copy_only=False) * 1e8)
    exact = np.abs(units) < min(1 << 51, (1 << 63) // step)  # False for NaN and infinities as well
    if exact.all():
        return decimal128(units.astype(np.int64) * step, type, valid), {}
    rest = np.flatnonzero(~exact)
    slow, unreadable = _decimal_by_value(column.take(rest), type)
    fast = decimal128(np.where(exact, units, 0).astype(np.int64) * step, type, valid)
    return pc.replace_with_mask(fast, ~exact, slow), {int(rest[i]): reason for i, reason in unreadable.items()}


def decimal128(units: np.ndarray, type: pa.Decimal128Type, valid: np.ndarray | None = None) -> pa.Array:
    """Integers of the type's smallest unit as decimals, without a conversion: the high 64 bits repeat the sign."""
    words = np.empty((len(units), 2), np.int64)
    words[:, 0] = units
    words[:, 1] = units >> 63
    mask = None if valid is None or valid.all() else pa.array(valid).buffers()[1]
    return pa.Array.from_buffers(type, len(units), [mask, pa.py_buffer(words)])


def _to_decimal(value: object, type: pa.Decimal128Type) -> Decimal:
    number = round(Decimal(repr(value)), 8) if isinstance(value, float) else Decimal(str(value).strip())
    exact = number.quantize(Decimal(1).scaleb(-type.scale))
    if exact != number or abs(number) >= Decimal(10) ** (type.precision - type.scale):
        raise InvalidOperation
    return exact


# ---- booleans

_TRUE, _FALSE = {"true", "t", "1", "1.0"}, {"false", "f", "0", "0.0"}


def _bool(column: pa.Array) -> tuple[pa.Array, dict[int, str]]:
    kind = column.type
    if pa.types.is_boolean(kind) or pa.types.is_string(kind) or pa.types.is_null(kind):
        with suppress(pa.ArrowInvalid):
            return column.cast(pa.bool_()), {}
    return _by_value(column, _to_bool, pa.bool_(), "true or false")


def _to_bool(value: object) -> bool:
    text = str(value).strip().lower()
    if text not in _TRUE | _FALSE:
        raise ValueError
    return text in _TRUE
