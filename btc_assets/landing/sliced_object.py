"""Large objects: each is decoded once and handed out slice by slice, in bounded memory."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Mapping
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from btc_assets.domain.feeds import Feeds
from btc_assets.domain.slices import HOUR_US, Window, to_microseconds
from btc_assets.domain.ticks import DECODED_SCHEMA, int64
from btc_assets.landing.objects import LandedObject
from btc_assets.landing.raw import ObjectRejected
from btc_assets.landing.reading import decode_group, fetch
from btc_assets.landing.zone import LandingZone

PENDING_ROWS = 262_144  # ticks that wait in memory for their slice; more go to disk


class SlicedObject:
    """One large object, decoded once and handed out slice by slice, in whatever order its rows are.

    The registry says how many rows each slice has, so a slice is complete as soon as that many have been decoded. An object
    in order of time streams through; of any other, only the rows that come too early wait.

    Args:
        zone: where the object is.
        obj: the object.
        feeds: the feeds of its prefix.
        expected: for each slice that will be taken, its number of rows in the object.

    Raises:
        ObjectGone, ObjectChanged, ObjectRejected, UserError: the object cannot be read any more (raised by `take`).
    """

    def __init__(self, zone: LandingZone, obj: LandedObject, feeds: Feeds, expected: Mapping[datetime, int]) -> None:
        self.obj = obj
        self._expected = {to_microseconds(bucket): rows for bucket, rows in expected.items()}
        self._missing = dict(self._expected)  # rows that are still to be decoded
        self._pieces = self._decode(zone, feeds)
        self._pending: list[pa.Table] = []
        self._pending_rows = 0
        self._files: dict[int, _HourFile] = {}  # by hours since 1970
        self._directory: tempfile.TemporaryDirectory[str] | None = None

    def take(self, window: Window) -> pa.Table:
        """The object's rows of the slices in `window`; each slice can be taken once, in ascending order."""
        start, end = to_microseconds(window.start), to_microseconds(window.end)
        wanted = [bucket for bucket in self._expected if start <= bucket < end]
        while any(self._missing[bucket] > 0 for bucket in wanted):
            ticks = next(self._pieces, None)
            if ticks is None:
                break
            self._add(ticks)
        return self._remove(start, end)

    def close(self) -> None:
        """Drop what is pending, in memory and on disk."""
        for file in self._files.values():
            file.close()
        self._files.clear()
        self._pending.clear()
        self._pieces.close()  # removes the temporary file that the object was read into
        if self._directory is not None:
            self._directory.cleanup()

    def _decode(self, zone: LandingZone, feeds: Feeds) -> Generator[pa.Table]:
        fetched = fetch(zone, self.obj)
        if fetched.error:
            raise fetched.error
        for piece in decode_group([fetched], feeds):
            yield piece.decoded.ticks
        if fetched.rejected:
            raise ObjectRejected(fetched.rejected)

    def _add(self, ticks: pa.Table) -> None:
        """Keep the rows of slices that will be taken."""
        bucket = int64(ticks["bucket_5m"])
        found, counts = np.unique(bucket, return_counts=True)
        unwanted = False
        for each, count in zip(found.tolist(), counts.tolist(), strict=True):
            if each in self._missing:
                self._missing[each] -= count
            else:
                unwanted = True
        if unwanted:
            ticks = ticks.filter(pa.array(np.isin(bucket, np.fromiter(self._missing, np.int64))))
        self._pending.append(ticks)
        self._pending_rows += len(ticks)
        if self._pending_rows > PENDING_ROWS:
            self._write_pending()

    def _write_pending(self) -> None:
        """Move the pending rows to disk, to one file an hour."""
        if self._directory is None:
            self._directory = tempfile.TemporaryDirectory(prefix="btc_assets-")
        pending = pa.concat_tables(self._pending)
        hours = int64(pending["bucket_5m"]) // HOUR_US
        for hour in np.unique(hours).tolist():
            if hour not in self._files:
                self._files[hour] = _HourFile(Path(self._directory.name) / f"{hour}.arrow")
            self._files[hour].write(pending.filter(pa.array(hours == hour)))
        self._pending, self._pending_rows = [], 0

    def _remove(self, start: int, end: int) -> pa.Table:
        """The pending rows of the slices from `start` up to `end`; rows of later slices stay, those of earlier ones are dropped."""
        parts = list(self._pending)
        for hour in [hour for hour in self._files if start // HOUR_US <= hour <= (end - 1) // HOUR_US]:
            parts.append(self._files.pop(hour).read_and_remove())
        if not parts:
            return DECODED_SCHEMA.empty_table()
        together = pa.concat_tables(parts)
        bucket = int64(together["bucket_5m"])
        inside = (bucket >= start) & (bucket < end)
        later = bucket >= end
        self._pending = [together.filter(pa.array(later)).combine_chunks()] if later.any() else []
        self._pending_rows = int(later.sum())
        return together if inside.all() else together.filter(pa.array(inside))


class _HourFile:
    """Ticks of one hour on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_stream(self._sink, DECODED_SCHEMA)

    def write(self, ticks: pa.Table) -> None:
        self._writer.write_table(ticks)

    def close(self) -> None:
        self._writer.close()
        self._sink.close()

    def read_and_remove(self) -> pa.Table:
        self.close()
        with pa.OSFile(str(self._path)) as source:
            ticks = pa.ipc.open_stream(source).read_all()
        self._path.unlink()
        return ticks
