"""Runs whose processes ended: with the code location that had started them, or a command that was killed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

CODE_LOCATION_TAG = ".dagster/grpc_info"  # of runs that a code location executes: its address
WORKERS_TAG = "dagster-celery/task_id"  # of runs that workers execute
_PROCESS_TAG = "btc_assets/process"  # of runs that a command executes itself: the machine, the process and when that started
_MAX_RUNTIME_TAG = "dagster/max_runtime"  # overrides `max_runtime_seconds` of run monitoring

_SILENCE = timedelta(minutes=30)  # a step records what it has done when it ends; most take minutes
_IN_PROGRESS = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def command_tags() -> dict[str, str]:
    """Tags of a run that this process executes itself, as `btc-assets load` does.

    Run monitoring would report it as failed after four hours, although it goes on, so it has no longest time. If the process is killed,
    `end_lost_runs` and every tick of a sensor tell by its number.
    """
    return {_MAX_RUNTIME_TAG: "0", _PROCESS_TAG: f"{_machine()} {os.getpid()} {_started(os.getpid())}"}


def end_killed_commands(instance: dg.DagsterInstance, runs: Iterable[dg.DagsterRun]) -> list[dg.DagsterRun]:
    """Report runs of commands whose process ended without a word as failed; returns the other ones."""
    going_on = []
    for run in runs:
        if _is_killed(run):
            instance.report_run_failed(run, "The command that executed this run was killed: run it again.")
        else:
            going_on.append(run)
    return going_on


def _is_killed(run: dg.DagsterRun) -> bool:
    machine, process, started = run.tags.get(_PROCESS_TAG, "  ").split(" ")
    return machine == _machine() and _started(int(process)) != started


def _machine() -> str:
    """This machine since it was started, and, in a container, its numbers of processes."""
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}:{os.stat('/proc/self/ns/pid').st_ino}"


def _started(process: int) -> str:
    """When a process of this machine started, in ticks of the kernel's clock; empty if there is none."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def end_lost_runs(instance: dg.DagsterInstance, *, socket: str | None = None) -> list[str]:
    """Report runs that are recorded as in progress as failed; returns their ids.

    Call it only while no code location is running, such as before it starts: its runs are its child processes, so they ended with it.
    Dagster itself would wait for them until `max_runtime_seconds`. Once they have failed, the daemon starts them again and sensors
    request their slices again. Runs on workers go on without a code location; run monitoring ends those that are lost. Runs of commands,
    such as `btc-assets load`, go on as well; only those whose process was killed end.

    Args:
        instance: Dagster's.
        socket: only runs of the code location whose socket has this file name; others may share the instance.
    """
    runs = end_killed_commands(instance, instance.get_runs(dg.RunsFilter(statuses=_IN_PROGRESS)))
    lost = [run for run in runs if WORKERS_TAG not in run.tags and _PROCESS_TAG not in run.tags]
    if socket is not None:
        lost = [run for run in lost if _socket(run) == socket]
    for run in lost:
        instance.report_run_failed(run, "The code location ended, and this run with it: it is started again.")
    return [run.run_id for run in lost]


def _socket(run: dg.DagsterRun) -> str | None:
    address = json.loads(run.tags.get(CODE_LOCATION_TAG, "{}")).get("socket")
    return Path(address).name if address else None


def describe_blocked_queue(instance: dg.DagsterInstance, now: datetime) -> str | None:
    """A sentence if runs wait while others, which may be lost, hold all places; None if the queue moves.

    Args:
        instance: Dagster's.
        now: the time.
    """
    waiting = instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED]))
    if not waiting:
        return None
    runs = instance.get_runs(dg.RunsFilter(statuses=_IN_PROGRESS))
    silent = {run.run_id: since for run in runs if now - (since := _last_sign(instance, run.run_id)) > _SILENCE}
    if not silent or len(silent) < len(runs):
        return None
    run_id, since = min(silent.items(), key=lambda item: item[1])
    return (
        f"{waiting} run(s) wait for {len(silent)} in progress, which tell nothing, the first ({run_id}) since {since:%Y-%m-%d %H:%M}: if their "
        "processes ended, start btc-assets dev again (on a host: systemctl restart btc-dagster-code), which ends such runs."
    )


def _last_sign(instance: dg.DagsterInstance, run_id: str) -> datetime:
    (newest,) = instance.get_records_for_run(run_id, limit=1, ascending=False).records or (None,)
    return datetime.fromtimestamp(newest.timestamp if newest else 0, UTC)
