"""History: days before the 5-minute partitions. They are loaded into the same tables and meet the slices without gap or overlap."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from btc_assets.assembly import HISTORY_ASSETS, LOADING_ASSETS
from btc_assets.domain.slices import DAY, KEY_FORMAT, SLICE, Window
from btc_assets.ingestion.requests import DueSlice
from btc_assets.market_data import candles
from btc_assets.orchestration.automation import Automation
from btc_assets.orchestration.deployment import Deployment
from btc_assets.orchestration.home import prepare_dagster_home
from btc_assets.orchestration.ingest import IngestOptions, ingest
from btc_assets.orchestration.jobs import SlicedJobs, asset_key
from btc_assets.orchestration.partitions import Partitions, partition_tags
from btc_assets_tests.support.paths import PROJECT
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import every
from btc_assets_tests.support.waiting import PATIENCE_SECONDS

FIRST_SLICE = datetime(2020, 2, 1, tzinfo=UTC)  # of the 5-minute partitions, as conftest.py sets it
LAST_DAY = Window(FIRST_SLICE - DAY, FIRST_SLICE)
LAST_THREE = Window(FIRST_SLICE - 3 * DAY, FIRST_SLICE)


def run_history(store: StoreUnderTest, days: Window, instance: dg.DagsterInstance | None = None) -> dg.ExecuteInProcessResult:
    """The job `ingest_history` over a range of days."""
    job = store.definitions.resolve_job_def("ingest_history")
    with dg.DagsterInstance.ephemeral() as ephemeral:
        return job.execute_in_process(instance=instance or ephemeral, tags=partition_tags(days, DAY), raise_on_error=False)


def land_trades(store: StoreUnderTest, window: Window) -> None:
    """Land a trade every five minutes, seven seconds into the slice, in objects that span slices and midnights."""
    count = (window.end - window.start) // timedelta(minutes=5)
    store.land(every(300, count, start=window.start + timedelta(seconds=7)), seconds=1800)


def contents(store: StoreUnderTest) -> dict[str, list[tuple[object, ...]]]:
    """Everything that loading a range left in the store, except the times of loading."""
    tables = {f"market_data.candles_{interval}": "*" for interval in candles.INTERVALS} | {
        "market_data.btc_ticks": "*",
        "landing.slices": "bucket_5m, asset, state, objects, uris, row_count, loaded_rows",
    }
    return {name: store.rows(f"SELECT {columns} FROM {name} ORDER BY 1, 2, 3, 4, 5") for name, columns in tables.items()}


@pytest.mark.parametrize("days", [LAST_DAY, Window(FIRST_SLICE - 2 * DAY, FIRST_SLICE)], ids=["a day", "a range of days"])
def test_history_is_loaded_by_days_with_the_same_result_as_by_slices(store: StoreUnderTest, days: Window) -> None:
    land_trades(store, days)
    assert run_history(store, days).success
    assert store.rows("SELECT * FROM ingestion.due_slices") == [] and candles.find_outdated_candles(store.connection, days) == []
    by_days = contents(store)
    assert len(by_days["market_data.btc_ticks"]) == len(days)
    assert sum(len(rows) > 0 for rows in by_days.values()) == len(by_days)
    for table in ("market_data.btc_ticks", "landing.raw_blobs_5m", "ingestion.stream_offsets", "ingestion.due_slices"):
        store.connection.execute(f"DELETE FROM {table}")
    for interval in candles.INTERVALS:
        store.connection.execute(f"DELETE FROM market_data.candle_partials_{interval}")
    for half_day in (Window(start, start + DAY / 2) for day in days.days() for start in (day.start, day.start + DAY / 2)):
        store.ingest(half_day)
    assert contents(store) == by_days


def test_a_day_of_history_does_not_touch_the_days_beside_it(store: StoreUnderTest) -> None:
    land_trades(store, Window(LAST_THREE.start, FIRST_SLICE + DAY))
    assert run_history(store, Window(FIRST_SLICE - 2 * DAY, FIRST_SLICE - DAY)).success
    assert store.rows("SELECT min(bucket_5m), max(bucket_5m), count(*) FROM market_data.btc_ticks") == [
        (FIRST_SLICE - 2 * DAY, FIRST_SLICE - DAY - SLICE, 288)
    ]


@pytest.fixture
def within_a_day(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> datetime:
    """The first slice, at 06:35 of a day, of a store with 20 trades on each side of it, one a minute, in a single object."""
    first = datetime(2024, 1, 10, 6, 35, tzinfo=UTC)
    monkeypatch.setenv("BTC_ASSETS_PARTITIONS_START", first.strftime(KEY_FORMAT))
    store.land(every(60, 40, start=first - timedelta(minutes=20)), seconds=3600)
    return first


def test_a_first_slice_within_a_day_cuts_that_day_between_history_and_slices(store: StoreUnderTest, within_a_day: datetime) -> None:
    partitions = Partitions.of(store.settings)
    assert partitions.history is not None
    assert partitions.slices.get_first_partition_key() == "2024-01-10T06:35Z"
    assert partitions.history.get_last_partition_key() == "2024-01-10"
    last_day = partitions.own_slices(partitions.history.time_window_for_partition_key("2024-01-10"), partitions.history)
    assert str(last_day) == "2024-01-10T00:00Z to 2024-01-10T06:35Z"


def test_slices_that_are_due_on_both_sides_are_loaded_by_a_run_of_each_kind(store: StoreUnderTest, within_a_day: datetime) -> None:
    around = Window(within_a_day - timedelta(minutes=20), within_a_day + timedelta(minutes=20))
    due = [DueSlice(bucket, within_a_day, "version") for bucket in around.slices()]
    jobs = SlicedJobs(*(job for job in store.definitions.jobs or [] if job.name in ("ingest", "ingest_history")))  # type: ignore[arg-type]
    loaded = []
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance=instance, sensor_name="landing_sensor")
        requests = list(Automation(context, Deployment.of(store.settings)).requests(due, jobs))
        for request in reversed(requests):
            assert request.job_name is not None
            assert store.definitions.resolve_job_def(request.job_name).execute_in_process(instance=instance, tags=request.tags).success
            loaded += store.rows("SELECT min(bucket_5m), max(bucket_5m), count(*) FROM market_data.btc_ticks")
    assert [(request.job_name, sorted(request.tags.values())) for request in requests] == [
        ("ingest", ["2024-01-10T06:35Z", "2024-01-10T06:50Z"]),
        ("ingest_history", ["2024-01-10"]),
    ]
    # First the day, which ends at the first slice, then the slices.
    assert loaded == [(around.start, within_a_day - SLICE, 20), (around.start, around.end - SLICE, 40)]


@pytest.mark.slow
@pytest.mark.parametrize("slices_before", [4, 2000])
def test_a_load_over_a_first_slice_within_a_day_has_both_sides(store: StoreUnderTest, within_a_day: datetime, slices_before: int) -> None:
    prepare_dagster_home(store.settings)
    window = Window(within_a_day - slices_before * SLICE, within_a_day + 4 * SLICE)
    report = ingest(store.definitions, LOADING_ASSETS, Partitions.of(store.settings), window, IngestOptions())
    assert report.ticks == 40 and report.checks_passed


def test_without_a_day_before_the_first_slice_there_are_no_history_assets(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTC_ASSETS_HISTORY_START", "2024-01-10")
    monkeypatch.setenv("BTC_ASSETS_PARTITIONS_START", "2024-01-10")
    keys = [spec.key.to_user_string() for spec in store.definitions.resolve_all_asset_specs()]
    assert "market_data/btc_ticks" in keys and not [key for key in keys if "history" in key]
    assert not [job.name for job in store.definitions.resolve_all_job_defs() if "history" in job.name]
    assert [target.job_name for target in store.definitions.resolve_sensor_def("landing_sensor").targets] == ["ingest"]


@pytest.mark.slow
def test_the_dagster_command_line_materializes_a_day(store: StoreUnderTest) -> None:
    day = Window(datetime(2019, 12, 31, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC))
    land_trades(store, day)
    prepare_dagster_home(store.settings)
    command = ["-m", "dagster", "asset", "materialize", "-m", "btc_assets.definitions", "--select", "group:history"]
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [sys.executable, *command, "--partition", "2019-12-31"], env=environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert store.rows("SELECT count(*) FROM market_data.btc_ticks") == [(288,)]
    assert store.rows("SELECT sum(trade_count) FROM market_data.candles_1h") == [(288,)]


def reconcile(store: StoreUnderTest, instance: dg.DagsterInstance, hours: int = 0) -> int:
    """Run the job `reconcile`; returns the number of days of history that it reported as materialized."""
    job = store.definitions.resolve_job_def("reconcile")
    result = job.execute_in_process(instance=instance, run_config={"ops": {"ops__reconciliations": {"config": {"hours": hours}}}})
    (event,) = result.asset_materializations_for_node("ops__reconciliations")
    reported = event.metadata["history_days_shown"].value
    assert isinstance(reported, int)
    return reported


def test_days_that_were_loaded_as_slices_before_the_boundary_moved_are_reported_as_materialized(store: StoreUnderTest) -> None:
    land_trades(store, LAST_THREE)
    store.ingest(Window(LAST_THREE.start, FIRST_SLICE - DAY))  # the last day is registered and not loaded
    store.register(LAST_DAY)
    with dg.DagsterInstance.ephemeral() as instance:
        assert run_history(store, Window(LAST_THREE.start, LAST_THREE.start + DAY), instance).success  # Dagster knows of this day
        assert reconcile(store, instance, hours=48) == 0
        assert reconcile(store, instance) == 1
        history_assets = [asset_key(name) for name in HISTORY_ASSETS]
        for key in history_assets:
            assert instance.get_materialized_partitions(key) == {"2020-01-29", "2020-01-30"}
        assert reconcile(store, instance) == 0
        assert len(instance.fetch_materializations(history_assets[0], limit=10).records) == 2


def test_a_day_whose_candles_are_due_is_not_reported_yet(store: StoreUnderTest) -> None:
    land_trades(store, LAST_DAY)
    store.ingest(LAST_DAY)
    store.connection.execute("INSERT INTO ingestion.due_slices VALUES ('market_data/candles_1m', %s)", (LAST_DAY.start,))
    with dg.DagsterInstance.ephemeral() as instance:
        assert reconcile(store, instance) == 0
        store.refresh(LAST_DAY)
        assert reconcile(store, instance) == 1
