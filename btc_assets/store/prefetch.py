"""Preparing the next item in a thread while the current one is used."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

_POLL_SECONDS = 0.1  # how often each side checks whether the other one stopped
_TURN_SECONDS = 0.0001


def take_short_turns() -> None:
    """Let the threads of this process take shorter turns in the interpreter than Python's 5 ms.

    Reading a file, a call of Arrow and sending a buffer each leave the interpreter for microseconds, and come back to a thread that
    keeps it for a whole turn. Beside other programs that use the processors, a run took half as long again.
    """
    sys.setswitchinterval(min(sys.getswitchinterval(), _TURN_SECONDS))


class Prefetch(Iterable[T]):
    """Runs an iterator in a thread, one item ahead of its consumer.

    Use it as a context manager: leaving it stops the thread, even in the middle of the iterator. An exception in the iterator is
    raised in the consumer, after the items before it.
    """

    _END = object()

    def __init__(self, items: Iterable[T]) -> None:
        self._items = iter(items)
        self._queue: queue.Queue[object] = queue.Queue(maxsize=1)
        self._stopped = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)

    def _run(self) -> None:
        try:
            for item in self._items:
                if not self._put(item):
                    break
                del item  # memory is bounded by what is in use
        except BaseException as error:
            self._error = error
        finally:
            close = getattr(self._items, "close", None)
            if close is not None:
                close()
            self._put(self._END)

    def _put(self, item: object) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=_POLL_SECONDS)
                return True
            except queue.Full:
                continue
        return False

    def __enter__(self) -> Prefetch[T]:
        take_short_turns()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def __iter__(self) -> Iterator[T]:
        while not self._stopped.is_set():
            try:
                item = self._queue.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
            if item is self._END:
                break
            yield item  # type: ignore[misc]  # the queue holds items and _END
            del item
        if self._error is not None:
            raise self._error
