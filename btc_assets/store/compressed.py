"""Writing into compressed chunks of a hypertable, and leaving them compressed.

TimescaleDB decompresses what a statement touches and keeps it beside the compressed rows until the chunk is compressed
again. Deleting and changing rows is cheap. Each row with a *new* key is not: its uniqueness is checked against all
compressed batches of its symbol, 0.45 ms a row in a day of three million. So rows that keep their key are changed in place,
and a chunk that gets many new keys is decompressed completely first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import LiteralString

import psycopg
from psycopg import sql

from btc_assets.domain.slices import Window
from btc_assets.store.database import identifier
from btc_assets.store.errors import server_errors
from btc_assets.store.tables import Target

MANY_NEW_KEYS = 20_000  # from this many on, decompressing and compressing a day of three million ticks (11 s) is faster


def compressed_chunks(connection: psycopg.Connection, table: str, window: Window) -> list[str]:
    """Names of the compressed chunks of a table that a window touches; none on plain PostgreSQL."""
    with server_errors(), connection.transaction():
        rows = connection.execute("SELECT * FROM ops.compressed_chunks(%s, %s, %s)", (table, window.start, window.end))
        return [name for (name,) in rows]


def compress(cursor: psycopg.Cursor, chunk: str) -> None:
    """Compress a chunk, or what was written into it since it was compressed; does nothing if it is gone."""
    cursor.execute("SELECT ops.compress_chunk(%s) WHERE to_regclass(%s) IS NOT NULL", (chunk, chunk))


class CompressedReplacement:
    """Replaces a window of a table whose chunks are compressed, inside the caller's transaction.

    Put the new rows into `incoming` first, then call `write`.

    Args:
        cursor: in that transaction.
        target: the table, which has a primary key; columns that do not come in get their default.
        window: slices to replace.
        chunks: names of the compressed chunks of the window.
        kept_symbols: symbols whose rows stay as they are.
    """

    incoming = sql.Identifier("incoming_rows")  # a temporary table, gone with the transaction

    def __init__(
        self, cursor: psycopg.Cursor, target: Target, window: Window, chunks: Sequence[str], kept_symbols: Sequence[str] = ()
    ) -> None:
        self._cursor, self._chunks = cursor, chunks
        columns, key = [column.name for column in target.columns], target.key
        self._values = [sql.Identifier(name) for name in columns if name not in key]
        self._span = {"start": window.start, "end": window.end, "kept": list(kept_symbols)}
        kept = sql.SQL(" AND old.symbol <> ALL(%(kept)s)") if kept_symbols else sql.SQL("")
        self._names = {
            "table": identifier(target.table),
            "incoming": self.incoming,
            "columns": sql.SQL(", ").join(map(sql.Identifier, columns)),
            "new_values": sql.SQL(", ").join(sql.SQL("new.{}").format(sql.Identifier(name)) for name in columns),
            "key": sql.SQL(", ").join(map(sql.Identifier, key)),
            "same_key": sql.SQL(" AND ").join(sql.SQL("old.{0} = new.{0}").format(sql.Identifier(name)) for name in key),
            "in_window": sql.SQL("old.{0} >= %(start)s AND old.{0} < %(end)s").format(sql.Identifier(target.slice_column)) + kept,
        }
        # With the primary key, so that a repeated key fails here as it does in the table.
        self._execute("CREATE TEMPORARY TABLE {incoming} (LIKE {table} INCLUDING DEFAULTS, PRIMARY KEY ({key})) ON COMMIT DROP")

    def write(self, rows: int) -> None:
        """Replace the rows of the window by the `rows` rows in `incoming`."""
        if rows > MANY_NEW_KEYS and self._new_keys() > MANY_NEW_KEYS:
            for name in self._chunks:
                self._cursor.execute("SELECT ops.decompress_chunk(%s)", (name,))
            self._execute("DELETE FROM {table} AS old WHERE {in_window}")
            self._execute("INSERT INTO {table} ({columns}) SELECT {new_values} FROM {incoming} AS new")
            return
        self._execute("DELETE FROM {table} AS old WHERE {in_window} AND NOT EXISTS (SELECT 1 FROM {incoming} AS new WHERE {same_key})")
        if self._values:
            self._names |= {
                "changes": sql.SQL(", ").join(sql.SQL("{0} = new.{0}").format(name) for name in self._values),
                "differ": sql.SQL(" OR ").join(sql.SQL("old.{0} IS DISTINCT FROM new.{0}").format(name) for name in self._values),
            }
            self._execute("UPDATE {table} AS old SET {changes} FROM {incoming} AS new WHERE {same_key} AND {in_window} AND ({differ})")
        self._execute(
            "INSERT INTO {table} ({columns}) SELECT {new_values} FROM {incoming} AS new "
            "WHERE NOT EXISTS (SELECT 1 FROM {table} AS old WHERE {same_key} AND {in_window})"
        )

    def _new_keys(self) -> int:
        self._execute(
            "SELECT count(*) FROM {incoming} AS new WHERE NOT EXISTS (SELECT 1 FROM {table} AS old WHERE {same_key} AND {in_window})"
        )
        row = self._cursor.fetchone()
        assert row is not None
        return row[0]

    def _execute(self, statement: LiteralString) -> None:
        # Never prepared: in a generic plan TimescaleDB does not know the window, and decompresses the whole chunk.
        self._cursor.execute(sql.SQL(statement).format(**self._names), self._span if "{in_window}" in statement else None, prepare=False)


def lift_decompression_limit(cursor: psycopg.Cursor) -> None:
    """Let this transaction change as many compressed rows as it needs; TimescaleDB stops it at 100,000 otherwise."""
    cursor.execute("SELECT set_config('timescaledb.max_tuples_decompressed_per_dml_transaction', '0', true)")
