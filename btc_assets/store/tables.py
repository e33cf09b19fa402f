"""What the server says of a table or view: its columns, what they mean, and how many rows a window has."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg import sql

from btc_assets.domain.slices import Window
from btc_assets.store.database import identifier, server_errors

_COLUMNS = """
SELECT attname, format_type(atttypid, NULL), NOT attnotnull, atthasdef, attgenerated <> '', coalesce(col_description(attrelid, attnum), '')
FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""


@dataclass(frozen=True)
class Column:
    """A column: its name, PostgreSQL type (such as `bigint` or `vector`), and comment."""

    name: str
    type: str
    nullable: bool
    has_default: bool
    generated: bool
    description: str

    @property
    def required(self) -> bool:
        """Whether a row cannot be written without it."""
        return not self.nullable and not self.has_default


def read_columns(connection: psycopg.Connection, table: str) -> tuple[Column, ...]:
    """The columns of a table or view, in order; none where it does not exist."""
    with connection.transaction():
        return tuple(Column(*row) for row in connection.execute(_COLUMNS, (table,)).fetchall())


def count_rows(connection: psycopg.Connection, table: str, window: Window, *, time_column: str = "bucket_5m") -> dict[datetime, int]:
    """Rows of each slice of a window that has any.

    Args:
        connection: to the store.
        table: one with a column `bucket_5m`.
        window: slices.
        time_column: what rows are found by; a view of candles is indexed by `bucket`.
    """
    statement = sql.SQL("SELECT bucket_5m, count(*) FROM {} WHERE {time} >= %s AND {time} < %s GROUP BY bucket_5m").format(
        identifier(table), time=sql.Identifier(time_column)
    )
    with server_errors(), connection.transaction():
        return dict(connection.execute(statement, (window.start, window.end)).fetchall())
