"""Writing many replacements: one thread prepares the next ones while one or more sessions write.

Rows are read and encoded in the thread that prepares, so this work overlaps with the server's. The sessions take turns: each writes
the next replacement that is ready, in a transaction of its own.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psycopg

from btc_assets.domain.errors import TransientError
from btc_assets.domain.printable import printable
from btc_assets.store.compressed import compress
from btc_assets.store.database import Store
from btc_assets.store.encode import EncodedRows, encode_rows
from btc_assets.store.locks import bound_lock_waits, lock_table
from btc_assets.store.prefetch import Prefetch
from btc_assets.store.replace import Replacement, Replacements, Stale, replace_slices
from btc_assets.store.tables import Target

log = logging.getLogger(__name__)

_REBUILDS = 5  # of a replacement that is stale again and again


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
        Number of rows written, without those of follow-ups.

    Raises:
        UserError: a source kept changing, or the server refused; what was committed before stays.
    """
    with Prefetch((replacement, encode_rows(replacement.rows, target)) for replacement in replacements) as prepared:
        rows = _Writers(target, replacements, prepared).run(connection, store, extra=writers - 1 if store else 0)
    while (more := replacements.follow_up()) is not None:
        replace_all(connection, target, more, writers=writers, store=store)
    return rows


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
                bound_lock_waits(connection)
                lock_table(cursor, table, exclusive=True)
                compress(cursor, chunk)
        except psycopg.Error as error:
            log.warning("%s stays partly uncompressed until the compression policy runs: %s", chunk, printable(str(error)))
