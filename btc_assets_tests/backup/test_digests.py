"""The checksum of rows depends on their values alone."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from btc_assets.backup.digests import read_digest, stored_columns


@pytest.fixture
def connection(empty_database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(empty_database, autocommit=True, options="-c timezone=UTC -c datestyle=ISO") as opened:
        opened.execute(
            "CREATE TABLE trades (price numeric, at timestamptz, symbol text, cost numeric GENERATED ALWAYS AS (price * 2) STORED)"
        )
        yield opened


def digest(connection: psycopg.Connection, *rows: str, where: str = "true") -> tuple[int, int]:
    connection.execute("TRUNCATE trades")
    for row in rows:
        connection.execute(f"INSERT INTO trades VALUES ({row})")
    return read_digest(connection, "public.trades", stored_columns(connection, "public.trades"), sql.SQL(where))


def test_generated_columns_are_left_out(connection: psycopg.Connection) -> None:
    assert stored_columns(connection, "public.trades") == (
        ("at", "timestamp with time zone"),
        ("price", "numeric"),
        ("symbol", "text"),
    )


def test_order_and_trailing_zeros_do_not_matter(connection: psycopg.Connection) -> None:
    first, second = "1.50, '2024-01-10T12:00Z', 'A'", "2, '2024-01-10T12:00Z', NULL"
    assert digest(connection, first, second) == digest(connection, second, first.replace("1.50", "1.5"))


@pytest.mark.parametrize("row", ["1.51, '2024-01-10T12:00Z', 'A'", "1.5, '2024-01-10T12:01Z', 'A'", "1.5, '2024-01-10T12:00Z', NULL"])
def test_any_other_value_changes_it(connection: psycopg.Connection, row: str) -> None:
    assert digest(connection, row) != digest(connection, "1.5, '2024-01-10T12:00Z', 'A'")


def test_only_rows_that_meet_the_condition_count(connection: psycopg.Connection) -> None:
    rows = "1, '2024-01-10T12:00Z', 'A'", "2, '2024-01-10T12:00Z', 'B'"
    assert digest(connection, *rows, where="symbol = 'A'") == digest(connection, rows[0])
    assert digest(connection, *rows, where="false") == (0, 0)
