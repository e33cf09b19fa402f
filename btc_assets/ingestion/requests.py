"""From slices that are due to the runs to ask for: contiguous ranges, each bounded, none that is under way."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from btc_assets.domain.slices import DAY, SLICE, Window

# A slice that is still due after so long is asked for once more; from then on once a day.
RETRY_AFTER = (timedelta(minutes=15), timedelta(hours=1), timedelta(hours=4), DAY)


@dataclass(frozen=True, order=True)
class DueSlice:
    """A slice that must be made.

    Attributes:
        bucket: its start.
        since: since when it is due.
        digest: of what makes it due; changes whenever there is something new.
    """

    bucket: datetime
    since: datetime
    digest: str


@dataclass(frozen=True)
class Request:
    """A run to ask for.

    Attributes:
        window: its slices.
        key: the same for the same work, so that it is asked for once; another after each time in `RETRY_AFTER`.
    """

    window: Window
    key: str


def plan_requests(
    due: Sequence[DueSlice], busy: Sequence[Window], now: datetime, *, slices_per_run: int, step: timedelta = SLICE
) -> Iterator[Request]:
    """The runs that make what is due, the newest first.

    What has waited for longer was asked for before and may fail again, so it does not share a run with what is new.

    Args:
        due: ascending by slice.
        busy: what runs under way will make; their slices wait for the end of those.
        now: to tell how long a slice has been due.
        slices_per_run: most slices in one run.
        step: what runs are made of: slices, or days, which are made as a whole.
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
        yield Request(window, f"{window.start:%Y-%m-%dT%H:%MZ} {len(window)} {digest.hexdigest()[:16]}")


def _runs(starts: list[datetime], step: timedelta, longest: int, attempts: dict[datetime, int]) -> Iterator[list[datetime]]:
    """Contiguous units that were asked for equally often, from the newest backwards, in pieces of at most `longest`."""
    piece: list[datetime] = []
    for start in reversed(starts):
        if piece and (piece[0] - start != step or len(piece) == longest or attempts[piece[0]] != attempts[start]):
            yield piece
            piece = []
        piece.insert(0, start)
    if piece:
        yield piece


def _attempt(waited: timedelta) -> int:
    passed = sum(waited >= limit for limit in RETRY_AFTER)
    return passed + max(waited // DAY - 1, 0)
