"""Reading many objects at once: fetched concurrently, decoded in groups, in bounded memory.

Objects are small, so the cost is latency and per-call overhead: bytes are fetched by a pool of threads, and raw tables
of one schema are decoded together. The few large ones (a day's dump) are spooled to disk and decoded piece by piece.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from btc_assets.domain.feeds import Feed
from btc_assets.domain.slices import Window, microseconds
from btc_assets.domain.ticks import TICK_SCHEMA, int64
from btc_assets.landing.decode import Decoded, decode
from btc_assets.landing.formats import ObjectRejected, read_object
from btc_assets.landing.objects import LandedObject, ObjectCorrupt
from btc_assets.landing.zone import LandingZone

_GROUP_OBJECTS = 256
_GROUP_BYTES = 3 << 20  # compressed; decoded it is ten times that, and three groups are under way
_SPOOL_ROWS = 262_144  # ticks of a large object that wait in memory for their slice before they go to disk


@dataclass
class Fetched:
    """An object's bytes, taken apart: raw tables in memory, the path of a large object, or an error."""

    obj: LandedObject
    format: str | None = None
    verified: str = "none"
    raw: tuple[pa.Table, ...] = ()
    path: Path | None = None
    rejected: str | None = None
    error: Exception | None = None


@dataclass
class Piece:
    """Decoded rows of one or several objects.

    Attributes:
        decoded: the rows.
        tick_object, rejected_object: for each tick and each rejected row, the position of its object in the group.
        rejected_row: for each rejected row, its number in the object, from 1.
    """

    decoded: Decoded
    tick_object: np.ndarray
    rejected_object: np.ndarray
    rejected_row: np.ndarray


def fetch(zone: LandingZone, obj: LandedObject) -> Fetched:
    """Read one object; what is wrong with the object itself is in the answer, and is not raised."""
    fetched = Fetched(obj)
    try:
        source, fetched.verified = zone.read(obj)
        if isinstance(source, Path):
            fetched.path = source
            return fetched
        fetched.format, tables = read_object(source)
        fetched.raw = tuple(tables)
    except (ObjectRejected, ObjectCorrupt) as reason:
        fetched.rejected = str(reason)
    except Exception as error:
        fetched.error = error
    return fetched


def fetch_groups(zone: LandingZone, objects: Iterable[LandedObject]) -> Iterator[list[Fetched]]:
    """Fetch objects in groups of bounded size; while one is being used, the next is under way.

    A large object makes a group of its own.
    """
    with ThreadPoolExecutor(zone.concurrency, thread_name_prefix="fetch") as pool:
        waiting: list[Future[Fetched]] | None = None
        for group in _groups(objects):
            futures = [pool.submit(fetch, zone, obj) for obj in group]
            if waiting is not None:
                yield [future.result() for future in waiting]
            waiting = futures
        if waiting is not None:
            yield [future.result() for future in waiting]


def _groups(objects: Iterable[LandedObject]) -> Iterator[list[LandedObject]]:
    group: list[LandedObject] = []
    size = 0
    for obj in objects:
        if group and (len(group) == _GROUP_OBJECTS or size + obj.size > _GROUP_BYTES):
            yield group
            group, size = [], 0
        group.append(obj)
        size += obj.size
    if group:
        yield group


def decode_group(group: Sequence[Fetched], feeds: Sequence[Feed]) -> Iterator[Piece]:
    """Decode the fetched objects of one prefix; an object that turns out unreadable gets `rejected` set.

    The pieces of such an object that came before are not taken back: the caller drops them.
    """
    by_schema: dict[tuple[object, ...], list[tuple[int, int, pa.Table]]] = {}
    for position, fetched in enumerate(group):
        if fetched.path is not None:
            yield from _decode_large(position, fetched, feeds)
            continue
        first = 1
        for raw in fetched.raw:
            key = tuple((field.name, field.type) for field in raw.schema)
            by_schema.setdefault(key, []).append((position, first, raw))
            first += len(raw)
    for members in by_schema.values():
        try:
            together = pa.concat_tables([raw.replace_schema_metadata() for _, _, raw in members])
            yield _piece(decode(together, feeds), members)
        except ObjectRejected as reason:
            for position, _, _ in members:
                group[position].rejected = str(reason)


def _decode_large(position: int, fetched: Fetched, feeds: Sequence[Feed]) -> Iterator[Piece]:
    assert fetched.path is not None
    first = 1
    try:
        fetched.format, tables = read_object(fetched.path)
        for raw in tables:
            yield _piece(decode(raw, feeds), [(position, first, raw)])
            first += len(raw)
    except ObjectRejected as reason:
        fetched.rejected = str(reason)
    finally:
        fetched.path.unlink(missing_ok=True)


def _piece(decoded: Decoded, members: Sequence[tuple[int, int, pa.Table]]) -> Piece:
    lengths = [len(raw) for _, _, raw in members]
    owner = np.repeat([position for position, _, _ in members], lengths)
    rejected = decoded.rejected["index"].to_numpy()
    if not len(rejected):
        return Piece(decoded, owner[decoded.index], owner[:0], owner[:0])
    starts = np.repeat(np.cumsum([0, *lengths[:-1]]), lengths)
    first = np.repeat([row for _, row, _ in members], lengths)
    return Piece(decoded, owner[decoded.index], owner[rejected], rejected - starts[rejected] + first[rejected])


