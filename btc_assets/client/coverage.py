"""What is loaded, what is missing, and which days can be trusted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import pyarrow as pa
from psycopg import sql

from btc_assets.client.catalog import as_symbols
from btc_assets.client.ranges import RangeLike, TimeRange, clip_to_trades, parse_range
from btc_assets.client.relation import Relation
from btc_assets.client.source import AVAILABLE_AT, Rows, Source, columns_of, shifted
from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE, Window
from btc_assets.domain.ticks import TIME
from btc_assets.market_data.continuity import read_gaps
from btc_assets.ops.coverage import read_coverage
from btc_assets.store.parallel_read import Query

_SYMBOL = pa.field("symbol", pa.string(), nullable=False)
_SLICE = pa.field("bucket_5m", TIME, nullable=False)


def _count(name: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, pa.int64(), nullable=nullable)


GAPS_SCHEMA = pa.schema([_SYMBOL, _count("first_missing"), _count("last_missing"), _count("missing"), _SLICE, AVAILABLE_AT])

SLICES_SCHEMA = pa.schema(
    [
        _SLICE,
        _SYMBOL,
        pa.field("state", pa.string(), nullable=False),
        *map(_count, ("objects", "rejected_objects", "size_bytes", "row_count", "loaded_rows")),
        *(pa.field(name, TIME) for name in ("first_event_time", "last_event_time", "loaded_at")),
        AVAILABLE_AT,
    ]
)

COVERAGE_SCHEMA = pa.schema(
    [
        pa.field("day", pa.date32(), nullable=False),
        _SYMBOL,
        pa.field("state", pa.string(), nullable=False),
        *map(_count, ("slices", "loaded", "pending", "missing")),
        *(_count(name, nullable=True) for name in ("gaps", "missing_trades")),
        *map(_count, ("rejected_objects", "rejected_rows")),
        pa.field("dropped", pa.bool_(), nullable=False),
        _count("ticks"),
    ]
)

_DAYS = 31  # looked at together
_PART = timedelta(hours=6)  # of slices, the least that is read at once


def gaps(source: Source, range: RangeLike, symbol: str | Sequence[str] | None = None) -> Relation:
    """As `ClientStore.gaps`."""
    span, symbols = parse_range(range), _asked(source, symbol)
    if symbols and source.unjudged().issuperset(symbols):
        raise UserError(
            f"Which ids of {', '.join(symbols)} are missing cannot be told: the exchange itself skips ids there, or no feed in "
            "BTC_ASSETS_LANDING_FEEDS has that label; `slices` tells which slices are missing."
        )

    def rows() -> Rows:
        # Symbols that nobody asked for are not looked through.
        left_out = source.unjudged() | (source.catalog.labels() - set(symbols) if symbols else set())
        with source.store.connect() as connection:
            for window in _months(span):
                found = [
                    asdict(gap) | {"missing": gap.missing, _SLICE.name: gap.after, AVAILABLE_AT.name: gap.after + SLICE + source.latency}
                    for gap in read_gaps(connection, window, left_out)
                    if not symbols or gap.symbol in symbols
                ]
                yield pa.RecordBatch.from_pylist(found, schema=GAPS_SCHEMA)

    return source.relation_of(f"gaps{_of(symbols)}, {span}", GAPS_SCHEMA, rows)


def slices(source: Source, range: RangeLike, symbol: str | Sequence[str] | None = None) -> Relation:
    """As `ClientStore.slices`."""
    span, symbols = parse_range(range), _asked(source, symbol)
    fetched = pa.schema([field for field in SLICES_SCHEMA if field.name != AVAILABLE_AT.name])

    def select(part: Window, limit: int | None) -> sql.Composable:
        return sql.SQL(
            "SELECT {} FROM landing.slices WHERE bucket_5m >= {} AND bucket_5m < {} AND (symbol = ANY({symbols}) OR cardinality({symbols}) = 0) "
            "ORDER BY bucket_5m, symbol LIMIT {limit}"
        ).format(
            sql.SQL(", ").join(map(sql.Identifier, fetched.names)), max(part.start, span.start), min(part.end, span.end),
            symbols=sql.SQL("{}::text[]").format(symbols), limit=limit,
        )  # fmt: skip

    def query(limit: int | None) -> Query:
        return Query(lambda part: select(part, limit), fetched, span.window, _PART)

    def shape(rows: Rows) -> Rows:
        for batch in rows:
            yield columns_of(batch, SLICES_SCHEMA, {AVAILABLE_AT.name: shifted(batch["bucket_5m"], SLICE + source.latency)})

    return source.relation(f"slices{_of(symbols)}, {span}", query, SLICES_SCHEMA, shape)


def coverage(source: Source, range: RangeLike, symbol: str | Sequence[str] | None = None) -> Relation:
    """As `ClientStore.coverage`."""
    span, symbols = parse_range(range), _asked(source, symbol)

    def rows() -> Rows:
        over = datetime.now(UTC) - source.latency
        unjudged = source.unjudged()
        with source.store.connect() as connection:
            for window in _months(span):
                found = read_coverage(connection, window, now=over, unjudged=unjudged, symbols=symbols)
                yield pa.RecordBatch.from_pylist([asdict(one) for one in found], schema=COVERAGE_SCHEMA)

    return source.relation_of(f"coverage{_of(symbols)}, {span}", COVERAGE_SCHEMA, rows)


def _asked(source: Source, symbol: str | Sequence[str] | None) -> list[str]:
    """The symbols that are asked for; none for all."""
    symbols = [] if symbol is None else as_symbols(symbol)
    if symbols:
        source.catalog.require(symbols)
    return symbols


def _of(symbols: Sequence[str]) -> str:
    return f" of {', '.join(symbols)}" if symbols else ""


def _months(span: TimeRange) -> Iterator[Window]:
    """The slices of a range, some days at a time, so that memory is bounded."""
    days: list[Window] = []
    window = clip_to_trades(span.window)
    for day in window.days() if window else ():
        days.append(day)
        if len(days) == _DAYS:
            yield Window(days[0].start, days[-1].end)
            days = []
    if days:
        yield Window(days[0].start, days[-1].end)
