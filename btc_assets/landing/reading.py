"""Reading many objects: fetched concurrently and decoded in groups, in bounded memory.

Objects are small, so their cost is latency and overhead per call. A pool of threads fetches bytes, and raw tables of one
schema are decoded together. The few large objects (a day's dump) go to disk and are decoded piece by piece; so are small ones that turn out to
hold much.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from btc_assets.domain.feeds import Feed, Feeds
from btc_assets.landing.contracts import QUOTE_QUANTITIES
from btc_assets.landing.decode import Decoded, decode
from btc_assets.landing.formats import read_object
from btc_assets.landing.objects import LandedObject, ObjectCorrupt
from btc_assets.landing.raw import ObjectRejected
from btc_assets.landing.rejection import rejecting
from btc_assets.landing.zone import LandingZone
from btc_assets.store.prefetch import take_short_turns

_GROUP_OBJECTS = 256
_GROUP_BYTES = 3 << 20  # compressed; decoded it is ten times that, and three groups exist at a time
_GROUP_RAW_BYTES = 64 << 20  # of raw tables; further objects of the group are decoded piece by piece


@dataclass
class Fetched:
    """What fetching an object gave.

    Attributes:
        obj: the object.
        format: its format, such as `csv.gz`; None until it is known.
        verified: how its bytes were verified, see `LandingZone.read`.
        notes: see `RawObject`.
        raw: the raw tables of a small object.
        source: the bytes, or the temporary file, of an object that is decoded piece by piece.
        rejected: why the object is unusable.
        error: why it could not be read, if the cause is not the object itself.
    """

    obj: LandedObject
    format: str | None = None
    verified: str = "none"
    notes: dict[str, Any] = field(default_factory=dict)
    raw: tuple[pa.Table, ...] = ()
    source: bytes | Path | None = None
    rejected: str | None = None
    error: Exception | None = None


@dataclass
class Piece:
    """Decoded rows of one or several objects.

    Attributes:
        decoded: the rows.
        tick_object, rejected_object, left_out_object: for each tick, each rejected row and each row that is left out, the position of
            its object in the group.
        rejected_row: for each rejected row, its number in the object, from 1.
        all_rejected_object: for each row that is no valid trade, also those that are only counted, the position of its object.
    """

    decoded: Decoded
    tick_object: np.ndarray
    rejected_object: np.ndarray
    rejected_row: np.ndarray
    left_out_object: np.ndarray
    all_rejected_object: np.ndarray


@dataclass
class _Member:
    """A raw table, the position of its object in the group, and the number of its first row in the object, from 1."""

    position: int
    first_row: int
    raw: pa.Table


class _Memory:
    """Bytes that the raw tables of a group may take; its objects are fetched by several threads."""

    def __init__(self, limit: int | None = None) -> None:
        self._left = _GROUP_RAW_BYTES if limit is None else limit
        self._lock = Lock()

    def take(self, count: int) -> bool:
        """Whether there is room; then it is taken. A negative count gives back."""
        with self._lock:
            if count > self._left:
                return False
            self._left -= count
            return True


def fetch(zone: LandingZone, obj: LandedObject, memory: _Memory | None = None) -> Fetched:
    """Read one object. Never raises: the answer says what is wrong."""
    fetched = Fetched(obj)
    try:
        source, fetched.verified = zone.read(obj)
        if isinstance(source, Path):
            fetched.source = source
        else:
            with rejecting():
                _read_small(fetched, source, memory or _Memory())
    except (ObjectRejected, ObjectCorrupt) as reason:
        fetched.rejected = str(reason)
    except Exception as error:
        fetched.error = error
    return fetched


def _read_small(fetched: Fetched, data: bytes, memory: _Memory) -> None:
    """Keep the raw tables if there is room for them, and else the bytes."""
    fetched.format, tables, fetched.notes = read_object(data)
    kept, taken = [], 0
    for table in tables:
        if not memory.take(table.nbytes):
            memory.take(-taken)
            fetched.source = data
            return
        kept.append(table)
        taken += table.nbytes
    fetched.raw = tuple(kept)


def fetch_groups(
    zone: LandingZone, objects: Iterable[LandedObject], begin: Callable[[Sequence[LandedObject]], object] = lambda group: None
) -> Iterator[list[Fetched]]:
    """Fetch objects in groups of bounded size; the next group is being fetched while the caller uses one.

    A large object is a group of its own.

    Args:
        zone: where they are.
        objects: best prefix by prefix, because those of one are decoded together.
        begin: called with each group before it is fetched.
    """
    take_short_turns()
    with ThreadPoolExecutor(zone.concurrency, thread_name_prefix="fetch") as pool:
        pending: list[Future[Fetched]] | None = None
        for group in _groups(objects):
            begin(group)
            memory = _Memory()
            futures = [pool.submit(fetch, zone, obj, memory) for obj in group]
            if pending is not None:
                yield [future.result() for future in pending]
            pending = futures
        if pending is not None:
            yield [future.result() for future in pending]


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


def decode_group(group: Sequence[Fetched], feeds: Feeds) -> Iterator[Piece]:
    """Decode fetched objects, those of each prefix together. An object that turns out to be unusable gets `rejected` set.

    Pieces of such an object may have been returned before; the caller drops them.
    """
    by_schema: dict[tuple[object, ...], list[_Member]] = {}
    for position, fetched in enumerate(group):
        if fetched.source is not None:
            yield from _decode_piecewise(position, fetched, fetched.source, feeds.by_prefix(fetched.obj.prefix))
            continue
        first_row = 1
        for raw in fetched.raw:
            schema: tuple[object, ...] = (fetched.obj.prefix, *((field.name, field.type) for field in raw.schema))
            if set(QUOTE_QUANTITIES) & set(raw.column_names):
                schema += (position,)  # what that column says is judged object by object
            by_schema.setdefault(schema, []).append(_Member(position, first_row, raw))
            first_row += len(raw)
    for members in by_schema.values():
        yield from _decode_together(group, members, feeds.by_prefix(group[members[0].position].obj.prefix))


def _decode_together(group: Sequence[Fetched], members: Sequence[_Member], feeds: Sequence[Feed]) -> Iterator[Piece]:
    """Decode raw tables of one schema at once; if that fails, those of each object alone, so that it rejects no other object."""
    try:
        with rejecting():
            together = pa.concat_tables([member.raw.replace_schema_metadata() for member in members])
            piece = _piece(together, feeds, members)
    except ObjectRejected as reason:
        positions = sorted({member.position for member in members})
        if len(positions) == 1:
            group[positions[0]].rejected = str(reason)
            return
        for position in positions:
            yield from _decode_together(group, [member for member in members if member.position == position], feeds)
    else:
        yield piece


def _decode_piecewise(position: int, fetched: Fetched, source: bytes | Path, feeds: Sequence[Feed]) -> Iterator[Piece]:
    first_row = 1
    try:
        with rejecting():
            fetched.format, tables, fetched.notes = read_object(source)
        for raw in tables:
            with rejecting():
                piece = _piece(raw, feeds, [_Member(position, first_row, raw)])
            yield piece
            first_row += len(raw)
    except ObjectRejected as reason:
        fetched.rejected = str(reason)
    finally:
        if isinstance(source, Path):
            source.unlink(missing_ok=True)


def _piece(raw: pa.Table, feeds: Sequence[Feed], members: Sequence[_Member]) -> Piece:
    """Decode the raw tables of `members`, which `raw` holds one after the other."""
    lengths = [len(member.raw) for member in members]
    owner = np.repeat([member.position for member in members], lengths)
    decoded = decode(raw, feeds, owner)
    rejected, left_out = decoded.rejected["index"].to_numpy(), owner[decoded.left_out["index"].to_numpy()]
    if not len(rejected):
        return Piece(decoded, owner[decoded.index], owner[:0], owner[:0], left_out, owner[:0])
    starts = np.repeat(np.cumsum([0, *lengths[:-1]]), lengths)
    first_row = np.repeat([member.first_row for member in members], lengths)
    return Piece(
        decoded, owner[decoded.index], owner[rejected], rejected - starts[rejected] + first_row[rejected], left_out,
        owner[decoded.rejected_index],
    )  # fmt: skip


def count_by_slice(ticks: pa.Table, owner: np.ndarray) -> pa.Table:
    """Count ticks by object, symbol and slice.

    Args:
        ticks: in `DECODED_SCHEMA`.
        owner: for each tick, the number of its object.

    Returns:
        `object, symbol, bucket_5m, row_count, first_event_time, last_event_time, first_trade_id, last_trade_id, event_times`; a tick
        without an event time counts with its trade time.
    """
    time = pc.coalesce(ticks["event_time"], ticks["trade_time"]) if ticks["event_time"].null_count else ticks["event_time"]
    keyed = pa.table(
        {
            "object": pa.array(owner, pa.int64()), "symbol": ticks["symbol"], "bucket_5m": ticks["bucket_5m"],
            "event_time": time, "trade_id": ticks["trade_id"], "event_times": ticks["event_time"],
        }
    )  # fmt: skip
    counted = keyed.group_by(["object", "symbol", "bucket_5m"], use_threads=False).aggregate(
        [
            ("event_time", "count"),
            ("event_time", "min"),
            ("event_time", "max"),
            ("trade_id", "min"),
            ("trade_id", "max"),
            ("event_times", "count"),
        ]
    )
    return counted.rename_columns(
        {
            "event_time_count": "row_count", "event_time_min": "first_event_time", "event_time_max": "last_event_time",
            "trade_id_min": "first_trade_id", "trade_id_max": "last_trade_id", "event_times_count": "event_times",
        }
    )  # fmt: skip
