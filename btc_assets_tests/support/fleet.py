"""Several workers on one machine: Redis, Dagster's daemon and workers as real processes, which can be killed as with their machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

import dagster as dg
import psycopg
import yaml
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.definitions.selector import PartitionRangeSelector, PartitionsByAssetSelector, PartitionsSelector
from dagster._core.execution.backfill import PartitionBackfill
from dagster._core.launcher import LaunchRunContext
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin

from btc_assets.definitions import defs
from btc_assets.domain.slices import KEY_FORMAT, SLICE, Window
from btc_assets.orchestration.home import prepare_dagster_home
from btc_assets.orchestration.lost_runs import WORKERS_TAG
from btc_assets.orchestration.partitions import partition_tags
from btc_assets.orchestration.workers import WorkersRunLauncher


def program(name: str) -> str:
    """A command of the environment that the tests run in."""
    return str(Path(sys.executable).with_name(name))


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_for(what: str, condition: Callable[[], object], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.1)


class Process:
    """A process and all that it starts, in a session of their own."""

    def __init__(self, command: list[str], log: Path) -> None:
        self.log = log
        with log.open("a") as output:
            self._process = subprocess.Popen(
                command, cwd=log.parent, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def said(self, text: str) -> bool:
        assert self.alive, f"{self._process.args} ended:\n{self.log.read_text()[-3000:]}"
        return text in self.log.read_text()

    def tell_to_stop(self) -> None:
        """As systemd does, with `KillMode=mixed`."""
        self._process.terminate()

    def kill(self) -> None:
        """Nobody is told, as where the machine loses its power."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)


@contextmanager
def running_redis(directory: Path) -> Iterator[str]:
    """URL of a Redis that keeps nothing on disk."""
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    redis = Process(command, directory / "redis.log")
    try:
        wait_for("Redis is up", lambda: redis.said("Ready to accept connections"), 10)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        redis.kill()


@dataclass(frozen=True)
class Carried:
    """A run in a worker's hands, and the process of the worker that carries it."""

    run_id: str
    pid: int


class Fleet:
    """The daemon and its workers, on the store that this process's settings name, as far as they are started."""

    def __init__(self, directory: Path, instance: dg.DagsterInstance, stack: ExitStack) -> None:
        assert isinstance(instance.run_launcher, WorkersRunLauncher)
        self._directory, self._stack = directory, stack
        self.instance, self.launcher = instance, instance.run_launcher
        self.workers: dict[str, Process] = {}

    def start_daemon(self) -> None:
        self.daemon = self._start([program("dagster-daemon"), "run", "-m", "btc_assets.definitions"], "daemon")

    def start_worker(self, name: str) -> None:
        self.workers[name] = self._start([sys.executable, "-m", "btc_assets.cli", "worker", "--name", name], name)

    def _start(self, command: list[str], name: str) -> Process:
        process = Process(command, self._directory / f"{name}.log")
        self._stack.callback(process.kill)
        return process

    def run(self, run_id: str) -> dg.DagsterRun:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run

    def carried(self) -> dict[str, Carried]:
        """What each worker says to have in hand, by its name."""
        answers = self.launcher.celery.control.inspect(timeout=1).active() or {}
        tasks = {task["id"]: (node.split("@")[0], task["worker_pid"]) for node, held in answers.items() for task in held}
        runs = self.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
        return {tasks[task][0]: Carried(run.run_id, tasks[task][1]) for run in runs if (task := run.tags.get(WORKERS_TAG)) in tasks}

    def launch(self, job: dg.JobDefinition, window: Window) -> str:
        """Hand a run to the workers, as the daemon does with one from the queue; returns its id."""
        repository = RepositoryPythonOrigin(sys.executable, ModuleCodePointer("btc_assets.definitions", "defs"))
        run = self.instance.create_run_for_job(
            job, tags=partition_tags(window), job_code_origin=JobPythonOrigin(job.name, repository), status=dg.DagsterRunStatus.STARTING
        )
        self.launcher.launch_run(LaunchRunContext(run, workspace=None))
        return run.run_id

    def backfill(self, assets: Iterable[dg.AssetKey], window: Window) -> str:
        """Ask for a backfill, as the page of assets does; returns its id."""
        first, last = window.start.strftime(KEY_FORMAT), (window.end - SLICE).strftime(KEY_FORMAT)
        asked = PartitionBackfill.from_partitions_by_assets(
            backfill_id=uuid.uuid4().hex[:8],
            asset_graph=defs.resolve_asset_graph(),
            backfill_timestamp=time.time(),
            tags={},
            dynamic_partitions_store=self.instance,
            partitions_by_assets=[
                PartitionsByAssetSelector(
                    asset_key=key, partitions=PartitionsSelector(ranges=[PartitionRangeSelector(start=first, end=last)])
                )
                for key in assets
            ],
            title=None,
            description=None,
            run_config=None,
        )
        self.instance.add_backfill(asked)
        return asked.backfill_id

    def state(self, backfill: str) -> PartitionBackfill:
        assert self.daemon.alive, self.daemon.log.read_text()[-3000:]
        found = self.instance.get_backfill(backfill)
        assert found is not None
        return found


@contextmanager
def running_fleet(directory: Path, *, retries: int = 2) -> Iterator[Fleet]:
    """A fleet, of which nothing is started yet; what monitors runs will look every second.

    Args:
        directory: for the logs.
        retries: how often a run whose worker was lost is started again.
    """
    home = prepare_dagster_home()
    config = yaml.safe_load((home / "dagster.yaml").read_text())
    config["run_monitoring"]["poll_interval_seconds"] = 1
    config["run_retries"]["max_retries"] = retries
    (home / "dagster.yaml").write_text(yaml.safe_dump(config))
    with ExitStack() as stack:
        yield Fleet(directory, stack.enter_context(dg.DagsterInstance.get()), stack)


class Writers(Thread):
    """Watches how many write to the store at once, and how many runs may; for as long as it is entered."""

    def __init__(self, dsn: str) -> None:
        super().__init__(daemon=True)
        self._dsn, self._over = dsn, Event()
        self.looks, self.most_writers, self.most_runs = 0, 0, 0

    # Who writes has a transaction id. Runs under way are counted without those that never write ticks and what is made of them.
    _LOOK = """
    SELECT (SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND application_name = 'btc_assets' AND backend_xid IS NOT NULL),
           (SELECT count(*) FROM dagster.runs
            WHERE status IN ('STARTING', 'STARTED', 'CANCELING') AND pipeline_name NOT IN ('maintain', 'reconcile', 'care_for_indexes'))
    """

    def run(self) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            while not self._over.wait(0.02):
                writers, runs = connection.execute(self._LOOK).fetchone() or (0, 0)
                self.looks += 1
                self.most_writers, self.most_runs = max(self.most_writers, writers), max(self.most_runs, runs)

    def __enter__(self) -> Writers:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join(10)
