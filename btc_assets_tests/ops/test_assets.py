"""The assets of this room and their checks, as Dagster runs them."""

from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg
import pytest

from btc_assets.domain.slices import KEY_FORMAT, SLICE, Window
from btc_assets.ops import retention_jobs
from btc_assets.ops.policies import TICKS
from btc_assets.ops.reconcile import reconcile
from btc_assets.orchestration.partitions import RANGE_END_TAG, RANGE_START_TAG
from btc_assets_tests.support.policies import DECLARED, read_days_of_ticks
from btc_assets_tests.support.stores import FEEDS, StoreUnderTest
from btc_assets_tests.support.trades import HOUR, NOON, every


def run_ingest(store: StoreUnderTest, window: Window) -> dg.ExecuteInProcessResult:
    tags = {RANGE_START_TAG: window.start.strftime(KEY_FORMAT), RANGE_END_TAG: (window.end - SLICE).strftime(KEY_FORMAT)}
    with dg.DagsterInstance.ephemeral() as instance:
        return store.definitions.resolve_job_def("ingest").execute_in_process(instance=instance, tags=tags)


def run_all_checks(store: StoreUnderTest) -> dg.ExecuteInProcessResult:
    every_check = dg.define_asset_job("checks", selection=dg.AssetSelection.all_asset_checks())
    definitions = dg.Definitions.merge(store.definitions, dg.Definitions(jobs=[every_check]))
    with dg.DagsterInstance.ephemeral() as instance:
        return definitions.resolve_job_def("checks").execute_in_process(instance=instance)


def failed_checks(result: dg.ExecuteInProcessResult) -> list[str]:
    evaluations = result.get_asset_check_evaluations()
    assert evaluations
    return [evaluation.check_name for evaluation in evaluations if not evaluation.passed]


def test_dropped_ticks_fail_no_check(store: StoreUnderTest) -> None:
    store.land(every(1, 600))
    assert failed_checks(run_ingest(store, HOUR)) == []
    retention_jobs.apply_policies(store.connection, DECLARED)
    retention_jobs.run_policy(store.connection, f"drop {TICKS}")
    assert read_days_of_ticks(store.connection) == []
    assert reconcile(store.connection, store.zone(), FEEDS, HOUR, datetime.now(UTC)).counts == {}
    assert failed_checks(run_all_checks(store)) == []
    assert failed_checks(run_ingest(store, Window(NOON, NOON + SLICE))) == []  # half of the dropped ticks are there again


def run_maintain(store: StoreUnderTest, apply: bool = False) -> dg.ExecuteInProcessResult:
    with dg.DagsterInstance.ephemeral() as instance:
        return store.definitions.resolve_job_def("maintain").execute_in_process(
            instance=instance, run_config={"ops": {"ops__retention_jobs": {"config": {"apply": apply}}}}
        )


def test_the_job_maintain_reports_drift_and_applies_policies_only_on_request(
    store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BTC_ASSETS_TICKS_DROP_AFTER_DAYS", "never")  # a scheduler may run at once what is applied
    (check,) = run_maintain(store).get_asset_check_evaluations()
    assert not check.passed and "it is not applied yet: run btc-assets ops apply" in str(check.metadata["examples"].value)
    (check,) = run_maintain(store, apply=True).get_asset_check_evaluations()
    assert check.passed
    (materialised,) = run_maintain(store).asset_materializations_for_node("ops__retention_jobs")
    assert materialised.metadata["changed"].value == 0
    states = store.rows("SELECT DISTINCT state FROM ops.retention_jobs")
    assert {state for (state,) in states} <= {"applied", "not supported"}


def run_reconcile(store: StoreUnderTest, **config: object) -> dg.ExecuteInProcessResult:
    with dg.DagsterInstance.ephemeral() as instance:
        return store.definitions.resolve_job_def("reconcile").execute_in_process(
            instance=instance, run_config={"ops": {"ops__reconciliations": {"config": config}}}
        )


def read_check(result: dg.ExecuteInProcessResult) -> tuple[bool, str]:
    (evaluation,) = result.get_asset_check_evaluations()
    return evaluation.passed, str(evaluation.metadata["examples"].value)


def test_the_job_reconcile_shows_what_differs_and_its_check_fails(store: StoreUnderTest) -> None:
    store.land(every(10, 360), seconds=60)
    store.ingest(HOUR)
    store.connection.execute("DELETE FROM market_data.btc_ticks WHERE trade_id IN (5, 6)")
    sentence = "* BTCUSDT 2024-01-10T12:00Z: loaded, 30 rows by the registry, 28 in the table"
    result = run_reconcile(store, hours=0)
    (event,) = result.asset_materializations_for_node("ops__reconciliations")
    shown = {name: event.metadata[name].value for name in ("compared", "unequal", "healed", "differences", "dagster/row_count")}
    assert shown == {"compared": "everything", "unequal": 1, "healed": 0, "differences": sentence, "dagster/row_count": 1}
    assert read_check(result) == (False, sentence)
    assert read_check(run_reconcile(store, hours=48)) == (False, sentence)  # it is older than that, and was not healed
    assert read_check(run_reconcile(store, hours=0, heal=True)) == (False, sentence)
    store.ingest(Window.of_slice(NOON))
    assert read_check(run_reconcile(store, hours=0)) == (True, "none")
