"""Spare processes: a run begins in one that is prepared, in a new one if there is none, and never in one of old code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from queue import Empty
from typing import Any

import psutil
import pytest

from btc_assets.orchestration import spare_processes
from btc_assets.orchestration.spare_processes import LateEvent, LateQueue, RunProcess, SpareProcesses
from btc_assets_tests.support.paths import PROJECT
from btc_assets_tests.support.waiting import PATIENCE_SECONDS, wait_for

PREPARED: list[str] = []  # of this process


def prepare() -> None:
    PREPARED.append("here")


def report(queue: Any, event: Any, word: str) -> None:
    """What stands for a run: tells where it is and how it was prepared, and waits to be told to end."""
    queue.put((os.getpid(), list(PREPARED), word, signal.getsignal(signal.SIGINT) is signal.default_int_handler))
    event.wait()


class Pool:
    """Spare processes, and the runs that were started in them."""

    def __init__(self, spares: SpareProcesses) -> None:
        self.spares, self.runs, self.events = spares, list[RunProcess](), list[LateEvent]()

    def start(self, word: str = "word") -> tuple[Any, ...]:
        queue, event = self.spares.Queue(), self.spares.Event()
        run = self.spares.Process(target=report, args=[queue, event, word])
        run.start()
        self.runs.append(run)
        self.events.append(event)
        answer: tuple[Any, ...] = wait_for_answer(run, queue)
        return answer

    def end(self) -> None:
        for event, run in zip(self.events, self.runs, strict=True):
            event.set()
            wait_for(partial(has_ended, run), "the run ends")
            assert run.exitcode == 0

    def wait_until_ready(self, count: int = 1) -> list[int]:
        wait_for(lambda: len(self.spares.ready) == count, f"{count} processes are ready")
        return self.spares.ready


def has_ended(run: RunProcess) -> bool:
    return not run.is_alive()


def wait_for_answer(run: RunProcess, queue: LateQueue) -> Any:
    answers: list[Any] = []

    def answered() -> bool:
        try:
            answers.append(queue.get_nowait())
        except Empty:
            assert run.is_alive()
        return bool(answers)

    wait_for(answered, "the process answers")
    return answers[0]


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Pool]]:
    monkeypatch.setattr(spare_processes, "_REPLACE_AFTER", 0.0)
    made: list[Pool] = []

    def make(count: int = 1, stamp: Callable[[], object] = lambda: None, prepare: Callable[[], object] = prepare) -> Pool:
        made.append(Pool(SpareProcesses(count, prepare, stamp)))
        return made[-1]

    yield make
    for pool in made:
        pool.end()
        pool.spares.stop()


def test_a_run_begins_in_a_process_that_waited_prepared_and_another_takes_its_place(pools: Callable[..., Pool]) -> None:
    pool = pools()
    (spare,) = pool.wait_until_ready()
    assert pool.start("first") == (spare, ["here"], "first", True)
    assert pool.runs[0].pid == spare and pool.runs[0].is_alive() and pool.runs[0].exitcode is None
    (other,) = pool.wait_until_ready()
    assert other != spare
    assert pool.start("second")[0] == other


def test_without_a_process_that_is_ready_a_run_has_a_new_one(pools: Callable[..., Pool]) -> None:
    pool = pools(count=0)
    pid, prepared, word, _ = pool.start("alone")
    assert (pid, prepared, word) == (pool.runs[0].pid, [], "alone")


def test_a_process_of_old_code_is_ended_and_not_used(pools: Callable[..., Pool]) -> None:
    code = ["old"]
    pool = pools(stamp=lambda: code[0])
    (old,) = pool.wait_until_ready()
    code[0] = "new"
    pid, prepared, *_ = pool.start()
    assert pid != old and prepared == []
    wait_for(lambda: not psutil.pid_exists(old), "the old process ends")
    (new,) = pool.wait_until_ready()
    assert pool.start()[0] == new


def test_a_spare_process_that_is_killed_costs_no_run(pools: Callable[..., Pool]) -> None:
    pool = pools()
    (spare,) = pool.wait_until_ready()
    os.kill(spare, signal.SIGKILL)
    pid, _, word, _ = pool.start("all the same")
    assert pid != spare and word == "all the same"


def fail_to_prepare() -> None:
    os._exit(3)


def test_processes_that_fail_to_prepare_are_not_started_again_at_once(pools: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[spare_processes._Spare] = []
    spare = spare_processes._Spare

    def start(*args: Any) -> spare_processes._Spare:
        started.append(spare(*args))
        return started[-1]

    monkeypatch.setattr(spare_processes, "_Spare", start)
    pool = pools(prepare=fail_to_prepare)
    wait_for(lambda: pool.spares._not_before > time.monotonic(), "the pool waits")
    assert len(started) == 1 and pool.spares.ready == []
    assert pool.start("still")[2] == "still"


SERVER = """
import sys, time
from btc_assets_tests.orchestration.test_spare_processes import prepare
from btc_assets.orchestration import spare_processes
spare_processes._REPLACE_AFTER = 0.0
if __name__ == "__main__":
    spares = spare_processes.SpareProcesses(2, prepare, lambda: None)
    while len(spares.ready) < 2:
        time.sleep(0.1)
    print(*spares.ready, flush=True)
    time.sleep(float(sys.argv[1]))
"""


@pytest.mark.parametrize("how", ["killed", "by itself", "by Ctrl-C"])
def test_spare_processes_end_with_their_server(how: str, tmp_path: Path) -> None:
    script = tmp_path / "server.py"
    script.write_text(SERVER)
    command = [sys.executable, str(script), "0" if how == "by itself" else str(PATIENCE_SECONDS)]
    with subprocess.Popen(
        command,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as server:
        assert server.stdout is not None and server.stderr is not None
        spares = [int(word) for word in server.stdout.readline().split()]
        assert len(spares) == 2
        if how == "killed":
            server.kill()
        elif how == "by Ctrl-C":
            os.killpg(server.pid, signal.SIGINT)
        server.wait(PATIENCE_SECONDS)
        wait_for(lambda: not any(map(psutil.pid_exists, spares)), "they end")
        assert how == "by Ctrl-C" or "Traceback" not in server.stderr.read()
