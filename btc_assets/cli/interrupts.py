"""Ctrl-C ends a command within two seconds, whatever it is doing.

Python turns the signal into a KeyboardInterrupt in the main thread. That is too late while the thread waits in a library, and never while
Dagster holds the signal back; and the interpreter waits for every thread that reads an object. Each transaction of the store is whole or
not there, so a process may end at any moment; the spool's files have no name.
"""

from __future__ import annotations

import os
import signal
import threading
import time

GRACE_SECONDS = 1.5  # for an orderly end
EXIT_STATUS = 130  # what shells use for a command that SIGINT ended


def end_soon_after_interrupt() -> None:
    """From now on, end the process a moment after its first SIGINT unless it ended by itself."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)  # also tells of signals whose handler somebody replaced
    threading.Thread(target=_watch, args=(reading,), name="interrupts", daemon=True).start()


def _watch(reading: int) -> None:
    while received := os.read(reading, 1):
        if received[0] == signal.SIGINT:
            time.sleep(GRACE_SECONDS)
            os.write(2, b"\nStopped. What was committed stays; run the command again for the rest.\n")
            os._exit(EXIT_STATUS)
