"""Arrow becomes the server's own types, or one sentence says which column does not fit."""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
import pytest

from btc_assets.domain.errors import UserError
from btc_assets.store.encode import ENCODE_ROWS, EncodedRows, encode_rows
from btc_assets.store.tables import Column, Target
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import NOON


def target(*columns: tuple[str, str], required: tuple[str, ...] = ()) -> Target:
    return Target(
        "ops.some", tuple(Column(name, type_, name not in required, False, False, "") for name, type_ in columns), slice_column=""
    )


def copy(store: StoreUnderTest, columns: dict[str, str], rows: pa.Table) -> None:
    """Create the temporary table `copied` and copy the rows into it."""
    store.connection.execute(f"CREATE TEMPORARY TABLE copied ({', '.join(f'{name} {type_}' for name, type_ in columns.items())})")
    encoded = encode_rows(rows, target(*((name, type_.split("(")[0]) for name, type_ in columns.items())))
    statement = f"COPY copied ({', '.join(encoded.columns)}) FROM STDIN (FORMAT binary)"
    with store.connection.cursor() as cursor, cursor.copy(statement) as copying:
        for buffer in encoded.buffers:
            copying.write(buffer)


def test_values_of_every_type_arrive_as_they_were(store: StoreUnderTest) -> None:
    columns = {
        "a": "bigint", "b": "integer", "c": "double precision", "d": "text", "e": "boolean", "f": "jsonb", "g": "bytea", "h": "numeric(20, 4)",
        "i": "numeric", "j": "date", "k": "timestamp with time zone",
    }  # fmt: skip
    rows = pa.table(
        {
            "k": pa.array([NOON, None], pa.timestamp("ms", "UTC")),
            "a": pa.array([-(2**40), None]),
            "b": pa.array([1, 2], pa.int8()),
            "c": pa.array([0.5, None], pa.float32()),
            "d": pa.array(["ü", ""], pa.large_string()),
            "e": pa.array([True, None]),
            "f": pa.array(['{"a": [1, 2]}', "null"]),
            "g": pa.array([b"\0\1", b""]),
            "h": pa.array([Decimal("1234567890123456.5678"), None], pa.decimal128(20, 4)),
            "i": pa.array([3, None]),
            "j": pa.array([NOON.date(), None]),
        }
    )
    copy(store, columns, rows)
    assert store.rows("SELECT * FROM copied") == [
        (-(2**40), 1, 0.5, "ü", True, {"a": [1, 2]}, b"\0\1", Decimal("1234567890123456.5678"), Decimal(3), NOON.date(), NOON),
        (None, 2, None, "", None, None, b"", None, None, None, None),
    ]


def test_vectors_arrive_as_they_were_also_from_a_part_of_an_array(store: StoreUnderTest) -> None:
    lists = pa.array([[9, 9], [0.5, -1.25], None, [1e30, 0]], pa.list_(pa.float64())).slice(1)
    copy(store, {"v": "vector(2)"}, pa.table({"v": lists}))
    assert store.rows("SELECT v::text FROM copied") == [("[0.5,-1.25]",), (None,), ("[1e+30,0]",)]


def test_no_rows_are_no_buffers() -> None:
    assert encode_rows(pa.table({"anything": pa.array([], pa.int64())}), target(("number", "bigint"))) == EncodedRows((), [])


def test_many_rows_are_encoded_in_buffers_of_bounded_size() -> None:
    encoded = encode_rows(pa.table({"number": range(2 * ENCODE_ROWS + 1)}), target(("number", "bigint")))
    assert len(encoded.buffers) == 1 + 3 + 1  # header, batches, trailer


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ({"number": [1], "mood": ["a"]}, "The Arrow data does not fit the table: ops.some has no column mood."),
        ({"vector": [[1.0]]}, "The Arrow data does not fit the table: it lacks number."),
        ({"mood": ["a"]}, "The Arrow data does not fit the table: ops.some has no column mood; it lacks number."),
        ({"number": ["x"]}, "Column number (string) does not convert to bigint ("),
        ({"number": [1], "vector": [[1.0, 2.0], [1.0]]}, "the vectors differ in length"),
        ({"number": [1], "vector": [[1.0, None]]}, "a vector has an element that is null or not finite"),
        ({"number": [1], "vector": [[1.0, float("nan")]]}, "a vector has an element that is null or not finite"),
        ({"number": [1], "span": ["1 day"]}, "columns of type interval are not written by COPY yet"),
    ],
    ids=["unknown", "missing", "both", "not convertible", "lengths differ", "null element", "NaN", "unknown type"],
)
def test_data_that_does_not_fit_is_refused_in_one_sentence(rows: dict[str, list[object]], sentence: str) -> None:
    some = target(("number", "bigint"), ("vector", "vector"), ("span", "interval"), required=("number",))
    length = max(map(len, rows.values()))
    table = pa.table({name: pa.array(values * (length // len(values))) for name, values in rows.items()})
    with pytest.raises(UserError) as refused:
        encode_rows(table, some)
    assert sentence in str(refused.value)
