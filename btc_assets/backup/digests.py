"""A checksum of rows that depends on neither their order nor the server: copies are proved equal by it."""

from __future__ import annotations

import psycopg
from psycopg import sql

from btc_assets.store.database import identifier, only_row
from btc_assets.store.tables import read_columns

Columns = tuple[tuple[str, str], ...]  # name and type of each


def stored_columns(connection: psycopg.Connection, table: str) -> Columns:
    """Name and type of the columns of a table or view, except generated ones, in the order of their names."""
    return tuple(sorted((column.name, column.type) for column in read_columns(connection, table) if not column.generated))


def checksum(columns: Columns) -> sql.Composed:
    """An SQL aggregate over rows: the sum of 60 bits of each row's MD5, as text.

    The session needs the DateStyle ISO and the time zone UTC.
    """
    # How many zeros trail a number depends on how it was computed.
    values = sql.SQL(", ").join(
        sql.SQL("trim_scale({})" if type_name == "numeric" else "{}").format(sql.Identifier(name)) for name, type_name in columns
    )
    return sql.SQL("coalesce(sum(('x' || left(md5(ROW({})::text), 15))::bit(60)::bigint), 0)::text").format(values)


def read_digest(connection: psycopg.Connection, table: str, columns: Columns, where: sql.Composable) -> tuple[int, int]:
    """Number and checksum of the rows of a table that meet a condition."""
    statement = sql.SQL("SELECT count(*), {} FROM {} WHERE {}").format(checksum(columns), identifier(table), where)
    count, total = only_row(connection.execute(statement))
    return count, int(total)
