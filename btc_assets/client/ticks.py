"""Ticks of a symbol, exact to the microsecond of their event time or trade time."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
from psycopg import sql

from btc_assets.client.ranges import RangeLike, TimeRange, clip_to_trades, parse_range
from btc_assets.client.relation import Relation
from btc_assets.client.source import AVAILABLE_AT, Rows, Source, choose_columns, columns_of, shifted
from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE, Window
from btc_assets.domain.ticks import TABLE, TICK_SCHEMA
from btc_assets.store.database import identifier
from btc_assets.store.errors import server_errors
from btc_assets.store.parallel_read import Query

SCHEMA = TICK_SCHEMA.append(AVAILABLE_AT)
CLOCKS = ("event_time", "trade_time")

# Where trades of a range of trade time were reported. Those of no market trades are in no candle, hence the slice on either side.
_REPORTED = """
SELECT min(tick_bucket) - interval '5 minutes', max(tick_bucket) + interval '10 minutes' FROM market_data.candle_partials_5m
WHERE symbol = %s AND bucket >= %s AND bucket < %s
"""


def ticks(
    source: Source,
    symbol: str,
    range: RangeLike,
    columns: Sequence[str] | None = None,
    *,
    by: str = "event_time",
    decimals: str | None = None,
) -> Relation:
    """As `ClientStore.ticks`."""
    if by not in CLOCKS:
        raise UserError(f'by={by!r} is unknown: write by="event_time" or by="trade_time".')
    span = parse_range(range)
    schema = choose_columns(columns, SCHEMA, "ticks")
    source.catalog.require([symbol], span)
    fetched = _fetched(schema)

    def query(limit: int | None) -> Query:
        window = span.window if by == "event_time" else _reported(source, symbol, span)
        return Query(
            lambda part: _select(symbol, span, by, part, fetched, limit),
            fetched,
            window,
            group_by="bucket_5m",
            constants={"symbol": symbol},
        )

    def shape(rows: Rows) -> Rows:
        for batch in rows:
            known = {AVAILABLE_AT.name: shifted(batch["bucket_5m"], SLICE + source.latency)} if AVAILABLE_AT in schema else {}
            yield columns_of(batch, schema, known)

    return source.relation(f"ticks of {symbol}, {by} {span}", query, schema, shape, decimals=decimals)


def _fetched(schema: pa.Schema) -> pa.Schema:
    """What is read for a schema; the id as well, for there must be something in each row."""
    wanted = {*schema.names, "bucket_5m", "trade_id", "symbol"}
    return pa.schema([field for field in TICK_SCHEMA if field.name in wanted])


def _reported(source: Source, symbol: str, span: TimeRange) -> Window:
    """The slices whose ticks have trade times in a range: those around it, and later ones as far as candles tell."""
    window = (clip_to_trades(span.window) or span.window).widened(SLICE)
    with source.store.connect() as connection, server_errors():
        first, end = connection.execute(_REPORTED, (symbol, span.window.start, span.window.end)).fetchone() or (None, None)
    return Window(min(window.start, first), max(window.end, end)) if first else window


def _select(symbol: str, span: TimeRange, by: str, window: Window, schema: pa.Schema, limit: int | None) -> sql.Composed:
    """The ticks of some slices. Their bounds let the server skip days; those of the time cut to the microsecond."""
    return sql.SQL(
        "SELECT {columns} FROM {table} WHERE symbol = {symbol} AND bucket_5m >= {first} AND bucket_5m < {last} "
        "AND {time} >= {start} AND {time} < {end} ORDER BY bucket_5m, trade_id LIMIT {limit}"
    ).format(
        columns=sql.SQL(", ").join(sql.Identifier(name) for name in schema.names if name != "symbol"),
        table=identifier(TABLE),
        symbol=sql.Literal(symbol),
        first=sql.Literal(window.start),
        last=sql.Literal(window.end),
        time=sql.Identifier(by),
        start=sql.Literal(span.start),
        end=sql.Literal(span.end),
        limit=sql.Literal(limit),
    )
