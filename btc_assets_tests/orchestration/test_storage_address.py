"""What is read of Dagster's tables without Dagster."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from btc_assets.orchestration.home import prepare_dagster_home
from btc_assets.orchestration.storage_address import daemon_runs
from btc_assets_tests.support.dagster_private import DaemonHeartbeat
from btc_assets_tests.support.stores import StoreUnderTest


def test_where_dagster_never_ran_no_daemon_runs(store: StoreUnderTest) -> None:
    assert not daemon_runs(store.settings, datetime.now(UTC))


@pytest.mark.parametrize("age", [timedelta(0), timedelta(minutes=30), timedelta(minutes=32)], ids=str)
def test_a_daemon_runs_where_dagster_itself_says_so(store: StoreUnderTest, age: timedelta) -> None:
    prepare_dagster_home(store.settings)
    now = datetime.now(UTC)
    with dg.DagsterInstance.get() as instance:
        assert not daemon_runs(store.settings, now)
        instance.add_daemon_heartbeat(DaemonHeartbeat((now - age).timestamp(), "SENSOR", "one", None))
        (healthy,) = [status.healthy for status in instance.get_daemon_statuses(["SENSOR"]).values()]
    assert daemon_runs(store.settings, now) == healthy == (age < timedelta(minutes=31))
