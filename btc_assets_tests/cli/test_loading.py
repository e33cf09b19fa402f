"""The command `load`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow.compute as pc
import pytest

from btc_assets.domain.slices import KEY_FORMAT, SLICE, floor_slice
from btc_assets_tests.support.cases import case
from btc_assets_tests.support.command_line import run_command
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import every
from btc_assets_tests.support.zones import StoreOnS3


def test_loading_with_failed_checks_reports_them_and_exits_with_2(store: StoreUnderTest) -> None:
    store.land(every(1, 60))
    store.put("2024/01/10/12/00/batch-x.parquet", b"")
    result = run_command("load", "--from", "2024-01-10T12:00Z", "--to", "2024-01-10T12:05Z")
    assert result.exit_code == 2
    assert "check failed landing/raw_blobs_5m no_rejected_object" in result.output


def test_a_load_of_a_range_beside_all_objects_loads_nothing_and_fails_and_one_that_is_up_to_date_succeeds(store: StoreUnderTest) -> None:
    store.land(every(10, 60), seconds=3600)
    beside = run_command("load", "--from", "2024-01-10T12:10Z", "--to", "2024-01-10T12:20Z")  # its folder is listed all the same
    assert (beside.exit_code, beside.output.splitlines()[-1]) == (
        1,
        "Error: 0 objects: nothing landed between 2024-01-10T12:10Z and 2024-01-10T12:20Z.",
    )
    for _ in range(2):
        loaded = run_command("load", "--from", "2024-01-10T12:00Z", "--to", "2024-01-10T12:10Z")
        assert loaded.exit_code == 0
        assert "│       1 │      2 │    60 │" in loaded.output  # one object that covers two slices


@pytest.mark.parametrize("gaps", [2, 60])
def test_all_gaps_are_listed_with_their_number(store: StoreUnderTest, gaps: int) -> None:
    ids = every(4, 4 * gaps + 1)
    store.land(ids.filter(pc.not_equal(pc.bit_wise_and(ids["trade_id"], 3), 0)), seconds=3600)  # every fourth is missing
    loaded = run_command("load", "--from", "2024-01-10T12:00Z", "--to", "2024-01-10T12:20Z")
    assert loaded.exit_code == 2
    lines = loaded.output.splitlines()
    head = lines.index(f"check failed market_data/btc_ticks trade_ids_contiguous: {gaps} gaps")
    listed = [line for line in lines[head + 1 :] if line.startswith("  BTCUSDT")]
    assert [line.split(" before")[0] for line in listed] == [f"  BTCUSDT {n} to {n} (1 trades)" for n in range(4, 4 * gaps + 1, 4)]


FOLDER_OF_THE_CASE = "2026/11/20/12/00"
RANGE_OF_THE_CASE = "--from", "2026-11-20T12:00Z", "--to", "2026-11-20T12:10Z"


def test_an_archived_object_is_named_with_what_to_do_and_the_others_are_loaded_each_time(on_exact_s3: StoreOnS3) -> None:
    data = (case("28-s3-glacier") / "ok.jsonl").read_bytes()
    on_exact_s3.put_key(f"{FOLDER_OF_THE_CASE}/ok.jsonl", data)
    archived = on_exact_s3.put_key(f"{FOLDER_OF_THE_CASE}/glacier.jsonl", data, StorageClass="GLACIER")
    for _ in range(2):  # the second time there is nothing else to read
        result = run_command("load", *RANGE_OF_THE_CASE)
        assert result.exit_code == 2, result.output
        words = " ".join(result.output.split())
        assert f"no_rejected_object: {archived}: Reading {archived} failed (InvalidObjectState: " in words
        assert "it is archived: restore it (aws s3api restore-object)" in words
        assert on_exact_s3.rows("SELECT count(*) FROM market_data.btc_ticks") == [(len(data.splitlines()),)]
    assert on_exact_s3.rows("SELECT status FROM landing.raw_blobs_5m WHERE uri = %s", archived) == [("noticed",)]


def test_a_range_that_ends_after_the_present_is_loaded_as_far_as_it_is_over(store: StoreUnderTest) -> None:
    start = floor_slice(datetime.now(UTC)) - 2 * SLICE
    store.land(every(10, 30, start=start))
    for end in ("9999-12-31", "9999-12-31T23:59", f"{datetime.now(UTC) + timedelta(hours=1):%Y-%m-%dT%H:%MZ}"):
        result = run_command("load", "--from", f"{start:{KEY_FORMAT}}", "--to", end)
        assert "The range ends after the present: loading what is over, up to " in result.output
        assert (result.exit_code, store.rows("SELECT count(*) FROM market_data.btc_ticks")) == (0, [(30,)]), result.output


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(days=1), timedelta(days=20_000)])
def test_a_range_of_which_nothing_is_over_is_one_sentence(store: StoreUnderTest, ahead: timedelta) -> None:
    start = floor_slice(datetime.now(UTC)) + ahead
    result = run_command("load", "--from", f"{start:{KEY_FORMAT}}", "--to", "9999-12-31")
    assert result.exit_code == 1
    assert f"The range starts at {start:{KEY_FORMAT}}, and that slice is not over yet (now it is " in " ".join(result.output.split())


def test_times_at_the_ends_of_the_calendar_are_no_tracebacks(store: StoreUnderTest) -> None:
    for arguments in (
        ("load", "--from", "9999-12-31T23:59", "--to", "9999-12-31T23:59:59"),
        ("load", "--from", "0001-01-01T00:00+14:00", "--to", "2024-01-10"),
        ("load", "--from", "0001-01-01", "--to", "2024-01-10"),
        ("status", "--from", "9999-12-31T23:59"),
    ):
        result = run_command(*arguments)
        assert (result.exit_code, type(result.exception)) == (1, SystemExit)
        assert "Error: " in result.output
    assert run_command("status", "--from", "0001-01-01", "--to", "9999-12-31T23:59").exit_code == 0


def test_objects_in_folders_that_are_no_time_are_named_by_a_load_that_lists_nothing(store: StoreUnderTest) -> None:
    store.put("date=2026-11-20/data_0.jsonl", (case("18-hive-folders") / "data_0.jsonl").read_bytes())
    loaded = run_command("load", "--from", "2026-11-20T18:00Z", "--to", "2026-11-20T20:10Z")
    assert loaded.exit_code == 1
    words = " ".join(loaded.output.split())
    assert "Nothing was listed in the folders of 2026-11-20T18:00Z to 2026-11-20T20:10Z." in words
    assert words.endswith("Error: 0 objects: nothing landed between 2026-11-20T18:00Z and 2026-11-20T20:10Z.")
    for output in (loaded.output, run_command("status").output, run_command("doctor").output):
        assert "lies in a minute folder (YYYY/MM/DD/HH/MM/); what lies there begins with date=2026-11-20/: move" in " ".join(output.split())


def test_a_prefix_under_which_nothing_lies_is_told_with_what_lies_beside_it(store: StoreUnderTest) -> None:
    store.zone().put("Binance/BTCUSD/2026/11/20/18/00/o", b"x")
    loaded = run_command("load", "--from", "2026-11-20T18:00Z", "--to", "2026-11-20T18:10Z")
    assert f"Nothing lies in {store.zone().url}/Binance/BTCUSDT; {store.zone().url}/Binance holds BTCUSD/: look" in " ".join(
        loaded.output.split()
    )


@pytest.mark.parametrize("folder", ["2026/11/20/07", "2026/11/20"])
def test_a_load_of_a_slice_finds_objects_in_the_folder_of_its_hour_and_day(store: StoreUnderTest, folder: str) -> None:
    (data,) = case("23-hour-folder").glob("*.jsonl")
    store.put(f"{folder}/{data.name}", data.read_bytes())
    assert run_command("load", "--from", "2026-11-20T07:40Z", "--to", "2026-11-20T07:45Z").exit_code == 0
    assert store.rows("SELECT count(*) FROM market_data.btc_ticks") == [(120,)]
