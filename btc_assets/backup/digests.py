"""A checksum of rows that does not depend on their order, on the server or on its version: what copies are proved equal by."""

from __future__ import annotations

from collections.abc import Iterable
from typing import LiteralString

import psycopg
from psycopg import sql

from btc_assets.store.database import identifier

Columns = tuple[tuple[str, str], ...]  # name and type of each

_COLUMNS: LiteralString = """
SELECT attname, format_type(atttypid, NULL) FROM pg_attribute
WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attname
"""


def read_columns(connection: psycopg.Connection, table: str) -> Columns:
    """Columns of a table or view that hold something of their own, by name."""
    return tuple(connection.execute(_COLUMNS, (table,)).fetchall())


def checksum(columns: Iterable[tuple[str, str]]) -> sql.Composed:
    """Aggregate of rows: the sum of 60 bits of each row's MD5, as text. The session's DateStyle must be ISO, its time zone UTC."""
    # A number's trailing zeros are a matter of how it was summed up.
    values = sql.SQL(", ").join(
        sql.SQL("trim_scale({})" if type_name == "numeric" else "{}").format(sql.Identifier(name)) for name, type_name in columns
    )
    return sql.SQL("coalesce(sum(('x' || left(md5(ROW({})::text), 15))::bit(60)::bigint), 0)::text").format(values)


def digest(connection: psycopg.Connection, table: str, columns: Columns, where: sql.Composable) -> tuple[int, int]:
    """Number of rows of a table that fulfil a condition, and their checksum."""
    row = connection.execute(sql.SQL("SELECT count(*), {} FROM {} WHERE {}").format(checksum(columns), identifier(table), where)).fetchone()
    assert row is not None
    return row[0], int(row[1])
