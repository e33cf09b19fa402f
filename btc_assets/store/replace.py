"""Replacing slices of a table by binary COPY: the one way in which the store writes rows.

A `Replacement` is the new content of one window. It is written in one transaction, under the lock of each of its slices: the old
rows go, the new rows come, and what must agree with them (registry marks, offsets) is recorded. `writers.py` writes many of them.
"""

from __future__ import annotations

import logging
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString

import psycopg
import pyarrow as pa
from psycopg import sql

from btc_assets.domain.errors import TransientError
from btc_assets.domain.printable import printable
from btc_assets.domain.slices import Window
from btc_assets.store.compressed import CompressedReplacement, compressed_chunks, lift_decompression_limit
from btc_assets.store.database import identifier
from btc_assets.store.encode import EncodedRows
from btc_assets.store.errors import server_errors
from btc_assets.store.locks import MAX_LOCKED_SLICES, lock_slices, lock_table
from btc_assets.store.tables import Target

log = logging.getLogger(__name__)

_ATTEMPTS = 6


class Stale(Exception):
    """The sources of a replacement changed since it was built: rebuild it and retry."""


@dataclass(frozen=True)
class CreatedAt:
    """How a table keeps its column `created_at`: that of a row stays while the content of the row does.

    Attributes:
        content: columns; none for all that are written.
        unless: a condition on the row `old` under which it moves all the same.
    """

    content: tuple[str, ...] = ()
    unless: LiteralString = "false"


class Replacement:
    """The new rows of one window of a table.

    Subclasses tie the rows to what must change with them, all in the one transaction that `replace_slices` opens.

    Args:
        window: the slices.
        rows: all rows of the window; None empties it.
        kept_symbols: symbols whose rows stay as they are; `rows` has none of them.

    Attributes:
        also_locked: slices outside the window that nobody may write until this replacement is committed.
        lock_table: the table whose slices are locked, if they are not those of the table that is written.
        created_at: how the table keeps that column, if it has it; not for a hypertable.
    """

    also_locked: Collection[datetime] = ()
    lock_table: str | None = None
    created_at: CreatedAt | None = None

    def __init__(self, window: Window, rows: pa.Table | None = None, kept_symbols: Collection[str] = ()) -> None:
        self.window = window
        self.kept_symbols = sorted(kept_symbols)
        self.rows = pa.table({}) if rows is None else rows

    def confirm(self, cursor: psycopg.Cursor) -> None:
        """Called under the slices' locks before anything changes; raises `Stale` if the rows are out of date."""

    def record(self, cursor: psycopg.Cursor) -> None:
        """Called after the rows are written and before the commit."""

    def rebuild(self) -> Iterable[Replacement]:
        """Replacements for the same window, from the current state of its sources."""
        raise NotImplementedError(f"{type(self).__name__} never raises Stale")


class Replacements(ABC):
    """The replacements of a range of slices, built lazily.

    Attributes:
        table: whose rows they replace; None leaves that to the caller.
    """

    table: str | None = None

    @abstractmethod
    def __iter__(self) -> Iterator[Replacement]: ...

    def committed(self, replacement: Replacement) -> None:  # noqa: B027  # optional
        """Called after each commit, by one thread at a time."""

    def follow_up(self) -> Replacements | None:
        """Called when all were committed: further replacements, of slices that these made outdated."""
        return None


def replace_slices(connection: psycopg.Connection, target: Target, replacement: Replacement, encoded: EncodedRows) -> list[str]:
    """Replace the slices of one window, atomically.

    Returns:
        Names of chunks that were compressed before and must be compressed again.

    Raises:
        Stale: the replacement is out of date; nothing was changed.
        UserError: the server refuses for a reason that a person can correct; nothing was changed.
    """
    with server_errors():  # around the attempts, which tell errors of the server apart
        for attempt in range(_ATTEMPTS):
            try:
                chunks = _replace_at_once(connection, target, replacement, encoded)
                if chunks is not None:
                    return chunks
            except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure) as error:  # with a job of TimescaleDB
                if attempt + 1 == _ATTEMPTS:
                    raise
                log.info("Retrying %s, %s: %s", target.table, replacement.window, printable(str(error)))
                time.sleep(random.uniform(0, 0.2) * 2**attempt)
    raise TransientError(
        f"Another job keeps compressing {target.table}, {replacement.window}, while it is being written: run it again later."
    )


