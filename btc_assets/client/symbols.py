"""The symbols of a store."""

from __future__ import annotations

from dataclasses import asdict

import pyarrow as pa

from btc_assets.client.relation import Relation
from btc_assets.client.source import Rows, Source
from btc_assets.domain.ticks import TIME

SCHEMA = pa.schema(
    [
        pa.field("symbol", pa.string(), nullable=False),
        pa.field("first_slice", TIME, nullable=False),
        pa.field("end", TIME, nullable=False),
        pa.field("slices", pa.int64(), nullable=False),
        pa.field("ticks", pa.int64(), nullable=False),
    ]
)


def symbols(source: Source) -> Relation:
    """As `ClientStore.symbols`."""

    def rows() -> Rows:
        found = [asdict(one) for one in source.catalog.symbols()]
        yield pa.RecordBatch.from_pylist([one | {"first_slice": one["first"]} for one in found], schema=SCHEMA)

    return source.relation_of("symbols of the store", SCHEMA, rows)
