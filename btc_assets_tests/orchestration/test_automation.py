"""Run requests for due slices: for slices and days apart, within the limit, and none twice."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from btc_assets.domain.settings import Settings
from btc_assets.domain.slices import DAY, SLICE, Window
from btc_assets.ingestion.requests import DueSlice
from btc_assets.orchestration import automation
from btc_assets.orchestration.automation import Automation
from btc_assets.orchestration.deployment import Deployment
from btc_assets.orchestration.jobs import SlicedJobs
from btc_assets.orchestration.partitions import partition_tags

FIRST = datetime(2024, 1, 10, tzinfo=UTC)
NOW = FIRST + DAY
SENSOR = "landing_sensor"
JOBS = SlicedJobs(dg.define_asset_job("ingest"), dg.define_asset_job("ingest_history"))


@pytest.fixture
def instance(monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setattr(automation, "utc_now", lambda: NOW)
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def request(instance: dg.DagsterInstance, *slices: datetime, jobs: SlicedJobs = JOBS, **settings: object) -> list[dg.RunRequest]:
    """Evaluate a tick whose due slices became due just now."""
    options = {"partitions_start": FIRST, "history_start": FIRST - 30 * DAY} | settings
    deployment = Deployment.of(Settings.model_validate(options))
    with dg.build_sensor_context(instance=instance, sensor_name=SENSOR) as context:
        return list(Automation(context, deployment).requests([DueSlice(bucket, NOW, "digest") for bucket in sorted(slices)], jobs))


def add_run(instance: dg.DagsterInstance, tags: dict[str, str], status: dg.DagsterRunStatus = dg.DagsterRunStatus.STARTED) -> None:
    instance.add_run(dg.DagsterRun("ingest", run_id=str(uuid.uuid4()), status=status, tags=tags))


def test_contiguous_slices_share_a_run_and_the_newest_are_requested_first(instance: dg.DagsterInstance) -> None:
    requests = request(instance, FIRST, FIRST + SLICE, FIRST + 5 * SLICE)
    assert [(each.job_name, each.tags) for each in requests] == [
        ("ingest", partition_tags(Window.of_slice(FIRST + 5 * SLICE))),
        ("ingest", partition_tags(Window(FIRST, FIRST + 2 * SLICE))),
    ]


def test_slices_before_the_first_slice_are_requested_as_days_and_those_before_the_history_not_at_all(instance: dg.DagsterInstance) -> None:
    yesterday = FIRST - SLICE
    (days,) = request(instance, FIRST - 31 * DAY, yesterday)
    assert (days.job_name, days.tags) == ("ingest_history", {"dagster/partition": "2024-01-09"})
    assert request(instance, yesterday, jobs=SlicedJobs(JOBS.slices, None)) == []


def test_a_sensor_requests_no_more_runs_than_may_be_in_flight(instance: dg.DagsterInstance) -> None:
    apart = [FIRST + 2 * number * SLICE for number in range(6)]
    assert len(request(instance, *apart, sensor_runs_in_flight=4)) == 4
    add_run(instance, {"dagster/sensor_name": SENSOR})
    add_run(instance, {"dagster/sensor_name": "another"})
    add_run(instance, {"dagster/sensor_name": SENSOR}, dg.DagsterRunStatus.SUCCESS)
    assert len(request(instance, *apart, sensor_runs_in_flight=4)) == 3


def test_slices_of_a_run_in_progress_wait_until_it_ends(instance: dg.DagsterInstance) -> None:
    add_run(instance, partition_tags(Window(FIRST, FIRST + 2 * SLICE)))
    assert [each.tags for each in request(instance, FIRST, FIRST + 2 * SLICE)] == [partition_tags(Window.of_slice(FIRST + 2 * SLICE))]


def test_a_request_that_has_a_run_is_not_made_again_and_uses_up_none_of_the_limit(instance: dg.DagsterInstance) -> None:
    (before,) = request(instance, FIRST)
    assert before.run_key is not None
    add_run(instance, {"dagster/sensor_name": SENSOR, "dagster/run_key": before.run_key}, dg.DagsterRunStatus.FAILURE)
    (other,) = request(instance, FIRST, FIRST + 2 * SLICE, sensor_runs_in_flight=1)
    assert other.tags == partition_tags(Window.of_slice(FIRST + 2 * SLICE))


def test_the_clock_is_in_utc() -> None:
    assert automation.utc_now().utcoffset() == timedelta(0)
