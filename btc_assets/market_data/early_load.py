"""Early loading: the start of a window is loaded while the rest of it is being registered.

Registering keeps this process busy and the server idle, and loading does the opposite. So a run that does both begins to load slices once
no folder near them is unread. What it had no time for, and what changed since, is loaded when the load is iterated again. Nothing
depends on it: an early load that fails, or that is killed, leaves less done, and whatever is wrong is met and told again by that load.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from threading import Condition

import psycopg

from btc_assets.domain.printable import printable
from btc_assets.domain.slices import Window, floor_day, floor_slice
from btc_assets.domain.ticks import TABLE
from btc_assets.market_data.loading import TickLoad
from btc_assets.store.replace import Replacement, Replacements
from btc_assets.store.tables import Target
from btc_assets.store.writers import replace_all

log = logging.getLogger(__name__)


@contextmanager
def loading_early(load: TickLoad, margin: timedelta, writers: int = 1) -> Iterator[Callable[[datetime], None]]:
    """Load slices of `load` while its window is being registered in the block; no thread is left when the block ends.

    Args:
        load: to be iterated again after the block, for the rest.
        margin: how far an object's folder may lie from the event times in it.
        writers: sessions that write at once, at most.

    Yields:
        What must be called with the time before which no folder is unread; see `RegisterOptions.on_settled`.
    """
    parts = _SettledParts(load)
    sessions: list[psycopg.Connection] = []
    with ThreadPoolExecutor(1, thread_name_prefix="early-load") as pool:
        writing: list[Future[None]] = []

        def on_settled(before: datetime) -> None:
            if parts.settle(before - margin) and not writing:
                writing.append(pool.submit(_write, parts, sessions, writers))

        try:
            yield on_settled
        except BaseException:  # nobody waits for what may be waiting for a lock
            parts.end()
            for session in sessions:
                with suppress(psycopg.Error):
                    session.cancel_safe()
            raise
        finally:
            parts.end()


def _write(parts: _SettledParts, sessions: list[psycopg.Connection], writers: int) -> None:
    try:
        with parts.load.store.connect() as connection:
            sessions.append(connection)
            replace_all(connection, Target.of(connection, TABLE), parts, writers=writers, store=parts.load.store)
    except Exception as error:  # the load that is iterated for the rest meets it as well, and tells it in its own place
        log.info("Loading %s early: %s", parts.load.window, printable(str(error)))
    finally:
        parts.end()


class _SettledParts(Replacements):
    """The parts of a load that are settled, as they become settled; each of the size that it has in the end."""

    def __init__(self, load: TickLoad) -> None:
        self.load = load
        self._until = load.window.start
        self._ended = False
        self._changed = Condition()

    def settle(self, until: datetime) -> bool:
        """Hand out parts up to a time; returns whether there can be any while others are not settled yet."""
        with self._changed:
            self._until = max(self._until, min(floor_slice(until), self.load.window.end))
            self._changed.notify_all()
            return self.load.window.start < self._until < self.load.window.end

    def end(self) -> None:
        """Hand out no more."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def committed(self, replacement: Replacement) -> None:
        self.load.committed(replacement)

    def __iter__(self) -> Iterator[Replacement]:
        window = self.load.window
        start = seen = window.start
        with self.load:
            while seen < window.end and (until := self._wait_beyond(seen)) is not None:
                seen = until
                for part in self.load.cut(Window(start, until)):
                    if part.end == until and until not in (window.end, floor_day(until)):
                        break  # further slices will belong to it
                    if self._ended:
                        return
                    yield from self.load.parts(part)
                    start = part.end

    def _wait_beyond(self, time: datetime) -> datetime | None:
        """Wait until more is settled; returns up to what time, or None if that is all."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._until > time)
            return None if self._ended else self._until
