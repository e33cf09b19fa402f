"""Replacing slices of a table by binary COPY: the one way in which the store writes rows.

A `Replacement` is the new content of one window. It is written in one transaction, under one advisory lock a slice:
what was there goes, the new rows come, and whatever must agree with them (registry marks, offsets) is recorded. Rows are
encoded by `pgpq` in the thread that prepares the next replacement, so reading and encoding overlap with the server's work.
"""

from __future__ import annotations

import itertools
import logging
import queue
import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from pgpq import ArrowToPostgresBinaryEncoder
from pgpq.encoders import StringEncoderBuilder
from pgpq.schema import Jsonb
from psycopg import sql

from btc_assets.domain.errors import TransientError, UserError
from btc_assets.domain.slices import SLICE, Window, slice_number
from btc_assets.domain.ticks import int64
from btc_assets.store.compressed import CompressedReplacement, compress, compressed_chunks, lift_decompression_limit
from btc_assets.store.database import identifier, server_errors
from btc_assets.store.tables import Column, read_columns

log = logging.getLogger(__name__)

T = TypeVar("T")

ENCODE_ROWS = 65_536  # pgpq is three times faster on batches of this size than on small ones
_ATTEMPTS = 6
MAX_LOCKED_SLICES = 288  # a lock a slice: a day fits the lock table of a server with default settings


class Stale(Exception):
    """What the replacement was made from has changed since: make it again."""


class Replacement:
    """The new rows of one window of a table.

    Subclasses tie the rows to what must change with them; all of it happens in the one transaction that `replace` opens.
    """

    def __init__(self, window: Window, rows: pa.Table | None = None) -> None:
        self.window = window
        self.rows = pa.table({}) if rows is None else rows  # None: the slices are emptied

    def confirm(self, cursor: psycopg.Cursor) -> None:
        """Called under the slices' locks before anything changes; raises `Stale` where the rows are out of date."""

    def record(self, cursor: psycopg.Cursor) -> None:
        """Called after the rows are written and before the commit."""

    def again(self) -> Iterable[Replacement]:
        """The same window from the present state of its sources."""
        raise NotImplementedError(f"{type(self).__name__} never raises Stale")


class Replacements(ABC):
    """The replacements of a range of slices, made lazily, and what is to be told of them once they are committed.

    Attributes:
        table: what they replace rows of; None: the table that whoever writes them has in mind.
    """

    table: str | None = None

    @abstractmethod
    def __iter__(self) -> Iterator[Replacement]: ...

    def committed(self, replacement: Replacement) -> None:  # noqa: B027  # who counts nothing need not say so
        """Called after each commit."""

    def metadata(self) -> dict[str, Any]:
        """What to show of the committed parts beside the number of rows."""
        return {}

    def slice_rows(self) -> dict[datetime, int]:
        """Rows of the committed slices that have any, where they are counted."""
        return {}

    def pictures(self, connection: psycopg.Connection) -> dict[str, str]:
        """SVG drawings of the committed parts, each under its name."""
        return {}


@dataclass(frozen=True)
class Target:
    """A table with a slice column, and its columns as the server has them."""

    table: str
    columns: tuple[Column, ...]
    slice_column: str = "bucket_5m"
    key: tuple[str, ...] = ()  # columns of the primary key; none where the table has none

    @classmethod
    def of(cls, connection: psycopg.Connection, table: str, slice_column: str = "bucket_5m") -> Target:
        """Look the table up.

        Raises:
            UserError: it does not exist or has no such slice column.
        """
        with connection.transaction():
            columns = tuple(column for column in read_columns(connection, table) if not column.generated)
            key = connection.execute(
                "SELECT attname FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY(indkey) "
                "WHERE indrelid = to_regclass(%s) AND indisprimary",
                (table,),
            ).fetchall()
        if not columns:
            raise UserError(f"The table {table} does not exist: run btc-assets db migrate.")
        target = cls(table, columns, slice_column, tuple(name for (name,) in key))
        if slice_column not in {column.name for column in target.columns}:
            raise UserError(f"The table {table} has no column {slice_column}: name its slice column in the asset's metadata.")
        return target

    def encode(self, rows: pa.Table) -> Encoded:
        """Encode rows for binary COPY, each column in the type that the server expects.

        Raises:
            UserError: a column is unknown, missing or not convertible.
        """
        if not len(rows):
            return Encoded((), [])
        by_name = {column.name: column for column in self.columns}
        unknown = [name for name in rows.column_names if name not in by_name]
        missing = [column.name for column in self.columns if column.required and column.name not in rows.column_names]
        if unknown or missing:
            text = "; ".join(
                [f"{self.table} has no column {', '.join(unknown)}"] * bool(unknown) + [f"it lacks {', '.join(missing)}"] * bool(missing)
            )
            raise UserError(f"The Arrow data does not fit the table: {text}.")
        arrays = []
        for name in rows.column_names:
            try:
                arrays.append(_for_server(rows[name], by_name[name].type))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise UserError(f"Column {name} ({rows[name].type}) does not convert to {by_name[name].type} ({error}).") from error
        converted = pa.table(arrays, names=rows.column_names)
        encoders = {
            field.name: StringEncoderBuilder.new_with_output(field, Jsonb())
            if by_name[field.name].type == "jsonb"
            else ArrowToPostgresBinaryEncoder.infer_encoder(field)
            for field in converted.schema
        }
        encoder = ArrowToPostgresBinaryEncoder.new_with_encoders(converted.schema, encoders)
        buffers = [encoder.write_header()]
        buffers += [encoder.write_batch(batch) for batch in converted.combine_chunks().to_batches(max_chunksize=ENCODE_ROWS)]
        buffers.append(encoder.finish())
        return Encoded(tuple(rows.column_names), buffers)


