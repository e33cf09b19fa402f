"""How long Dagster's events are kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import dagster as dg

from btc_assets.orchestration.home import prepare_dagster_home
from btc_assets.orchestration.old_events import delete_old_events
from btc_assets_tests.orchestration.talkative import run_day, talkative
from btc_assets_tests.support.stores import StoreUnderTest


def run_status(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    found = instance.get_run_by_id(run_id)
    assert found is not None
    return found.status


def test_old_runs_lose_the_events_of_their_steps_and_assets_keep_their_history(store: StoreUnderTest) -> None:
    prepare_dagster_home(store.settings)
    with dg.DagsterInstance.get() as instance:
        old = run_day(instance)
        store.connection.execute("UPDATE dagster.event_logs SET timestamp = timestamp - interval '91 days'")
        new = run_day(instance)
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
