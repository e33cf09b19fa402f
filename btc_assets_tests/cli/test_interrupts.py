"""Ctrl-C ends a command, also while the signal is held back or other threads are at work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from btc_assets_tests.support.waiting import PATIENCE_SECONDS, wait_for

STUCK = {
    "the signal is held back": "signal.signal(signal.SIGINT, lambda *_: None)",
    "a thread reads on": "threading.Thread(target=lambda: time.sleep(3600)).start()",
}


@pytest.mark.parametrize("kind", STUCK)
def test_a_command_that_does_not_end_by_itself_is_ended(kind: str) -> None:
    program = (
        "import signal, threading, time\nfrom btc_assets.cli.interrupts import end_soon_after_interrupt\n"
        f"end_soon_after_interrupt()\n{STUCK[kind]}\nprint('ready', flush=True)\nwhile True: time.sleep(0.1)"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    assert "Stopped. What was committed stays" in told


def test_a_load_that_is_interrupted_within_a_step_says_so_in_one_sentence_and_leaves_no_process(tmp_path: Path) -> None:
    trades = tmp_path / "trades.jsonl"
    trades.write_text("".join(f'{{"T":{1_795_000_000_000 + i * 100},"t":{i},"p":"9.5","q":"1","m":true}}\n' for i in range(5_000)))
    environment = os.environ | {"BTC_ASSETS_HOME": str(tmp_path / "home"), "STRANGE": str(tmp_path)}
    command = [sys.executable, "-m", "btc_assets.cli", "demo", "--trades", str(trades)]
    process = subprocess.Popen(  # in a session of its own, as in a terminal: Ctrl-C reaches the processes that it starts as well
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    wait_for(lambda: any("watch_orphans" in _command_line(child) for child in psutil.Process(process.pid).children()), "a step runs")
    os.killpg(process.pid, signal.SIGINT)
    told, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    assert "Stopped. What was committed stays" in told
    assert "Traceback" not in told
    assert "DagsterExecutionInterruptedError" not in told
    wait_for(lambda: not [each for each in psutil.process_iter() if _environment(each).get("STRANGE") == str(tmp_path)])


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}


def test_an_interrupt_while_the_commands_are_imported_shows_no_traceback() -> None:
    program = (
        "import os, signal, sys\nclass Interrupting:\n    def find_spec(self, name, *_):\n"
        "        if name == 'btc_assets.cli.main': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupting())\nimport btc_assets.cli"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert (ended.returncode, ended.stderr) == (-signal.SIGINT, "")