@dataclass
class Encoded:
    """Rows in PostgreSQL's binary COPY format."""

    columns: tuple[str, ...]
    buffers: list[bytes] = field(repr=False)


_ARROW_TYPES = {
    "bigint": pa.int64(),
    "integer": pa.int32(),
    "smallint": pa.int16(),
    "text": pa.string(),
    "jsonb": pa.string(),
    "boolean": pa.bool_(),
    "double precision": pa.float64(),
    "real": pa.float32(),
    "timestamp with time zone": pa.timestamp("us", "UTC"),
    "date": pa.date32(),
    "bytea": pa.binary(),
}


def _for_server(column: pa.ChunkedArray, type_name: str) -> pa.ChunkedArray:
    if type_name == "vector":
        return pa.chunked_array([_vectors(chunk) for chunk in column.chunks], pa.binary())
    if type_name == "numeric":
        return column if pa.types.is_decimal(column.type) else column.cast(pa.decimal128(38, 12))
    if type_name not in _ARROW_TYPES:
        raise pa.ArrowNotImplementedError(f"columns of type {type_name} are not written by COPY yet")
    wanted = _ARROW_TYPES[type_name]
    return column if column.type == wanted else column.cast(wanted)


def _vectors(lists: pa.Array) -> pa.Array:
    """Lists of floats as pgvector receives them: dimension and zero as big-endian int16, then big-endian float32s."""
    if not len(lists):
        return pa.array([], pa.binary())
    lengths = pc.list_value_length(lists)
    dim = pc.max(lengths).as_py() or 0
    if pc.min(lengths).as_py() not in (dim, None):
        raise pa.ArrowInvalid("the vectors differ in length")
    valid = lists.is_valid().to_numpy(zero_copy_only=False)
    values = lists.drop_null().flatten().cast(pa.float32())
    if values.null_count or not np.isfinite(values.to_numpy(zero_copy_only=False)).all():
        raise pa.ArrowInvalid("a vector has an element that is null or not finite")
    wire = np.empty((int(valid.sum()), 4 + 4 * dim), np.uint8)
    wire[:, :4] = np.array([dim, 0], ">i2").view(np.uint8)
    wire[:, 4:] = values.to_numpy(zero_copy_only=False).astype(">f4").reshape(-1, dim).view(np.uint8) if dim else 0
    encoded: list[bytes | None] = [None] * len(lists)
    for position, row in zip(np.flatnonzero(valid).tolist(), wire, strict=True):
        encoded[position] = row.tobytes()
    return pa.array(encoded, pa.binary())


