"""The command `status`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from btc_assets.assembly import LOADING_ASSETS
from btc_assets.domain.errors import UserError
from btc_assets.orchestration.home import prepare_dagster_home
from btc_assets.orchestration.ingest import IngestOptions, ingest
from btc_assets.orchestration.partitions import Partitions
from btc_assets_tests.support.command_line import run_command
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import HOUR, every


def test_an_empty_store_says_what_to_do(store: StoreUnderTest) -> None:
    assert "Nothing is registered in that range: land objects, then run btc-assets load." in run_command("status").output


def test_each_day_shows_what_landed_and_what_is_loaded(store: StoreUnderTest) -> None:
    store.land(every(10, 90), seconds=60)
    store.register(HOUR)
    (line,) = (line for line in run_command("status").output.splitlines() if "2024-01-10" in line and "│" in line)
    assert [cell.strip() for cell in line.strip("│ ").split("│")][:3] == ["2024-01-10", "BTCUSDT", "15"] and "0 of 3" in line
    store.load(HOUR)
    output = run_command("status").output
    assert "3 of 3" in output and "BTCUSDT: ticks up to 2024-01-10 12:14:50" in output


def test_a_store_that_is_stuck_shows_the_last_failed_run(store: StoreUnderTest) -> None:
    uris = store.land(every(10, 90), seconds=60)
    store.register(HOUR)
    noticed = datetime.now(UTC) - timedelta(days=2)
    store.connection.execute("UPDATE landing.raw_blobs_5m SET noticed_at = %s, registered_at = %s", (noticed, noticed))
    prepare_dagster_home(store.settings)
    store.landing.rename(store.landing.with_name("gone"))
    with pytest.raises(UserError, match="is not a directory"):
        ingest(store.definitions, LOADING_ASSETS, Partitions.of(store.settings), HOUR, IngestOptions())
    assert uris and "Last failed run: " in (output := run_command("status").output) and "ingest: The landing zone" in output
