"""What the server knows about a table or view: its columns with their descriptions, its key, and the rows of a window."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg import sql

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import Window
from btc_assets.store.database import identifier, only_row
from btc_assets.store.errors import server_errors

ROOMS = ("landing", "market_data", "signals", "ingestion", "ops")  # the store's schemas, each with a package of the same name

# The type of an extension is named without its schema, whatever the search path.
_COLUMNS = """
SELECT attname, regexp_replace(format_type(atttypid, NULL), '^.*[.]', ''), NOT attnotnull, atthasdef, attgenerated <> '', coalesce(col_description(attrelid, attnum), '')
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
    """The columns of a table or view, in order; none if it does not exist."""
    with server_errors(), connection.transaction():
        return tuple(Column(*row) for row in connection.execute(_COLUMNS, (table,)).fetchall())


def count_rows(connection: psycopg.Connection, table: str, window: Window, *, time_column: str = "bucket_5m") -> dict[datetime, int]:
    """Rows of each slice of a window that has any.

    Args:
        connection: to the store.
        table: one with a column `bucket_5m`.
        window: slices.
        time_column: the column by which rows are found; a view of candles is indexed by `bucket`.
    """
    statement = sql.SQL("SELECT bucket_5m, count(*) FROM {} WHERE {time} >= %s AND {time} < %s GROUP BY bucket_5m").format(
        identifier(table), time=sql.Identifier(time_column)
    )
    with server_errors(), connection.transaction():
        return dict(connection.execute(statement, (window.start, window.end)).fetchall())


def count_all_rows(connection: psycopg.Connection, table: str, *, estimated_from: int = 1_000_000) -> int:
    """Rows of a table or view: counted if they are few, else as the planner estimates them from its statistics and the size on disk.

    Args:
        connection: to the store.
        table: `schema.table`.
        estimated_from: from how many rows on the estimate is returned; counting a million takes a tenth of a second.
    """
    with server_errors(), connection.transaction():
        (plan,) = only_row(connection.execute(sql.SQL("EXPLAIN (FORMAT JSON) SELECT FROM {}").format(identifier(table))))
        rows: int = plan[0]["Plan"]["Plan Rows"]
        if rows < estimated_from:
            (rows,) = only_row(connection.execute(sql.SQL("SELECT count(*) FROM {}").format(identifier(table))))
    return rows


@dataclass(frozen=True)
class Target:
    """A table with a slice column, as the server describes it.

    Attributes:
        table: `schema.table`.
        columns: those that can be written, in order.
        slice_column: holds the start of each row's slice.
        key: columns of the primary key; empty if the table has none.
    """

    table: str
    columns: tuple[Column, ...]
    slice_column: str = "bucket_5m"
    key: tuple[str, ...] = ()

    @classmethod
    def of(cls, connection: psycopg.Connection, table: str, slice_column: str = "bucket_5m") -> Target:
        """Look the table up.

        Raises:
            UserError: it does not exist or has no such slice column.
        """
        with server_errors(), connection.transaction():
            columns = tuple(column for column in read_columns(connection, table) if not column.generated)
            key = connection.execute(
                "SELECT attname FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY(indkey) "
                "WHERE indrelid = to_regclass(%s) AND indisprimary",
                (table,),
            ).fetchall()
        if not columns:
            raise UserError(f"The table {table} does not exist: run btc-assets db migrate.")
        if slice_column not in {column.name for column in columns}:
            raise UserError(f"The table {table} has no column {slice_column}: name its slice column in the asset's metadata.")
        return cls(table, columns, slice_column, tuple(name for (name,) in key))
