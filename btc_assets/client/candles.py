"""Candles of any interval that is made of kept ones, of one symbol or several, with or without those in which nobody traded."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
from psycopg import sql

from btc_assets.client.intervals import Grid, Interval, choose_level, parse_interval
from btc_assets.client.ranges import RangeLike, TimeRange, parse_range
from btc_assets.client.relation import Relation
from btc_assets.client.source import AVAILABLE_AT, Query, Rows, Source, columns_of, microseconds
from btc_assets.domain.slices import MICROSECOND, SLICE_US, from_microseconds
from btc_assets.domain.ticks import PRICE, TIME
from btc_assets.market_data.candles import merge_candles

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

# What the server sends: instead of when a candle was known, the last slice in which one of its trades was reported.
_LAST_REPORTED = pa.field("last_reported", TIME, nullable=False)
_FETCHED = pa.schema([*(field for field in SCHEMA if field.name != AVAILABLE_AT.name), _LAST_REPORTED])


def candles(  # what is read, each by its keyword
    source: Source,
    symbol: str | Sequence[str],
    interval: str | timedelta,
    range: RangeLike,
    *,
    tz: str = "UTC",
    decimals: str | None = None,
) -> Relation:
    """As `ClientStore.candles`."""
    symbols = [symbol] if isinstance(symbol, str) else list(dict.fromkeys(symbol))
    asked, span = parse_interval(interval, tz), parse_range(range)
    source.catalog.require(symbols, span)
    levels = source.catalog.levels()
    grid = asked.grid(_until_now(span))
    level = choose_level(asked, grid, levels)
    step = max(levels[level] // MICROSECOND, SLICE_US)

    def shape(rows: Rows) -> Rows:
        for batch in rows:
            yield columns_of(batch, SCHEMA, {AVAILABLE_AT.name: _available_at(batch, grid, step, source.latency)})

    query = Query(lambda limit: _select(symbols, grid, level, limit), _FETCHED)
    return source.relation(_name(symbols, asked, span), query, SCHEMA, shape, decimals=decimals)


def _name(symbols: Sequence[str], interval: Interval, span: TimeRange) -> str:
    zone = f" in {interval.zone}" if interval.width is None else ""
    return f"candles of {', '.join(symbols)}, {interval.name}{zone}, {span}"


def _until_now(span: TimeRange) -> TimeRange:
    """A range without the time to come, in which no candle starts."""
    return TimeRange(span.start, max(min(span.end, datetime.now(UTC)), span.start + MICROSECOND))


def _select(symbols: Sequence[str], grid: Grid, level: str, limit: int | None) -> sql.Composed:
    first, end = from_microseconds(grid.first), from_microseconds(grid.end)
    edges = None if grid.edges is None else [from_microseconds(edge) for edge in grid.edges]
    return merge_candles(level, edges or timedelta(microseconds=grid.step), symbols, first, end, limit)


def _available_at(batch: pa.RecordBatch, grid: Grid, step: int, latency: timedelta) -> pa.Array:
    """When each candle can have been known: its last slice is over, and a trade in it that was reported later was loaded.

    Partial candles above a slice tell the hour or the day of a late report; it is seconds late, so its slice is the first of these.
    """
    ends = grid.ends_of(microseconds(batch["bucket"]))
    over = -(-ends // SLICE_US) * SLICE_US
    reported = microseconds(batch[_LAST_REPORTED.name])
    late = (reported if step == SLICE_US else over) + SLICE_US
    return pa.array(np.where(reported >= over, late, over) + latency // MICROSECOND).cast(TIME)
