"""History: days before the 5-minute partitions, which go into the same tables and meet the slices without gap or overlap."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from btc_assets.definitions import defs
from btc_assets.domain.slices import DAY, SLICE, Window
from btc_assets.market_data import candles
from btc_assets.orchestration.automation import partition_tags
from btc_assets.orchestration.failures import impatient
from btc_assets.orchestration.jobs import history_assets
from btc_assets_tests.support.paths import PROJECT
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import every

HAND_OVER = datetime(2020, 2, 1, tzinfo=UTC)  # where the partitions of this process start
LAST_DAY = Window(HAND_OVER - DAY, HAND_OVER)
LAST_THREE = Window(HAND_OVER - 3 * DAY, HAND_OVER)


def run_history(days: Window, instance: dg.DagsterInstance | None = None) -> dg.ExecuteInProcessResult:
    with dg.DagsterInstance.ephemeral() as ephemeral, impatient():
        job = defs.resolve_job_def("ingest_history")
        return job.execute_in_process(instance=instance or ephemeral, tags=partition_tags(days, DAY), raise_on_error=False)


def land_trades(store: StoreUnderTest, window: Window) -> None:
    """A trade every five minutes, off the beat, in objects that span slices and midnights."""
    count = (window.end - window.start) // timedelta(minutes=5)
    store.land(every(300, count, start=window.start + timedelta(seconds=7)), seconds=1800)


def contents(store: StoreUnderTest) -> dict[str, list[tuple]]:  # type: ignore[type-arg]
    """All that a loaded range left in the store, but for when."""
    tables = {f"market_data.candles_{interval}": "*" for interval in candles.INTERVALS} | {
        "market_data.btc_ticks": "*",
        "landing.slices": "bucket_5m, asset, state, objects, uris, row_count, loaded_rows",
    }
    return {name: store.rows(f"SELECT {columns} FROM {name} ORDER BY 1, 2, 3, 4, 5") for name, columns in tables.items()}


@pytest.mark.parametrize("days", [LAST_DAY, Window(HAND_OVER - 2 * DAY, HAND_OVER)], ids=["a day", "a range of days"])
def test_history_is_loaded_by_days_with_the_same_result_as_by_slices(store: StoreUnderTest, days: Window) -> None:
    land_trades(store, days)
    assert run_history(days).success
    assert store.rows("SELECT * FROM ingestion.due_slices") == [] and candles.outdated(store.connection, days) == []
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
    land_trades(store, Window(LAST_THREE.start, HAND_OVER + DAY))
    assert run_history(Window(HAND_OVER - 2 * DAY, HAND_OVER - DAY)).success
    assert store.rows("SELECT min(bucket_5m), max(bucket_5m), count(*) FROM market_data.btc_ticks") == [
        (HAND_OVER - 2 * DAY, HAND_OVER - DAY - SLICE, 288)
    ]


def python(script: str, **variables: str) -> dict[str, object]:
    """What a script prints as JSON, in a process of its own: partitions are made from the settings when it starts."""
    environment = os.environ | {"PYTHONPATH": str(PROJECT)} | variables
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


_AT_THE_HAND_OVER = """
import json
from datetime import timedelta
import dagster as dg
from btc_assets.orchestration.automation import Automation, partition_tags
from btc_assets.store.database import connect
from btc_assets.definitions import defs
from btc_assets.ingestion.requests import DueSlice
from btc_assets.orchestration.jobs import ingest, ingest_history
from btc_assets.orchestration.partitions import five_minutes, history, own_slices
from btc_assets.domain.settings import settings
from btc_assets.domain.slices import DAY, SLICE, Window

first = settings().first_slice
around = Window(first - timedelta(minutes=20), first + timedelta(minutes=20))
last = history.get_last_partition_key()
out = {"last": last, "window": str(own_slices(history.time_window_for_partition_key(last), history)), "first": five_minutes.get_first_partition_key()}
with dg.DagsterInstance.ephemeral() as instance:
    context = dg.build_sensor_context(instance=instance, sensor_name="landing_sensor")
    due = [DueSlice(bucket, first, "x") for bucket in around.slices()]
    requests = list(Automation(context).requests(due, ingest, ingest_history))
    out["requests"] = [[request.job_name, sorted(request.tags.values())] for request in requests]
    out["loaded"] = []
    for request in reversed(requests):
        assert defs.resolve_job_def(request.job_name).execute_in_process(instance=instance, tags=request.tags).success
        with connect() as connection:
            rows = connection.execute("SELECT min(bucket_5m)::text, max(bucket_5m)::text, count(*) FROM market_data.btc_ticks")
            out["loaded"].append(rows.fetchone())
