"""Batches as text and as bytes: nothing is lost, whatever the format and however they are cut."""

from __future__ import annotations

import csv
import gc
import io
import json
from contextlib import suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_assets.client.formats import cell_texts, writing

SCHEMA = pa.schema(
    [
        ("bucket", pa.timestamp("s", "UTC")),
        ("event_time", pa.timestamp("us", "UTC")),
        ("symbol", pa.string()),
        ("price", pa.decimal128(18, 8)),
        ("quote_volume", pa.decimal128(38, 20)),
        ("trade_id", pa.int64()),
        ("is_market_maker", pa.bool_()),
        ("volatility", pa.float64()),
        ("embedding", pa.list_(pa.float32())),
        ("day", pa.date32()),
    ]
)
TIMES = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)).map(lambda time: time.replace(tzinfo=UTC))
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
ROWS = st.lists(
    st.tuples(
        *(
            st.none() | values
            for values in (
                TIMES.map(lambda time: time.replace(microsecond=0)),
                TIMES,
                st.text(st.characters(codec="utf-8", exclude_characters="\0")),
                st.decimals(-(10**9), 10**9, places=8),
                st.decimals(0, 10**9, places=20),
                st.integers(-(2**63), 2**63 - 1),
                st.booleans(),
                FLOATS,
                st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), max_size=3),
                st.dates(date(1970, 1, 1), date(2100, 1, 1)),
            )
        )
    ),
    max_size=6,
)


