"""Features and bars of slices, with which slices are compared and from which encoders learn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from psycopg import sql

from btc_assets.client.ranges import RangeLike, TimeRange, parse_range
from btc_assets.client.relation import Relation
from btc_assets.client.source import AVAILABLE_AT, Query, Rows, Source, choose_columns, columns_of, microseconds, shifted
from btc_assets.domain.slices import SLICE, SLICE_US
from btc_assets.domain.ticks import TIME
from btc_assets.signals.features.bars import CHANNELS, STEPS
from btc_assets.signals.features.formulas import FEATURES
from btc_assets.signals.features.table import TABLE, require_schema
from btc_assets.store.database import identifier

_SLICE = [pa.field("bucket_5m", TIME, nullable=False), pa.field("symbol", pa.string(), nullable=False)]
BARS = pa.field("bars", pa.list_(pa.list_(pa.float32(), len(CHANNELS)), STEPS), nullable=False)
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


def features(source: Source, symbol: str, range: RangeLike, columns: Sequence[str] | None = None) -> Relation:
    """As `ClientStore.features`."""
    span = parse_range(range)
    schema = choose_columns(WITHOUT_BARS if columns is None else columns, SCHEMA, "features")
    source.catalog.require([symbol], span)

    def shape(rows: Rows) -> Rows:
        for batch in rows:
            _require_schema(batch, symbol, span)
            yield columns_of(batch, schema, {AVAILABLE_AT.name: shifted(batch["bucket_5m"], SLICE + source.latency)})

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

    return source.relation(f"slice_bars of {symbol}, {span}", _query(symbol, span, [BARS]), schema, shape, rows_stay=False)


def _query(symbol: str, span: TimeRange, fields: Sequence[pa.Field]) -> Query:
    """The slices of a symbol that start in a range, with some columns of the table besides `bucket_5m` and the schema of its features."""
    schema = pa.schema([_SLICE[0], *fields, _SCHEMA_OF])
    columns = [sql.SQL("{0}::real[]" if name == BARS.name else "{0}").format(sql.Identifier(name)) for name in schema.names]
    return Query(
        lambda limit: sql.SQL(
            "SELECT {} FROM {} WHERE symbol = {} AND bucket_5m >= {} AND bucket_5m < {} ORDER BY bucket_5m LIMIT {}"
        ).format(sql.SQL(", ").join(columns), identifier(TABLE), symbol, span.start, span.end, limit),
        schema,
    )


def _require_schema(batch: pa.RecordBatch, symbol: str, span: TimeRange) -> None:
    require_schema(batch[_SCHEMA_OF.name].unique().to_pylist(), symbol, span)


def _as_rows(batch: pa.RecordBatch, symbol: str, source: Source) -> pa.RecordBatch:
    """Slices as rows of their bars."""
    starts = microseconds(batch["bucket_5m"])
    values = batch[BARS.name].flatten().flatten().to_numpy().reshape(-1, len(CHANNELS))
    each = pa.array(np.repeat(starts, STEPS)).cast(TIME)
    bars = pa.array((starts[:, None] + _STEP_US * np.arange(STEPS)).reshape(-1)).cast(TIME)
    symbols = pa.array([symbol]).take(pa.array(np.zeros(len(values), np.int64)))
    channels = [pa.array(np.ascontiguousarray(values[:, place])) for place in range(len(CHANNELS))]
    return pa.RecordBatch.from_arrays([each, symbols, bars, *channels, shifted(each, SLICE + source.latency)], schema=BARS_SCHEMA)
