"""Ctrl-C ends a command within two seconds, whatever it is doing; an export within twenty, because it may be uploading.

Python turns the signal into a KeyboardInterrupt in the main thread. That is too late while the thread waits in a library, and never while
Dagster holds the signal back; and the interpreter waits for every thread that reads an object. Each transaction of the store is whole or
not there, so a process may end at any moment; the spool's files have no name.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from threading import Event

import psutil

GRACE_SECONDS = 1.2  # for an orderly end
UPLOAD_GRACE_SECONDS = 20.0  # for one that takes back from S3 what is on its way there
EXIT_STATUS = 130  # what shells use for a command that SIGINT ended
STOPPED = "Stopped. What was committed stays; run the command again for the rest."


def end_soon_after_interrupt(grace: float = GRACE_SECONDS) -> None:
    """From now on, end the process a moment after its first SIGINT unless it ended by itself.

    Args:
        grace: seconds for an orderly end.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)  # also tells of signals whose handler somebody replaced
    terminal = os.dup(2)  # because steps have theirs redirected
    interrupted = Event()
    threading.Thread(target=_watch, args=(reading, terminal, interrupted, grace), name="interrupts", daemon=True).start()
    atexit.register(_skip_finalization, interrupted)  # the first that is registered runs last


def _watch(reading: int, terminal: int, interrupted: Event, grace: float) -> None:
    while received := os.read(reading, 1):
        if received[0] == signal.SIGINT:
            interrupted.set()
            logging.disable()  # what breaks off now is told by one sentence
            time.sleep(grace)
            _end_children()
            os.write(terminal, f"\n{STOPPED}\n".encode())
            os._exit(EXIT_STATUS)


def _end_children() -> None:
    """End the processes that this one started, and the embedded server if nobody else uses it."""
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.terminate()
    if embedded := sys.modules.get("btc_assets.store.embedded"):
        embedded.stop_without_waiting()


def _skip_finalization(interrupted: Event) -> None:
    """Leave the process without freeing its memory and waiting for its libraries' threads, which may take a second."""
    if interrupted.is_set():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(EXIT_STATUS)
