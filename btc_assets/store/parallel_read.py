"""Reading much of the store as Arrow: several sessions, one snapshot, batches in order, bounded memory.

The window of a query is cut into parts, of about as many rows each as the parts before them told. Each session reads the next part that
nobody reads, in rows that the server packed (`packed`). Batches come in the order of the parts. A session that is ahead waits once
enough is kept, so memory is bounded by a constant. All sessions see the store as the first one saw it: it exports its snapshot, which
works on a standby as well. The others begin after the first two parts; where the server admits no more sessions, there are none.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import timedelta

import psycopg
import pyarrow as pa
from psycopg import sql

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE, Window
from btc_assets.store.database import Store, only_row
from btc_assets.store.errors import server_errors
from btc_assets.store.packed import pack_columns, pack_value, repeat_each, repeat_text, unpack_columns
from btc_assets.store.prefetch import take_short_turns

log = logging.getLogger(__name__)

SESSIONS = 2
_BATCH_ROWS = 65_536
_PART_ROWS = 2 * _BATCH_ROWS
_KEPT_BYTES = 16_000_000  # of batches that nobody has taken yet
_MOST_STEPS, _GROWTH = 512, 4  # of a part: its length, and in multiples of the part before it

_BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
# Parts are read at once already, JIT costs more than it gains, a packed row is built in order, and none needs a sort of more than a part.
_SETTINGS = (
    "SET LOCAL jit = off; SET LOCAL max_parallel_workers_per_gather = 0; SET LOCAL enable_hashagg = off; SET LOCAL work_mem = '64MB'"
)


@dataclass(frozen=True)
class Query:
    """What is read.

    Attributes:
        select: the SELECT of a window of it, with its ORDER BY.
        schema: of what comes out. A field that is not nullable holds no null. Columns of numbers, times, numerics (`decimal128`), truth
            values, text, bytes and vectors (lists of float32).
        window: all of it.
        step: parts begin at multiples of it after the window's start.
        group_by: column of numbers or times that leads the order and few values of which are shared by all rows, such as the slice of
            ticks. It is sent once a value, and no more than the rows of one value are packed together; without one, those of a part are.
        constants: columns of text that are not selected, with their value.
    """

    select: Callable[[Window], sql.Composable]
    schema: pa.Schema
    window: Window
    step: timedelta = SLICE
    group_by: str | None = None
    constants: Mapping[str, str] = field(default_factory=dict)


def stream(store: Store, query: Query, *, sessions: int = SESSIONS) -> pa.RecordBatchReader:
    """Stream a query. Nothing is connected before the first batch is asked for.

    The sessions are in a transaction until the reader is exhausted or deleted (closing it is not enough); the server keeps old versions
    of rows for it.

    Args:
        store: whose sessions are opened.
        query: what is read.
        sessions: how many read at once, at most.

    Raises:
        UserError: while it is read: the server refuses, or a value has no equal in the schema.
        TransientError: while it is read: the server is away or went away. What was read until then is not all.
    """
    return pa.RecordBatchReader.from_batches(query.schema, _Reading(store, query).batches(sessions))


@dataclass(eq=False)
class _Part:
    """A part of the window, and its batches that nobody has taken yet."""

    window: Window
    batches: deque[pa.RecordBatch] = field(default_factory=deque)
    whole: bool = False


class _Stopped(Exception):
    """Nobody wants the rest."""


class _Reading:
    """A query that is being read. Sessions put batches in, `batches` takes them out; `_changed` guards everything between them."""

    def __init__(self, store: Store, query: Query) -> None:
        self._store, self._query = store, query
        self._packed = pa.schema([one for one in query.schema if one.name not in query.constants and one.name != query.group_by])
        self._next, self._steps, self._kept = query.window.start, 1, 0
        self._parts: deque[_Part] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._error: BaseException | None = None
        self._sessions: list[psycopg.Connection] = []
        self._threads: list[threading.Thread] = []

    def batches(self, sessions: int) -> Iterator[pa.RecordBatch]:
        """The batches, in order."""
        take_short_turns()
        process = os.getpid()
        try:
            self._start(lambda: self._read_first(sessions))
            while (batch := self._take()) is not None:
                yield batch
                if os.getpid() != process:
                    raise UserError("What one process began to read, another that was forked from it cannot read on: let it begin anew.")
        except BaseException:
            if os.getpid() == process:  # else the threads, and whoever holds their lock, are not here; the sessions are the parent's
                self._stop()
            raise
        finally:
            # A reading that nobody holds may be collected in one of its threads, maybe while that holds what the others wait for.
            if os.getpid() == process and threading.current_thread() not in self._threads:
                for thread in self._threads:
                    thread.join()

    def _take(self) -> pa.RecordBatch | None:
        with self._changed:
            while True:
                if self._error:
                    raise self._error
                if self._parts and self._parts[0].batches:
                    batch = self._parts[0].batches.popleft()
                    self._kept -= batch.nbytes
                    self._changed.notify_all()
                    return batch
                if self._parts and self._parts[0].whole:
                    self._parts.popleft()
                elif not self._parts and self._next >= self._query.window.end:
                    return None
                else:
                    self._changed.wait()

    def _start(self, read: Callable[[], None]) -> None:
        thread = threading.Thread(target=self._run, args=(read,), name="read", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self, read: Callable[[], None]) -> None:
        try:
            with server_errors():
                read()
        except _Stopped:
            pass
        except BaseException as error:
            with self._changed:
                self._error = self._error or error
                self._changed.notify_all()

    def _stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
            sessions = list(self._sessions)
        for session in sessions:
            with suppress(psycopg.Error):
                session.cancel_safe()

    # ---- sessions, each in a thread of its own

    def _read_first(self, sessions: int) -> None:
        with self._store.connect() as session:
            self._begin(session)
            more = self._read_part(session) and self._read_part(session)  # the first batch is on its way before another session connects
            if more and sessions > 1:
                (snapshot,) = only_row(session.execute("SELECT pg_export_snapshot()"))
                for _ in range(sessions - 1):
                    self._start(lambda: self._read_beside(snapshot))
            while more:
                more = self._read_part(session)
            for thread in self._threads[1:]:
                thread.join()  # they can take the snapshot only while this transaction is open

    def _read_beside(self, snapshot: str) -> None:
        with ExitStack() as opened:
            try:
                session = opened.enter_context(self._store.connect())
                self._begin(session, snapshot)
            except (UserError, psycopg.Error) as error:  # the server admits no more, or the first session is lost and will say so itself
                log.info("No further session reads: %s", error)
                return
            while self._read_part(session):
                pass

    def _begin(self, session: psycopg.Connection, snapshot: str | None = None) -> None:
        session.execute(_BEGIN)
        if snapshot:
            session.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(snapshot))
        session.execute(_SETTINGS)
        with self._changed:
            self._sessions.append(session)

    def _read_part(self, session: psycopg.Connection) -> bool:
        """Read the next part that nobody reads; returns whether there was one."""
        with self._changed:
            start, end = self._next, self._query.window.end
            if start >= end or self._stopped:
                return False
            part = _Part(Window(start, min(start + self._steps * self._query.step, end)))
            self._next = part.window.end
            self._parts.append(part)
        rows = 0
        for batch in self._read_batches(session, part.window):
            self._put(part, batch)
            rows += len(batch)
        with self._changed:
            part.whole = True
            steps = -(-(part.window.end - start) // self._query.step)
            self._steps = max(1, min(_PART_ROWS * steps // max(rows, 1), steps * _GROWTH, _MOST_STEPS))
            self._changed.notify_all()
        return True

    def _read_batches(self, session: psycopg.Connection, window: Window) -> Iterator[pa.RecordBatch]:
        packed_rows: list[tuple[object, ...]] = []
        rows = 0
        with session.cursor() as cursor:
            for count, *packed in cursor.stream(self._statement(window), binary=True):
                if count:
                    packed_rows.append((count, *packed))
                    rows += count
                if rows >= _BATCH_ROWS:
                    yield self._unpack(packed_rows)
                    packed_rows, rows = [], 0
        if rows:
            yield self._unpack(packed_rows)

    def _statement(self, window: Window) -> sql.Composed:
        group, select = self._query.group_by, self._query.select(window)
        if group is None:
            return sql.SQL("SELECT count(*), {} FROM ({}) AS part").format(pack_columns(self._packed), select)
        return sql.SQL("SELECT count(*), {}, {} FROM ({}) AS part GROUP BY {group} ORDER BY {group}").format(
            pack_value(self._query.schema.field(group)), pack_columns(self._packed), select, group=sql.Identifier(group)
        )

    def _unpack(self, packed_rows: list[tuple[object, ...]]) -> pa.RecordBatch:
        query = self._query
        counts, *sent = zip(*packed_rows, strict=True)
        columns: dict[str, pa.Array] = {}
        if query.group_by is not None:
            groups, *sent = sent
            columns[query.group_by] = repeat_each(query.schema.field(query.group_by), groups, counts)
        columns |= zip(self._packed.names, unpack_columns(self._packed, sent, counts), strict=True)
        columns |= {name: repeat_text(value, sum(counts)) for name, value in query.constants.items()}
        return pa.RecordBatch.from_arrays([columns[name] for name in query.schema.names], schema=query.schema)

    def _put(self, part: _Part, batch: pa.RecordBatch) -> None:
        """Keep a batch until it is taken; wait while enough are kept, unless this is the one that is waited for."""
        with self._changed:
            while self._kept > _KEPT_BYTES and (part is not self._parts[0] or part.batches):
                self._require_wanted()
                self._changed.wait()
            self._require_wanted()
            part.batches.append(batch)
            self._kept += batch.nbytes
            self._changed.notify_all()

    def _require_wanted(self) -> None:
        if self._stopped or self._error:
            raise _Stopped
