"""`btc-assets dev` as a process that is killed with its runs, and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from btc_assets.domain.slices import KEY_FORMAT, SLICE, Window, floor_day
from btc_assets.simulation.generate_day import generate_day
from btc_assets_tests.support.paths import PROJECT
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.waiting import PATIENCE_SECONDS, free_port, wait_for

pytestmark = pytest.mark.slow

DAY = floor_day(datetime.now(UTC)) - timedelta(days=2)
HALF_HOUR = Window(DAY + timedelta(hours=8), DAY + timedelta(hours=8, minutes=30))
LAUNCH = """
mutation ($selector: JobOrPipelineSelector!, $tags: [ExecutionTag!]) {
  launchRun(executionParams: {selector: $selector, executionMetadata: {tags: $tags}}) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  }
}
"""

RELOAD = 'mutation { reloadRepositoryLocation(repositoryLocationName: "btc_assets") { __typename } }'

Kill = Callable[[subprocess.Popen[bytes]], None]


class Dev:
    """Processes `btc-assets dev`, each in a group of its own; all groups are killed at the end."""

    def __init__(self, store: StoreUnderTest) -> None:
        self.port, self.log = free_port(), store.home.parent / "dev.log"
        self.processes: list[subprocess.Popen[bytes]] = []
        self._environment = os.environ | {"PYTHONPATH": str(PROJECT), "BTC_ASSETS_PARTITIONS_START": f"{DAY:{KEY_FORMAT}}"}

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "btc_assets.cli", "dev", "--port", str(self.port)]
        with self.log.open("a") as output:
            process = subprocess.Popen(command, env=self._environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        self.processes.append(process)
        return process

    def wait_until_it_serves(self, process: subprocess.Popen[bytes]) -> None:
        def serves() -> bool:
            assert process.poll() is None, self.log.read_text()[-3000:]
            try:
                answered = self.ask("{ workspaceOrError { ... on Workspace { locationEntries { loadStatus } } } }")
            except OSError:
                return False
            return "LOADED" in json.dumps(answered)

        wait_for(serves, f"the webserver answers: {self.log}", interval=0.5)

    def ask(self, query: str, **variables: object) -> dict[str, object]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(self.address("/graphql"), body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
            found: dict[str, object] = json.load(answer)
            return found

    def address(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def launch(self, job: str, window: Window | None = None) -> str:
        selector = {"repositoryName": "__repository__", "repositoryLocationName": "btc_assets", "jobName": job}
        ends = {"start": window.start, "end": window.end - SLICE} if window else {}
        tags = [{"key": f"dagster/asset_partition_range_{end}", "value": f"{time:{KEY_FORMAT}}"} for end, time in ends.items()]
        answered = self.ask(LAUNCH, selector=selector, tags=tags)
        assert "LaunchRunSuccess" in json.dumps(answered), answered
        return str(answered["data"]["launchRun"]["run"]["runId"])  # type: ignore[index]


@pytest.fixture
def dev(store: StoreUnderTest) -> Iterator[Dev]:
    store.land(*(hour for number, hour in enumerate(generate_day(DAY, 240_000)) if number == 8))
    services = Dev(store)
    yield services
    for process in services.processes:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        process.wait(PATIENCE_SECONDS)


def cut_power(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)


def kill_the_command_alone(process: subprocess.Popen[bytes]) -> None:
    process.kill()


@pytest.mark.parametrize("kill", [cut_power, kill_the_command_alone])
def test_runs_that_were_killed_with_dev_are_started_again_with_it(store: StoreUnderTest, dev: Dev, kill: Kill) -> None:
    first = dev.start()
    dev.wait_until_it_serves(first)
    with psycopg.connect(store.dsn) as holder:
        holder.execute("LOCK TABLE market_data.btc_ticks IN ACCESS EXCLUSIVE MODE")  # so the run is in the middle when it is killed
        run = dev.launch("ingest", HALF_HOUR)
        waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'market_data.btc_ticks'::regclass AND NOT granted"
        wait_for(lambda: store.rows(waiting) != [(0,)], "the run waits for the table")
        kill(first)
        first.wait(PATIENCE_SECONDS)
        status = "SELECT status FROM dagster.runs WHERE run_id = %s"
        assert store.rows(status, run) == [("STARTED",)]

        second = dev.start()
        wait_for(lambda: store.rows(status, run) == [("FAILURE",)], f"the run is ended: {dev.log}")
        dev.wait_until_it_serves(second)
    slices = "SELECT count(DISTINCT bucket_5m) FROM market_data.btc_ticks WHERE bucket_5m >= %s AND bucket_5m < %s"
    wait_for(lambda: store.rows(slices, HALF_HOUR.start, HALF_HOUR.end) == [(6,)], f"the daemon starts the run again: {dev.log}")


def test_runs_begin_in_processes_that_were_ready_and_none_has_old_code(store: StoreUnderTest, dev: Dev) -> None:
    process = dev.start()
    dev.wait_until_it_serves(process)
    started = "SELECT substring(event FROM 'pid: ([0-9]+)')::int FROM dagster.event_logs WHERE run_id = %s AND event LIKE '%%Started process for run%%'"

    def begins_in_a_process_that_was_there() -> bool:
        there = _processes_of_group(process.pid)
        run = dev.launch("maintain")
        wait_for(lambda: store.rows("SELECT status FROM dagster.runs WHERE run_id = %s", run) == [("SUCCESS",)], f"it ends: {dev.log}")
        return store.rows(started, run)[0][0] in there

    wait_for(begins_in_a_process_that_was_there, "a run begins in a process that was ready", interval=1)
    wait_for(lambda: _spawned(process.pid), "another process takes its place")
    old = _spawned(process.pid)
    assert "WorkspaceLocationEntry" in json.dumps(dev.ask(RELOAD))
    wait_for(lambda: not old & _spawned(process.pid), "processes of the old code end")
    wait_for(lambda: _spawned(process.pid), "one of the new code waits")


def test_dev_answers_its_own_pages_only_runs_once_and_ends_with_all_its_processes(store: StoreUnderTest, dev: Dev) -> None:
    process = dev.start()
    dev.wait_until_it_serves(process)

    query = "/graphql?query=mutation%7BlaunchRun(executionParams%3A%7B%7D)%7B__typename%7D%7D"
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(dev.address(query), timeout=PATIENCE_SECONDS)
    foreign = urllib.request.Request(dev.address("/graphql"), b"{}", {"Content-Type": "application/json", "Origin": "http://evil.example"})
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(foreign, timeout=PATIENCE_SECONDS)
    assert store.rows("SELECT count(*) FROM dagster.runs") == [(0,)]

    again = dev.start()
    assert again.wait(PATIENCE_SECONDS) == 1
    assert "runs on" in dev.log.read_text() and "already: use its UI, or stop it first." in dev.log.read_text()

    children = _processes_of_group(process.pid)
    assert len(children) >= 4  # itself, code location, daemon, webserver
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)  # at once, as an impatient person does
    assert process.wait(PATIENCE_SECONDS) == 0
    wait_for(lambda: not _processes_of_group(process.pid), "all its processes end")


def _processes_of_group(group: int) -> list[int]:
    return [pid for path in Path("/proc").glob("[0-9]*") if _is_of_group(pid := int(path.name), group)]


def _is_of_group(pid: int, group: int) -> bool:
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return bool(fields) and int(fields[2]) == group and fields[0] != b"Z"


def _spawned(group: int) -> set[int]:
    """The processes of a group that were spawned by another one, as those that wait for a run."""
    return {pid for pid in _processes_of_group(group) if b"spawn_main" in _read(pid, "cmdline")}


def _read(pid: int, name: str) -> bytes:
    """A file that tells of a process; empty if the process has ended, also a moment ago."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""