class SlicedObject:
    """A large object, decoded once and handed out slice by slice, whatever order its rows are in.

    The registry says how many rows each slice has, so a slice is complete as soon as that many have been seen: an
    object in order of time streams, and of any other only what arrives too early waits, on disk beyond a bound.

    Args:
        zone: where it is.
        obj: which one.
        feeds: the feeds of its prefix.
        expected: for each slice that will be asked for, its number of rows in this object.

    Raises:
        ObjectGone, ObjectChanged, UserError: it cannot be read any more (from `take`).
    """

    def __init__(self, zone: LandingZone, obj: LandedObject, feeds: Sequence[Feed], expected: Mapping[datetime, int]) -> None:
        self.obj = obj
        self._expected = {microseconds(bucket): rows for bucket, rows in expected.items()}
        self._missing = dict(self._expected)
        self._pieces = self._decode(zone, feeds)
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        self._spool: dict[int, tuple[Path, pa.OSFile, pa.RecordBatchFileWriter]] = {}
        self._directory: tempfile.TemporaryDirectory[str] | None = None

    def _decode(self, zone: LandingZone, feeds: Sequence[Feed]) -> Iterator[pa.Table]:
        fetched = fetch(zone, self.obj)
        if fetched.error:
            raise fetched.error
        for piece in decode_group([fetched], feeds):
            yield piece.decoded.ticks
        if fetched.rejected:
            raise ObjectRejected(fetched.rejected)

    def take(self, window: Window) -> pa.Table:
        """The object's rows of the slices in `window`; each slice can be taken once, in ascending order."""
        start, end = microseconds(window.start), microseconds(window.end)
        wanted = [bucket for bucket in self._expected if start <= bucket < end]
        while any(self._missing[bucket] > 0 for bucket in wanted):
            ticks = next(self._pieces, None)
            if ticks is None:
                break
            self._receive(ticks)
        return self._hand_out(start, end)

    def _receive(self, ticks: pa.Table) -> None:
        buckets, counts = np.unique(int64(ticks["bucket_5m"]), return_counts=True)
        unwanted = False
        for bucket, count in zip(buckets.tolist(), counts.tolist(), strict=True):
            if bucket in self._missing:
                self._missing[bucket] -= count
            else:
                unwanted = True
        if unwanted:
            ticks = ticks.filter(pa.array(np.isin(int64(ticks["bucket_5m"]), np.fromiter(self._missing, np.int64))))
        self._waiting.append(ticks)
        self._waiting_rows += len(ticks)
        if self._waiting_rows > _SPOOL_ROWS:
            self._to_disk()

    def _to_disk(self) -> None:
        """Write what waits to one file an hour."""
        if self._directory is None:
            self._directory = tempfile.TemporaryDirectory(prefix="btc_assets-")
        waiting = pa.concat_tables(self._waiting)
        hours = int64(waiting["bucket_5m"]) // _HOUR_US
        for hour in np.unique(hours).tolist():
            if hour not in self._spool:
                path = Path(self._directory.name) / f"{hour}.arrow"
                sink = pa.OSFile(str(path), "wb")
                self._spool[hour] = (path, sink, pa.ipc.new_stream(sink, TICK_SCHEMA))
            self._spool[hour][2].write_table(waiting.filter(pa.array(hours == hour)))
        self._waiting, self._waiting_rows = [], 0

    def _hand_out(self, start: int, end: int) -> pa.Table:
        parts = list(self._waiting)
        for hour in [h for h in self._spool if start // _HOUR_US <= h <= (end - 1) // _HOUR_US]:
            path, sink, writer = self._spool.pop(hour)
            writer.close()
            sink.close()
            with pa.OSFile(str(path)) as source:
                parts.append(pa.ipc.open_stream(source).read_all())
            path.unlink()
        if not parts:
            return TICK_SCHEMA.empty_table()
        together = pa.concat_tables(parts)
        bucket = int64(together["bucket_5m"])
        inside = (bucket >= start) & (bucket < end)
        later = bucket >= end
        self._waiting = [together.filter(pa.array(later)).combine_chunks()] if later.any() else []
        self._waiting_rows = int(later.sum())
        return together if inside.all() else together.filter(pa.array(inside))

    def close(self) -> None:
        """Drop what waits, in memory and on disk."""
        for _, sink, writer in self._spool.values():
            writer.close()
            sink.close()
        self._spool.clear()
        self._waiting.clear()
        self._pieces.close()  # type: ignore[attr-defined]  # a generator: closing it removes the spooled object
        if self._directory is not None:
            self._directory.cleanup()


_HOUR_US = 3_600_000_000


def tick_slices(ticks: pa.Table, owner: np.ndarray) -> pa.Table:
    """Count ticks by object, symbol and slice: `object, symbol, bucket_5m, row_count, first_event_time, last_event_time`."""
    keyed = ticks.select(["symbol", "bucket_5m", "event_time"]).append_column("object", pa.array(owner, pa.int64()))
    counted = keyed.group_by(["object", "symbol", "bucket_5m"], use_threads=False).aggregate(
        [("event_time", "count"), ("event_time", "min"), ("event_time", "max")]
    )
    return counted.rename_columns(
        {"event_time_count": "row_count", "event_time_min": "first_event_time", "event_time_max": "last_event_time"}
    )


def of_prefix(objects: Iterable[LandedObject], feeds: Sequence[Feed]) -> dict[str, tuple[list[LandedObject], list[Feed]]]:
    """Objects with the feeds of their prefix."""
    found: dict[str, tuple[list[LandedObject], list[Feed]]] = {}
    for obj in objects:
        found.setdefault(obj.prefix, ([], [feed for feed in feeds if feed.prefix == obj.prefix]))[0].append(obj)
    return found
