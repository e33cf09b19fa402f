"""Runs whose processes ended with the code location."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from btc_assets.assembly import LOADING_ASSETS
from btc_assets.domain.slices import Window
from btc_assets.orchestration.home import prepare_dagster_home
from btc_assets.orchestration.ingest import IngestOptions, ingest
from btc_assets.orchestration.lost_runs import (
    CODE_LOCATION_TAG,
    WORKERS_TAG,
    command_tags,
    describe_blocked_queue,
    end_killed_commands,
    end_lost_runs,
)
from btc_assets.orchestration.partitions import Partitions
from btc_assets_tests.support.dagster_private import DaemonWorkspace, EmptyWorkspaceTarget, execute_run_monitoring_iteration
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import NOON, every

Status = dg.DagsterRunStatus


@dg.asset
def anything() -> None: ...


@pytest.mark.parametrize(
    ("status", "tags", "ended"),
    [
        (Status.STARTING, {}, True),
        (Status.STARTED, {}, True),
        (Status.CANCELING, {}, True),
        (Status.STARTED, {WORKERS_TAG: "a task of a worker"}, False),
        (Status.NOT_STARTED, {}, False),
        (Status.SUCCESS, {}, False),
    ],
)
def test_only_runs_in_progress_that_no_worker_executes_are_reported_as_failed(
    status: dg.DagsterRunStatus, tags: dict[str, str], ended: bool
) -> None:
    job = dg.Definitions([anything]).resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance:
        run = instance.create_run_for_job(job, status=status, tags=tags)
        assert end_lost_runs(instance) == ([run.run_id] if ended else [])
        found = instance.get_run_by_id(run.run_id)
        assert found is not None and found.status == (Status.FAILURE if ended else status)
        assert end_lost_runs(instance) == []


def test_one_of_several_code_locations_ends_its_own_runs_only() -> None:
    job = dg.Definitions([anything]).resolve_implicit_global_asset_job_def()
    sockets = {"ours": "/tmp/a/ours.sock", "theirs": "/run/theirs.sock", "a port": None}
    with dg.DagsterInstance.ephemeral() as instance:
        runs = {
            name: instance.create_run_for_job(job, status=Status.STARTED, tags={CODE_LOCATION_TAG: json.dumps({"socket": socket})}).run_id
            for name, socket in sockets.items()
        }
        instance.create_run_for_job(job, status=Status.STARTED)  # of a command line
        assert end_lost_runs(instance, socket="ours.sock") == [runs["ours"]]


def test_a_queue_that_waits_for_runs_which_tell_nothing_is_blocked(store: StoreUnderTest) -> None:
    job = dg.Definitions([anything]).resolve_implicit_global_asset_job_def()
    prepare_dagster_home(store.settings)
    with dg.DagsterInstance.get() as instance:
        run = instance.create_run_for_job(job, status=Status.STARTED)
        instance.report_engine_event("it started", run)
        now = datetime.now(UTC)
        assert describe_blocked_queue(instance, now + timedelta(hours=1)) is None  # nothing waits
        queued = instance.create_run_for_job(job)
        store.connection.execute("UPDATE dagster.runs SET status = 'QUEUED' WHERE run_id = %s", (queued.run_id,))
        assert describe_blocked_queue(instance, now) is None  # the run told something just now
        blocked = describe_blocked_queue(instance, now + timedelta(hours=1))
        assert blocked is not None and blocked.startswith(
            f"1 run(s) wait for 1 in progress, which tell nothing, the first ({run.run_id}) since "
        )
        lively = instance.create_run_for_job(job, status=Status.STARTED)
        assert describe_blocked_queue(instance, now + timedelta(hours=1)) is not None
        instance.report_run_failed(run)
        instance.report_run_failed(lively)
        assert describe_blocked_queue(instance, now + timedelta(hours=1)) is None


def started_run(instance: dg.DagsterInstance, tags: dict[str, str], *, hours_ago: float) -> str:
    job = dg.Definitions([anything]).resolve_implicit_global_asset_job_def()
    run = instance.create_run_for_job(job, status=Status.STARTING, tags=tags)
    started = datetime.now(UTC) - timedelta(hours=hours_ago)
    event = dg.DagsterEvent(dg.DagsterEventType.PIPELINE_START.value, run.job_name)
    instance.report_dagster_event(event, run.run_id, timestamp=started.timestamp())
    return run.run_id


def test_a_run_of_a_command_may_take_longer_than_four_hours_beside_a_daemon(store: StoreUnderTest) -> None:
    """The real daemon looks once, at runs that started five hours ago."""
    prepare_dagster_home(store.settings)
    with dg.DagsterInstance.get() as instance:
        command, other = started_run(instance, command_tags(), hours_ago=5), started_run(instance, {}, hours_ago=5)
        with DaemonWorkspace(instance, EmptyWorkspaceTarget()) as workspace:
            errors = [error for error in execute_run_monitoring_iteration(workspace, logging.getLogger("monitoring")) if error]
        runs = {run.run_id: run.status for run in instance.get_runs()}
    assert errors == []
    assert runs == {command: Status.STARTED, other: Status.FAILURE}


def test_the_run_of_a_load_has_the_tags_of_a_command(store: StoreUnderTest) -> None:
    store.land(every(1, 10))
    prepare_dagster_home(store.settings)
    ingest(store.definitions, LOADING_ASSETS, Partitions.of(store.settings), Window.of_slice(NOON), IngestOptions())
    with dg.DagsterInstance.get() as instance:
        (run,) = instance.get_runs()
    assert run.tags.items() >= command_tags().items()


@pytest.mark.parametrize("ends", ["a code location starts", "a sensor looks"])
def test_a_run_of_a_command_ends_only_if_its_process_was_killed(ends: str) -> None:
    job = dg.Definitions([anything]).resolve_implicit_global_asset_job_def()
    statement = "import json; from btc_assets.orchestration.lost_runs import command_tags; print(json.dumps(command_tags()))"
    killed = json.loads(subprocess.run([sys.executable, "-c", statement], capture_output=True, check=True).stdout)
    elsewhere = {name: value.replace("-", "+") for name, value in killed.items()}
    with dg.DagsterInstance.ephemeral() as instance:
        runs = [instance.create_run_for_job(job, status=Status.STARTED, tags=tags) for tags in (command_tags(), killed, elsewhere)]
        if ends == "a code location starts":
            assert end_lost_runs(instance) == []
        else:
            assert [run.run_id for run in end_killed_commands(instance, runs)] == [runs[0].run_id, runs[2].run_id]
        statuses = [found.status for run in runs if (found := instance.get_run_by_id(run.run_id))]
    assert statuses == [Status.STARTED, Status.FAILURE, Status.STARTED]
