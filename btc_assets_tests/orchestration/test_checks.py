"""Checks of slices: which slices they cover, and how their results are shown."""

from __future__ import annotations

from datetime import timedelta

import dagster as dg
import psycopg

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE, Window
from btc_assets.orchestration.checks import Problems, SliceCheck, bullets, check_result, check_slices, read_bullets
from btc_assets.orchestration.deployment import Deployment
from btc_assets.orchestration.partitions import partition_tags
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import HOUR, NOON, every


def run_check(store: StoreUnderTest, check: SliceCheck, tags: dict[str, str]) -> dg.ExecuteInProcessResult:
    asset = dg.AssetKey("numbers")
    definitions = dg.Definitions(
        [dg.AssetSpec(asset)],
        asset_checks=[check_slices("checks_of_numbers", [(asset, check)], Deployment.of(store.settings))],
        jobs=[dg.define_asset_job("checks", dg.AssetSelection.all_asset_checks())],
        resources={"store": store.database},
        executor=dg.in_process_executor,
    )
    with dg.DagsterInstance.ephemeral() as instance:
        return definitions.resolve_job_def("checks").execute_in_process(instance=instance, tags=tags, raise_on_error=False)


def covered(store: StoreUnderTest, tags: dict[str, str]) -> Window:
    """The slices that a check looks at."""
    seen: list[Window] = []

    def find(connection: psycopg.Connection, window: Window) -> Problems:
        seen.append(window)
        return Problems([])

    assert run_check(store, SliceCheck("any", "It holds.", "gaps", find), tags).success
    (window,) = seen
    return window


def test_a_check_covers_the_slices_of_its_run(store: StoreUnderTest) -> None:
    assert covered(store, partition_tags(HOUR)) == HOUR


def test_without_a_range_a_check_covers_the_week_before_the_newest_registered_slice(store: StoreUnderTest) -> None:
    store.land(every(1, 60))
    store.register(HOUR)
    assert covered(store, {}) == Window(NOON + SLICE - timedelta(days=7), NOON + SLICE)


def test_a_check_fails_with_its_problems_and_numbers_as_metadata(store: StoreUnderTest) -> None:
    check = SliceCheck("contiguous", "No trade is missing.", "gaps", lambda connection, window: Problems(["1 to 3", 7], {"missing": 4}))
    (evaluation,) = run_check(store, check, partition_tags(HOUR)).get_asset_check_evaluations()
    assert (evaluation.check_name, evaluation.passed) == ("contiguous", False)
    assert {name: value.value for name, value in evaluation.metadata.items()} == {
        "gaps": 2, "missing": 4, "slices": str(HOUR), "examples": "* 1 to 3\n* 7",
    }  # fmt: skip


def test_a_check_that_cannot_look_fails_with_one_sentence(store: StoreUnderTest) -> None:
    def refuse(connection: psycopg.Connection, window: Window) -> Problems:
        raise UserError("Correct it.")

    result = run_check(store, SliceCheck("any", "It holds.", "gaps", refuse), partition_tags(HOUR))
    (failed,) = (event for event in result.all_node_events if event.is_step_failure)
    data = failed.step_failure_data.user_failure_data
    assert data is not None and data.description == "Correct it."


def test_fifty_problems_are_listed_and_the_others_counted() -> None:
    assert bullets([]) == "none"
    assert bullets(range(50)).splitlines()[-1] == "* 49"
    assert bullets(range(53)).splitlines()[-2:] == ["* 49", "* and 3 more"]
    assert read_bullets(bullets(range(53))) == [str(number) for number in range(50)]
    assert bullets(range(3), 7).splitlines()[-2:] == ["* 2", "* and 4 more"]
    assert read_bullets(bullets(["* a_b *", "1. c"], 7)) == ["* a_b *", "1. c"] and read_bullets(bullets([])) == []
    assert check_result([], "gaps").passed and not check_result(["one"], "gaps").passed


def test_a_check_that_passes_says_what_it_did_not_judge() -> None:
    result = check_result([], "gaps", "The ids of A are not judged.")
    assert (result.passed, result.description) == (True, "The ids of A are not judged.")
    assert result.metadata["not_judged"].value == "The ids of A are not judged."
    assert check_result(["one"], "gaps", "Not judged.").description == "one"
