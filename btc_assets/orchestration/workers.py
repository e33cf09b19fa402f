"""Workers that execute Dagster's runs on other machines: Celery's, over Redis.

A run is one task, and its message is acknowledged when it begins: a run in progress is recorded in Dagster's storage and not in the queue,
and Dagster's run monitoring ends and repeats a run whose worker was lost. (Celery's own way, to acknowledge late, would deliver the task
again only after a visibility timeout longer than the longest run, and Dagster ignores what is delivered twice.)
"""

from __future__ import annotations

import os

import dagster as dg
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.make_app import make_app
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG
from dagster_celery.tasks import create_execute_job_task, create_resume_job_task

from btc_assets.domain.errors import UserError
from btc_assets.domain.settings import Settings
from btc_assets.orchestration.dagster_private import CheckRunHealthResult, ConfigurableClassData, WorkerStatus

_QUEUE = "dagster"
_ANSWER_SECONDS = 10  # the main process of a worker only answers, but its machine may be busy
_ENDED = WorkerStatus.SUCCESS, WorkerStatus.FAILED

_CELERY = {
    # A busy worker takes no further run: it would wait there while other workers are idle, and be lost with that worker.
    "worker_disable_prefetch": True,
    "worker_prefetch_multiplier": 1,
    # Replace a process now and then, because of memory that it has not given back. It takes seconds to start, so not for every run.
    "worker_max_tasks_per_child": 50,
    "broker_connection_retry_on_startup": True,
    "worker_hijack_root_logger": False,
}


class WorkersRunLauncher(CeleryRunLauncher):
    """`dagster-celery`'s launcher, which also notices that a worker is gone, and terminates runs at once.

    Args:
        broker: URL of the Redis that hands out the runs.
        inst_data: what Dagster read in `dagster.yaml`.
    """

    def __init__(self, broker: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(default_queue=_QUEUE, broker=broker, backend=broker, config_source=_CELERY, inst_data=inst_data)

    def terminate(self, run_id: str) -> bool:
        """Kill a run that a person wants to end, without asking it: the server rolls back what it has not committed.

        (A signal that the run could handle would count as a failure of its step, which Dagster retries.)

        Returns:
            Whether there was such a run on a worker.
        """
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished or DAGSTER_CELERY_TASK_ID_TAG not in run.tags:
            return False
        self._instance.report_run_canceling(run)
        self.celery.AsyncResult(run.tags[DAGSTER_CELERY_TASK_ID_TAG]).revoke(terminate=True, signal="SIGKILL")
        self._instance.report_run_canceled(run)
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Health of a run according to Celery, except that a run in progress must be reported by some worker.

        A worker that is killed with its machine cannot report that: its task stays `STARTED` until the result expires, a day later.
        (Celery notices if only the process of one run is killed. dagster-io/dagster#33493 would ask the worker as well.)
        """
        if DAGSTER_CELERY_TASK_ID_TAG not in run.tags:  # not launched yet, or a child process from before there were workers
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        health = super().check_run_worker_health(run)
        if health.status in _ENDED:
            return health
        if self._is_reported(run.tags[DAGSTER_CELERY_TASK_ID_TAG]):
            return CheckRunHealthResult(WorkerStatus.RUNNING) if health.status == WorkerStatus.UNKNOWN else health
        health = super().check_run_worker_health(run)  # it may have ended meanwhile
        if health.status in _ENDED:
            return health
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "The worker was lost: no worker reports this run.")

    def _is_reported(self, task: str) -> bool:
        """Whether a worker reports that it executes a task."""
        info = self.celery.AsyncResult(task).info  # of a task in progress: who executes it
        workers = [info["hostname"]] if isinstance(info, dict) and "hostname" in info else None
        answers = self.celery.control.inspect(workers, timeout=_ANSWER_SECONDS).query_task([task]) or {}
        return any(task in reported for reported in answers.values())


def work(settings: Settings, name: str, runs: int) -> None:
    """Execute runs until the process is told to stop; runs in progress are finished first.

    Args:
        settings: name the broker.
        name: of this worker, different from those of other workers on this machine.
        runs: how many to execute at once, each in a process of its own.

    Raises:
        UserError: the settings name no broker, or the `dagster.yaml` of this process hands no runs to workers.
    """
    if settings.workers_broker is None:
        raise UserError("There is no broker to take runs from: set BTC_ASSETS_WORKERS_BROKER, such as redis://host:6379/0.")
    broker = settings.workers_broker.get_secret_value()  # it may hold a password
    with dg.DagsterInstance.get() as instance:
        if not isinstance(instance.run_launcher, WorkersRunLauncher):
            raise UserError(
                f"dagster.yaml in {os.environ['DAGSTER_HOME']} starts runs without workers: give it the section `run_launcher` of "
                "btc_assets/orchestration/dagster.yaml."
            )
    app = make_app({"broker": broker, "backend": broker, "config_source": _CELERY, "task_default_queue": _QUEUE})
    create_execute_job_task(app)
    create_resume_job_task(app)
    app.worker_main(["worker", "--hostname", f"{name}@%h", "--concurrency", str(runs), "--loglevel", "INFO"])
