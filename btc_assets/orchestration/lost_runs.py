"""Runs whose processes ended with the code location that had started them."""

from __future__ import annotations

import dagster as dg

WORKERS_TAG = "dagster-celery/task_id"  # of runs that workers execute

_IN_PROGRESS = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def end_lost_runs(instance: dg.DagsterInstance) -> list[str]:
    """Report runs that are recorded as in progress as failed; returns their ids.

    Call it only while no code location is running, such as before it starts: its runs are its child processes, so they ended with it.
    Dagster itself would wait for them until `max_runtime_seconds`. Once they have failed, the daemon starts them again and sensors
    request their slices again. Runs on workers go on without a code location; run monitoring ends those that are lost.
    """
    lost = [run for run in instance.get_runs(dg.RunsFilter(statuses=_IN_PROGRESS)) if WORKERS_TAG not in run.tags]
    for run in lost:
        instance.report_run_failed(run, "The code location ended, and this run with it: it is started again.")
    return [run.run_id for run in lost]
