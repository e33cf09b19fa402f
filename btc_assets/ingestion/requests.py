"""Plan the runs that rebuild due slices: contiguous ranges of bounded length, without slices that a run is already working on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from btc_assets.domain.slices import DAY, KEY_FORMAT, SLICE, Window

# A slice that is still due after these times is requested again; after the last of them, once a day.
RETRY_AFTER = (timedelta(minutes=15), timedelta(hours=1), timedelta(hours=4), DAY)


@dataclass(frozen=True, order=True)
class DueSlice:
    """A slice that must be loaded or rebuilt.

    Attributes:
        bucket: start of the slice.
        since: when it became due.
        digest: of the reasons why it is due; it changes with every new reason.
    """

    bucket: datetime
    since: datetime
    digest: str


@dataclass(frozen=True)
class Request:
    """A run to request.

    Attributes:
        window: its slices.
        key: equal for equal work, so that Dagster runs it once; it changes after each time in `RETRY_AFTER`.
    """

    window: Window
    key: str


def plan_requests(
    due: Sequence[DueSlice], busy: Sequence[Window], now: datetime, *, slices_per_run: int, step: timedelta = SLICE
) -> Iterator[Request]:
    """Plan the runs for all due slices, newest first.

    Slices that were requested before may fail again, so they never share a run with slices that are new.

    Args:
        due: in ascending order.
        busy: windows of the runs in progress; their slices wait until those runs end.
        now: the present, in UTC.
        slices_per_run: most slices in one run.
        step: the unit of a run: a slice, or a day if the asset has daily partitions.
    """
    units: dict[datetime, list[DueSlice]] = {}
    for one in due:
        units.setdefault(Window.of_slice(one.bucket).widened_to(step).start, []).append(one)
    free = [start for start in units if not any(window.start < start + step and start < window.end for window in busy)]
    per_run = max(slices_per_run * SLICE // step, 1)
    attempts = {start: max(_attempt(now - one.since) for one in units[start]) for start in free}
    for starts in _runs(sorted(free), step, per_run, attempts):
        members = [one for start in starts for one in units[start]]
        digest = hashlib.sha256()
        for one in members:
            digest.update(f"{one.bucket.isoformat()} {one.digest} {_attempt(now - one.since)}\n".encode())
        window = Window(starts[0], starts[-1] + step)
        yield Request(window, f"{window.start:{KEY_FORMAT}} {len(window)} {digest.hexdigest()[:16]}")


def _runs(starts: list[datetime], step: timedelta, longest: int, attempts: dict[datetime, int]) -> Iterator[list[datetime]]:
    """Group contiguous units that were requested equally often, newest first, into pieces of at most `longest`."""
    piece: list[datetime] = []
    for start in reversed(starts):
        if piece and (piece[0] - start != step or len(piece) == longest or attempts[piece[0]] != attempts[start]):
            yield piece
            piece = []
        piece.insert(0, start)
    if piece:
        yield piece


def _attempt(waited: timedelta) -> int:
    """How often a slice that has been due for so long was requested again."""
    passed = sum(waited >= limit for limit in RETRY_AFTER)
    return passed + max(waited // DAY - 1, 0)
