"""Candles beyond those that the server has: those of intervals in which nobody traded, and several symbols side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from btc_assets.client.intervals import Grid
from btc_assets.client.source import AVAILABLE_AT, Rows, microseconds
from btc_assets.domain.slices import MICROSECOND, SLICE_US
from btc_assets.domain.ticks import PRICE, TIME

VOLUME, VALUE = pa.decimal128(38, 12), pa.decimal128(38, 20)

SCHEMA = pa.schema(
    [
        pa.field("bucket", TIME, nullable=False),
        pa.field("symbol", pa.string(), nullable=False),
        *(pa.field(name, PRICE, nullable=False) for name in ("open", "high", "low", "close")),
        pa.field("volume", VOLUME, nullable=False),
        pa.field("quote_volume", VALUE, nullable=False),
        pa.field("trade_count", pa.int64(), nullable=False),
        pa.field("taker_buy_volume", VOLUME, nullable=False),
        pa.field("taker_buy_quote_volume", VALUE, nullable=False),
        pa.field("first_trade_id", pa.int64()),
        pa.field("last_trade_id", pa.int64()),
        AVAILABLE_AT,
    ]
)

_PRICES = ("open", "high", "low", "close")
_SUMS = ("volume", "quote_volume", "trade_count", "taker_buy_volume", "taker_buy_quote_volume")

_INTERVALS = 65_536  # filled at once, of all symbols together


@dataclass(frozen=True)
class Quiet:
    """What candles without trades are made of.

    Attributes:
        closes: the last price of each symbol before the first candle; None if it had not traded yet.
        ends: where each symbol ends, in microseconds since 1970; nothing is known of later candles.
        latency: until a slice that is over is loaded.
    """

    closes: Mapping[str, Decimal | None]
    ends: Mapping[str, int]
    latency: timedelta


def slices_over(times: np.ndarray) -> np.ndarray:
    """The ends of the slices that hold what lies before times, in microseconds since 1970."""
    return -(-times // SLICE_US) * SLICE_US


def whole_buckets(rows: Rows, column: str = "bucket") -> Rows:
    """Batches in the order of a column of times, cut so that all rows of a time are in the same one."""
    rest: pa.RecordBatch | None = None
    for batch in rows:
        if not len(batch):
            continue
        joined = batch if rest is None else pa.concat_batches([rest, batch])
        buckets = microseconds(joined[column])
        cut = int(np.searchsorted(buckets, buckets[-1]))
        rest = joined.slice(cut)
        if cut:
            yield joined.slice(0, cut)
    if rest is not None:
        yield rest


def fill_candles(rows: Rows, grid: Grid, quiet: Quiet) -> Rows:
    """Candles in order with those of quiet intervals between them: the close before, no volume, no trade ids.

    Args:
        rows: of `SCHEMA`, by bucket and symbol.
        grid: all candles of the range.
        quiet: what quiet ones are made of. A symbol's begin with its first trade.
    """
    filler = _Filler(grid, quiet)
    for batch in whole_buckets(rows):
        yield from filler.fill(batch, int(grid.numbers(microseconds(batch["bucket"])[-1:])[0]) + 1)
    empty = pa.RecordBatch.from_arrays([pa.array([], field.type) for field in SCHEMA], schema=SCHEMA)
    yield from filler.fill(empty, grid.count_before(max(quiet.ends.values())))


class _Filler:
    def __init__(self, grid: Grid, quiet: Quiet) -> None:
        self._grid, self._quiet = grid, quiet
        self._done = 0
        self._closes = {symbol: pa.array([close], PRICE) for symbol, close in quiet.closes.items()}

    def fill(self, rows: pa.RecordBatch, until: int) -> Rows:
        """All candles up to a number, which is exclusive; `rows` are those with trades among them."""
        step = max(_INTERVALS // len(self._closes), 1)
        numbers = self._grid.numbers(microseconds(rows["bucket"]))
        if not any(close[0].is_valid for close in self._closes.values()):  # nobody has traded yet, perhaps for years
            self._done = int(numbers[0]) if len(numbers) else until
        while self._done < until:
            end = min(self._done + step, until)
            first, last = np.searchsorted(numbers, [self._done, end])
            part = rows.slice(first, last - first)
            made = [self._of_symbol(part, symbol, numbers[first:last] - self._done, end) for symbol in sorted(self._closes)]
            self._done = end
            table = pa.Table.from_batches(made, SCHEMA)
            order = np.argsort(microseconds(table["bucket"]), kind="stable")  # the symbols are in order already
            yield from table.take(pa.array(order)).combine_chunks().to_batches()

    def _of_symbol(self, rows: pa.RecordBatch, symbol: str, numbers: np.ndarray, end: int) -> pa.RecordBatch:
        starts = self._grid.starts(self._done, end)
        own = np.flatnonzero(pc.equal(rows["symbol"], symbol).to_numpy(zero_copy_only=False))
        place = np.full(len(starts), -1)
        place[numbers[own]] = own
        there = place >= 0
        latest = np.maximum.accumulate(np.where(there, np.arange(len(starts)), -1))
        closes = pa.concat_arrays([rows["close"], self._closes[symbol]])
        close = closes.take(pa.array(np.where(latest >= 0, place[latest], len(rows))))
        self._closes[symbol] = close.slice(len(close) - 1)
        traded = rows.take(pa.array(place, mask=~there))
        over = pa.array(slices_over(self._grid.ends_of(starts)) + self._quiet.latency // MICROSECOND).cast(TIME)
        made = {
            "bucket": pa.array(starts).cast(TIME),
            "symbol": pa.array([symbol]).take(pa.array(np.zeros(len(starts), np.int64))),
            **{name: pc.coalesce(traded[name], close) for name in _PRICES},
            **{name: pc.fill_null(traded[name], _zero(traded[name].type)) for name in _SUMS},
            **{name: traded[name] for name in ("first_trade_id", "last_trade_id")},
            AVAILABLE_AT.name: pc.coalesce(traded[AVAILABLE_AT.name], over),
        }
        known = there | (close.is_valid().to_numpy(zero_copy_only=False) & (starts < self._quiet.ends[symbol]))
        return pa.RecordBatch.from_arrays([made[name] for name in SCHEMA.names], schema=SCHEMA).filter(pa.array(known))


def _zero(type: pa.DataType) -> pa.Scalar:
    return pa.scalar(Decimal(0) if pa.types.is_decimal(type) else 0, type)


def wide_schema(symbols: Sequence[str], chosen: pa.Schema) -> pa.Schema:
    """Of candles side by side: `bucket`, each chosen column of each symbol such as `close_BTCUSDT`, and one `available_at`."""
    each = [field for field in chosen if field.name not in ("bucket", "symbol", AVAILABLE_AT.name)]
    beside = [field.with_name(f"{field.name}_{symbol}").with_nullable(True) for symbol in symbols for field in each]
    return pa.schema([SCHEMA.field("bucket"), *beside, *([AVAILABLE_AT] if AVAILABLE_AT in chosen else [])])


def widen_candles(rows: Rows, symbols: Sequence[str], chosen: pa.Schema) -> Rows:
    """Candles of several symbols as one row for each bucket; null where a symbol has no candle."""
    schema = wide_schema(symbols, chosen)
    for batch in whole_buckets(rows):
        buckets, place = np.unique(microseconds(batch["bucket"]), return_inverse=True)
        made: dict[str, pa.Array] = {"bucket": pa.array(buckets).cast(TIME)}
        for symbol in symbols:
            own = np.flatnonzero(pc.equal(batch["symbol"], symbol).to_numpy(zero_copy_only=False))
            row = np.full(len(buckets), -1)
            row[place[own]] = own
            beside = batch.take(pa.array(row, mask=row < 0))
            made |= {f"{name}_{symbol}": beside[name] for name in batch.schema.names}
        latest = np.full(len(buckets), np.iinfo(np.int64).min)
        np.maximum.at(latest, place, microseconds(batch[AVAILABLE_AT.name]))
        made[AVAILABLE_AT.name] = pa.array(latest).cast(TIME)
        yield pa.RecordBatch.from_arrays([made[name] for name in schema.names], schema=schema)
