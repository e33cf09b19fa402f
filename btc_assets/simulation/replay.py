"""Replaying: trades from a file, landed at once in the objects that the collector would have written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from btc_assets.domain.errors import UserError
from btc_assets.domain.feeds import Feed
from btc_assets.domain.ticks import TICK_SCHEMA, with_event_times
from btc_assets.landing.decode import decode
from btc_assets.landing.formats import read_object
from btc_assets.landing.raw import AGAIN, ObjectRejected
from btc_assets.landing.zone import LandingZone
from btc_assets.simulation.batches import BATCH_LIMITS, GROUP_BATCHES, BatchLimits, cut_batches, encode_batches, in_order_of_time

_REASONS = 20  # rejected rows whose reasons are kept


@dataclass
class Landed:
    """What was landed.

    Attributes:
        objects, ticks, bytes: how much.
        first_event_time, last_event_time: of the ticks.
        rejected: of the rows that are not valid trades, the first few with the reason.
        rejected_rows: number of such rows.
        notes: parts of the file that were left out, see `RawObject`.
    """

    objects: int = 0
    ticks: int = 0
    bytes: int = 0
    first_event_time: datetime | None = None
    last_event_time: datetime | None = None
    rejected: list[str] = field(default_factory=list)
    rejected_rows: int = 0
    notes: dict[str, Any] = field(default_factory=dict)

    def add(self, batches: Sequence[pa.Table], size: int) -> None:
        """Count batches, and the size of their objects in bytes."""
        self.objects += len(batches)
        self.ticks += sum(map(len, batches))
        self.bytes += size
        times = pc.min_max(pa.concat_tables(batches)["event_time"])
        self.first_event_time = min(filter(None, (self.first_event_time, times["min"].as_py())))
        self.last_event_time = max(filter(None, (self.last_event_time, times["max"].as_py())))


def read_trades(path: Path, feed: Feed, landed: Landed) -> Iterator[pa.Table]:
    """The trades of a file in any landing format, as canonical ticks; rows that are not valid trades are counted in `landed`.

    Raises:
        UserError: the file does not exist or cannot be read.
    """
    if not path.is_file():
        raise UserError(f"The trades file {path} does not exist: give the path of a CSV, JSON lines, Parquet or zip file.")
    try:
        first = 1
        _, tables, landed.notes = read_object(path)
        for raw in tables:
            decoded = decode(raw, [feed])
            landed.rejected_rows += len(decoded.rejected_index)
            for row in decoded.rejected.slice(0, max(0, _REASONS - len(landed.rejected))).to_pylist():
                landed.rejected.append(f"row {first + row['index']}: {row['reason']}")
            first += len(raw)
            yield with_event_times(decoded.ticks).cast(TICK_SCHEMA)
    except (ObjectRejected, OSError) as error:
        raise UserError(f"The trades file {path} cannot be read: {str(error).removesuffix(AGAIN)}.") from error


def land_trades(
    zone: LandingZone,
    feed: Feed,
    tables: Iterator[pa.Table],
    landed: Landed,
    *,
    limits: BatchLimits = BATCH_LIMITS,
    progress: Callable[[int], None] = lambda objects: None,
) -> Landed:
    """Land ticks as collector batches.

    Every trade lies in a folder near its event time, whatever order the trades come in. Objects are named after their trades:
    landing the same trades again overwrites the same objects with the same bytes, and corrected trades replace the faulty ones.

    Args:
        zone: where to land them.
        feed: whose folders, and how the exchange spells the symbol.
        tables: canonical ticks, preferably in order of event time.
        landed: counts, added to.
        limits: when a batch closes.
        progress: called with the number of objects so far.

    Raises:
        UserError: an object cannot be written.
    """
    with ThreadPoolExecutor(max_workers=min(zone.concurrency, 8)) as pool:
        writing: list[Future[object]] = []  # one group is written while the next is encoded
        written: list[pa.Table] = []
        size = 0

        def finish() -> None:
            _wait(writing)
            if written:
                landed.add(written, size)
                progress(landed.objects)

        ordered = (in_order_of_time(ticks, limits) for ticks in tables)
        try:
            for batches in _groups(cut_batches(ordered, limits), GROUP_BATCHES):
                objects = list(encode_batches(batches, feed))
                finish()
                writing = [pool.submit(zone.put, path, data) for path, data in objects]
                written, size = batches, sum(len(data) for _, data in objects)
        except UserError as error:
            if not any(write.done() and write.exception() for write in writing):
                finish()
            raise _landed_in_part(error, landed) if landed.objects else error from None
        finish()
    return landed


def _landed_in_part(error: UserError, landed: Landed) -> UserError:
    return UserError(
        f"{error} {landed.objects:,} objects with {landed.ticks:,} ticks, {landed.first_event_time} to {landed.last_event_time}, were landed "
        "before that and will be loaded: mend what is wrong, and land the whole trades; those that are there are not doubled."
    )


def _wait(writes: Sequence[Future[object]]) -> None:
    """Wait for writes; the first that failed raises."""
    for write in writes:
        write.result()


def _groups(batches: Iterator[pa.Table], size: int) -> Iterator[list[pa.Table]]:
    group: list[pa.Table] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
