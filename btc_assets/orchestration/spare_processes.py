"""Processes that have imported everything and wait for a run, because starting one costs 2.5 to 7 seconds.

A spare process executes one run and ends, so that neither memory nor a crash goes from one run to the next. It is spawned, not forked
from a warm one: Arrow, obstore and gRPC have threads, which do not survive a fork, and of which another may hold a lock at that moment.
"""

from __future__ import annotations

import atexit
import gc
import multiprocessing
import queue
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.synchronize import Event
from typing import Any

_POLL_SECONDS = 1.0
_REPLACE_AFTER = 10.0  # seconds after a spare was taken, or when its run has ended: until then the run needs the processors itself
_FAILED_AFTER = 60.0  # seconds to wait if a spare ended before it was ready: as while the database is away
_ANSWER_SECONDS = 5.0  # in which a spare tells that it has heard; one that does not, as on a machine that swaps, is killed
_STOP_SECONDS = 5.0


class LateQueue:
    """The queue of whichever process is chosen to execute a run."""

    bound: multiprocessing.Queue[Any] | None = None

    def get_nowait(self) -> Any:
        """The next thing that the process has sent; raises `queue.Empty` if there is none."""
        if self.bound is None:
            raise queue.Empty
        return self.bound.get_nowait()

    def __reduce__(self) -> tuple[type[LateQueue], tuple[()]]:
        return LateQueue, ()


class LateEvent:
    """The event that tells the process chosen to execute a run to end it."""

    bound: Event | None = None

    def set(self) -> None:
        """Tell it."""
        assert self.bound is not None
        self.bound.set()

    def is_set(self) -> bool:
        """Whether it was told."""
        return self.bound is not None and self.bound.is_set()

    def __reduce__(self) -> tuple[type[LateEvent], tuple[()]]:
        return LateEvent, ()


class _Spare:
    """A process that waits for a call."""

    def __init__(self, context: SpawnContext, prepare: Callable[[], object], stamp: object) -> None:
        self.queue, self.event, self.stamp = context.Queue(), context.Event(), stamp
        self._calls, calls = context.Pipe()
        self.process = context.Process(target=_wait_for_call, args=(calls, self.queue, self.event, prepare))
        self.process.start()
        calls.close()  # the process has its own; once ours is closed too, as when this server is killed, it ends
        self._ready = False

    @property
    def ready(self) -> bool:
        """Whether it is prepared, and alive."""
        if not self._ready and self._calls.poll():
            with suppress(EOFError):
                self._ready = self._calls.recv()
        return self._ready and self.process.is_alive()

    def call(self, target: Callable[..., object], args: Sequence[object]) -> bool:
        """Have it call something; returns whether it does. If not, it has ended."""
        with suppress(OSError, EOFError):  # it was killed a moment ago
            self._calls.send((target, args))
            if self._calls.poll(_ANSWER_SECONDS) and self._calls.recv():
                self._calls.close()
                return True
        self.process.kill()
        self.process.join()
        return False

    def stop(self) -> None:
        """Have it end."""
        self._calls.close()
        self.process.terminate()


def _wait_for_call(calls: Connection, queue: multiprocessing.Queue[Any], event: Event, prepare: Callable[[], object]) -> None:
    handler = signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a process that waits, without a word
    prepare()
    gc.collect()
    gc.freeze()
    try:
        calls.send(True)
        target, args = calls.recv()
        calls.send(True)
    except (EOFError, OSError):
        return  # the server has ended
    calls.close()
    signal.signal(signal.SIGINT, handler)
    target(*_bind(args, queue, event))


def _bind(args: Sequence[object], queue: multiprocessing.Queue[Any], event: Event) -> list[object]:
    return [queue if isinstance(arg, LateQueue) else event if isinstance(arg, LateEvent) else arg for arg in args]


