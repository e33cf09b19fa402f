"""What the server packs comes apart as the same values, to the last digit; anything that Arrow cannot hold is refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import psycopg
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import sql

from btc_assets.domain.errors import UserError
from btc_assets.store.packed import pack_columns, unpack_columns
from btc_assets_tests.support.stores import temporary_database

TIME = pa.timestamp("us", "UTC")
VECTOR = pa.list_(pa.float32())
NOON = datetime(2024, 1, 10, 12, 0, 0, 1, UTC)
SQL_TYPES = {
    pa.int64(): "bigint", pa.int32(): "integer", pa.int16(): "smallint", pa.float64(): "double precision", pa.float32(): "real",
    pa.bool_(): "boolean", pa.date32(): "date", TIME: "timestamptz", pa.string(): "text", pa.binary(): "bytea", VECTOR: "vector",
}  # fmt: skip
VALUES: list[tuple[pa.DataType, Sequence[object]]] = [
    (pa.int64(), [-(2**63), -1, 0, 2**63 - 1]),
    (pa.int32(), [-(2**31), 7, 2**31 - 1]),
    (pa.int16(), [-(2**15), 7]),
    (pa.float64(), [-0.1, 1e308, float("inf"), 5e-324]),
    (pa.float32(), [0.5, -2.0]),
    (pa.bool_(), [True, False, True, True, False, True, False, False, True]),
    (pa.date32(), [date(1, 1, 1), date(2024, 2, 29)]),
    (TIME, [NOON, datetime(1970, 1, 1, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)]),
    (pa.string(), ["MARKET", "", "NA", "Ł€"]),
    (pa.string(), ["MARKET", "MARKET"]),
    (pa.binary(), [b"\x00\xff", b""]),
    (VECTOR, [[0.5, -1.25], [3.0]]),
]


@pytest.fixture(scope="module")
def server(server_dsn: str) -> Iterator[psycopg.Connection]:
    """A session in a database without tables."""
    with temporary_database(server_dsn) as dsn, psycopg.connect(dsn, autocommit=True, options="-c timezone=UTC") as connection:
        connection.execute("CREATE EXTENSION vector")
        yield connection


def packed(server: psycopg.Connection, type: pa.DataType, values: Sequence[object], sql_type: str, *, nullable: bool) -> pa.Array:
    """The values after a trip to the server and back, in two packed rows: all of them, and the last of them alone."""
    schema = pa.schema([pa.field("x", type, nullable=nullable)])
    element = sql.SQL("x::text::vector AS x" if sql_type == "vector" else "x")
    statement = sql.SQL("SELECT {}, count(*) FROM (SELECT {} FROM unnest(%s::{}[]) WITH ORDINALITY AS u (x, i) ORDER BY i) AS rows").format(
        pack_columns(schema), element, sql.SQL("text" if sql_type == "vector" else sql_type)
    )
    sent = [
        server.cursor(binary=True).execute(statement, ([str(v) if sql_type == "vector" and v else v for v in part],)).fetchone()
        for part in (values, values[-1:])
    ]
    pieces, counts = zip(*[one for one in sent if one], strict=True)
    (column,) = unpack_columns(schema, [pieces], counts)
    column.validate(full=True)
    return column


@pytest.mark.parametrize(("type", "values"), VALUES, ids=lambda value: str(value) if isinstance(value, pa.DataType) else "")
def test_every_type_comes_back_as_it_was_with_and_without_nulls(
    server: psycopg.Connection, type: pa.DataType, values: Sequence[object]
) -> None:
    for nullable, given_values in ((False, values), (True, values), (True, [None, *values, None, None]), (True, [None, None])):
        back = packed(server, type, given_values, SQL_TYPES[type], nullable=nullable)
        assert back.to_pylist() == [*given_values, *given_values[-1:]]


PLAIN = st.decimals(allow_nan=False, allow_infinity=False, places=8, min_value=-(10**10) + 1, max_value=10**10 - 1)
EXOTIC = st.sampled_from(["0", "0.00000001", "-0.00000001", "42000.00000008", "9999999999.99999999", "10000", "0.0001", "42000.5"])


@given(values=st.lists(PLAIN | EXOTIC.map(Decimal), min_size=1), nulls=st.booleans())
@settings(max_examples=60)
def test_any_price_comes_back_to_the_last_digit(server: psycopg.Connection, values: list[Decimal], nulls: bool) -> None:
    given_values = [None, *values] if nulls else values
    back = packed(server, pa.decimal128(18, 8), given_values, "numeric(18, 8)", nullable=nulls)
    assert back.to_pylist() == [*given_values, given_values[-1]]


@given(values=st.lists(st.integers(-(10**38) + 1, 10**38 - 1) | st.integers(-(10**5), 10**5), min_size=1), scale=st.integers(0, 38))
@settings(max_examples=80)
def test_numerics_of_any_scale_and_up_to_38_digits_are_exact(server: psycopg.Connection, values: list[int], scale: int) -> None:
    given_values = [Decimal(f"{value}E-{scale}") for value in values]
    back = packed(server, pa.decimal128(38, scale), given_values, "numeric", nullable=False)
    assert back.to_pylist() == [*given_values, given_values[-1]]


def test_numerics_whose_digits_look_like_the_head_of_another_one_are_walked_through(server: psycopg.Connection) -> None:
    alike = [Decimal("2.00000000000800020001"), Decimal(3), Decimal("-5.0002000000000008")]
    assert packed(server, pa.decimal128(38, 24), alike, "numeric(38, 24)", nullable=False).to_pylist()[:3] == alike
    head = [Decimal("1.0002000100000008"), Decimal("7.5")]  # 2 digits, weight 1, positive, 8 places
    assert packed(server, pa.decimal128(18, 16), head, "numeric", nullable=False).to_pylist()[:2] == head


@pytest.mark.parametrize(
    ("type", "sql_type", "value"),
    [
        (pa.decimal128(18, 8), "numeric", Decimal("NaN")),
        (pa.decimal128(18, 8), "numeric", Decimal("0.000000001")),
        (pa.decimal128(18, 8), "numeric", Decimal(10000000000)),
        (pa.decimal128(18, 8), "numeric", Decimal(10) ** 40),
        (pa.decimal128(38, 10), "numeric", Decimal("0.00000000001")),
        (TIME, "timestamptz", "infinity"),
        (TIME, "timestamptz", "-infinity"),
    ],
)
def test_a_value_that_arrow_cannot_hold_is_refused_by_name(
    server: psycopg.Connection, type: pa.DataType, sql_type: str, value: object
) -> None:
    for values in ([value], [value, value]):
        with pytest.raises(UserError, match=r"The column x holds a value that .* cannot hold"):
            packed(server, type, values, sql_type, nullable=False)


@pytest.mark.parametrize("type", [pa.int64(), pa.bool_(), TIME, pa.decimal128(18, 8)])
def test_a_null_where_none_may_be_is_refused(server: psycopg.Connection, type: pa.DataType) -> None:
    sql_type = "numeric" if pa.types.is_decimal(type) else SQL_TYPES[type]
    values = {"bigint": 1, "boolean": True, "timestamptz": NOON, "numeric": Decimal(1)}
    with pytest.raises(UserError, match="a null"):
        packed(server, type, [None, values[sql_type]], sql_type, nullable=False)


def test_times_keep_their_microseconds(server: psycopg.Connection) -> None:
    times = [NOON + timedelta(microseconds=number) for number in range(5)]
    assert packed(server, TIME, times, "timestamptz", nullable=False).to_pylist()[:5] == times
