"""Embeddings of slices, and the slices that are most similar to one."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TypedDict, Unpack

import psycopg
import pyarrow as pa
from psycopg import sql

from btc_assets.client.conversions import fixed_lists
from btc_assets.client.ranges import Moment, RangeLike, TimeRange, format_moment, parse_moment, parse_range
from btc_assets.client.relation import Relation
from btc_assets.client.source import AVAILABLE_AT, Rows, Source, columns_of, shifted
from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import EPOCH, SLICE, Window, floor_slice
from btc_assets.domain.ticks import TIME
from btc_assets.signals.encoders.models import Model, read_models
from btc_assets.signals.search.embeddings import LABELS
from btc_assets.signals.search.similar import find_similar_slices, read_active_model
from btc_assets.store.database import identifier, only_row
from btc_assets.store.errors import server_errors
from btc_assets.store.parallel_read import Query

_SLICE = [pa.field("bucket_5m", TIME, nullable=False), pa.field("symbol", pa.string(), nullable=False)]
_VECTOR = pa.field("embedding", pa.list_(pa.float32()))  # as it is read
_COUNT = pa.field("tick_count", pa.int64(), nullable=False)
# What the next slice brought: nothing that was known at `available_at`.
_LABELS = [pa.field(name, pa.float64()) for name in LABELS]

SIMILAR_SCHEMA = pa.schema([*_SLICE, pa.field("distance", pa.float64(), nullable=False), _COUNT, *_LABELS, AVAILABLE_AT])

_PART = timedelta(hours=6)  # the least that is read at once


class SearchOptions(TypedDict, total=False):
    """What `similar` passes on to `signals.search.similar.find_similar_slices`."""

    before_only: bool
    within: RangeLike
    apart: timedelta
    symbol: str
    model: str
    exact: bool


def embeddings(source: Source, range: RangeLike | None = None, *, symbol: str | None = None, model: str | None = None) -> Relation:
    """As `ClientStore.embeddings`."""
    span = None if range is None else parse_range(range)
    if symbol is not None:
        source.catalog.require([symbol], span)
    with source.store.connect() as connection:
        chosen = require_model(connection, model, symbol)
    vector = pa.field("embedding", pa.list_(pa.float32(), chosen.dim))
    before, after = [*_SLICE, pa.field("model_id", pa.string(), nullable=False)], [_COUNT, *_LABELS]
    fetched, schema = pa.schema([*before, _VECTOR, *after]), pa.schema([*before, vector, *after, AVAILABLE_AT])

    def query(limit: int | None) -> Query:
        window = span.window if span else _stored(source, chosen)
        known = {"symbol": chosen.symbol, "model_id": chosen.model_id}
        return Query(lambda part: _select(chosen, span, part, limit), fetched, window, _PART, constants=known)

    def shape(rows: Rows) -> Rows:
        for batch in rows:
            available = shifted(batch["bucket_5m"], SLICE + source.latency)
            yield columns_of(batch, schema, {vector.name: fixed_lists(batch[vector.name], vector.type), AVAILABLE_AT.name: available})

    return source.relation(f"embeddings of {chosen.symbol} by {chosen.model_id}, {span or 'all'}", query, schema, shape)


def _stored(source: Source, model: Model) -> Window:
    """The slices of which a model has rows; one without any if it has none."""
    query = sql.SQL("SELECT min(bucket_5m), max(bucket_5m) FROM {}").format(identifier(model.table))
    with source.store.connect() as connection, server_errors():
        first, last = only_row(connection.execute(query))
    return Window(first, last + SLICE) if first else Window.of_slice(EPOCH)


def _select(model: Model, span: TimeRange | None, part: Window, limit: int | None) -> sql.Composed:
    labels = [sql.SQL("(label_snapshot ->> {})::double precision AS {}").format(name, sql.Identifier(name)) for name in LABELS]
    start, end = (max(part.start, span.start), min(part.end, span.end)) if span else (part.start, part.end)
    return sql.SQL(
        "SELECT bucket_5m, embedding, tick_count, {} FROM {} WHERE bucket_5m >= {} AND bucket_5m < {} ORDER BY bucket_5m LIMIT {}"
    ).format(sql.SQL(", ").join(labels), identifier(model.table), start, end, limit)


def similar(source: Source, time: Moment, k: int = 10, **options: Unpack[SearchOptions]) -> Relation:
    """As `ClientStore.similar`."""
    moment = parse_moment(time)
    within = parse_range(options["within"]).window if "within" in options else None
    symbol = options.get("symbol")
    if symbol is not None:
        source.catalog.require([symbol])
    with source.store.connect() as connection:
        model = require_model(connection, options.get("model"), symbol)

    def rows() -> Rows:
        with source.store.connect() as connection:
            found = find_similar_slices(
                connection,
                moment,
                k,
                before_only=options.get("before_only", False),
                within=within,
                apart=options.get("apart", timedelta(0)),
                model_id=model.model_id,
                exact=options.get("exact", False),
            )
        unknown: dict[str, None] = dict.fromkeys(LABELS)
        made = [
            {
                **(one.label_snapshot or unknown), "bucket_5m": one.bucket_5m, "symbol": one.symbol, "distance": one.distance,
                "tick_count": one.tick_count, AVAILABLE_AT.name: _available(one.bucket_5m, source),
            }
            for one in found
        ]  # fmt: skip
        yield pa.RecordBatch.from_pylist(made, schema=SIMILAR_SCHEMA)

    name = f"similar to {model.symbol} {format_moment(floor_slice(moment))} by {model.model_id}, {k} slices"
    return source.relation_of(name, SIMILAR_SCHEMA, rows)


def _available(bucket: datetime, source: Source) -> datetime:
    return bucket + SLICE + source.latency


def require_model(connection: psycopg.Connection, model: str | None, symbol: str | None) -> Model:
    """A model by its id, or the active one of a symbol (of all, if only one has any).

    Raises:
        UserError: there is no such model, it embeds another symbol, or none is active.
    """
    models = {one.model_id: one for one in read_models(connection)}
    chosen = model or read_active_model(connection, symbol)
    if chosen not in models:
        known = f"name one of {', '.join(models)}" if models else "train one (btc-assets train)"
        raise UserError(f"There is no model {chosen!r} in this store: {known}.")
    found = models[chosen]
    if symbol is not None and symbol != found.symbol:
        raise UserError(f"The model {chosen} embeds {found.symbol}, not {symbol}: leave out one of both.")
    return found
