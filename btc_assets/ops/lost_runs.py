"""Runs whose processes ended with the code location that had started them."""

from __future__ import annotations

import dagster as dg

_UNDER_WAY = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def end_lost_runs(instance: dg.DagsterInstance) -> list[str]:
    """Report the runs that are said to be under way as failed; returns their ids.

    Only while no code location runs, as before it starts: its runs are its children and ended with it. Dagster itself would wait for
    them until `max_runtime_seconds`. Once they have failed, the daemon starts again those whose job says so, and sensors ask for
    their slices again.
    """
    lost = instance.get_runs(dg.RunsFilter(statuses=_UNDER_WAY))
    for run in lost:
        instance.report_run_failed(run, "The code location ended, and this run with it: it is started again where its job says so.")
    return [run.run_id for run in lost]
