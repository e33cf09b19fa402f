"""Features and bars of slices, with which slices are compared and from which encoders learn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

import numpy as np
import pyarrow as pa
from psycopg import sql

from btc_assets.client.conversions import fixed_lists
from btc_assets.client.ranges import RangeLike, TimeRange, parse_range
from btc_assets.client.relation import Relation
from btc_assets.client.source import AVAILABLE_AT, Rows, Source, choose_columns, columns_of, microseconds, shifted
from btc_assets.domain.slices import SLICE, SLICE_US, Window
from btc_assets.domain.ticks import TIME
from btc_assets.signals.features.bars import CHANNELS, STEPS
from btc_assets.signals.features.formulas import FEATURES
from btc_assets.signals.features.table import TABLE, require_schema
from btc_assets.store.database import identifier
from btc_assets.store.parallel_read import Query

_SLICE = [pa.field("bucket_5m", TIME, nullable=False), pa.field("symbol", pa.string(), nullable=False)]
BARS = pa.field("bars", pa.list_(pa.list_(pa.float32(), len(CHANNELS)), STEPS), nullable=False)
_VECTOR = pa.field("bars", pa.list_(pa.float32()), nullable=False)  # as it is read
_SCHEMA_OF = pa.field("feature_schema", pa.string(), nullable=False)

SCHEMA = pa.schema([*_SLICE, *(pa.field(one.name, pa.float64(), nullable=False) for one in FEATURES), BARS, AVAILABLE_AT])
WITHOUT_BARS = tuple(name for name in SCHEMA.names if name != BARS.name)

BARS_SCHEMA = pa.schema(
    [
        *_SLICE,
        pa.field("bar", TIME, nullable=False),
        *(pa.field(one.name, pa.float32(), nullable=False) for one in CHANNELS),
        AVAILABLE_AT,
    ]
)
_STEP_US = SLICE_US // STEPS
_PART, _PART_WITH_BARS = timedelta(hours=6), timedelta(minutes=30)  # the least that is read at once


def features(source: Source, symbol: str, range: RangeLike, columns: Sequence[str] | None = None) -> Relation:
    """As `ClientStore.features`."""
    span = parse_range(range)
    schema = choose_columns(WITHOUT_BARS if columns is None else columns, SCHEMA, "features")
    source.catalog.require([symbol], span)

    def shape(rows: Rows) -> Rows:
        for batch in rows:
            _require_schema(batch, symbol, span)
            made = {AVAILABLE_AT.name: shifted(batch["bucket_5m"], SLICE + source.latency)}
            if BARS in schema:
                made[BARS.name] = fixed_lists(batch[BARS.name], BARS.type)
            yield columns_of(batch, schema, made)

    fetched = [field for field in schema if field.name not in ("bucket_5m", AVAILABLE_AT.name)]
    return source.relation(f"features of {symbol}, {span}", _query(symbol, span, fetched), schema, shape)


def slice_bars(source: Source, symbol: str, range: RangeLike, columns: Sequence[str] | None = None) -> Relation:
    """As `ClientStore.slice_bars`."""
    span = parse_range(range)
    schema = choose_columns(columns, BARS_SCHEMA, "slice_bars")
    source.catalog.require([symbol], span)

    def shape(rows: Rows) -> Rows:
        for batch in rows:
            _require_schema(batch, symbol, span)
            yield columns_of(_as_rows(batch, symbol, source), schema, {})

    return source.relation(f"slice_bars of {symbol}, {span}", _query(symbol, span, [BARS]), schema, shape)


def _query(symbol: str, span: TimeRange, fields: Sequence[pa.Field]) -> Callable[[int | None], Query]:
    """The slices of a symbol that start in a range, with some columns of the table besides `bucket_5m` and the schema of its features."""
    sent = [_VECTOR if field == BARS else field for field in fields if field.name != "symbol"]
    schema = pa.schema([*_SLICE, *sent, _SCHEMA_OF])

    def select(part: Window, limit: int | None) -> sql.Composed:
        columns = sql.SQL(", ").join(sql.Identifier(name) for name in schema.names if name != "symbol")
        return sql.SQL("SELECT {} FROM {} WHERE symbol = {} AND bucket_5m >= {} AND bucket_5m < {} ORDER BY bucket_5m LIMIT {}").format(
            columns, identifier(TABLE), symbol, max(part.start, span.start), min(part.end, span.end), limit
        )

    step = _PART_WITH_BARS if _VECTOR in sent else _PART
    return lambda limit: Query(lambda part: select(part, limit), schema, span.window, step, constants={"symbol": symbol})


def _require_schema(batch: pa.RecordBatch, symbol: str, span: TimeRange) -> None:
    require_schema(batch[_SCHEMA_OF.name].unique().to_pylist(), symbol, span)


def _as_rows(batch: pa.RecordBatch, symbol: str, source: Source) -> pa.RecordBatch:
    """Slices as rows of their bars."""
    starts = microseconds(batch["bucket_5m"])
    values = batch[BARS.name].flatten().to_numpy().reshape(-1, len(CHANNELS))
    each = pa.array(np.repeat(starts, STEPS)).cast(TIME)
    bars = pa.array((starts[:, None] + _STEP_US * np.arange(STEPS)).reshape(-1)).cast(TIME)
    symbols = pa.array([symbol]).take(pa.array(np.zeros(len(values), np.int64)))
    channels = [pa.array(np.ascontiguousarray(values[:, place])) for place in range(len(CHANNELS))]
    return pa.RecordBatch.from_arrays([each, symbols, bars, *channels, shifted(each, SLICE + source.latency)], schema=BARS_SCHEMA)
