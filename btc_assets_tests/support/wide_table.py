"""A table with a column of every type that the store writes, and rows for it."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from btc_assets.domain.slices import SLICE
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import NOON

WIDE = pa.schema(
    [
        ("bucket_5m", pa.timestamp("ms", "UTC")),
        ("name", pa.large_string()),
        ("count", pa.int32()),
        ("ratio", pa.float32()),
        ("amount", pa.decimal128(20, 4)),
        ("vector", pa.list_(pa.float32(), 3)),
        ("labels", pa.string()),
        ("flag", pa.bool_()),
    ]
)


@pytest.fixture
def wide(store: StoreUnderTest) -> StoreUnderTest:
    """A store with a table of every type that the store writes, a vector among them."""
    store.connection.execute(
        "CREATE TABLE signals.wide (bucket_5m timestamptz NOT NULL, name text, count bigint, ratio double precision, amount numeric(20, 4), "
        "vector vector(3), labels jsonb, flag boolean, filled_in integer DEFAULT 7)"
    )
    return store


def row(bucket: datetime, number: int) -> dict[str, object]:
    """One row; every fifth has no vector."""
    return {
        "bucket_5m": bucket, "name": f"n{number}", "count": number, "ratio": number / 4, "amount": Decimal(number) / 8,
        "vector": None if number % 5 == 0 else [number, 0.5, -1.25], "labels": f'{{"n": {number}}}', "flag": number % 2 == 0,
    }  # fmt: skip


def rows(count: int, *, start: datetime = NOON, per_slice: int = 3) -> pa.Table:
    """Rows in order of their slices."""
    return pa.Table.from_pylist([row(start + i // per_slice * SLICE, i) for i in range(count)], schema=WIDE)
