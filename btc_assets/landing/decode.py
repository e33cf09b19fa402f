"""Decoding: raw tables of any known producer become ticks of the canonical schema, to the last digit.

Nothing here fails for a bad row: a row that is no valid trade of its feed is returned with the reason.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from btc_assets.domain.feeds import Feed
from btc_assets.domain.slices import SLICE_US
from btc_assets.domain.ticks import DECODED_SCHEMA, MARKET, PRICE, QUANTITY, TIME, int64
from btc_assets.landing.bounds import RECORD_CHARACTERS, REJECTED_ROWS
from btc_assets.landing.contracts import BASE_QUANTITIES, QUOTE_QUANTITIES, reject_contracts, require_coins
from btc_assets.landing.convert import Converted, plain_array, python_value, to_booleans, to_decimals, to_int64, to_text, to_times, to_words
from btc_assets.landing.raw import AGGREGATES, KLINES, REASON, UNPARSED, ObjectRejected, join_names, without_nul

# How producers spell the ten fields: the collector, the exchange's messages, the exchange's dumps. An earlier spelling
# wins over a later one: `id` beside `trade_id` is a column of the producer's own.
_SPELLINGS = {
    "event_time": ("event_time", "vent_time", "E"),
    "trade_time": ("trade_time", "T", "time"),
    "symbol": ("symbol", "s"),
    "trade_id": ("trade_id", "t", "id"),
    "price": ("price", "p"),
    "quantity": (*BASE_QUANTITIES, "quantity", "q", "qty"),  # coins before contracts
    "buyer_order_id": ("buyer_order_id", "b"),
    "seller_order_id": ("seller_order_id", "a"),
    "is_market_maker": ("is_market_maker", "m", "is_buyer_maker", "isBuyerMaker"),
    "trade_kind": ("trade_kind", "X"),
}
_OPTIONAL = {"event_time", "symbol", "buyer_order_id", "seller_order_id", "trade_kind"}
# Known columns that ticks do not need: e and M of messages, columns of dumps, pandas' index.
_IGNORED = {"e", "M", *QUOTE_QUANTITIES, "is_best_match", "isBestMatch", "stream", UNPARSED, REASON, "__index_level_0__"}

_LEFT_OUT_SCHEMA = pa.schema({"index": pa.int64(), "symbol": pa.string(), "trade_kind": pa.string(), "trade_id": pa.int64()})
_REJECTED_SCHEMA = pa.schema({"index": pa.int64(), "bucket_us": pa.int64(), "reason": pa.string(), "record": pa.string()})

_FIRST_TIME = int(datetime(2009, 1, 3, tzinfo=UTC).timestamp()) * 1_000_000  # the first block
_LAST_TIME = int(datetime(2100, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000

_PADDING = f"{string.whitespace}\0\N{NO-BREAK SPACE}\N{ZERO WIDTH SPACE}\N{ZERO WIDTH NO-BREAK SPACE}\N{IDEOGRAPHIC SPACE}"

_Convert = Callable[[pa.Array], Converted]


@dataclass
class Decoded:
    """The decoded rows of a raw table.

    Attributes:
        ticks: valid rows in `DECODED_SCHEMA`, in their original order; `symbol` is the feed's label.
        index: for each tick, the position of its row in the raw table.
        rejected: `index` int64, `bucket_us` int64 (slice of the row, null if unknown), `reason` string, `record` string; of each object
            the first `REJECTED_ROWS` rows that are no valid trade.
        left_out: rows in which nothing was traded, by the word of the exchange: `index` int64, `symbol` string (the feed's label),
            `trade_kind` string, `trade_id` int64.
        extra_columns: columns that no known producer sends.
        rejected_index: positions of all rows that are no valid trade.
    """

    ticks: pa.Table
    index: np.ndarray
    rejected: pa.Table
    left_out: pa.Table
    extra_columns: tuple[str, ...]
    rejected_index: np.ndarray


def decode(raw: pa.Table, feeds: Sequence[Feed], owner: np.ndarray | None = None) -> Decoded:
    """Decode one raw table that landed under the prefix of `feeds`.

    Args:
        raw: rows with the producer's own column names and types.
        feeds: the feeds of that prefix; if there is only one, a table without a symbol column belongs to it.
        owner: for each row, the number of its object, ascending; by default, all rows are of one.

    Raises:
        ObjectRejected: a column that every trade has is missing, or its quantities are contracts.
    """
    columns = _find_columns(raw)
    rows = _RowDecoder(len(raw), columns)
    if UNPARSED in raw.column_names:
        reasons = raw[REASON] if REASON in raw.column_names else pa.nulls(len(raw), pa.string())
        rows.reject(pc.is_valid(plain_array(raw[UNPARSED])), lambda i: reasons[i].as_py() or "the row cannot be parsed")

    contracts = reject_contracts(feeds, raw.column_names)
    symbol = _labels(columns["symbol"], feeds, rows)
    if contracts:
        rows.reject(pc.is_in(symbol, pa.array(sorted(contracts))), "its quantity is in contracts, and no column base_qty tells the coins")
    trade_id = rows.required("trade_id", to_int64, pa.int64())
    trade_time = rows.required("trade_time", to_times, TIME)
    event_time = rows.optional("event_time", to_times, TIME)
    for name, times in (("trade_time", trade_time), ("event_time", event_time)):
        rows.reject_implausible_times(name, times)
    kind = rows.optional("trade_kind", to_kinds, pa.string())
    may_be_nothing = _differs_from_market(kind)
    price = rows.positive("price", PRICE, may_be_nothing)
    quantity = rows.positive("quantity", QUANTITY, may_be_nothing)
    require_coins(raw, price, quantity, ~(rows.bad | rows.nothing))
    buyer = rows.optional("buyer_order_id", to_int64, pa.int64())
    seller = rows.optional("seller_order_id", to_int64, pa.int64())
    maker = rows.required("is_market_maker", to_booleans, pa.bool_())

    bucket = _microseconds(pc.coalesce(event_time, trade_time)) // SLICE_US * SLICE_US
    ticks = pa.table(
        [pa.array(bucket).cast(TIME), event_time, trade_time, symbol, trade_id, price, quantity, buyer, seller, maker, kind],
        names=DECODED_SCHEMA.names,
    )
    left_out = _left_out_rows(ticks, rows)
    good = np.flatnonzero(~(rows.bad | rows.nothing))
    if len(good) < len(raw):
        ticks = ticks.take(good)
    return Decoded(
        ticks.cast(DECODED_SCHEMA), good, _rejected_rows(raw, rows, bucket, owner), left_out, _extra_columns(raw), np.flatnonzero(rows.bad)
    )


def to_kinds(column: pa.Array) -> Converted:
    """Kinds of trades, as the exchange spells them; `market` in any case is `MARKET`."""
    return to_words(column, lambda word: MARKET if word.upper() == MARKET else word)


def _differs_from_market(kinds: pa.Array) -> np.ndarray | None:
    """Which rows are of a known kind that is no market trade; None if no row is."""
    if kinds.null_count == len(kinds):
        return None
    differs = pc.fill_null(pc.not_equal(kinds, MARKET), False)
    return differs.to_numpy(zero_copy_only=False) if pc.any(differs).as_py() else None


def _find_columns(raw: pa.Table) -> dict[str, list[pa.Array]]:
    """The columns of each of the ten fields, under any spelling."""
    names = set(raw.column_names)
    found = {field: [plain_array(raw[name]) for name in spellings if name in names] for field, spellings in _SPELLINGS.items()}
    missing = [field for field, columns in found.items() if not columns and field not in _OPTIONAL]
    _refuse_aggregates(names)
    if missing and not (names and names <= {UNPARSED, REASON}):
        raise ObjectRejected(
            f"it has another schema: no column for {', '.join(missing)} (its columns: {join_names([name for name in raw.column_names if name not in (UNPARSED, REASON)])}); "
            "move it out of the landing zone or land it as trades"
        )
    return found


def _refuse_aggregates(names: set[str]) -> None:
    """Refuse what joins several trades in a row, even if a column of it is called as if it held the ids of trades."""
    joined = {"first_trade_id", "last_trade_id"} <= names or ({"a", "f", "l"} <= names and "t" not in names)
    if joined or {"agg_trade_id", "aggTradeId"} & names:
        raise ObjectRejected(AGGREGATES)
    if {"open", "high", "low", "close"} <= {name.lower() for name in names}:
        raise ObjectRejected(KLINES)


def _labels(columns: Sequence[pa.Array], feeds: Sequence[Feed], rows: _RowDecoder) -> pa.Array:
    """The feed's label for each row's symbol; rows with another symbol are rejected."""
    if not columns:
        if len(feeds) > 1 and not rows.bad.all():
            raise ObjectRejected("it has no symbol column, but its prefix is shared by several symbols: land each under its own prefix")
        return pa.repeat(feeds[0].label, len(rows.bad))
    symbols = _trimmed(to_text(columns[0]).values, [feed.symbol for feed in feeds])
    rows.reject(pc.is_null(symbols), "symbol is null")
    if len(feeds) == 1 and pc.all(pc.equal(symbols, feeds[0].symbol), skip_nulls=False).as_py():
        return symbols if feeds[0].symbol == feeds[0].label else pa.repeat(feeds[0].label, len(symbols))
    position = pc.index_in(symbols, pa.array([feed.symbol for feed in feeds]))
    expected = " or ".join(feed.symbol for feed in feeds)
    rows.reject(pc.is_null(position), lambda i: f"symbol {_visible(symbols[i].as_py())} is not {expected}, which this prefix is for")
    return pa.array([feed.label for feed in feeds]).take(position)


def _trimmed(symbols: pa.Array, known: list[str]) -> pa.Array:
    """The symbols without what pads them: databases fill columns of a fixed width with spaces or NUL."""
    if pc.all(pc.is_in(symbols, pa.array(known, pa.string())), skip_nulls=False).as_py():
        return symbols
    encoded = symbols.dictionary_encode()
    trimmed = [value and value.strip(_PADDING) for value in encoded.dictionary.to_pylist()]
    return pa.array([value or None for value in trimmed], pa.string()).take(encoded.indices)


def _visible(symbol: str) -> str:
    """A symbol for a message, as an escaped literal if a reader would not see what is in it."""
    return f"{symbol if symbol.isascii() and symbol.isprintable() else ascii(symbol):.100}"


class _RowDecoder:
    """Converts fields, and notes which rows are rejected and why; the first reason of a row stands.

    Attributes:
        bad: for each row, whether it is rejected.
        nothing: for each row, whether nothing was traded in it (unless it is rejected).
    """

    def __init__(self, count: int, columns: dict[str, list[pa.Array]]) -> None:
        self.bad = np.zeros(count, bool)
        self.nothing = np.zeros(count, bool)
        self._rejected: list[tuple[np.ndarray, str | Callable[[int], str]]] = []
        self._columns = columns

    def reject(self, mask: pa.Array | np.ndarray, reason: str | Callable[[int], str]) -> None:
        """Reject the rows of `mask` (null counts as false); `reason` may depend on the position of the row."""
        if isinstance(mask, pa.Array):
            if not pc.any(mask).as_py():
                return
            mask = pc.fill_null(mask, False).to_numpy(zero_copy_only=False)
        self._rejected.append((mask & ~self.bad, reason))
        self.bad |= mask

    def reasons(self, index: np.ndarray) -> list[str]:
        """The reasons of rejected rows at these ascending positions; made only now, because there may be very many such rows."""
        made: dict[int, str] = {}
        for mask, reason in self._rejected:
            for i in index[mask[index]].tolist():
                made[i] = reason if isinstance(reason, str) else reason(i)
        return [made[i] for i in index.tolist()]

    def optional(self, name: str, convert: _Convert, type: pa.DataType) -> pa.Array:
        """The field's values; among several columns, a row takes the first that has a value, and null if none has."""
        return self._convert(name, self._columns[name], partial(_convert_finite, convert=convert), type)

    def required(self, name: str, convert: _Convert, type: pa.DataType) -> pa.Array:
        """The field's values; rows without one are rejected."""
        values = self._convert(name, self._columns[name][:1], convert, type)
        if values.null_count:
            self.reject(pc.is_null(values), f"{name} is null")
        return values

    def positive(self, name: str, type: pa.Decimal128Type, may_be_nothing: np.ndarray | None = None) -> pa.Array:
        """The field as decimals; rows whose value is not above zero are rejected.

        Args:
            name: of the field.
            type: of the decimals.
            may_be_nothing: rows in which zero says that nothing was traded; they are noted as such.
        """
        values = self.required(name, partial(to_decimals, type=type), type)
        if may_be_nothing is not None:
            nothing = pc.fill_null(pc.equal(values, pa.scalar(0, type)), False).to_numpy(zero_copy_only=False) & may_be_nothing
            self.nothing |= nothing
            values = pc.if_else(nothing, pa.scalar(1, type), values)  # not to be rejected
        self.reject(pc.less_equal(values, pa.scalar(0, type)), lambda i: f"{name} {values[i].as_py().normalize():f} is not above zero")
        return values

    def reject_implausible_times(self, name: str, times: pa.Array) -> None:
        """Reject the rows whose time cannot be that of a Bitcoin trade, such as seconds read as milliseconds."""
        us = _microseconds(times)
        outside = ((us < _FIRST_TIME) | (us >= _LAST_TIME)) & times.is_valid().to_numpy(zero_copy_only=False)
        self.reject(outside, lambda i: f"{name} {np.datetime64(int(us[i]) // 1_000_000, 's')}Z lies outside 2009 to 2100")

    def _convert(self, name: str, columns: Sequence[pa.Array], convert: _Convert, type: pa.DataType) -> pa.Array:
        converted = [pa.nulls(len(self.bad), type)] if not columns else []
        for column in columns:
            values, unreadable = convert(column)
            converted.append(values)
            if unreadable:
                mask = np.zeros(len(self.bad), bool)
                mask[list(unreadable)] = True
                self.reject(mask, partial(_reason_of, name, unreadable))
        return pc.coalesce(*converted) if len(converted) > 1 else converted[0]


def _convert_finite(column: pa.Array, convert: _Convert) -> Converted:
    """Convert a column in which an infinite number says as little as NaN does."""
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_finite(column), column, None)
    values, unreadable = convert(column)
    if unreadable and pa.types.is_string(column.type):
        unreadable = {i: reason for i, reason in unreadable.items() if column[i].as_py().strip("+- ").lower() not in ("inf", "infinity")}
    return Converted(values, unreadable)


