"""Cutting work into parts that are committed one by one: at slice boundaries, of about so many rows, and within the lock table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE, Window
from btc_assets.domain.ticks import int64
from btc_assets.store.encode import ENCODE_ROWS
from btc_assets.store.locks import MAX_LOCKED_SLICES
from btc_assets.store.replace import Replacement, Replacements


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


def cut_window(counts: Sequence[tuple[datetime, int]], window: Window, commit_rows: int) -> Iterator[Window]:
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
