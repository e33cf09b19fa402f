"""Dagster's own tables: what is kept of old runs, and where the output of steps goes."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import dagster as dg
import pytest
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster_aws.s3 import S3ComputeLogManager

from btc_assets.domain.settings import settings
from btc_assets.orchestration.home import prepare_dagster_home
from btc_assets.orchestration.lost_runs import WORKERS_TAG, end_lost_runs
from btc_assets.orchestration.storage import delete_old_events
from btc_assets_tests.support.s3 import Bucket
from btc_assets_tests.support.stores import StoreUnderTest

DAYS = dg.DailyPartitionsDefinition("2024-01-01")


@dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run(), check_specs=[dg.AssetCheckSpec("good", asset="talkative")])
def talkative(context: dg.AssetExecutionContext):  # type: ignore[no-untyped-def]  # one output more than a type could say
    context.log.info("I am at it")
    print("said to whom it may concern", flush=True)
    return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=True)])


def run(instance: dg.DagsterInstance) -> dg.DagsterRun:
    return dg.materialize([talkative], instance=instance, partition_key="2024-01-10").dagster_run


def test_old_runs_lose_their_steps_and_assets_keep_their_history(store: StoreUnderTest) -> None:
    prepare_dagster_home()
    with dg.DagsterInstance.get() as instance:
        old = run(instance)
        store.connection.execute("UPDATE dagster.event_logs SET timestamp = timestamp - interval '91 days'")
        new = run(instance)
        before = len(instance.all_logs(new.run_id))
        forgotten = delete_old_events(instance, datetime.now(UTC) - timedelta(days=90))
        kept = [entry.dagster_event_type for entry in instance.all_logs(old.run_id)]
        assert forgotten > 10 and set(kept) == {
            dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED, dg.DagsterEventType.ASSET_MATERIALIZATION,
            dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED, dg.DagsterEventType.ASSET_CHECK_EVALUATION,
        }  # fmt: skip
        assert len(instance.all_logs(new.run_id)) == before
        assert instance.get_materialized_partitions(talkative.key) == {"2024-01-10"}
        assert len(instance.fetch_materializations(talkative.key, limit=5).records) == 2
        assert instance.get_run_by_id(old.run_id).is_success  # type: ignore[union-attr]
        assert delete_old_events(instance, datetime.now(UTC) - timedelta(days=90)) == 0


def run_range(instance: dg.DagsterInstance) -> None:
    """Eleven days, from the 10th to the 20th."""
    tags = {"dagster/asset_partition_range_start": "2024-01-10", "dagster/asset_partition_range_end": "2024-01-20"}
    job = dg.define_asset_job("range", [talkative]).resolve(asset_graph=dg.Definitions([talkative]).resolve_asset_graph())
    assert job.execute_in_process(instance=instance, tags=tags).success


def test_a_range_is_a_materialisation_of_each_partition_in_order_with_its_own_tags(store: StoreUnderTest) -> None:
    prepare_dagster_home()
    with dg.DagsterInstance.get() as instance:
        run_range(instance)
        records = instance.fetch_materializations(talkative.key, limit=99, ascending=True).records
        assert [record.partition_key for record in records] == [f"2024-01-{day}" for day in range(10, 21)]
        assert all(record.asset_materialization.partition == record.partition_key for record in records)  # type: ignore[union-attr]
        latest = instance.get_latest_materialization_event(talkative.key)
        assert latest and latest.asset_materialization and latest.asset_materialization.partition == "2024-01-20"
        tagged = store.rows("SELECT event_id FROM dagster.asset_event_tags WHERE key = 'dagster/data_version' ORDER BY event_id")
        assert [event_id for (event_id,) in tagged] == [record.storage_id for record in records]


def test_a_check_of_a_range_is_one_execution_and_not_one_a_partition(store: StoreUnderTest) -> None:
    prepare_dagster_home()
    with dg.DagsterInstance.get() as instance:
        run_range(instance)
        (check,) = instance.event_log_storage.get_asset_check_execution_history(dg.AssetCheckKey(talkative.key, "good"), limit=99)
        assert check.status == AssetCheckExecutionRecordStatus.SUCCEEDED and check.partition is None


def test_what_steps_print_goes_to_s3_where_a_bucket_is_named(store: StoreUnderTest, s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTC_ASSETS_COMPUTE_LOGS_URL", f"{s3.url}/dagster")
    monkeypatch.setenv("BTC_ASSETS_S3_ENDPOINT", s3.server.endpoint)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # which may remember the credentials of another test
    settings.cache_clear()
    prepare_dagster_home()
    with dg.DagsterInstance.get() as instance:
        assert isinstance(instance.compute_log_manager, S3ComputeLogManager)
        run(instance)
    listed = s3.server.client().list_objects_v2(Bucket=s3.server.bucket, Prefix=f"{s3.prefix}/dagster/")["Contents"]
    bodies = [s3.server.client().get_object(Bucket=s3.server.bucket, Key=one["Key"])["Body"].read() for one in listed]
    assert any(b"said to whom" in body for body in bodies)


def test_what_steps_print_lies_in_dagsters_home_elsewhere(store: StoreUnderTest) -> None:
    home = prepare_dagster_home()
    with dg.DagsterInstance.get() as instance:
        run(instance)
        assert any("said to whom" in path.read_text() for path in Path(home).rglob("*.out"))


def test_runs_that_ended_with_the_code_location_have_failed_and_others_are_left_alone(store: StoreUnderTest) -> None:
    prepare_dagster_home()
    with dg.DagsterInstance.get() as instance:
        done = run(instance).run_id
        job = dg.Definitions([talkative]).resolve_implicit_global_asset_job_def()
        under_way = [
            instance.create_run_for_job(job, status=status) for status in (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.NOT_STARTED)
        ]
        on_a_worker = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, tags={WORKERS_TAG: "its task"})
        assert end_lost_runs(instance) == [under_way[0].run_id] and end_lost_runs(instance) == []
        states = [instance.get_run_by_id(run_id).status for run_id in (done, *(each.run_id for each in (*under_way, on_a_worker)))]  # type: ignore[union-attr]
    Status = dg.DagsterRunStatus
    assert states == [Status.SUCCESS, Status.FAILURE, Status.NOT_STARTED, Status.STARTED]