def _left_out_rows(ticks: pa.Table, rows: _RowDecoder) -> pa.Table:
    index = np.flatnonzero(rows.nothing & ~rows.bad)
    if not len(index):
        return _LEFT_OUT_SCHEMA.empty_table()
    return ticks.take(index).select(_LEFT_OUT_SCHEMA.names[1:]).add_column(0, "index", pa.array(index)).cast(_LEFT_OUT_SCHEMA)


def _reason_of(name: str, unreadable: Mapping[int, str], index: int) -> str:
    return f"{name} {unreadable[index]}"


def _rejected_rows(raw: pa.Table, rows: _RowDecoder, bucket: np.ndarray, owner: np.ndarray | None) -> pa.Table:
    if not rows.bad.any():
        return _REJECTED_SCHEMA.empty_table()
    index = _first_of_each(np.flatnonzero(rows.bad), owner)
    known = (bucket[index] >= _FIRST_TIME - SLICE_US) & (bucket[index] < _LAST_TIME)
    bucket_us = pa.array(bucket[index], mask=~known)
    reasons = [_shortened(reason) for reason in rows.reasons(index)]
    columns = {name: raw[name].combine_chunks() for name in raw.column_names}
    records = [_record(columns, i) for i in index.tolist()]
    return pa.table([pa.array(index), bucket_us, pa.array(reasons), pa.array(records)], schema=_REJECTED_SCHEMA)


