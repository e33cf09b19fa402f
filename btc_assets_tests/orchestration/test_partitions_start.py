"""The start of the partitions: recorded once, the same for every process, and moved only on purpose."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from btc_assets.domain.errors import UserError
from btc_assets.domain.settings import default_start, load_settings
from btc_assets.domain.slices import DAY, Window, floor_day
from btc_assets.orchestration.home import prepare_dagster_home
from btc_assets.orchestration.partitions import PARTITION_TAG, RANGE_END_TAG, RANGE_START_TAG
from btc_assets.orchestration.partitions_start import move_start, record_start, share_start
from btc_assets_tests.orchestration.talkative import talkative
from btc_assets_tests.support.command_line import run_command
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import every

NEW_YEAR = datetime(2024, 1, 1, tzinfo=UTC)


@dg.job
def any_partitions() -> None:
    """A job whose runs may have the tags of any partitions."""


@pytest.fixture
def used(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> StoreUnderTest:
    """A store whose settings name no start."""
    monkeypatch.setenv("BTC_ASSETS_PARTITIONS_START", "")
    prepare_dagster_home(store.settings)
    store.home.mkdir()
    return store


def test_the_start_that_a_store_was_first_used_with_stays_when_months_pass(used: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_settings().first_slice
    record_start(load_settings())
    next_year = timedelta(days=366)
    monkeypatch.setattr("btc_assets.domain.settings.floor_day", lambda time: floor_day(time + next_year * (time > NEW_YEAR)))
    assert load_settings().first_slice == first
    record_start(load_settings())
    assert (used.home / "partitions_start").read_text() == f"{first:%Y-%m-%dT%H:%MZ}\n"
    monkeypatch.setenv("BTC_ASSETS_PARTITIONS_START", "2024-01-01")
    assert load_settings().first_slice == NEW_YEAR  # a setting counts more


def test_runs_use_the_start_of_the_code_location_that_offered_them(used: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    offered = load_settings()
    share_start(offered)
    (used.home / "partitions_start").write_text("2024-01-01T00:00Z\n")  # it moves while the code location runs
    script = "from btc_assets.domain.settings import load_settings; print(load_settings().first_slice)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str(offered.first_slice)
    monkeypatch.setenv("BTC_ASSETS_PARTITIONS_START", "")  # a code location that starts now
    assert load_settings().first_slice == NEW_YEAR


def test_a_start_moves_and_days_that_were_loaded_as_slices_count_as_loaded(used: StoreUnderTest) -> None:
    done = run_command("ops", "move-start", "2024-01-01")
    assert done.exit_code == 0 and "The 5-minute partitions start at 2024-01-01T00:00Z; 0 loaded day(s)" in done.output.replace("\n", " ")
    assert load_settings().first_slice == NEW_YEAR


@pytest.mark.parametrize("start", ["soon", "2024-01-01T00:03Z"])
def test_a_start_within_a_slice_is_refused(used: StoreUnderTest, start: str) -> None:
    done = run_command("ops", "move-start", start)
    assert (done.exit_code == 1 and "name" in done.output) or "write it as" in done.output
    assert not (used.home / "partitions_start").exists() or load_settings().first_slice != NEW_YEAR


def test_no_run_and_no_backfill_is_ended_by_a_move(used: StoreUnderTest) -> None:
    job = dg.Definitions([talkative]).resolve_implicit_global_asset_job_def()
    tags = {RANGE_START_TAG: "2024-01-10", RANGE_END_TAG: "2024-01-11"}
    with dg.DagsterInstance.get() as instance:
        run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, tags=tags)
        with pytest.raises(UserError, match=r"^1 run\(s\) under way, which the move would end: wait until they are done or cancel them"):
            move_start(load_settings(), instance, NEW_YEAR)
        assert not (used.home / "partitions_start").exists()
        instance.report_run_failed(run)
        move_start(load_settings(), instance, NEW_YEAR)
    assert load_settings().first_slice == NEW_YEAR


def test_runs_whose_partitions_exist_under_both_starts_are_not_in_the_way(used: StoreUnderTest) -> None:
    with dg.DagsterInstance.get() as instance:

        def starts_run(*keys: str) -> dg.DagsterRun:
            tags = {PARTITION_TAG: keys[0]} if len(keys) == 1 else {RANGE_START_TAG: keys[0], RANGE_END_TAG: keys[1]}
            return instance.create_run_for_job(any_partitions, status=dg.DagsterRunStatus.STARTED, tags=tags)

        starts_run("2024-01-01T00:00Z", "2024-01-02T00:00Z")
        starts_run("2023-12-30", "2023-12-31")
        instance.create_run_for_job(any_partitions, status=dg.DagsterRunStatus.STARTED)
        move_start(load_settings(), instance, NEW_YEAR)
        for keys in (["2023-12-31T23:55Z"], ["2023-12-31T23:55Z", "2024-01-02T00:00Z"], ["2023-12-31", "2024-01-01"]):
            in_the_way = starts_run(*keys)
            with pytest.raises(UserError, match=r"^1 run\(s\) under way"):
                move_start(load_settings(), instance, NEW_YEAR)
            instance.report_run_failed(in_the_way)


def record(store: StoreUnderTest, start: datetime) -> None:
    (store.home / "partitions_start").write_text(f"{start:%Y-%m-%dT%H:%MZ}\n")


def test_the_recorded_start_moves_once_a_month_and_complete_days_become_history(used: StoreUnderTest) -> None:
    record(used, NEW_YEAR)
    used.land(every(10, 288, start=NEW_YEAR), seconds=3600)
    used.ingest(Window(NEW_YEAR, NEW_YEAR + DAY))
    moved = run_command("ops", "move-start", "--if-due")
    assert moved.exit_code == 0 and "1 loaded day(s) before it are reported as history." in moved.output
    assert load_settings().first_slice == default_start(datetime.now(UTC))
    with dg.DagsterInstance.get() as instance:
        assert instance.get_materialized_partitions(dg.AssetKey(["market_data", "btc_ticks_history"])) == {"2024-01-01"}
    assert run_command("ops", "move-start", "--if-due").output == ""


def test_a_start_that_a_person_has_chosen_does_not_move_by_itself(used: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_command("ops", "move-start", "2024-01-01").exit_code == 0
    assert run_command("ops", "move-start", "--if-due").output == "" and load_settings().first_slice == NEW_YEAR
    monkeypatch.setenv("BTC_ASSETS_PARTITIONS_START", "2023-01-01")
    assert run_command("ops", "move-start", "--if-due").output == "" and load_settings().first_slice == NEW_YEAR.replace(year=2023)
    monkeypatch.setenv("BTC_ASSETS_PARTITIONS_START", "")
    assert run_command("ops", "move-start").exit_code == 0  # it is given up
    record(used, NEW_YEAR)
    assert run_command("ops", "move-start", "--if-due").output and load_settings().first_slice > NEW_YEAR


def test_a_move_that_runs_forbid_is_put_off_and_keeps_nothing_from_starting(used: StoreUnderTest) -> None:
    record(used, NEW_YEAR)
    with dg.DagsterInstance.get() as instance:
        instance.create_run_for_job(any_partitions, status=dg.DagsterRunStatus.STARTED, tags={PARTITION_TAG: "2024-01-01T00:00Z"})
    put_off = run_command("ops", "move-start", "--if-due")
    assert put_off.exit_code == 0 and "did not move: 1 run(s) under way" in put_off.output
    assert load_settings().first_slice == NEW_YEAR


def test_where_a_variable_sets_the_start_it_must_change_there(store: StoreUnderTest) -> None:
    prepare_dagster_home(store.settings)
    with (
        dg.DagsterInstance.get() as instance,
        pytest.raises(UserError, match="set it to 2024-01-01T00:00Z for every process, and start them"),
    ):
        move_start(load_settings(), instance, NEW_YEAR)
