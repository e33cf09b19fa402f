"""Progress of long work: the command line draws a bar from it, a Dagster run ignores it."""

from __future__ import annotations

from collections.abc import Callable

Listener = Callable[[str, int, int], None]  # stage, units done, units in total


def ignore_progress(stage: str, done: int, total: int) -> None:
    """A listener that does nothing."""
