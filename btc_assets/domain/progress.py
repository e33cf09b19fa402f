"""Progress of long work, for whoever watches: the CLI draws a bar, a Dagster run logs, a test does nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Listener = Callable[[str, int, int], None]  # stage, done, total

_listener: Listener | None = None


def report(stage: str, done: int, total: int) -> None:
    """Say that `done` of `total` units of a stage are done."""
    if _listener is not None:
        _listener(stage, done, total)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Send what is reported in this process to `listener`."""
    global _listener
    before, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = before