def replace(connection: psycopg.Connection, target: Target, replacement: Replacement, encoded: Encoded) -> list[str]:
    """Replace the slices of one window, atomically.

    Returns:
        Names of chunks that were compressed before and have to be compressed again.

    Raises:
        Stale: the replacement is out of date; nothing was changed.
        UserError: the server refuses for a reason that a person can mend; nothing was changed.
    """
    for attempt in range(_ATTEMPTS):
        # Asked before, because the lock must be the right one from the start, and again under it.
        alone = bool(compressed_chunks(connection, target.table, replacement.window))
        try:
            with server_errors(), connection.transaction(), connection.cursor() as cursor:
                lock_table(cursor, target.table, alone=alone)
                chunks = compressed_chunks(connection, target.table, replacement.window)
                if chunks and not alone:
                    continue
                lock_slices(cursor, target.table, replacement.window)
                replacement.confirm(cursor)
                _write(cursor, target, replacement, encoded, chunks)
                replacement.record(cursor)
                return chunks
        except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure) as error:  # with a job of TimescaleDB's
            if attempt + 1 == _ATTEMPTS:
                raise
            log.info("%s, %s, is written once more: %s", target.table, replacement.window, error)
            time.sleep(random.uniform(0, 0.2) * 2**attempt)
    raise TransientError(f"{target.table}, {replacement.window}, is compressed again and again while it is written: run it again later.")


def _write(cursor: psycopg.Cursor, target: Target, replacement: Replacement, encoded: Encoded, chunks: Sequence[str]) -> None:
    if chunks:
        lift_decompression_limit(cursor)
    if chunks and target.slice_column in target.key and encoded.buffers:
        columns = [column.name for column in target.columns]
        compressed = CompressedReplacement(cursor, target.table, target.key, columns, target.slice_column, replacement.window, chunks)
        _copy(cursor, compressed.incoming, encoded)
        compressed.write(len(replacement.rows))
        return
    cursor.execute(
        sql.SQL("DELETE FROM {} WHERE {column} >= %s AND {column} < %s").format(
            identifier(target.table), column=sql.Identifier(target.slice_column)
        ),
        (replacement.window.start, replacement.window.end),
        prepare=False,  # a generic plan would have TimescaleDB decompress whole chunks
    )
    _copy(cursor, identifier(target.table), encoded)


def _copy(cursor: psycopg.Cursor, table: sql.Identifier, encoded: Encoded) -> None:
    if not encoded.buffers:
        return
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(table, sql.SQL(", ").join(map(sql.Identifier, encoded.columns)))
    with cursor.copy(statement) as copy:
        for buffer in encoded.buffers:
            copy.write(buffer)


def lock_table(cursor: psycopg.Cursor, table: str, *, alone: bool) -> None:
    """Take the advisory lock of a table until the transaction ends, before anything of the table is touched.

    Loaders share it. Whoever decompresses, compresses or drops chunks needs it alone: those lock chunks as a whole, and
    one who has read a chunk already would deadlock with another who has, too.
    """
    cursor.execute(
        "SELECT pg_advisory_xact_lock(hashtext(%s))" if alone else "SELECT pg_advisory_xact_lock_shared(hashtext(%s))",
        (table,),
    )


def lock_slices(cursor: psycopg.Cursor, table: str, window: Window) -> None:
    """Take the advisory lock of each slice of a table until the transaction ends, in ascending order so that none deadlock."""
    cursor.execute(
        "SELECT count(pg_advisory_xact_lock(hashtext(%s), number)) FROM generate_series(%s::int, %s::int) AS number",
        (table, slice_number(window.start), slice_number(window.end) - 1),
    )


def replace_all(
    connection: psycopg.Connection,
    target: Target,
    replacements: Replacements,
    *,
    writers: int = 1,
    connect: Callable[[], psycopg.Connection] | None = None,
) -> int:
    """Write replacements, each committed by itself, preparing the next while others are written.

    Args:
        connection: to the store; not inside a transaction.
        target: the table.
        replacements: iterated in another thread.
        writers: how many are written at once at most, each in a session of its own; they may be committed in any order.
        connect: opens the sessions beside `connection`, as far as there is something to write in them.

    Returns:
        Number of rows written.

    Raises:
        UserError: a source kept changing, or the server refused; what was committed before stays.
    """
    with ahead((replacement, target.encode(replacement.rows)) for replacement in replacements) as prepared:
        writing = _Writing(target, replacements, prepared)
        pool = ThreadPoolExecutor(writers, thread_name_prefix="write")
        try:
            beside = [pool.submit(writing.write_beside, connect) for _ in range(writers - 1)] if connect else []
            writing.write(connection, writing)
            for other in beside:
                other.result()
        except BaseException:
            writing.cancel()
            raise
        finally:
            pool.shutdown()
            if not connection.closed:  # else the compression policy does it
                _compress(connection, target.table, writing.chunks)
    return writing.rows


