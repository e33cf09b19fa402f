"""Dagster's storage: how long events of steps are kept, what a range run writes, and where the output of steps goes."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import dagster as dg
import pytest
from dagster_aws.s3 import S3ComputeLogManager

from btc_assets.orchestration.home import prepare_dagster_home
from btc_assets.orchestration.storage import delete_old_events
from btc_assets_tests.support.dagster_private import AssetCheckExecutionRecordStatus
from btc_assets_tests.support.s3 import Bucket
from btc_assets_tests.support.stores import StoreUnderTest

DAYS = dg.DailyPartitionsDefinition("2024-01-01")


@dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run(), check_specs=[dg.AssetCheckSpec("good", asset="talkative")])
def talkative(context: dg.AssetExecutionContext):  # type: ignore[no-untyped-def]  # Dagster reads any return type as that of several outputs
    context.log.info("started")
    print("a line of output", flush=True)
    return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=True)])


def run(instance: dg.DagsterInstance) -> dg.DagsterRun:
    return dg.materialize([talkative], instance=instance, partition_key="2024-01-10").dagster_run


def run_status(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    found = instance.get_run_by_id(run_id)
    assert found is not None
    return found.status


def test_old_runs_lose_the_events_of_their_steps_and_assets_keep_their_history(store: StoreUnderTest) -> None:
    prepare_dagster_home(store.settings)
    with dg.DagsterInstance.get() as instance:
        old = run(instance)
        store.connection.execute("UPDATE dagster.event_logs SET timestamp = timestamp - interval '91 days'")
        new = run(instance)
        before = len(instance.all_logs(new.run_id))
        deleted = delete_old_events(instance, datetime.now(UTC) - timedelta(days=90))
        kept = [entry.dagster_event_type for entry in instance.all_logs(old.run_id)]
        assert deleted > 10 and set(kept) == {
            dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED, dg.DagsterEventType.ASSET_MATERIALIZATION,
            dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED, dg.DagsterEventType.ASSET_CHECK_EVALUATION,
        }  # fmt: skip
        assert len(instance.all_logs(new.run_id)) == before
        assert instance.get_materialized_partitions(talkative.key) == {"2024-01-10"}
        assert len(instance.fetch_materializations(talkative.key, limit=5).records) == 2
        assert run_status(instance, old.run_id) == dg.DagsterRunStatus.SUCCESS
        assert delete_old_events(instance, datetime.now(UTC) - timedelta(days=90)) == 0


def run_range(instance: dg.DagsterInstance) -> None:
    """Eleven days, from the 10th to the 20th."""
    tags = {"dagster/asset_partition_range_start": "2024-01-10", "dagster/asset_partition_range_end": "2024-01-20"}
    job = dg.define_asset_job("range", [talkative]).resolve(asset_graph=dg.Definitions([talkative]).resolve_asset_graph())
    assert job.execute_in_process(instance=instance, tags=tags).success


def test_a_range_run_materializes_each_partition_in_order_with_its_own_tags(store: StoreUnderTest) -> None:
    prepare_dagster_home(store.settings)
    with dg.DagsterInstance.get() as instance:
        run_range(instance)
        records = instance.fetch_materializations(talkative.key, limit=99, ascending=True).records
        assert [record.partition_key for record in records] == [f"2024-01-{day}" for day in range(10, 21)]
        partitions = [record.asset_materialization and record.asset_materialization.partition for record in records]
        assert partitions == [record.partition_key for record in records]
        latest = instance.get_latest_materialization_event(talkative.key)
        assert latest and latest.asset_materialization and latest.asset_materialization.partition == "2024-01-20"
        tagged = store.rows("SELECT event_id FROM dagster.asset_event_tags WHERE key = 'dagster/data_version' ORDER BY event_id")
        assert [event_id for (event_id,) in tagged] == [record.storage_id for record in records]


def test_a_check_of_a_range_is_recorded_once_and_not_for_each_partition(store: StoreUnderTest) -> None:
    prepare_dagster_home(store.settings)
    with dg.DagsterInstance.get() as instance:
        run_range(instance)
        (check,) = instance.event_log_storage.get_asset_check_execution_history(dg.AssetCheckKey(talkative.key, "good"), limit=99)
        assert check.status == AssetCheckExecutionRecordStatus.SUCCEEDED and check.partition is None


def test_the_output_of_steps_goes_to_the_bucket_that_the_settings_name(
    store: StoreUnderTest, s3: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BTC_ASSETS_COMPUTE_LOGS_URL", f"{s3.url}/dagster")
    monkeypatch.setenv("BTC_ASSETS_S3_ENDPOINT", s3.server.endpoint)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it may have the credentials of another test
    prepare_dagster_home(store.settings)
    with dg.DagsterInstance.get() as instance:
        assert isinstance(instance.compute_log_manager, S3ComputeLogManager)
        run(instance)
    listed = s3.server.client().list_objects_v2(Bucket=s3.server.bucket, Prefix=f"{s3.prefix}/dagster/")["Contents"]
    bodies = [s3.server.client().get_object(Bucket=s3.server.bucket, Key=one["Key"])["Body"].read() for one in listed]
    assert any(b"a line of output" in body for body in bodies)


def test_without_a_bucket_the_output_of_steps_goes_to_dagster_home(store: StoreUnderTest) -> None:
    home = prepare_dagster_home(store.settings)
    with dg.DagsterInstance.get() as instance:
        run(instance)
        assert any("a line of output" in path.read_text() for path in Path(home).rglob("*.out"))
