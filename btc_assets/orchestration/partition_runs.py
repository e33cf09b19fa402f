"""Keys of partitions, joined to runs of contiguous ones."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta


def contiguous_runs(keys: Sequence[str], first: datetime, last: datetime, length: timedelta) -> list[tuple[datetime, datetime]]:
    """The half-open windows that contiguous partitions cover, ascending.

    Args:
        keys: in ascending order, each the start of a partition as ISO 8601 has it; those of no partition are left out.
        first: start of the first partition.
        last: start of the last partition.
        length: of a partition.
    """
    runs: list[tuple[datetime, datetime]] = []
    for key in keys:
        try:
            start = datetime.fromisoformat(key)
        except ValueError:
            continue
        start = start if start.tzinfo else start.replace(tzinfo=UTC)
        if not first <= start <= last or (start - first) % length:
            continue
        if runs and runs[-1][1] == start:
            runs[-1] = runs[-1][0], start + length
        else:
            runs.append((start, start + length))
    return runs
