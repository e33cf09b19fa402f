"""All ways out of a relation give the same rows; it reads nothing before one is taken, and no part of it passes as the whole."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from btc_assets.client.relation import Relation
from btc_assets.client.source import Rows
from btc_assets.domain.errors import TransientError, UserError
from btc_assets.domain.ticks import PRICE, TIME

SCHEMA = pa.schema(
    [
        pa.field("time", TIME, nullable=False),
        pa.field("symbol", pa.string(), nullable=False),
        pa.field("price", PRICE, nullable=False),
        pa.field("order_id", pa.int64()),
        pa.field("bought", pa.bool_(), nullable=False),
        pa.field("change", pa.float64()),
        pa.field("bars", pa.list_(pa.list_(pa.float32(), 2), 3)),
    ]
)
ROWS: list[dict[str, Any]] = [
    {
        "time": datetime(2024, 1, 10, 12, 0, 0, number, tzinfo=UTC), "symbol": "BTCUSDT", "price": Decimal(f"{42000 + number}.00000001"),
        "order_id": None if number % 3 == 0 else 2**60 + number, "bought": number % 2 == 0, "change": None if number % 4 == 0 else number / 3,
        "bars": None if number == 2 else [[number, 1], [2, 3], [4, 5]],
    }
    for number in range(7)
]  # fmt: skip
TABLE = pa.Table.from_pylist(ROWS, SCHEMA)


def relation(batches: Callable[[], Iterator[pa.RecordBatch]] = lambda: iter(TABLE.to_batches(max_chunksize=3))) -> Relation:
    return Relation("rows of a test", SCHEMA, lambda: pa.RecordBatchReader.from_batches(SCHEMA, batches()))


def broken() -> Rows:
    yield TABLE.to_batches()[0]
    raise TransientError("The database server ended the connection (gone): run it again once it is up.")


def test_nothing_is_read_before_a_way_out_is_taken() -> None:
    read: list[int] = []

    def batches() -> Rows:
        read.append(1)
        yield from TABLE.to_batches()

    rows = relation(batches)
    assert (repr(rows), rows.columns) == ("<rows of a test: time, symbol, price, order_id, bought, change, bars>", SCHEMA.names)
    assert not read
    assert rows.arrow() == rows.arrow() == TABLE
    assert len(read) == 2


def test_every_way_out_gives_the_same_rows(tmp_path: Path) -> None:
    rows = relation()
    assert rows.arrow().to_pylist() == ROWS
    assert [row for batch in rows.batches() for row in batch.to_pylist()] == ROWS
    assert pa.table(rows).to_pylist() == ROWS
    assert rows.polars().to_arrow().cast(SCHEMA).to_pylist() == ROWS
    assert pl.DataFrame(rows).equals(rows.polars())
    columns = [name for name in SCHEMA.names if name not in ("time", "bars")]
    found = rows.duckdb()
    for _ in range(2):  # a relation of DuckDB reads anew whenever it is executed
        assert found.select(*columns).fetchall() == [tuple(row[name] for name in columns) for row in ROWS]
    assert duckdb.connect().sql("SELECT count(*), sum(price) FROM rows").fetchall() == [(7, sum(row["price"] for row in ROWS))]
    assert rows.to_parquet(tmp_path / "rows.parquet") == 7
    assert pq.read_table(tmp_path / "rows.parquet").to_pylist() == ROWS
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]


def test_pandas_keeps_decimals_and_large_integers_exact() -> None:
    frame = relation().pandas()
    assert frame["price"].tolist() == [row["price"] for row in ROWS] and frame["price"].sum() == sum(row["price"] for row in ROWS)
    assert str(frame["order_id"].dtype) == "Int64" and frame["order_id"].dropna().tolist() == [
        row["order_id"] for row in ROWS if row["order_id"]
    ]
    assert [time.to_pydatetime() for time in frame["time"]] == [row["time"] for row in ROWS]
    assert frame["bought"].dtype == bool


def test_numpy_gives_an_array_for_each_column() -> None:
    found = relation().numpy()
    assert found["time"].dtype == np.dtype("datetime64[us]") and found["time"][3].item() == ROWS[3]["time"].replace(tzinfo=None)
    assert found["price"].tolist() == [row["price"] for row in ROWS]
    assert found["order_id"].tolist() == [row["order_id"] for row in ROWS]  # of a masked array: None where it is missing
    assert found["bars"].shape == (7, 3, 2) and np.isnan(found["bars"][2]).all() and found["bars"][6, 0].tolist() == [6, 1]
    assert np.isnan(found["change"][0]) and found["change"][1] == 1 / 3
    assert {name: len(array) for name, array in found.items()} == dict.fromkeys(SCHEMA.names, 7)


def test_a_relation_without_rows_keeps_its_columns(tmp_path: Path) -> None:
    rows = relation(lambda: iter(()))
    assert rows.arrow().schema == SCHEMA and rows.polars().shape == (0, 7) and rows.pandas().shape == (0, 7)
    assert rows.numpy()["bars"].shape == (0, 3, 2) and rows.duckdb().fetchall() == [] and rows.head().num_rows == 0
    assert rows.to_parquet(tmp_path / "rows.parquet") == 0 and pq.read_table(tmp_path / "rows.parquet").schema.names == SCHEMA.names


def test_the_head_is_read_without_the_rest() -> None:
    assert relation(broken).head(2).to_pylist() == ROWS[:2]
    assert relation().head(5).to_pylist() == ROWS[:5] and relation().head(100).num_rows == 7 and relation().head(0).num_rows == 0
    with pytest.raises(UserError, match="The first -1 rows cannot be read"):
        relation().head(-1)


@pytest.mark.parametrize("way", ["arrow", "polars", "pandas", "numpy"])
def test_a_stream_that_breaks_off_raises(way: str) -> None:
    with pytest.raises(TransientError, match="ended the connection"):
        getattr(relation(broken), way)()


def test_others_that_take_the_stream_of_arrow_see_that_it_broke_off() -> None:
    with pytest.raises(pl.exceptions.ComputeError, match="ended the connection"):
        pl.DataFrame(relation(broken))
    with pytest.raises(duckdb.InvalidInputException, match="ended the connection"):
        relation(broken).duckdb().fetchall()


def test_a_file_is_whole_or_what_it_was_before(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    with pytest.raises(TransientError):
        relation(broken).to_parquet(path)
    assert list(tmp_path.iterdir()) == []
    relation().to_parquet(str(path))
    with pytest.raises(TransientError):
        relation(broken).to_parquet(path)
    assert pq.read_table(path).num_rows == 7 and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("to", "sentence"),
    [
        (
            "missing/rows.parquet",
            "rows.parquet cannot be written, because missing is no directory: name a file in a directory that exists.",
        ),
        (".", ". is a directory: name a file in a directory that exists."),
        ("gs://bucket/rows.parquet", "'gs://bucket/rows.parquet' is no place for a file: write a path, or s3://bucket/key."),
        ("s3://bucket", "'s3://bucket' is no place for a file: write a path, or s3://bucket/key."),
    ],
)
def test_where_nothing_can_be_written_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str, sentence: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as raised:
        relation().to_parquet(to)
    assert str(raised.value).endswith(sentence)


@pytest.mark.parametrize(("way", "title"), [("polars", "Polars"), ("pandas", "pandas"), ("duckdb", "DuckDB")])
def test_a_library_that_is_missing_is_one_sentence_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, way: str, title: str
) -> None:
    monkeypatch.setitem(sys.modules, way, None)
    with pytest.raises(UserError) as raised:
        getattr(relation(), way)()
    assert str(raised.value) == f"{title} is not installed: pip install 'btc-assets[{way}]'."
