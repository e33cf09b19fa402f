"""Schedules: what they run, and with which configuration."""

from __future__ import annotations

import dagster as dg

from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import NOON


def test_schedules_run_existing_jobs_with_valid_configurations(store: StoreUnderTest) -> None:
    configurations = {}
    defs = store.definitions
    for schedule in defs.schedules or ():
        assert isinstance(schedule, dg.ScheduleDefinition)
        with dg.DagsterInstance.ephemeral() as instance:
            context = dg.build_schedule_context(instance, scheduled_execution_time=NOON)
            requests = schedule.evaluate_tick(context).run_requests
        assert requests is not None
        (request,) = requests
        assert dg.validate_run_config(defs.resolve_job_def(schedule.job_name), request.run_config)
        configurations[schedule.name] = request.run_config.get("ops", {}).get("ops__reconciliations", {}).get("config")
    assert configurations == {
        "maintain_hourly": None,
        "care_for_indexes_daily": None,
        "reconcile_hourly": {"hours": 48, "heal": True, "ask_again": False},
        "reconcile_weekly": {"hours": 0, "heal": True, "ask_again": False},
    }
