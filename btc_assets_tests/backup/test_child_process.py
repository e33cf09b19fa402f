"""Child processes end with the block that started them."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from btc_assets.backup import child_process as module
from btc_assets.backup.child_process import child_process, exit_on_signals
from btc_assets.domain.errors import UserError


def test_a_process_ends_with_the_block_even_after_an_error() -> None:
    with (
        pytest.raises(RuntimeError),
        child_process(["sleep", "600"], subprocess.DEVNULL, subprocess.DEVNULL) as process,
    ):
        raise RuntimeError("the drill failed")
    assert process.returncode == -signal.SIGINT


def test_a_process_that_ignores_signals_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ENDINGS", ((signal.SIGINT, 0.1), (signal.SIGQUIT, 0.1), (signal.SIGKILL, 5)))
    command = ["sh", "-c", "trap '' INT QUIT; echo ready; while :; do sleep 1; done"]
    with child_process(command, subprocess.PIPE, subprocess.DEVNULL) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    assert process.returncode == -signal.SIGKILL


def test_a_program_that_does_not_exist_is_named() -> None:
    with (
        pytest.raises(UserError, match=r"^no-such-program cannot be started \(No such file or directory\): install it, or correct"),
        child_process(["no-such-program"], subprocess.DEVNULL, subprocess.DEVNULL),
    ):
        pass


def test_a_signal_ends_the_block_as_an_exit_and_the_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as raised, exit_on_signals():
        os.kill(os.getpid(), signal.SIGTERM)
    assert raised.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before