def batch(rows: list[tuple[Any, ...]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([dict(zip(SCHEMA.names, row, strict=True)) for row in rows], SCHEMA)


def written(form: str, batches: list[pa.RecordBatch], schema: pa.Schema = SCHEMA) -> bytes:
    stream = io.BytesIO()
    with writing(form, stream, schema) as writer:
        for each in batches:
            writer.write(each)
    return stream.getvalue()


def time_of(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


@given(ROWS, st.integers(0, 6))
def test_csv_and_json_hold_what_the_batches_hold_however_they_are_cut(rows: list[tuple[Any, ...]], cut: int) -> None:
    whole = batch(rows)
    parts = [whole.slice(0, cut), whole.slice(cut)]
    objects = json.loads(written("json", parts))
    header, *lines = csv.reader(io.StringIO(written("csv", parts).decode(), newline=""))
    assert header == SCHEMA.names and len(lines) == len(objects) == len(rows)
    for row, found, cells in zip(whole.to_pylist(), objects, lines, strict=True):
        assert list(found) == SCHEMA.names
        for name in ("bucket", "event_time"):
            assert time_of(found[name]) == row[name] == time_of(cells[header.index(name)])
        for name in ("price", "quote_volume"):
            for text in (found[name], cells[header.index(name)]):
                assert (Decimal(text) if text else None) == row[name]
                assert text is None or "E" not in text
        for name in ("trade_id", "is_market_maker", "volatility", "symbol"):
            assert found[name] == row[name]
        assert cells[header.index("symbol")] == (row["symbol"] or "")
        assert cells[header.index("trade_id")] == ("" if row["trade_id"] is None else str(row["trade_id"]))
        assert (
            cells[header.index("volatility")] == ""
            if row["volatility"] is None
            else float(cells[header.index("volatility")]) == row["volatility"]
        )
        listed = pa.array([found["embedding"]], pa.list_(pa.float32())).to_pylist()
        assert listed == [row["embedding"]]
        assert (json.loads(cells[header.index("embedding")]) if cells[header.index("embedding")] else None) == found["embedding"]
        assert found["day"] == (row["day"] and row["day"].isoformat())


@given(ROWS, st.integers(0, 6))
def test_parquet_and_arrow_hold_the_batches_themselves(rows: list[tuple[Any, ...]], cut: int) -> None:
    whole = batch(rows)
    parts = [whole.slice(0, cut), whole.slice(cut)]
    read = pq.read_table(io.BytesIO(written("parquet", parts)))
    assert read.cast(SCHEMA).to_pylist() == whole.to_pylist()
    assert pa.ipc.open_file(written("arrow", parts)).read_all().to_pylist() == whole.to_pylist()
    assert pa.ipc.open_stream(written("arrow stream", parts)).read_all().to_pylist() == whole.to_pylist()


@pytest.mark.parametrize(
    ("values", "kind", "texts"),
    [
        ([Decimal("0.00000001"), Decimal(0), Decimal("-0.00000001"), None], pa.decimal128(18, 8), ["0.00000001", "0.00000000", "-0.00000001", None]),
        ([Decimal("12.3"), Decimal("0.000000000001"), Decimal(7)], pa.decimal128(38, 20), ["12.30000000", "0.000000000001", "7.00000000"]),
        ([datetime(2024, 1, 10, 12, tzinfo=UTC)], pa.timestamp("s", "UTC"), ["2024-01-10T12:00:00Z"]),
        ([datetime(2024, 1, 10, 12, tzinfo=UTC)], pa.timestamp("ms", "UTC"), ["2024-01-10T12:00:00.000Z"]),
        ([datetime(2024, 1, 10, 12, tzinfo=UTC)], pa.timestamp("us", "Europe/Berlin"), ["2024-01-10T12:00:00.000000Z"]),
        ([[0.1, None], None], pa.list_(pa.float64()), ["[0.1,null]", None]),
        ([[0.1]], pa.list_(pa.float32(), 1), ["[0.1]"]),
        ([{"at": datetime(2024, 1, 10, tzinfo=UTC), "price": Decimal("1.5")}], pa.struct([("at", pa.timestamp("s", "UTC")), ("price", pa.decimal128(9, 8))]), ['{"at":"2024-01-10T00:00:00Z","price":"1.50000000"}']),
    ],
)  # fmt: skip
def test_the_text_of_a_cell(values: list[Any], kind: pa.DataType, texts: list[str | None]) -> None:
    assert cell_texts(pa.array(values, kind)).to_pylist() == texts


def test_empty_text_differs_from_text_that_is_not_known() -> None:
    schema = pa.schema([("a", pa.string()), ("b", pa.string())])
    assert written("csv", [pa.RecordBatch.from_pylist([{"a": "", "b": None}], schema)], schema) == b'a,b\n"",\n'


def test_floats_that_are_no_number_do_not_break_json() -> None:
    schema = pa.schema([("x", pa.float64())])
    rows = pa.RecordBatch.from_pylist([{"x": float("nan")}, {"x": float("inf")}], schema)
    assert json.loads(written("json", [rows], schema)) == [{"x": None}, {"x": None}]


def test_nothing_is_an_empty_array_and_a_line_of_headings() -> None:
    assert json.loads(written("json", [])) == []
    assert written("csv", []).decode() == ",".join(SCHEMA.names) + "\n"
    assert pq.read_table(io.BytesIO(written("parquet", []))).num_rows == 0


@pytest.mark.parametrize("form", ["json", "parquet", "arrow"])
def test_what_was_broken_off_cannot_be_taken_for_whole(form: str) -> None:
    stream = io.BytesIO()
    with suppress(KeyboardInterrupt), writing(form, stream, SCHEMA) as writer:
        writer.write(batch([(None,) * len(SCHEMA)]))
        raise KeyboardInterrupt
    del writer
    gc.collect()  # what is thrown away may write as well
    reader = {"json": json.loads, "parquet": lambda data: pq.read_table(io.BytesIO(data)), "arrow": pa.ipc.open_file}[form]
    with pytest.raises((ValueError, pa.ArrowException)):
        reader(stream.getvalue())


def test_a_row_group_holds_no_more_than_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("btc_assets.client.formats._GROUP_ROWS", 100)
    part = pa.RecordBatch.from_arrays([pa.array(range(60))], ["id"])
    file = pq.ParquetFile(io.BytesIO(written("parquet", [part] * 5, part.schema)))
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [120, 120, 60]
