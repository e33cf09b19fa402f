"""Cutting work into parts that are committed one by one: at slice boundaries, of about a given number of rows, within the lock table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE, Window
from btc_assets.domain.ticks import TIME, int64
from btc_assets.store.encode import ENCODE_ROWS
from btc_assets.store.locks import MAX_LOCKED_SLICES
from btc_assets.store.replace import Replacement, Replacements


class ArrowReplacements(Replacements):
    """Arrow data cut into replacements that together replace a whole window, including the slices without rows.

    Args:
        data: a table in any order, or a reader or stream of batches in ascending order of slices.
        window: what is replaced.
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
        start = self._window.start
        waiting: list[pa.Table] = []
        for batch in self._checked_batches():
            waiting.append(pa.Table.from_batches([batch]))
            newest = self._slices(batch)[-1].as_py()
            if sum(map(len, waiting)) >= self._commit_rows and newest > start:
                # The rows are in order, so all slices before the newest one are complete.
                together = pa.concat_tables(waiting)
                slices = int64(self._slices(together))
                complete = int(np.searchsorted(slices, slices[-1]))
                yield from self._in_days(Window(start, newest), together.slice(0, complete))
                start, waiting = newest, [together.slice(complete)]
        yield from self._in_days(Window(start, self._window.end), pa.concat_tables(waiting) if waiting else None)

    def _checked_batches(self) -> Iterator[pa.RecordBatch]:
        """The batches that have rows, in order and inside the window."""
        data = self._data
        if isinstance(data, pa.Table):
            self._require_slice_column(data.schema)
            data = data.take(pc.sort_indices(data, [(self._slice_column, "ascending")])).to_batches(max_chunksize=ENCODE_ROWS)
        last: datetime | None = None
        for batch in data:
            self._require_slice_column(batch.schema)
            if batch.num_rows == 0:
                continue
            slices = self._slices(batch)
            first, newest = slices[0].as_py(), slices[-1].as_py()
            if (last is not None and first < last) or (np.diff(int64(slices)) < 0).any():
                raise UserError(f"The stream of batches is not in order of {self._slice_column}: sort it, or give it as one table.")
            if first not in self._window or newest not in self._window:
                raise UserError(
                    f"The Arrow data holds rows of {self._slice_column} {first} to {newest}, outside the range {self._window} that is being "
                    "written."
                )
            last = newest
            yield batch

    def _require_slice_column(self, schema: pa.Schema) -> None:
        if self._slice_column not in schema.names:
            raise UserError(f"The Arrow data has no column {self._slice_column}, which says what slice a row belongs to.")

    def _slices(self, rows: pa.Table | pa.RecordBatch) -> pa.ChunkedArray | pa.Array:
        return rows.column(self._slice_column).cast(TIME)

    def _in_days(self, window: Window, rows: pa.Table | None) -> Iterator[Replacement]:
        """One replacement, or one a day if the window has more slices than a transaction may lock."""
        if len(window) <= MAX_LOCKED_SLICES:
            yield Replacement(window, rows)
            return
        for day in window.days():
            inside = rows
            if rows is not None:
                at = self._slices(rows)
                inside = rows.filter(pc.and_(pc.greater_equal(at, pa.scalar(day.start, TIME)), pc.less(at, pa.scalar(day.end, TIME))))
            yield Replacement(day, inside)


def cut_window(counts: Sequence[tuple[datetime, int]], window: Window, commit_rows: int) -> Iterator[Window]:
    """Cut a window at slice boundaries into parts of about `commit_rows` rows and at most `MAX_LOCKED_SLICES` slices.

    Args:
        counts: rows of each slice that has any, ascending.
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
