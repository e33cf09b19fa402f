"""The commands `acknowledge` and `status`: problems stay red until they are mended or acknowledged."""

from __future__ import annotations

from btc_assets.domain.slices import SLICE
from btc_assets_tests.support.command_line import run_command
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import NOON, every

FIRST = "--from", "2024-01-10T12:00Z", "--to", "2024-01-10T12:05Z"
SECOND = "--from", "2024-01-10T12:05Z", "--to", "2024-01-10T12:10Z"
OPEN = "check failed landing/raw_blobs_5m no_open_problem: "


def test_a_rejected_object_stays_red_in_later_runs_until_it_is_acknowledged(store: StoreUnderTest) -> None:
    uri = store.put("2024/01/10/12/00/batch-x.parquet", b"")
    store.land(every(1, 300, start=NOON + SLICE))
    sentence = f"{uri}: the object is empty (0 bytes): land it again"
    assert OPEN + sentence in run_command("load", *FIRST).output
    later = run_command("load", *SECOND)
    assert later.exit_code == 2 and OPEN + sentence in later.output
    status = run_command("status").output
    assert f"{sentence}; or btc-assets acknowledge '{uri}'" in status

    assert run_command("acknowledge", uri, "--note", "the collector [crashed]").output == f"Acknowledged {uri}.\n"
    assert run_command("load", *SECOND).exit_code == 0
    assert run_command("load", *FIRST).exit_code == 0
    assert "batch-x" not in run_command("status").output
    listed = run_command("acknowledge", "--list").output
    assert listed.endswith(f": rejected object {uri} (the collector [crashed])\n")

    run_command("acknowledge", "--undo", uri)
    assert run_command("load", *SECOND).exit_code == 2


def test_a_rejected_object_that_is_deleted_is_red_no_longer(store: StoreUnderTest) -> None:
    uri = store.put("2024/01/10/12/00/batch-x.parquet", b"")
    store.land(every(1, 300, start=NOON + SLICE))
    assert run_command("load", *FIRST).exit_code == 2
    store.delete(uri)
    assert run_command("load", *FIRST).exit_code == 0
    assert run_command("load", *SECOND).exit_code == 0


def test_status_shows_the_newest_problems_and_how_to_see_all(store: StoreUnderTest) -> None:
    for number in range(7):
        store.put(f"2024/01/10/12/0{number}/batch-x.parquet", b"")
    run_command("load", *FIRST)
    assert "2 more problem(s): btc-assets status --problems 7" in run_command("status").output
    assert run_command("status", "--problems", "7").output.count("rejected object since ") == 7


def test_acknowledging_needs_an_object_that_is_a_problem(store: StoreUnderTest) -> None:
    assert run_command("acknowledge").exit_code == 2
    refused = run_command("acknowledge", "s3://bucket/none")
    assert refused.exit_code == 1 and "There is no problem with s3://bucket/none: name it as btc-assets status shows it." in refused.output
    assert run_command("acknowledge", "--list").output == "Nothing was acknowledged.\n"
