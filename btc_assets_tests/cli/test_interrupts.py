"""Ctrl-C ends a command, also while the signal is held back or other threads are at work."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from btc_assets_tests.support.waiting import PATIENCE_SECONDS

STUCK = {
    "the signal is held back": "signal.signal(signal.SIGINT, lambda *_: None)\nwhile True: time.sleep(0.1)",
    "a thread reads on": "threading.Thread(target=lambda: time.sleep(3600)).start()\ntime.sleep(3600)",
}


@pytest.mark.parametrize("kind", STUCK)
def test_a_command_that_does_not_end_by_itself_is_ended(kind: str) -> None:
    program = (
        "import signal, threading, time\nfrom btc_assets.cli.interrupts import end_soon_after_interrupt\n"
        f"end_soon_after_interrupt()\nprint('ready', flush=True)\n{STUCK[kind]}"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    assert "Stopped. What was committed stays" in told
