"""Runs whose processes ended with the code location."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from btc_assets.orchestration.home import prepare_dagster_home
from btc_assets.orchestration.lost_runs import CODE_LOCATION_TAG, WORKERS_TAG, describe_blocked_queue, end_lost_runs
from btc_assets_tests.support.stores import StoreUnderTest

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
