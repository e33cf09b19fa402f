"""Replacing slices of a table by binary COPY: the one way in which the store writes rows.

A `Replacement` is the new content of one window. It is written in one transaction, under the lock of each of its slices: the old
rows go, the new rows come, and what must agree with them (registry marks, offsets) is recorded. Rows are encoded in the thread
that prepares the next replacement, so reading and encoding overlap with the server's work.
"""

from __future__ import annotations

import itertools
import logging
import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psycopg
import pyarrow as pa
from psycopg import sql

from btc_assets.domain.errors import TransientError
from btc_assets.domain.slices import Window
from btc_assets.store.compressed import CompressedReplacement, compress, compressed_chunks, lift_decompression_limit
from btc_assets.store.database import Store, identifier
from btc_assets.store.encode import EncodedRows, encode_rows
from btc_assets.store.errors import server_errors
from btc_assets.store.locks import lock_slices, lock_table
from btc_assets.store.prefetch import Prefetch
from btc_assets.store.tables import Target

log = logging.getLogger(__name__)

_TRANSACTION_ATTEMPTS = 6
_REBUILDS = 5  # of a replacement that is stale again and again


class Stale(Exception):
    """The sources of a replacement changed since it was built: rebuild it and retry."""


class Replacement:
    """The new rows of one window of a table.

    Subclasses tie the rows to what must change with them, all in the one transaction that `replace_slices` opens.

    Args:
        window: the slices.
        rows: all rows of the window; None empties it.
    """

    def __init__(self, window: Window, rows: pa.Table | None = None) -> None:
        self.window = window
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


def replace_slices(connection: psycopg.Connection, target: Target, replacement: Replacement, encoded: EncodedRows) -> list[str]:
    """Replace the slices of one window, atomically.

    Returns:
        Names of chunks that were compressed before and must be compressed again.

    Raises:
        Stale: the replacement is out of date; nothing was changed.
        UserError: the server refuses for a reason that a person can correct; nothing was changed.
    """
    for attempt in range(_TRANSACTION_ATTEMPTS):
        # The right table lock must be taken from the start, so chunks are looked up before, and again under the lock.
        exclusive = bool(compressed_chunks(connection, target.table, replacement.window))
        try:
            with server_errors(), connection.transaction(), connection.cursor() as cursor:
                lock_table(cursor, target.table, exclusive=exclusive)
                chunks = compressed_chunks(connection, target.table, replacement.window)
                if chunks and not exclusive:
                    continue
                lock_slices(cursor, target.table, replacement.window)
                replacement.confirm(cursor)
                _write_rows(cursor, target, replacement, encoded, chunks)
                replacement.record(cursor)
                return chunks
        except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure) as error:  # with a job of TimescaleDB
            if attempt + 1 == _TRANSACTION_ATTEMPTS:
                raise
            log.info("Retrying %s, %s: %s", target.table, replacement.window, error)
            time.sleep(random.uniform(0, 0.2) * 2**attempt)
    raise TransientError(
        f"Another job keeps compressing {target.table}, {replacement.window}, while it is being written: run it again later."
    )


def _write_rows(cursor: psycopg.Cursor, target: Target, replacement: Replacement, encoded: EncodedRows, chunks: Sequence[str]) -> None:
    if chunks:
        lift_decompression_limit(cursor)
    if chunks and target.slice_column in target.key and encoded.buffers:
        compressed = CompressedReplacement(cursor, target, replacement.window, chunks)
        _copy_rows(cursor, compressed.incoming, encoded)
        compressed.write(len(replacement.rows))
        return
    cursor.execute(
        sql.SQL("DELETE FROM {} WHERE {column} >= %s AND {column} < %s").format(
            identifier(target.table), column=sql.Identifier(target.slice_column)
        ),
        (replacement.window.start, replacement.window.end),
        prepare=False,  # a generic plan would make TimescaleDB decompress whole chunks
    )
    _copy_rows(cursor, identifier(target.table), encoded)


def _copy_rows(cursor: psycopg.Cursor, table: sql.Identifier, encoded: EncodedRows) -> None:
    if not encoded.buffers:
        return
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(table, sql.SQL(", ").join(map(sql.Identifier, encoded.columns)))
    with cursor.copy(statement) as copy:
        for buffer in encoded.buffers:
            copy.write(buffer)