def _first_of_each(index: np.ndarray, owner: np.ndarray | None) -> np.ndarray:
    """The first `REJECTED_ROWS` positions of each object."""
    if owner is None:
        return index[:REJECTED_ROWS]
    owners = owner[index]
    return index[np.arange(len(index)) - np.searchsorted(owners, owners) < REJECTED_ROWS]


def _record(columns: dict[str, pa.Array], index: int) -> str:
    """A row as JSON, or the text of a row that could not be parsed."""
    row = {name: python_value(column[index]) for name, column in columns.items()}
    text = row.pop(UNPARSED, None)
    row.pop(REASON, None)
    if text is not None:
        return _shortened(str(text))
    try:
        return _shortened(orjson.dumps(row, default=str).decode())
    except TypeError:  # nested too deeply, or an integer beyond 64 bits
        return _shortened(str(row))


def _shortened(text: str) -> str:
    return without_nul(text if len(text) <= RECORD_CHARACTERS else f"{text[:RECORD_CHARACTERS]}\N{HORIZONTAL ELLIPSIS}")


def _extra_columns(raw: pa.Table) -> tuple[str, ...]:
    known = _IGNORED.union(*_SPELLINGS.values())
    return tuple(without_nul(name) for name in raw.column_names if name not in known)


def _microseconds(times: pa.Array) -> np.ndarray:
    """Microseconds since 1970; 0 for null."""
    return int64(pc.fill_null(times.cast(pa.int64()), 0))