class RunProcess:
    """A process that executes a run: a spare one, or a new one if there is none.

    Args:
        spares: has the spare ones.
        target: to call there.
        args: of it.
    """

    def __init__(self, spares: SpareProcesses, target: Callable[..., object], args: Sequence[object]) -> None:
        self._spares, self._target, self._args = spares, target, args
        self._process: SpawnProcess | None = None

    def start(self) -> None:
        """Start it."""
        spare = self._spares.take(self._target, self._args)
        if spare is not None:
            self._bind(spare.queue, spare.event)
            self._process = spare.process
            return
        context = self._spares.context
        queue, event = context.Queue(), context.Event()
        self._bind(queue, event)
        self._process = context.Process(target=self._target, args=_bind(self._args, queue, event))
        self._process.start()
        self._spares.started(self._process)

    def _bind(self, queue: multiprocessing.Queue[Any], event: Event) -> None:
        for arg in self._args:
            if isinstance(arg, LateQueue):
                arg.bound = queue
            elif isinstance(arg, LateEvent):
                arg.bound = event

    def is_alive(self) -> bool:
        """Whether it is alive."""
        return self._process is not None and self._process.is_alive()

    @property
    def pid(self) -> int | None:
        """Its number."""
        return self._process.pid if self._process else None

    @property
    def exitcode(self) -> int | None:
        """How it ended."""
        return self._process.exitcode if self._process else None


class SpareProcesses:
    """Keeps spare processes ready. Takes the place of a multiprocessing context from which a server starts the processes of its runs.

    Args:
        count: how many to keep; 0 starts every process when it is needed.
        prepare: called in a spare process; what it imports and builds is there when a run begins. It is pickled.
        stamp: what a process depends on, such as the times of the files of its code. One that was started under another is not used.
    """

    def __init__(self, count: int, prepare: Callable[[], object], stamp: Callable[[], object]) -> None:
        self.context = multiprocessing.get_context("spawn")
        self._count, self._prepare, self._stamp = count, prepare, stamp
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._spares: list[_Spare] = []
        self._runs: list[SpawnProcess] = []
        self._not_before = time.monotonic() + _REPLACE_AFTER  # first, what started this server starts as well
        if count:
            threading.Thread(target=self._keep, name="spare-processes", daemon=True).start()
            atexit.register(self.stop)  # before multiprocessing waits for its children

    # ---- as a multiprocessing context

    def Queue(self) -> LateQueue:  # the name there
        """A queue for the process that is started next."""
        return LateQueue()

    def Event(self) -> LateEvent:  # the name there
        """An event for the process that is started next."""
        return LateEvent()

    def Process(self, *, target: Callable[..., object], args: Sequence[object]) -> RunProcess:  # the name there
        """A process that calls something once it is started."""
        return RunProcess(self, target, args)

    # ---- spare ones

    @property
    def ready(self) -> list[int]:
        """The numbers of the processes that wait."""
        with self._lock:
            return [spare.process.pid or 0 for spare in self._spares if spare.ready]

    def take(self, target: Callable[..., object], args: Sequence[object]) -> _Spare | None:
        """Have a spare process call something; returns None if none is ready."""
        stamp = self._stamp() if self._count else None
        with self._lock:
            for spare in list(self._spares):
                if spare.stamp == stamp and spare.ready:
                    self._spares.remove(spare)
                    if spare.call(target, args):
                        self._started(spare.process)
                        return spare
        return None

    def started(self, process: SpawnProcess) -> None:
        """Wait with new spare processes, because a run has begun."""
        with self._lock:
            self._started(process)

    def _started(self, process: SpawnProcess) -> None:
        self._runs.append(process)
        self._not_before = max(self._not_before, time.monotonic() + _REPLACE_AFTER)

    def stop(self) -> None:
        """End the processes that wait, and start no others."""
        self._stop.set()
        with self._lock:
            spares, self._spares = self._spares, []
        for spare in spares:
            spare.stop()
        for spare in spares:
            spare.process.join(_STOP_SECONDS)

    def _keep(self) -> None:
        while not self._stop.wait(_POLL_SECONDS):
            stamp = self._stamp()
            with self._lock:
                if self._stop.is_set():
                    return
                self._tidy(stamp)
                while len(self._spares) < self._count and time.monotonic() >= self._not_before:
                    self._spares.append(_Spare(self.context, self._prepare, stamp))

    def _tidy(self, stamp: object) -> None:
        multiprocessing.active_children()  # takes note of those that have ended
        had_runs = bool(self._runs)
        self._runs = [run for run in self._runs if run.is_alive()]
        if had_runs and not self._runs:
            self._not_before = 0.0
        for spare in list(self._spares):
            if not spare.process.is_alive() and not spare.ready:
                self._spares.remove(spare)
                self._not_before = time.monotonic() + _FAILED_AFTER
            elif spare.stamp != stamp:
                self._spares.remove(spare)
                spare.stop()