def replace_all(
    connection: psycopg.Connection, target: Target, replacements: Replacements, *, writers: int = 1, store: Store | None = None
) -> int:
    """Write replacements, each in a transaction of its own, and prepare the next one meanwhile.

    Args:
        connection: the first session; in autocommit mode.
        target: the table.
        replacements: iterated in another thread.
        writers: sessions that write at once, at most; with more than one, the order of commits is undefined.
        store: opens the other sessions, once there is something for them to write.

    Returns:
        Number of rows written.

    Raises:
        UserError: a source kept changing, or the server refused; what was committed before stays.
    """
    with Prefetch((replacement, encode_rows(replacement.rows, target)) for replacement in replacements) as prepared:
        return _Writers(target, replacements, prepared).run(connection, store, extra=writers - 1 if store else 0)


class _Writers(Iterator[tuple[Replacement, EncodedRows]]):
    """Sessions that write what is prepared, each the next part, until none is left or one of them fails."""

    def __init__(self, target: Target, replacements: Replacements, prepared: Iterable[tuple[Replacement, EncodedRows]]) -> None:
        self._target, self._replacements, self._prepared = target, replacements, iter(prepared)
        self._rows = 0
        self._chunks: dict[str, None] = {}  # an ordered set
        self._take_lock, self._count_lock = threading.Lock(), threading.Lock()
        self._begun, self._failed = threading.Event(), False
        self._extra_sessions: list[psycopg.Connection] = []

    def run(self, connection: psycopg.Connection, store: Store | None, *, extra: int) -> int:
        """Write everything in `connection` and at most `extra` other sessions; returns the number of rows."""
        pool = ThreadPoolExecutor(max(extra, 1), thread_name_prefix="write")
        try:
            sessions = [pool.submit(self._write_in_extra_session, store) for _ in range(extra) if store]
            self._write(connection, self)
            for session in sessions:
                session.result()
        except BaseException:
            self._cancel()
            raise
        finally:
            pool.shutdown()
            if not connection.closed:  # otherwise the compression policy does it
                _compress_again(connection, self._target.table, self._chunks)
        return self._rows

    def __next__(self) -> tuple[Replacement, EncodedRows]:
        with self._take_lock:
            if self._failed:
                raise StopIteration
            return next(self._prepared)

    def _write(self, connection: psycopg.Connection, parts: Iterable[tuple[Replacement, EncodedRows]]) -> None:
        try:
            for replacement, encoded in parts:
                self._begun.set()
                for written, chunks in _replace_or_rebuild(connection, self._target, replacement, encoded):
                    with self._count_lock:
                        self._chunks.update(dict.fromkeys(chunks))
                        self._replacements.committed(written)
                        self._rows += len(written.rows)
                    del written
                del replacement, encoded  # before the next one is fetched: memory is bounded by what is being written
        finally:
            self._begun.set()

    def _write_in_extra_session(self, store: Store) -> None:
        """Open another session once the first part is taken, if anything is left to write."""
        self._begun.wait()
        part = next(self, None)
        if part is None:
            return
        parts = itertools.chain([part], self)
        del part  # as in `_write`
        try:
            with store.connect() as connection:
                self._extra_sessions.append(connection)
                self._write(connection, parts)
        except BaseException:
            self._failed = True
            raise

    def _cancel(self) -> None:
        """Hand out nothing more, and make the extra sessions roll back."""
        self._failed = True
        self._begun.set()  # the first writer may have been interrupted before it began
        for connection in self._extra_sessions:
            with suppress(psycopg.Error):
                connection.cancel_safe()


def _replace_or_rebuild(
    connection: psycopg.Connection, target: Target, replacement: Replacement, encoded: EncodedRows, rebuilds: int = _REBUILDS
) -> Iterator[tuple[Replacement, list[str]]]:
    """Write a replacement; if it is stale, rebuild it and retry. Yields what was written, with the chunks to compress again."""
    try:
        yield replacement, replace_slices(connection, target, replacement, encoded)
    except Stale as reason:
        if rebuilds == 0:
            raise TransientError(
                f"The sources of {target.table}, {replacement.window}, keep changing ({reason}): run it again later."
            ) from None
        del encoded
        for fresh in replacement.rebuild():
            yield from _replace_or_rebuild(connection, target, fresh, encode_rows(fresh.rows, target), rebuilds - 1)


def _compress_again(connection: psycopg.Connection, table: str, chunks: Iterable[str]) -> None:
    """Compress chunks again. Their rows are committed, so a failure is only logged: the compression policy does it later."""
    for chunk in chunks:
        try:
            with connection.transaction(), connection.cursor() as cursor:
                lock_table(cursor, table, exclusive=True)
                compress(cursor, chunk)
        except psycopg.Error as error:
            log.warning("%s stays partly uncompressed until the compression policy runs: %s", chunk, error)
