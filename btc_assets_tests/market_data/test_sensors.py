"""The candles' sensor as Dagster evaluates it: they follow the ticks, also where nobody asked for them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import dagster as dg
import pytest

from btc_assets.domain.slices import DAY, SLICE, Window, floor_day
from btc_assets.domain.ticks import TABLE
from btc_assets.market_data import candles
from btc_assets.market_data.keys import candles_key
from btc_assets.market_data.loading import LoadOptions, TickLoad
from btc_assets.orchestration.partitions import partition_tags
from btc_assets.store.tables import Target
from btc_assets.store.writers import replace_all
from btc_assets_tests.support.daemon import Daemon
from btc_assets_tests.support.databases import read_candles
from btc_assets_tests.support.stores import FEEDS, StoreUnderTest
from btc_assets_tests.support.trades import HOUR, NOON, every

MINUTE = timedelta(minutes=1)
CANDLES = [candles_key(interval) for interval in candles.INTERVALS]
WHOLE_DAY = Window(floor_day(NOON), floor_day(NOON) + DAY)


@pytest.fixture
def daemon(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    daemon = Daemon(store, "candles_follow_ticks", monkeypatch)
    yield daemon
    daemon.close()


def load_ticks(store: StoreUnderTest, window: Window) -> None:
    """Load the ticks alone, as a backfill of that one asset does."""
    store.register(window)
    with store.connect() as connection:
        load = TickLoad(store.database, store.zone(), FEEDS, window, LoadOptions(commit_rows=100_000, followers=CANDLES))
        replace_all(connection, Target.of(connection, TABLE), load)


def test_a_day_of_ticks_loaded_alone_is_one_run_of_its_candles(store: StoreUnderTest, daemon: Daemon) -> None:
    store.land(every(60, 1440, start=WHOLE_DAY.start), seconds=3600)
    load_ticks(store, WHOLE_DAY)
    assert daemon.settle(store.refresh) == [[("rebuild_candles", WHOLE_DAY)]]
    assert store.rows("SELECT count(*), sum(trade_count)::int FROM market_data.candles_5m") == [(288, 1440)]
    assert daemon.skipped == "No slice is due."


def test_the_run_that_is_asked_for_makes_every_interval(store: StoreUnderTest, daemon: Daemon) -> None:
    store.land(every(10, 60))
    load_ticks(store, HOUR)
    assert daemon.tick() == [("rebuild_candles", Window(NOON, NOON + 2 * SLICE))]
    daemon.run()
    assert {interval: sum(row[9] for row in rows) for interval, rows in read_candles(store.connection).items()} == dict.fromkeys(
        candles.INTERVALS, 60
    )
    assert store.rows("SELECT count(*) FROM ingestion.due_slices") == [(0,)]
    assert daemon.tick_after(MINUTE) == []


def test_slices_are_not_asked_for_while_a_run_makes_them(store: StoreUnderTest, daemon: Daemon) -> None:
    store.land(every(10, 90))
    load_ticks(store, HOUR)
    run = daemon.add_run("ingest", partition_tags(HOUR))  # carries the whole chain, so also the candles
    assert daemon.tick() == []
    assert daemon.skipped == "3 slices are due, and their runs are in progress or were requested before."
    daemon.end(run, dg.DagsterEventType.RUN_FAILURE)
    assert daemon.tick_after(MINUTE) == [("rebuild_candles", Window(NOON, NOON + 3 * SLICE))]
    daemon.start()
    assert daemon.tick_after(MINUTE) == []


def test_ticks_that_change_again_are_asked_for_again(store: StoreUnderTest, daemon: Daemon) -> None:
    store.land(every(10, 90))
    load_ticks(store, HOUR)
    assert len(daemon.tick()) == 1
    for run in daemon.start():
        daemon.end(run, dg.DagsterEventType.RUN_FAILURE)
    assert daemon.tick_after(MINUTE) == []
    load_ticks(store, HOUR)
    assert daemon.tick_after(MINUTE) == [("rebuild_candles", Window(NOON, NOON + 3 * SLICE))]


def test_losing_dagsters_storage_loses_nothing(store: StoreUnderTest, daemon: Daemon) -> None:
    store.land(every(10, 90))
    load_ticks(store, HOUR)
    asked = daemon.tick()
    daemon.forget()
    assert daemon.tick() == asked
    store.refresh(HOUR)
    daemon.forget()
    assert daemon.tick() == []


def test_candles_of_days_before_the_partitions_start_are_made_by_days(store: StoreUnderTest, daemon: Daemon) -> None:
    first = store.settings.first_slice
    store.land(every(10, 60, start=first - SLICE))
    load_ticks(store, Window(first - SLICE, first + SLICE))
    assert daemon.tick() == [("rebuild_candles", Window.of_slice(first)), ("rebuild_candles_history", Window(first - DAY, first))]
