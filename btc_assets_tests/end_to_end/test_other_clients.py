"""What docs/other-clients.md says of other readers of the store is so: what each makes of decimals, ids and vectors."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import adbc_driver_postgresql.dbapi as adbc
import psycopg
import pyarrow as pa
import pytest
from psycopg.conninfo import conninfo_to_dict

from btc_assets_tests.support.stores import temporary_database

QUANTITY, PRICE, VOLUME = Decimal("0.123456789012"), Decimal("42000.12345678"), Decimal("5185.18513850617283950617")
ODD_ID = 2**53 + 1
ROWS = f"INSERT INTO readings VALUES (1, {QUANTITY}, {PRICE}, {VOLUME}, {ODD_ID}, '[0.5,1,-2]'), (2, {QUANTITY}, {PRICE}, {VOLUME}, NULL, NULL)"
READ = "SELECT quantity, price, volume, buyer_order_id, embedding FROM readings ORDER BY n"


@pytest.fixture(scope="module")
def dsn(server_dsn: str) -> Iterator[str]:
    """A database with a table of the types that the store's tables have."""
    with temporary_database(server_dsn) as dsn:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")
            connection.execute(
                "CREATE TABLE readings (n integer, quantity numeric(24,12), price numeric(18,8), volume numeric, buyer_order_id bigint, "
                "embedding vector(3))"
            )
            connection.execute(ROWS)
        yield dsn


def test_psycopg_gives_exact_decimals_and_vectors_as_text(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        first, second = connection.execute(READ).fetchall()
    assert first == (QUANTITY, PRICE, VOLUME, ODD_ID, "[0.5,1,-2]")
    assert second[3:] == (None, None)


def test_adbc_gives_decimals_as_opaque_text_which_casts_exactly(dsn: str) -> None:
    with adbc.connect(dsn) as connection, connection.cursor() as cursor:
        cursor.execute(READ)
        table = cursor.fetch_arrow_table()
    assert {str(table.schema.field(name).type).partition("[")[0] for name in ("quantity", "volume", "embedding")} == {
        "extension<arrow.opaque"
    }
    assert table["quantity"].cast(pa.string()).cast(pa.decimal128(24, 12)).to_pylist() == [QUANTITY] * 2
    assert table["volume"].cast(pa.string()).to_pylist() == [str(VOLUME)] * 2
    assert table["buyer_order_id"].to_pylist() == [ODD_ID, None]


def test_connectorx_rounds_decimals_to_ten_places(dsn: str) -> None:
    connectorx = pytest.importorskip("connectorx")
    table = connectorx.read_sql(url(dsn), READ, return_type="arrow")
    assert table.schema.field("quantity").type == pa.decimal128(38, 10)
    assert table["quantity"].to_pylist() == [Decimal("0.1234567890")] * 2
    assert table["price"].to_pylist() == [PRICE] * 2
    assert table["volume"].to_pylist() == [Decimal("5185.1851385062")] * 2
    assert table["buyer_order_id"].to_pylist() == [ODD_ID, None]
    assert table["embedding"].to_pylist() == [[0.5, 1.0, -2.0], None]
    pytest.importorskip("pandas")
    assert str(connectorx.read_sql(url(dsn), READ)["quantity"].dtype) == "float64"


def test_pandas_makes_floats_of_decimals_and_of_ids_that_may_be_missing(dsn: str) -> None:
    pandas = pytest.importorskip("pandas")
    frame = read_by_pandas(dsn)
    assert {str(frame[name].dtype) for name in ("quantity", "price", "volume", "buyer_order_id")} == {"float64"}
    assert int(frame["buyer_order_id"][0]) == ODD_ID - 1
    assert frame["embedding"][0] == "[0.5,1,-2]"
    exact = read_by_pandas(dsn, coerce_float=False, dtype_backend="pyarrow")
    assert exact["quantity"].astype(pandas.ArrowDtype(pa.decimal128(24, 12))).to_list() == [QUANTITY] * 2
    assert exact["buyer_order_id"][0] == ODD_ID
    assert pandas.isna(exact["buyer_order_id"][1])


def test_duckdb_knows_declared_decimals_and_makes_doubles_of_others(dsn: str) -> None:
    duckdb: Any = pytest.importorskip("duckdb")
    package = pytest.importorskip("duckdb_extension_postgres_scanner")
    extension = next(Path(package.__file__).parent.rglob("*.duckdb_extension"))
    parts = conninfo_to_dict(dsn)
    with duckdb.connect() as connection:
        connection.execute(f"LOAD '{extension}'")
        connection.execute(f"ATTACH '{' '.join(f'{name}={value}' for name, value in parts.items())}' AS store (TYPE postgres, READ_ONLY)")
        found = connection.sql("SELECT * FROM store.readings ORDER BY n")
        types = dict(zip(found.columns, map(str, found.types), strict=True))
        assert (types["quantity"], types["volume"], types["embedding"]) == ("DECIMAL(24,12)", "DOUBLE", "VARCHAR")
        assert [row[1] for row in found.fetchall()] == [QUANTITY] * 2
        cast = connection.sql("FROM postgres_query('store', 'SELECT volume::numeric(38,20) FROM readings')")
        assert cast.fetchall() == [(VOLUME,)] * 2


def read_by_pandas(dsn: str, **options: Any) -> Any:
    import pandas
    import sqlalchemy

    engine = sqlalchemy.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(dsn))
    return pandas.read_sql(READ, engine, **options)


def url(dsn: str) -> str:
    """The connection string as a URL; its host may be the directory of a socket."""
    parts = conninfo_to_dict(dsn)
    host = quote(str(parts["host"]), safe="")
    return f"postgresql://{parts.get('user', 'postgres')}@{host}:{parts.get('port', 5432)}/{parts['dbname']}"
