"""What every way of reading needs, and how a query of the server becomes a relation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np
import pyarrow as pa

from btc_assets.client.catalog import Catalog
from btc_assets.client.conversions import float_schema, floats
from btc_assets.client.ranges import clip_to_trades
from btc_assets.client.relation import Relation
from btc_assets.domain.errors import UserError
from btc_assets.domain.settings import Settings
from btc_assets.domain.slices import MICROSECOND
from btc_assets.domain.ticks import TIME
from btc_assets.domain.ticks import times as as_times
from btc_assets.store.database import Store
from btc_assets.store.parallel_read import SESSIONS, Query, stream

EXACT, FLOAT = "exact", "float"

Rows = Iterator[pa.RecordBatch]

AVAILABLE_AT = pa.field("available_at", TIME, nullable=False)


@dataclass(frozen=True)
class Source:
    """A store to read from, and what a reading is like unless it says otherwise.

    Attributes:
        store: whose sessions are read-only.
        settings: of the store.
        catalog: what it holds.
        latency: from the end of a slice until its rows can have been read.
        decimals: `exact` or `float`.
    """

    store: Store
    settings: Settings
    catalog: Catalog
    latency: timedelta
    decimals: str

    def unjudged(self) -> frozenset[str]:
        """The symbols whose trade ids say nothing about what is missing.

        The exchange skips ids there, as the settings tell; or no feed of the settings has that label, so nobody can tell.
        """
        feeds = self.settings.landing_feeds
        return feeds.labels_with_gaps | (self.catalog.labels() - set(feeds.labels))

    def relation(
        self,
        name: str,
        query: Callable[[int | None], Query],
        schema: pa.Schema,
        shape: Callable[[Rows], Rows],
        *,
        decimals: str | None = None,
    ) -> Relation:
        """The relation of a query.

        Args:
            name: of it.
            query: what is read, made anew when reading begins; its parameter is how many rows are wanted at most, None for all. It may give
                more.
            schema: of the relation, with exact decimals.
            shape: makes the relation's batches of the query's, such as with columns that the server need not send.
            decimals: `exact` or `float`; what the store says if omitted.
        """

        def read(limit: int | None) -> Rows:
            asked = query(limit)
            if window := clip_to_trades(asked.window, asked.step):
                sessions = SESSIONS if limit is None else 1
                yield from shape(iter(stream(self.store, replace(asked, window=window), sessions=sessions)))

        return self.relation_of(name, schema, lambda: read(None), first=read, decimals=decimals)

    def relation_of(
        self,
        name: str,
        schema: pa.Schema,
        rows: Callable[[], Rows],
        *,
        first: Callable[[int], Rows] | None = None,
        decimals: str | None = None,
    ) -> Relation:
        """The relation of anything that yields record batches.

        Args:
            name: of it.
            schema: of the batches, with exact decimals.
            rows: starts reading.
            first: starts reading where only so many rows are wanted; it may give more.
            decimals: as `relation` takes it.
        """
        as_floats = check_decimals(decimals or self.decimals) == FLOAT
        told = float_schema(schema) if as_floats else schema

        def reader(batches: Rows) -> pa.RecordBatchReader:
            return pa.RecordBatchReader.from_batches(told, floats(batches, told) if as_floats else batches)

        return Relation(
            name,
            told,
            lambda: reader(rows()),
            open_head=(lambda n: reader(first(n))) if first else None,
            settings=self.settings,
        )


def check_decimals(decimals: str) -> str:
    """`exact` or `float`.

    Raises:
        UserError: it is neither.
    """
    if decimals not in (EXACT, FLOAT):
        raise UserError(f'decimals={decimals!r} is unknown: write decimals="exact" or decimals="float".')
    return decimals


def choose_columns(columns: Sequence[str] | None, schema: pa.Schema, what: str) -> pa.Schema:
    """The part of a schema that is asked for, in the order in which it is asked for; all of it without columns.

    Raises:
        UserError: there is no such column, or none is named.
    """
    if columns is None:
        return schema
    if isinstance(columns, str) or not isinstance(columns, Iterable):
        columns = [columns]
    if unknown := [name for name in columns if name not in schema.names]:
        raise UserError(f"There is no column {unknown[0]!r} in {what}: name some of {', '.join(schema.names)}.")
    if not columns:
        raise UserError(f"No column of {what} is named: name some of {', '.join(schema.names)}.")
    return pa.schema([schema.field(name) for name in dict.fromkeys(columns)])


def shifted(times: pa.Array, by: timedelta) -> pa.Array:
    """Times, each later by the same span."""
    if not len(times):
        return times
    # Arrow's own conversions from and to NumPy import pandas, which takes longer than the first batch may.
    return as_times(np.frombuffer(times.buffers()[1], np.int64, len(times), 8 * times.offset) + by // MICROSECOND)


def columns_of(batch: pa.RecordBatch, schema: pa.Schema, computed: Mapping[str, pa.Array]) -> pa.RecordBatch:
    """A batch with the columns of a schema: its own, or those that were computed of them."""
    columns = [computed[name] if name in computed else batch.column(name) for name in schema.names]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def microseconds(times: pa.Array) -> np.ndarray:
    """Times as int64 since 1970."""
    return times.cast(pa.int64()).to_numpy()