class _Writing(Iterator[tuple[Replacement, Encoded]]):
    """What is prepared, handed to whichever writer is free until one of them fails, and what they wrote."""

    def __init__(self, target: Target, replacements: Replacements, prepared: Iterable[tuple[Replacement, Encoded]]) -> None:
        self.rows = 0
        self.chunks: dict[str, None] = {}  # an ordered set
        self._target, self._replacements, self._prepared = target, replacements, iter(prepared)
        self._taking, self._counting = threading.Lock(), threading.Lock()
        self._begun, self._failed = threading.Event(), False
        self._beside: list[psycopg.Connection] = []

    def __next__(self) -> tuple[Replacement, Encoded]:
        with self._taking:
            if self._failed:
                raise StopIteration
            return next(self._prepared)

    def write(self, connection: psycopg.Connection, parts: Iterable[tuple[Replacement, Encoded]]) -> None:
        """Write parts until none is left."""
        try:
            for replacement, encoded in parts:
                self._begun.set()
                for written, compressed in _replace(connection, self._target, replacement, encoded):
                    with self._counting:
                        self.chunks.update(dict.fromkeys(compressed))
                        self._replacements.committed(written)
                        self.rows += len(written.rows)
                    del written
                del replacement, encoded  # before the next one is fetched: memory is bounded by what is under way
        finally:
            self._begun.set()

    def write_beside(self, connect: Callable[[], psycopg.Connection]) -> None:
        """The same in a session of its own, opened if anything is left once the first part is taken."""
        self._begun.wait()
        part = next(self, None)
        if part is None:
            return
        parts = itertools.chain([part], self)
        del part  # as in `write`
        try:
            with connect() as connection:
                connection.autocommit = True
                self._beside.append(connection)
                self.write(connection, parts)
        except BaseException:
            self._failed = True
            raise

    def cancel(self) -> None:
        """Hand out nothing more, and have the sessions beside roll back what they are at."""
        self._failed = True
        self._begun.set()  # also where the first writer was interrupted before it began
        for connection in self._beside:
            with suppress(psycopg.Error):
                connection.cancel_safe()


def _compress(connection: psycopg.Connection, table: str, chunks: Iterable[str]) -> None:
    """Compress chunks again. The rows are committed, so what stands in the way is only told: the policy does it later."""
    for chunk in chunks:
        try:
            with connection.transaction(), connection.cursor() as cursor:
                lock_table(cursor, table, alone=True)
                compress(cursor, chunk)
        except psycopg.Error as error:
            log.warning("%s stays partly uncompressed until the compression policy runs: %s", chunk, error)


def _replace(
    connection: psycopg.Connection, target: Target, replacement: Replacement, encoded: Encoded, attempts: int = 5
) -> Iterator[tuple[Replacement, list[str]]]:
    """Write a replacement, or where it is stale, what it is made into now; with it the chunks to compress again."""
    try:
        yield replacement, replace(connection, target, replacement, encoded)
    except Stale as reason:
        if attempts == 0:
            raise TransientError(
                f"The sources of {target.table}, {replacement.window}, keep changing ({reason}): run it again later."
            ) from None
        del encoded
        for fresh in replacement.again():
            yield from _replace(connection, target, fresh, target.encode(fresh.rows), attempts - 1)


class ahead(Iterable[T]):
    """Run an iterator in a thread, one item ahead of its consumer.

    A context manager: leaving it stops the thread, also in the middle.
    """

    _END = object()

    def __init__(self, items: Iterable[T]) -> None:
        self._items = iter(items)
        self._queue: queue.Queue[object] = queue.Queue(maxsize=1)
        self._stopped = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="ahead", daemon=True)

    def _run(self) -> None:
        try:
            for item in self._items:
                if not self._put(item):
                    break
                del item
        except BaseException as error:
            self._error = error
        finally:
            close = getattr(self._items, "close", None)
            if close is not None:
                close()
            self._put(self._END)

    def _put(self, item: object) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def __enter__(self) -> ahead[T]:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def __iter__(self) -> Iterator[T]:
        while not self._stopped.is_set():
            try:
                item = self._queue.get(timeout=0.1)
            except queue.Empty:
                continue
            if item is self._END:
                break
            yield item  # type: ignore[misc]
            del item
        if self._error is not None:
            raise self._error


