"""Candles of any interval that is made of kept ones, of one symbol or several, with or without those in which nobody traded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
from psycopg import sql

from btc_assets.client.candle_shapes import SCHEMA, Quiet, fill_candles, slices_over, wide_schema, widen_candles
from btc_assets.client.catalog import as_symbols
from btc_assets.client.intervals import Grid, choose_level, parse_interval
from btc_assets.client.ranges import RangeLike, TimeRange, parse_range
from btc_assets.client.relation import Relation
from btc_assets.client.source import AVAILABLE_AT, Rows, Source, choose_columns, columns_of, microseconds
from btc_assets.domain.slices import EPOCH, MICROSECOND, SLICE_US, Window, from_microseconds, to_microseconds
from btc_assets.domain.ticks import TIME
from btc_assets.market_data.candles import merge_candles, read_closes_before
from btc_assets.store.parallel_read import Query

# What the server sends: instead of when a candle was known, the last slice in which one of its trades was reported.
_LAST_REPORTED = pa.field("last_reported", TIME, nullable=False)
_FETCHED = pa.schema([*(field for field in SCHEMA if field.name != AVAILABLE_AT.name), _LAST_REPORTED])

_PART = timedelta(hours=6)  # the least that is read at once


def candles(  # noqa: PLR0913  # what is read, each by its keyword
    source: Source,
    symbol: str | Sequence[str],
    interval: str | timedelta,
    range: RangeLike,
    columns: Sequence[str] | None = None,
    *,
    fill: bool = False,
    wide: bool = False,
    tz: str = "UTC",
    decimals: str | None = None,
) -> Relation:
    """As `ClientStore.candles`."""
    symbols = as_symbols(symbol)
    asked, span = parse_interval(interval, tz), parse_range(range)
    chosen = choose_columns(columns, SCHEMA, "candles")
    source.catalog.require(symbols, span)
    levels = source.catalog.levels()
    grid = asked.grid(_until_now(span))
    level = choose_level(asked, grid, levels)
    step = max(levels[level] // MICROSECOND, SLICE_US)

    def shape(rows: Rows) -> Rows:
        made: Rows = (columns_of(batch, SCHEMA, {AVAILABLE_AT.name: _available_at(batch, grid, step, source.latency)}) for batch in rows)
        if fill:
            made = fill_candles(made, grid, _quiet(source, symbols, level, grid))
        if wide:
            return widen_candles(made, symbols, chosen)
        return made if chosen == SCHEMA else (columns_of(batch, chosen, {}) for batch in made)

    name = f"candles of {', '.join(symbols)}, {asked}, {span}"
    schema = wide_schema(symbols, chosen) if wide else chosen
    return source.relation(name, lambda limit: _query(symbols, grid, level, limit), schema, shape, decimals=decimals)


def _quiet(source: Source, symbols: Sequence[str], level: str, grid: Grid) -> Quiet:
    """What candles without trades are made of."""
    ends = {symbol: to_microseconds(end) for symbol, end in source.catalog.ends(symbols).items()}
    with source.store.connect() as connection:
        closes = read_closes_before(connection, level, symbols, from_microseconds(grid.first))
    return Quiet(closes, ends, source.latency)


def _until_now(span: TimeRange) -> TimeRange:
    """A range without the time to come and the time before 1970, in which no candle starts."""
    start = max(span.start, EPOCH)
    return TimeRange(start, max(min(span.end, datetime.now(UTC)), start + MICROSECOND))


def _query(symbols: Sequence[str], grid: Grid, level: str, limit: int | None) -> Query:
    """The candles, in parts that cut none."""
    if grid.edges is not None:
        edges: list[datetime] | timedelta = [from_microseconds(edge) for edge in grid.edges]
        window = Window.covering(from_microseconds(grid.first), from_microseconds(grid.end))
        step = window.end - window.start
    else:
        edges, both = timedelta(microseconds=grid.step), math.lcm(grid.step, SLICE_US)
        step = -(-_PART // timedelta(microseconds=both)) * timedelta(microseconds=both)
        window = Window.covering(from_microseconds(grid.first), from_microseconds(grid.end)).widened_to(timedelta(microseconds=both))

    def select(part: Window) -> sql.Composed:
        start = max(part.start, from_microseconds(grid.first))
        return merge_candles(level, edges, symbols, start, min(part.end, from_microseconds(grid.end)), limit)

    return Query(select, _FETCHED, window, step)


def _available_at(batch: pa.RecordBatch, grid: Grid, step: int, latency: timedelta) -> pa.Array:
    """When each candle can have been known: its last slice is over, and a trade in it that was reported later was loaded.

    Partial candles above a slice tell the hour or the day of a late report; it is seconds late, so its slice is the first of these.
    """
    over = slices_over(grid.ends_of(microseconds(batch["bucket"])))
    reported = microseconds(batch[_LAST_REPORTED.name])
    late = (reported if step == SLICE_US else over) + SLICE_US
    return pa.array(np.where(reported >= over, late, over) + latency // MICROSECOND).cast(TIME)