def _replace_at_once(connection: psycopg.Connection, target: Target, replacement: Replacement, encoded: EncodedRows) -> list[str] | None:
    """Replace the slices in one transaction; None if a chunk of them was compressed before it was locked, and nothing was changed."""
    # The right table lock must be taken from the start, so chunks are looked up before, and again under the lock.
    many = len(replacement.also_locked) > MAX_LOCKED_SLICES  # the table's lock instead
    exclusive = many or bool(compressed_chunks(connection, target.table, replacement.window))
    with connection.transaction(), connection.cursor() as cursor:
        locked = replacement.lock_table or target.table
        lock_table(cursor, locked, exclusive=exclusive)
        chunks = compressed_chunks(connection, target.table, replacement.window)
        if chunks and not exclusive:
            return None
        lock_slices(cursor, locked, replacement.window, () if many else replacement.also_locked)
        replacement.confirm(cursor)
        _write_rows(cursor, target, replacement, encoded, chunks)
        replacement.record(cursor)
        return chunks


def _write_rows(cursor: psycopg.Cursor, target: Target, replacement: Replacement, encoded: EncodedRows, chunks: Sequence[str]) -> None:
    if chunks:
        lift_decompression_limit(cursor)
    if chunks and target.slice_column in target.key and encoded.buffers:
        compressed = CompressedReplacement(cursor, target, replacement.window, chunks, replacement.kept_symbols)
        _copy_rows(cursor, compressed.incoming, encoded)
        compressed.write(len(replacement.rows))
        return
    replace_rows(cursor, target, replacement.window, encoded, replacement.kept_symbols, replacement.created_at)


def replace_rows(
    cursor: psycopg.Cursor,
    target: Target,
    window: Window,
    encoded: EncodedRows,
    kept_symbols: Sequence[str] = (),
    created_at: CreatedAt | None = None,
) -> None:
    """Delete the rows of a window and copy others, in the caller's transaction and under its locks; not for compressed chunks.

    Args:
        cursor: in that transaction.
        target: the table.
        window: the slices.
        encoded: their new rows.
        kept_symbols: symbols whose rows stay as they are.
        created_at: how the table keeps that column.
    """
    old_rows = sql.SQL("{} WHERE {column} >= {} AND {column} < {} {others}").format(
        identifier(target.table),
        sql.Literal(window.start),
        sql.Literal(window.end),
        column=sql.Identifier(target.slice_column),
        others=sql.SQL("AND symbol <> ALL({})").format(sql.Literal(list(kept_symbols))) if kept_symbols else sql.SQL(""),
    )
    if created_at and encoded.buffers and cursor.execute(sql.SQL("SELECT FROM {} LIMIT 1").format(old_rows)).fetchone() is not None:
        _replace_changed_rows(cursor, target, old_rows, encoded, created_at)
        return
    cursor.execute(
        sql.SQL("DELETE FROM {}").format(old_rows), prepare=False
    )  # a generic plan would make TimescaleDB decompress whole chunks
    _copy_rows(cursor, identifier(target.table), encoded)


# Each new row that has an old one waits for it to be deleted.
_REPLACE = sql.SQL("""
WITH old AS (DELETE FROM {old_rows} RETURNING *)
INSERT INTO {table} ({columns}, created_at)
SELECT {new}, CASE WHEN ({new_content}) IS NOT DISTINCT FROM ({old_content}) AND NOT ({unless}) THEN old.created_at ELSE now() END
FROM incoming LEFT JOIN old ON ({new_key}) = ({old_key})
""")


def _replace_changed_rows(
    cursor: psycopg.Cursor, target: Target, old_rows: sql.Composable, encoded: EncodedRows, created_at: CreatedAt
) -> None:
    def listed(names: Iterable[str], *qualifier: str) -> sql.Composed:
        return sql.SQL(", ").join(sql.Identifier(*qualifier, name) for name in names)

    columns, content = encoded.columns, created_at.content or encoded.columns
    table, incoming = identifier(target.table), sql.Identifier("incoming")
    cursor.execute(sql.SQL("CREATE TEMPORARY TABLE incoming ON COMMIT DROP AS SELECT {} FROM {} LIMIT 0").format(listed(columns), table))
    _copy_rows(cursor, incoming, encoded)
    parts = {
        "new": listed(columns, "incoming"),
        "new_content": listed(content, "incoming"),
        "old_content": listed(content, "old"),
        "new_key": listed(target.key, "incoming"),
        "old_key": listed(target.key, "old"),
    }
    cursor.execute(_REPLACE.format(old_rows=old_rows, table=table, columns=listed(columns), unless=sql.SQL(created_at.unless), **parts))
    cursor.execute("DROP TABLE incoming")


def _copy_rows(cursor: psycopg.Cursor, table: sql.Identifier, encoded: EncodedRows) -> None:
    if not encoded.buffers:
        return
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(table, sql.SQL(", ").join(map(sql.Identifier, encoded.columns)))
    with cursor.copy(statement) as copy:
        for buffer in encoded.buffers:
            copy.write(buffer)