class ArrowReplacements(Replacements):
    """Arrow data cut into replacements that together replace a whole window, also the slices without rows.

    Args:
        data: a table in any order, or a reader or stream of batches in ascending order of slices.
        window: what is to be replaced.
        slice_column: a timestamp column that holds the start of each row's slice.
        commit_rows: a replacement ends at the first slice boundary after this many rows.

    Raises:
        UserError: while it is iterated: a row lies outside the window, or the stream is not in order.
    """

    def __init__(
        self, data: pa.Table | pa.RecordBatchReader | Iterable[pa.RecordBatch], window: Window, slice_column: str, commit_rows: int
    ) -> None:
        self._data, self._window, self._slice_column, self._commit_rows = data, window, slice_column, commit_rows

    def __iter__(self) -> Iterator[Replacement]:
        return _cut_stream(self._data, self._window, self._slice_column, self._commit_rows)


def _cut_stream(
    data: pa.Table | pa.RecordBatchReader | Iterable[pa.RecordBatch], window: Window, slice_column: str, commit_rows: int
) -> Iterator[Replacement]:
    if isinstance(data, pa.Table):
        _require_slice_column(data.schema, slice_column)
        schema = data.schema
        data = data.take(pc.sort_indices(data, [(slice_column, "ascending")])).to_batches(max_chunksize=ENCODE_ROWS)
    else:
        schema = data.schema if isinstance(data, pa.RecordBatchReader) else None
    start, last = window.start, None
    waiting: list[pa.Table] = []
    for batch in data:
        schema = batch.schema
        _require_slice_column(schema, slice_column)
        if batch.num_rows == 0:
            continue
        times = batch.column(slice_column).cast(pa.timestamp("us", "UTC"))
        first, newest = times[0].as_py(), times[-1].as_py()
        if (last is not None and first < last) or (np.diff(int64(times)) < 0).any():
            raise UserError(f"The stream of batches is not in order of {slice_column}: sort it, or give it as one table.")
        if first not in window or newest not in window:
            raise UserError(
                f"The Arrow data holds rows of {slice_column} {first} to {newest}, outside the range {window} that is being written."
            )
        last = newest
        waiting.append(pa.Table.from_batches([batch]))
        if sum(map(len, waiting)) >= commit_rows and newest > start:
            # In order, so everything before the newest slice is complete.
            together = pa.concat_tables(waiting)
            complete = int(np.searchsorted(int64(together[slice_column].cast(times.type)), int64(times)[-1]))
            yield from _in_days(Window(start, newest), together.slice(0, complete), slice_column)
            start, waiting = newest, [together.slice(complete)]
    rows = pa.concat_tables(waiting) if waiting else schema.empty_table() if schema is not None else None
    yield from _in_days(Window(start, window.end), rows, slice_column)


def _require_slice_column(schema: pa.Schema, slice_column: str) -> None:
    if slice_column not in schema.names:
        raise UserError(f"The Arrow data has no column {slice_column}, which says what slice a row belongs to.")


def _in_days(window: Window, rows: pa.Table | None, slice_column: str) -> Iterator[Replacement]:
    if len(window) <= MAX_LOCKED_SLICES:
        yield Replacement(window, rows)
        return
    for day in window.days():
        inside = rows
        if rows is not None and len(rows):
            at = rows[slice_column].cast(pa.timestamp("us", "UTC"))
            inside = rows.filter(pc.and_(pc.greater_equal(at, _scalar(day.start)), pc.less(at, _scalar(day.end))))
        yield Replacement(day, inside)


def _scalar(time: datetime) -> pa.Scalar:
    return pa.scalar(time, pa.timestamp("us", "UTC"))


def cut(counts: Sequence[tuple[datetime, int]], window: Window, commit_rows: int) -> Iterator[Window]:
    """Cut a window at slice boundaries into parts of about `commit_rows` rows and at most `MAX_LOCKED_SLICES` slices.

    Args:
        counts: rows of the slices that have any, ascending.
        window: what to cut.
        commit_rows: a part ends before the slice that would exceed it, but holds at least one slice.
    """
    start, rows = window.start, 0
    rows_of = dict(counts)
    for bucket in window.slices():
        count = rows_of.get(bucket, 0)
        if bucket > start and (rows + count > commit_rows or (bucket - start) // SLICE >= MAX_LOCKED_SLICES):
            yield Window(start, bucket)
            start, rows = bucket, 0
        rows += count
    yield Window(start, window.end)
