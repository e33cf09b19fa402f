"""A load that begins while its window is registered ends as one that begins afterwards, whatever happens in between."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

import psycopg
import pytest

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE, Window
from btc_assets.domain.ticks import TABLE
from btc_assets.landing import reading
from btc_assets.landing.registration import RegisterOptions, register_window
from btc_assets.landing.spool import Spool
from btc_assets.market_data.early_load import loading_early
from btc_assets.market_data.loading import LoadOptions, TickLoad
from btc_assets.store.database import Store
from btc_assets.store.locks import lock_slices
from btc_assets.store.tables import Target
from btc_assets.store.writers import replace_all
from btc_assets_tests.support.stores import FEEDS, StoreUnderTest
from btc_assets_tests.support.trades import HOUR, NOON, every, messages, trade
from btc_assets_tests.support.waiting import wait_for

MARGIN = timedelta(minutes=5)
CONTENT = "SELECT * FROM market_data.btc_ticks ORDER BY bucket_5m, symbol, trade_id"
COUNT = "SELECT count(*) FROM market_data.btc_ticks"

Settled = Callable[[datetime], None]


@pytest.fixture(autouse=True)
def _small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_GROUP_OBJECTS", 10)


def new_load(store: StoreUnderTest, *, spool: Spool | None = None, force: bool = False) -> TickLoad:
    return TickLoad(store.database, store.zone(), FEEDS, HOUR, LoadOptions(300, force=force, spool=spool))


def register(store: StoreUnderTest, on_settled: Settled, spool: Spool | None = None) -> None:
    with store.connect() as connection:
        register_window(connection, store.zone(), FEEDS, HOUR, RegisterOptions(MARGIN, spool=spool, on_settled=on_settled))


def write(store: StoreUnderTest, load: TickLoad) -> int:
    with store.connect() as connection:
        return replace_all(connection, Target.of(connection, TABLE), load, writers=2, store=store.database)


def after_half(store: StoreUnderTest, tell: Settled, act: Callable[[], object]) -> Settled:
    """Tell of what is settled, and act once: after half of the hour is registered, and its first slices are loaded."""
    pending = [act]

    def on_settled(before: datetime) -> None:
        tell(before)
        if pending and before >= NOON + 6 * SLICE:
            wait_for(lambda: store.rows(COUNT) >= [(600,)], "the first two slices are loaded")
            pending.pop()()

    return on_settled


def test_what_is_loaded_early_and_what_is_left_are_the_table_of_one_load(store: StoreUnderTest) -> None:
    store.land(every(1, 3600))
    load, early = new_load(store, spool=Spool()), []
    with loading_early(load, MARGIN, writers=2) as on_settled:
        register(store, after_half(store, on_settled, lambda: early.append(load.result.rows)), load.options.spool)
    assert 600 <= early[0] <= 1500  # of the half that is registered, without the margin
    committed = load.result.rows
    assert write(store, load) == 3600 - committed
    assert (load.result.rows, load.result.slices, sum(load.result.slice_rows.values())) == (3600, 12, 3600)
    assert (load.result.first_trade_id, load.result.last_trade_id) == (1, 3600)
    assert store.rows("SELECT count(*) FROM landing.raw_blobs_5m WHERE loaded_at IS NULL") == [(0,)]
    assert store.rows("SELECT last_sequence FROM ingestion.stream_offsets WHERE source LIKE 'market_data%%'") == [(3600,)]
    before = store.rows(CONTENT)
    store.connection.execute("DELETE FROM market_data.btc_ticks")
    store.load(HOUR)
    assert store.rows(CONTENT) == before


def test_a_slice_that_changes_after_it_was_loaded_early_is_loaded_again(store: StoreUnderTest) -> None:
    store.land(every(1, 3600))

    def land_late() -> None:
        store.put("2024/01/10/12/59/late.jsonl", messages([trade(9_001, NOON + timedelta(seconds=5))]))
        store.register(Window(HOUR.end - SLICE, HOUR.end))

    load = new_load(store)
    with loading_early(load, MARGIN) as on_settled:
        register(store, after_half(store, on_settled, land_late))
    write(store, load)
    assert store.rows("SELECT count(*), max(trade_id) FROM market_data.btc_ticks WHERE bucket_5m = %s", NOON) == [(301, 9_001)]
    assert store.rows(COUNT) == [(3601,)]
    assert store.rows("SELECT count(*) FROM landing.raw_blobs_5m WHERE landing.is_unsettled(status, loaded_at)") == [(0,)]
    assert load.result.rows == 3600  # what is loaded again is counted once


def test_what_fails_early_is_told_by_the_load_and_not_by_registering(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    (first, *_) = store.land(every(1, 3600))
    store.ingest(HOUR)
    store.delete(first)
    store.connection.execute("UPDATE landing.raw_blobs_5m SET status = 'noticed' WHERE uri <> %s", [first])
    load = new_load(store)
    with loading_early(load, MARGIN) as on_settled:
        register(store, on_settled)
    with pytest.raises(UserError, match=r"1 slice\(s\) were left as they are, the first at 2024-01-10T12:00Z, because .* is gone"):
        write(store, load)
    assert store.rows(COUNT) == [(3600,)]


def test_a_session_that_is_lost_while_it_loads_early_leaves_more_for_the_load(store: StoreUnderTest) -> None:
    store.land(every(1, 3600))
    pids: list[int] = []

    class Watched(Store):
        def connect(self, *, owner: bool = False) -> psycopg.Connection:
            connection = super().connect(owner=owner)
            pids.append(connection.info.backend_pid)
            return connection

    load = new_load(store)
    load.store = Watched(store.dsn)
    with loading_early(load, MARGIN) as on_settled:
        register(store, after_half(store, on_settled, lambda: [store.rows("SELECT pg_terminate_backend(%s)", pid) for pid in pids]))
    load.store = store.database
    write(store, load)
    assert store.rows("SELECT count(*), sum(trade_id) FROM market_data.btc_ticks") == [(3600, 3600 * 3601 // 2)]
    assert load.result.rows == 3600


def test_registering_that_is_interrupted_waits_for_no_lock_and_leaves_whole_slices(store: StoreUnderTest) -> None:
    store.land(every(1, 3600))
    load = new_load(store)

    def interrupt() -> None:
        waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'"
        wait_for(lambda: store.rows(waiting), "the early load waits for the lock")
        raise KeyboardInterrupt

    with store.connect() as other, other.transaction():
        lock_slices(other.cursor(), TABLE, Window.of_slice(NOON + 2 * SLICE))
        with pytest.raises(KeyboardInterrupt), loading_early(load, MARGIN, writers=2) as on_settled:
            register(store, after_half(store, on_settled, interrupt))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("early-load", "prefetch", "write"))]
    assert set(store.rows("SELECT count(*) FROM market_data.btc_ticks GROUP BY bucket_5m")) == {(300,)}
    assert store.rows("SELECT count(DISTINCT bucket_5m) FROM landing.raw_blobs_5m WHERE loaded_at IS NOT NULL") == store.rows(
        "SELECT count(DISTINCT bucket_5m) FROM market_data.btc_ticks"
    )
    store.ingest(HOUR)
    assert store.rows(COUNT) == [(3600,)]


def test_a_window_of_which_nothing_is_settled_before_the_rest_opens_no_session(store: StoreUnderTest) -> None:
    class Closed(Store):
        def connect(self, *, owner: bool = False) -> psycopg.Connection:
            raise AssertionError("there is nothing to write in it")

    load = new_load(store)
    load.store = Closed(store.dsn)
    with loading_early(load, MARGIN) as on_settled:
        register(store, on_settled)
        on_settled(HOUR.end + MARGIN)
    assert not load.result.slices
