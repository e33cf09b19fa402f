"""Several workers on one machine: Redis, Dagster's daemon and workers as real processes, which can be killed as a machine that loses power is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

import dagster as dg
import psycopg
import yaml

from btc_assets.domain.slices import KEY_FORMAT, SLICE, Window
from btc_assets.orchestration.deployment import DATABASE_POOL
from btc_assets.orchestration.home import prepare_dagster_home
from btc_assets.orchestration.lost_runs import WORKERS_TAG
from btc_assets.orchestration.partitions import partition_tags
from btc_assets.orchestration.workers import WorkersRunLauncher
from btc_assets_tests.support.dagster_private import (
    POOL_TAG_PREFIX,
    JobPythonOrigin,
    LaunchRunContext,
    ModuleCodePointer,
    PartitionBackfill,
    PartitionRangeSelector,
    PartitionsByAssetSelector,
    PartitionsSelector,
    RepositoryPythonOrigin,
)
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.waiting import PATIENCE_SECONDS, free_port, wait_for


def program(name: str) -> str:
    """A command of the environment that the tests run in."""
    return str(Path(sys.executable).with_name(name))


class Process:
    """A process and all that it starts, in a session of their own."""

    def __init__(self, command: list[str], log: Path) -> None:
        self.log, self._command = log, command
        with log.open("a") as output:
            self._process = subprocess.Popen(
                command, cwd=log.parent, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def has_printed(self, text: str) -> bool:
        """Whether its log contains a text; the test fails if the process has ended."""
        assert self.alive, f"{' '.join(self._command)} ended:\n{self.log.read_text()[-3000:]}"
        return text in self.log.read_text()

    def terminate(self) -> None:
        """Send SIGTERM to the process alone, as systemd does with `KillMode=mixed`."""
        self._process.terminate()

    def kill(self) -> None:
        """Kill the process and its children at once, as a power cut does."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(PATIENCE_SECONDS)


@contextmanager
def running_redis(directory: Path) -> Iterator[str]:
    """URL of a Redis that keeps nothing on disk."""
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    redis = Process(command, directory / "redis.log")
    try:
        wait_for(lambda: redis.has_printed("Ready to accept connections"), "Redis is up")
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        redis.kill()


@dataclass(frozen=True)
class ActiveRun:
    """A run that a worker executes, and the process of the worker that does so."""

    run_id: str
    pid: int


class Fleet:
    """The daemon and the workers of a store, as far as they are started."""

    def __init__(self, directory: Path, store: StoreUnderTest, instance: dg.DagsterInstance, stack: ExitStack) -> None:
        assert isinstance(instance.run_launcher, WorkersRunLauncher)
        self._directory, self._definitions, self._stack = directory, store.definitions, stack
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

    def read_run(self, run_id: str) -> dg.DagsterRun:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run

    def active_runs(self) -> dict[str, ActiveRun]:
        """The run that each worker reports as active, by the worker's name."""
        answers = self.launcher.celery.control.inspect(timeout=1).active() or {}
        tasks = {task["id"]: (node.split("@")[0], task["worker_pid"]) for node, active in answers.items() for task in active}
        runs = self.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
        return {tasks[task][0]: ActiveRun(run.run_id, tasks[task][1]) for run in runs if (task := run.tags.get(WORKERS_TAG)) in tasks}

    def launch(self, job_name: str, window: Window) -> str:
        """Hand a run to the workers, as the daemon does with one from the queue; returns its id."""
        job = self._definitions.resolve_job_def(job_name)
        repository = RepositoryPythonOrigin(sys.executable, ModuleCodePointer("btc_assets.definitions", "defs"))
        run = self.instance.create_run_for_job(
            job, tags=partition_tags(window), job_code_origin=JobPythonOrigin(job.name, repository), status=dg.DagsterRunStatus.STARTING
        )
        self.launcher.launch_run(LaunchRunContext(run, workspace=None))
        return run.run_id

    def request_backfill(self, assets: Iterable[dg.AssetKey], window: Window) -> str:
        """Request a backfill, as the assets page of the UI does; returns its id."""
        first, last = window.start.strftime(KEY_FORMAT), (window.end - SLICE).strftime(KEY_FORMAT)
        backfill = PartitionBackfill.from_partitions_by_assets(
            backfill_id=uuid.uuid4().hex[:8],
            asset_graph=self._definitions.resolve_asset_graph(),
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
        self.instance.add_backfill(backfill)
        return backfill.backfill_id

    def read_backfill(self, backfill: str) -> PartitionBackfill:
        assert self.daemon.alive, self.daemon.log.read_text()[-3000:]
        found = self.instance.get_backfill(backfill)
        assert found is not None
        return found


@contextmanager
def running_fleet(directory: Path, store: StoreUnderTest, *, retries: int = 2) -> Iterator[Fleet]:
    """A fleet of which nothing is started yet; run monitoring looks every second.

    Args:
        directory: for the logs.
        store: the settings of this process point at it.
        retries: how often a run whose worker was lost is started again.
    """
    home = prepare_dagster_home(store.settings)
    config = yaml.safe_load((home / "dagster.yaml").read_text())
    config["run_monitoring"]["poll_interval_seconds"] = 1
    config["run_retries"]["max_retries"] = retries
    (home / "dagster.yaml").write_text(yaml.safe_dump(config))
    with ExitStack() as stack:
        yield Fleet(directory, store, stack.enter_context(dg.DagsterInstance.get()), stack)


class WriterCount(Thread):
    """Counts the sessions that write to the store at once, and the runs in progress that may, for as long as the context is open.

    Attributes:
        samples: how often it has counted.
        most_writers: most sessions at once that had a transaction id, which only a session that writes gets.
        most_runs: most runs of the pool at once, from the moment that the daemon hands them out until they have ended or are found lost.
    """

    _COUNTS = """
    SELECT (SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND application_name = 'btc_assets' AND backend_xid IS NOT NULL),
           (SELECT count(*) FROM dagster.runs JOIN dagster.run_tags USING (run_id)
            WHERE status IN ('STARTING', 'STARTED', 'CANCELING') AND key = %s)
    """

    def __init__(self, dsn: str) -> None:
        super().__init__(daemon=True)
        self._dsn, self._ended = dsn, Event()
        self.samples, self.most_writers, self.most_runs = 0, 0, 0

    def run(self) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            while not self._ended.wait(0.02):
                writers, runs = connection.execute(self._COUNTS, [POOL_TAG_PREFIX + DATABASE_POOL]).fetchone() or (0, 0)
                self.samples += 1
                self.most_writers, self.most_runs = max(self.most_writers, writers), max(self.most_runs, runs)

    def __enter__(self) -> WriterCount:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join(PATIENCE_SECONDS)
