"""Workers that carry Dagster's runs on other machines: Celery's, over Redis.

A run is one task, and its message is acknowledged as it begins: a run that is under way is in Dagster's storage, not in the queue, and
Dagster's monitoring is what ends and repeats a run whose worker was lost. (Celery's own way, to acknowledge late, would deliver it again
only after a visibility timeout longer than the longest run, and Dagster ignores what is delivered twice.)
"""

from __future__ import annotations

import os

from dagster import DagsterRun
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.make_app import make_app
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG
from dagster_celery.tasks import create_execute_job_task, create_resume_job_task

from btc_assets.domain.errors import UserError
from btc_assets.domain.settings import load_settings
from btc_assets.orchestration.dagster_private import CheckRunHealthResult, ConfigurableClassData, WorkerStatus

QUEUE = "dagster"
ANSWER_SECONDS = 10  # a worker's main process does nothing but answer, but its machine may be busy

_CELERY = {
    # Who is busy takes no further run: it would wait there while others are idle, and be lost with that worker.
    "worker_disable_prefetch": True,
    "worker_prefetch_multiplier": 1,
    # A process is replaced now and then, whatever it has not given back. It takes seconds to start, so not for every run.
    "worker_max_tasks_per_child": 50,
    "broker_connection_retry_on_startup": True,
    "worker_hijack_root_logger": False,
}


def broker() -> str:
    """URL of the Redis that runs are handed out by; it may hold a password.

    Raises:
        UserError: none is set.
    """
    if (url := load_settings().workers_broker) is None:
        raise UserError("There is no broker to take runs from: set BTC_ASSETS_WORKERS_BROKER, such as redis://host:6379/0.")
    return url.get_secret_value()


class WorkersRunLauncher(CeleryRunLauncher):
    """`dagster-celery`'s launcher, which also notices that a worker is gone, and ends runs for good."""

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(default_queue=QUEUE, broker=broker(), backend=broker(), config_source=_CELERY, inst_data=inst_data)

    def terminate(self, run_id: str) -> bool:
        """End a run of which a person has enough, at once: what it has not committed is rolled back, so it need not be asked.

        (A signal that it could catch would count as a failure of its step, which Dagster tries again.)
        """
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished or DAGSTER_CELERY_TASK_ID_TAG not in run.tags:
            return False
        self._instance.report_run_canceling(run)
        self.celery.AsyncResult(run.tags[DAGSTER_CELERY_TASK_ID_TAG]).revoke(terminate=True, signal="SIGKILL")
        self._instance.report_run_canceled(run)
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """As Celery has it, but what it takes for under way must be in some worker's hands.

        A worker that is killed with its machine cannot say so: its task stays `STARTED` until the result expires, a day later.
        (Celery notices where only the process of one run is killed. dagster-io/dagster#33493 would ask the worker as well.)
        """
        if DAGSTER_CELERY_TASK_ID_TAG not in run.tags:  # not yet, or a process of the code location, from before there were workers
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        health = super().check_run_worker_health(run)
        if health.status in (WorkerStatus.SUCCESS, WorkerStatus.FAILED) or self._carried(run.tags[DAGSTER_CELERY_TASK_ID_TAG]):
            return health if health.status != WorkerStatus.UNKNOWN else CheckRunHealthResult(WorkerStatus.RUNNING)
        health = super().check_run_worker_health(run)  # it may have come to its end meanwhile
        if health.status in (WorkerStatus.SUCCESS, WorkerStatus.FAILED):
            return health
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "The worker was lost: no worker reports this run.")

    def _carried(self, task: str) -> bool:
        started_by = self.celery.AsyncResult(task).info  # of a task under way, as no other has the key
        workers = [started_by["hostname"]] if isinstance(started_by, dict) and "hostname" in started_by else None
        answers = self.celery.control.inspect(workers, timeout=ANSWER_SECONDS).query_task([task]) or {}
        return any(task in held for held in answers.values())


def work(name: str, runs: int) -> None:
    """Carry runs until the process is told to end; then those under way are carried to their end first.

    Args:
        name: of this worker among those of this machine.
        runs: how many at once, each in a process of its own.

    Raises:
        UserError: this process's `dagster.yaml` hands no run to workers.
    """
    from dagster import DagsterInstance

    with DagsterInstance.get() as instance:
        if not isinstance(instance.run_launcher, WorkersRunLauncher):
            raise UserError(
                f"dagster.yaml in {os.environ['DAGSTER_HOME']} starts runs without workers: give it the section `run_launcher` of "
                "btc_assets/ops/dagster.yaml."
            )
    app = make_app({"broker": broker(), "backend": broker(), "config_source": _CELERY, "task_default_queue": QUEUE})
    create_execute_job_task(app)
    create_resume_job_task(app)
    app.worker_main(["worker", "--hostname", f"{name}@%h", "--concurrency", str(runs), "--loglevel", "INFO"])
