"""Child processes that never outlive the code that started them, whatever ends it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import IO

from btc_assets.domain.errors import UserError

# PostgreSQL's fast shutdown, its immediate shutdown, and the end of any process; with the seconds that each may take.
_ENDINGS = ((signal.SIGINT, 20), (signal.SIGQUIT, 5), (signal.SIGKILL, 5))


@contextmanager
def child_process(command: list[str], stdout: int | IO[bytes], stderr: int | IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own, which Ctrl-C at the terminal does not reach; it is ended with the block.

    Raises:
        UserError: the program cannot be started.
    """
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, start_new_session=True)
    except OSError as error:
        raise UserError(f"{command[0]} cannot be started ({error.strerror}): install it, or correct BTC_ASSETS_PGBACKREST.") from None
    try:
        yield process
    finally:
        for ending, seconds in _ENDINGS:
            with suppress(subprocess.TimeoutExpired, ProcessLookupError):
                if process.poll() is None:
                    os.killpg(process.pid, ending)
                    process.wait(seconds)


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Inside the block, SIGTERM, SIGHUP and SIGINT raise `SystemExit`, so that everything is cleaned up."""

    def stop(number: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)  # a second signal must not interrupt the cleanup
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