print(json.dumps(out))
"""


def test_a_first_slice_within_a_day_cuts_that_day_between_history_and_slices(store: StoreUnderTest) -> None:
    first = datetime(2024, 1, 10, 6, 35, tzinfo=UTC)
    # One object holds the trades on both sides of the hand-over.
    store.land(every(60, 40, start=first - timedelta(minutes=20)), seconds=3600)
    assert python(_AT_THE_HAND_OVER, BTC_ASSETS_PARTITIONS_START="2024-01-10T06:35Z") == {
        "last": "2024-01-10",
        "window": "2024-01-10T00:00Z to 2024-01-10T06:35Z",
        "first": "2024-01-10T06:35Z",
        "requests": [["ingest", ["2024-01-10T06:35Z", "2024-01-10T06:50Z"]], ["ingest_history", ["2024-01-10"]]],
        # First the day, which ends there, then the slices, which begin there.
        "loaded": [["2024-01-10 06:15:00+00", "2024-01-10 06:30:00+00", 20], ["2024-01-10 06:15:00+00", "2024-01-10 06:50:00+00", 40]],
    }


_LOAD_OVER_THE_HAND_OVER = """
import json
from btc_assets.orchestration.ingest import ingest
from btc_assets.domain.settings import settings
from btc_assets.domain.slices import SLICE, Window

first = settings().first_slice
print(json.dumps([ingest(Window(first + start * SLICE, first + 4 * SLICE)).ticks for start in (-4, -2000)]))
"""


def test_a_load_over_a_hand_over_within_a_day_has_both_sides(store: StoreUnderTest) -> None:
    store.land(every(60, 40, start=datetime(2024, 1, 10, 6, 15, tzinfo=UTC)), seconds=3600)
    assert python(_LOAD_OVER_THE_HAND_OVER, BTC_ASSETS_PARTITIONS_START="2024-01-10T06:35Z") == [40, 40]


_WITHOUT = """
import json
from btc_assets.definitions import defs
from btc_assets.landing.sensors import landing_sensor
keys = [spec.key.to_user_string() for spec in defs.resolve_all_asset_specs()]
print(json.dumps({
    "history": [key for key in keys if "history" in key],
    "ticks": "market_data/btc_ticks" in keys,
    "jobs": [job.name for job in defs.resolve_all_job_defs() if "history" in job.name],
    "sensor": [target.job_name for target in landing_sensor.targets],
}))
"""


def test_without_a_day_before_the_first_slice_there_are_no_history_assets(store: StoreUnderTest) -> None:
    found = python(_WITHOUT, BTC_ASSETS_HISTORY_START="2024-01-10", BTC_ASSETS_PARTITIONS_START="2024-01-10")
    assert found == {"history": [], "ticks": True, "jobs": [], "sensor": ["ingest"]}


def test_the_dagster_command_line_materialises_a_day(store: StoreUnderTest) -> None:
    from btc_assets.orchestration.home import prepare_dagster_home

    day = Window(datetime(2019, 12, 31, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC))
    land_trades(store, day)
    prepare_dagster_home()
    command = [
        "-m",
        "dagster",
        "asset",
        "materialize",
        "-m",
        "btc_assets.definitions",
        "--select",
        "group:history",
        "--partition",
        "2019-12-31",
    ]
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert store.rows("SELECT count(*) FROM market_data.btc_ticks") == [(288,)]
    assert store.rows("SELECT sum(trade_count) FROM market_data.candles_1h") == [(288,)]


def compare_everything(instance: dg.DagsterInstance, hours: int = 0) -> int:
    job = defs.resolve_job_def("reconcile")
    result = job.execute_in_process(instance=instance, run_config={"ops": {"ops__reconciliations": {"config": {"hours": hours}}}})
    (event,) = result.asset_materializations_for_node("ops__reconciliations")
    return event.metadata["history_days_shown"].value


def test_days_that_were_loaded_as_slices_before_the_hand_over_moved_are_shown_as_materialised(store: StoreUnderTest) -> None:
    land_trades(store, LAST_THREE)
    store.ingest(Window(LAST_THREE.start, HAND_OVER - DAY))  # the last day waits for being loaded
    store.register(LAST_DAY)
    with dg.DagsterInstance.ephemeral() as instance:
        assert run_history(Window(LAST_THREE.start, LAST_THREE.start + DAY), instance).success  # Dagster knows of this one
        assert compare_everything(instance, hours=48) == 0
        assert compare_everything(instance) == 1
        for key in history_assets:
            assert instance.get_materialized_partitions(key) == {"2020-01-29", "2020-01-30"}
        assert compare_everything(instance) == 0
        assert len(instance.fetch_materializations(history_assets[0], limit=10).records) == 2


def test_a_day_whose_candles_are_behind_is_not_shown_yet(store: StoreUnderTest) -> None:
    land_trades(store, LAST_DAY)
    store.ingest(LAST_DAY)
    store.connection.execute("INSERT INTO ingestion.due_slices VALUES ('market_data/candles_1m', %s)", (LAST_DAY.start,))
    with dg.DagsterInstance.ephemeral() as instance:
        assert compare_everything(instance) == 0
        store.refresh(LAST_DAY)
        assert compare_everything(instance) == 1
