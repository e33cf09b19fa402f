"""The wall clocks of a play: what time it is, and waiting that can be interrupted."""

from __future__ import annotations

import os
import select
import signal
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """The wall clock of a play."""

    def now(self) -> datetime:
        """The present, in UTC."""

    def wait(self, seconds: float) -> bool:
        """Wait, but only until the play is told to end; returns whether it is."""


class WallClock:
    """The real clock. While it is entered, Ctrl-C and SIGTERM end the play; a second one ends the process."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def wait(self, seconds: float) -> bool:
        return bool(select.select([self._ended], [], [], seconds)[0])

    def __enter__(self) -> WallClock:
        # A pipe, because a signal handler must not set a threading.Event: it may interrupt the thread that holds its lock.
        self._ended, self._end = os.pipe()
        self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _handle(self, *_: object) -> None:
        os.write(self._end, b".")
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __exit__(self, *_: object) -> None:
        self._restore()
        os.close(self._ended)
        os.close(self._end)
