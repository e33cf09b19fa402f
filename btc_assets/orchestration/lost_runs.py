"""Runs whose processes ended with the code location that had started them."""

from __future__ import annotations

import dagster as dg

WORKERS_TAG = "dagster-celery/task_id"  # of runs that workers carry

_UNDER_WAY = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def end_lost_runs(instance: dg.DagsterInstance) -> list[str]:
    """Report the runs that are said to be under way as failed; returns their ids.

    Only while no code location runs, as before it starts: its runs are its children and ended with it. Dagster itself would wait for
    them until `max_runtime_seconds`. Once they have failed, the daemon starts them again, and sensors ask for their slices again. Runs
    that workers carry go on without a code location, and monitoring ends those that are lost.
    """
    lost = [run for run in instance.get_runs(dg.RunsFilter(statuses=_UNDER_WAY)) if WORKERS_TAG not in run.tags]
    for run in lost:
        instance.report_run_failed(run, "The code location ended, and this run with it: it is started again.")
    return [run.run_id for run in lost]
