"""Loading keeps promises 1, 2, 4 and 6: after it, a slice is exactly the de-duplicated rows of its registered objects."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from btc_assets.domain.errors import TransientError, UserError
from btc_assets.domain.feeds import Feed, Feeds
from btc_assets.domain.slices import SLICE, Window
from btc_assets.domain.ticks import TABLE
from btc_assets.ingestion.offsets import advance_offsets
from btc_assets.landing.objects import LandedObject
from btc_assets.landing.zone import LandingZone
from btc_assets.market_data import loading
from btc_assets.market_data.loading import LoadOptions, TickLoad
from btc_assets.market_data.source_rows import SourceReader
from btc_assets.simulation.batches import encode_batch
from btc_assets.store.database import Store
from btc_assets.store.locks import lock_slices
from btc_assets.store.replace import Replacement
from btc_assets.store.tables import Target
from btc_assets.store.writers import replace_all
from btc_assets_tests.support.stores import FEED, FEEDS, StoreUnderTest
from btc_assets_tests.support.trades import HOUR, NOON, every, messages, table, trade
from btc_assets_tests.support.waiting import wait_for

FIVE = timedelta(minutes=5)
IDS = "SELECT trade_id FROM market_data.btc_ticks ORDER BY trade_id"
CONTENT = "SELECT * FROM market_data.btc_ticks ORDER BY bucket_5m, symbol, trade_id"


def ids(store: StoreUnderTest) -> list[int]:
    return [row[0] for row in store.rows(IDS)]


def test_a_second_load_changes_nothing(store: StoreUnderTest) -> None:
    store.land(every(1, 600))
    store.ingest(HOUR)
    before = store.rows(CONTENT)
    store.ingest(HOUR)
    assert len(before) == 600
    assert store.rows(CONTENT) == before


def test_the_time_of_a_load_moves_in_the_slices_that_it_changes_alone(store: StoreUnderTest) -> None:
    store.land(every(1, 1500), seconds=300)  # five slices

    def moved_by(change: Callable[[], object]) -> set[int]:
        """The numbers of the slices whose time moved when a change was loaded."""
        times = "SELECT bucket_5m, max(loaded_at) FROM landing.raw_blobs_5m GROUP BY 1"
        before = dict(store.rows(times))
        change()
        store.ingest(HOUR)
        return {(bucket - NOON) // FIVE for bucket, time in store.rows(times) if time != before.get(bucket)}

    record = "UPDATE market_data.loaded_slices SET volume = volume + 1 WHERE bucket_5m = %s"
    assert moved_by(lambda: None) == {0, 1, 2, 3, 4}
    assert moved_by(lambda: None) == set()
    assert moved_by(lambda: store.put("2024/01/10/12/05/more.jsonl", messages([trade(9999, NOON + FIVE)]))) == {1}
    assert moved_by(lambda: store.put("2024/01/10/12/05/more.jsonl", messages([trade(9999, NOON + FIVE, price="1")]))) == {1}
    assert moved_by(lambda: store.connection.execute(record, (NOON + 2 * FIVE,))) == {2}
    assert moved_by(lambda: store.land(every(1, 300, start=NOON + 3 * FIVE, first_id=901), seconds=300)) == {3}  # the same trades again
    loads = "SELECT count(DISTINCT loaded_at) FROM market_data.loaded_slices"
    assert store.rows(loads) == [(1,)]  # each load has its time in its record


def test_loading_one_slice_changes_only_that_slice(store: StoreUnderTest) -> None:
    store.land(every(1, 600))
    store.ingest(HOUR)
    store.connection.execute("UPDATE market_data.btc_ticks SET price = 1")
    store.load(Window.of_slice(NOON + FIVE))
    assert store.rows("SELECT bucket_5m, count(*) FILTER (WHERE price = 1) FROM market_data.btc_ticks GROUP BY 1 ORDER BY 1") == [
        (NOON, 300),
        (NOON + FIVE, 0),
    ]


def test_rows_that_nobody_registered_go_also_from_slices_without_objects(store: StoreUnderTest) -> None:
    store.land(every(1, 10))
    store.ingest(HOUR)
    stray = "INSERT INTO market_data.btc_ticks SELECT bucket_5m + '30 min'::interval, event_time, trade_time, symbol, trade_id + 99, price, quantity, NULL, NULL, true FROM market_data.btc_ticks"
    store.connection.execute(stray)
    store.load(HOUR)
    assert ids(store) == list(range(1, 11))


def test_trades_that_landed_twice_are_kept_once_and_counted(store: StoreUnderTest) -> None:
    store.land(every(1, 100))
    store.land(every(1, 100), seconds=60)  # a second collector, with other batches
    store.register(HOUR)
    result = store.load(HOUR)
    assert (result.rows, result.duplicates, result.conflicting) == (100, 100, 0)
    assert store.rows("SELECT sum(row_count), sum(loaded_rows) FROM landing.raw_blobs_5m") == [(200, 100)]


def test_the_version_with_an_event_time_counts_whatever_its_object_is_called(store: StoreUnderTest) -> None:
    made = NOON + timedelta(seconds=1)
    stream = trade(1, made + timedelta(milliseconds=250), made=made, buyer=7)
    for name, row in (("a", trade(1, made) | {"event_time": None}), ("b", stream), ("c", trade(1, made) | {"event_time": None})):
        store.put(f"2024/01/10/12/00/{name}.jsonl", messages([row]))
    store.register(HOUR)
    result = store.load(HOUR)
    assert (result.rows, result.duplicates, result.conflicting) == (1, 2, 0)
    assert store.rows("SELECT event_time, buyer_order_id FROM market_data.btc_ticks") == [(stream["event_time"], 7)]
    assert store.rows("SELECT uri ~ 'b.jsonl', loaded_rows FROM landing.raw_blobs_5m ORDER BY uri") == [(False, 0), (True, 1), (False, 0)]


def test_of_two_versions_of_a_trade_the_object_with_the_lower_uri_wins_in_any_order_of_landing(store: StoreUnderTest) -> None:
    high, low = (encode_batch(table([trade(1, NOON, price=price)]), FEED)[1] for price in ("2", "1"))
    for order in ((("b", high), ("a", low)), (("a", low), ("b", high))):
        for name, data in order:
            store.put(f"2024/01/10/12/00/{name}.parquet", data)
            store.register(HOUR)
        result = store.load(HOUR)
        assert (result.conflicting, store.rows("SELECT price FROM market_data.btc_ticks")) == (1, [(1,)])


def test_a_late_object_joins_its_slice(store: StoreUnderTest) -> None:
    store.land(every(2, 100))
    store.ingest(HOUR)
    store.land(every(2, 100, start=NOON + timedelta(seconds=1), first_id=1000))
    store.ingest(HOUR)
    assert len(ids(store)) == 200


def test_an_overwritten_object_leaves_nothing_of_its_old_version(store: StoreUnderTest) -> None:
    path, data = encode_batch(every(60, 10), FEED)
    store.zone().put(path, data)
    store.ingest(HOUR)
    store.zone().put(path, encode_batch(every(1, 3, first_id=7), FEED)[1])
    store.register(HOUR)
    assert store.rows("SELECT bucket_5m, state FROM landing.slices ORDER BY 1") == [(NOON, "stale"), (NOON + FIVE, "stale")]
    store.load(HOUR)
    assert ids(store) == [7, 8, 9]
    assert store.rows("SELECT state FROM landing.slices") == [("loaded",)]


def test_an_object_overwritten_between_registering_and_loading_is_read_as_it_is_now(store: StoreUnderTest) -> None:
    path, data = encode_batch(every(1, 10), FEED)
    store.zone().put(path, data)
    store.register(HOUR)
    store.zone().put(path, encode_batch(every(1, 4, first_id=50), FEED)[1])
    store.load(HOUR)
    assert ids(store) == [50, 51, 52, 53]


def test_a_slice_is_not_replaced_when_an_object_it_was_loaded_from_is_gone(store: StoreUnderTest) -> None:
    uris = store.land(every(10, 90), seconds=300)
    store.ingest(HOUR)
    store.delete(uris[0])
    store.register(HOUR)
    with pytest.raises(UserError) as raised:
        store.load(HOUR)
    assert str(raised.value) == (
        f"1 slice(s) were left as they are, the first at 2024-01-10T12:00Z, because {uris[0]}, which they were loaded from, is gone: "
        "restore it, or force the load (btc-assets load --force) to drop its rows."
    )
    assert len(ids(store)) == 90
    assert store.rows("SELECT state FROM landing.slices ORDER BY bucket_5m") == [("source gone",), ("loaded",), ("loaded",)]


def test_the_same_holds_when_it_was_overwritten_before_it_disappeared(store: StoreUnderTest) -> None:
    path, data = encode_batch(every(1, 10), FEED)
    store.zone().put(path, data)
    store.ingest(HOUR)
    uri = store.zone().put(path, encode_batch(every(1, 3), FEED)[1])
    store.register(HOUR)
    store.delete(uri)
    store.register(HOUR)
    with pytest.raises(UserError, match="which they were loaded from, is gone"):
        store.load(HOUR)
    assert len(ids(store)) == 10


def test_the_same_holds_when_the_object_disappears_unnoticed(store: StoreUnderTest) -> None:
    uris = store.land(every(10, 90), seconds=300)
    store.ingest(HOUR)
    store.delete(uris[0])
    with pytest.raises(UserError, match="which they were loaded from, is gone"):
        store.load(HOUR)
    assert len(ids(store)) == 90


def test_forcing_drops_the_rows_of_the_object_that_is_gone(store: StoreUnderTest) -> None:
    uris = store.land(every(10, 90), seconds=300)
    store.ingest(HOUR)
    store.delete(uris[0])
    store.register(HOUR)
    store.load(HOUR, force=True)
    assert len(ids(store)) == 60
    store.load(HOUR)  # and from now on it is as if it had never been there
    assert len(ids(store)) == 60


def test_an_object_that_disappears_before_it_is_loaded_costs_only_its_own_rows(store: StoreUnderTest) -> None:
    uris = store.land(every(10, 60), seconds=60)
    store.register(HOUR)
    store.delete(uris[0])
    store.load(HOUR)
    assert len(ids(store)) == 54
    assert store.rows("SELECT uri FROM landing.raw_blobs_5m WHERE status = 'gone'") == [(uris[0],)]


def test_parts_are_committed_as_they_are_done_and_a_killed_load_keeps_them(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    store.land(every(1, 3600))
    store.register(HOUR)
    calls = iter(range(100))

    def dies_in_the_fourth(*arguments: Any) -> None:
        if next(calls) == 3:
            raise KeyboardInterrupt
        advance_offsets(*arguments)

    with monkeypatch.context() as dying:
        dying.setattr(loading, "advance_offsets", dies_in_the_fourth)
        with pytest.raises(KeyboardInterrupt):
            store.load(HOUR, commit_rows=300, writers=1)
    assert ids(store) == list(range(1, 901))
    assert store.rows("SELECT last_sequence FROM ingestion.stream_offsets") == [(900,)]
    store.load(HOUR, commit_rows=300)
    assert ids(store) == list(range(1, 3601))


def test_a_backend_that_is_killed_leaves_no_partial_slice(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    store.land(every(1, 600))
    store.register(HOUR)
    load = TickLoad(store.database, store.zone(), FEEDS, HOUR, LoadOptions(commit_rows=300))
    with store.connect() as connection:
        pid = connection.info.backend_pid
        monkeypatch.setattr(load, "committed", lambda replacement: store.rows("SELECT pg_terminate_backend(%s)", pid))
        with pytest.raises(TransientError):
            replace_all(connection, Target.of(connection, TABLE), load)
    assert ids(store) == list(range(1, 301))
    assert store.rows("SELECT last_sequence FROM ingestion.stream_offsets") == [(300,)]


def test_several_writers_make_the_table_that_one_makes(store: StoreUnderTest) -> None:
    store.land(every(1, 3600))
    store.register(HOUR)
    assert store.load(HOUR, commit_rows=300, writers=1).rows == 3600
    by_one = store.rows(CONTENT)
    store.connection.execute("DELETE FROM market_data.btc_ticks")
    result = store.load(HOUR, commit_rows=300, writers=4)
    assert store.rows(CONTENT) == by_one
    assert (result.rows, result.slices, sum(result.slice_rows.values())) == (3600, 12, 3600)
    assert store.rows("SELECT last_sequence FROM ingestion.stream_offsets") == [(3600,)]


def test_a_load_of_one_part_opens_no_session_to_write_beside(store: StoreUnderTest) -> None:
    class Closed(Store):
        def connect(self, *, owner: bool = False) -> psycopg.Connection:
            raise AssertionError("there is nothing to write in it")

    store.land(every(1, 600))
    store.register(HOUR)
    with store.connect() as connection:
        load = TickLoad(store.database, store.zone(), FEEDS, HOUR, LoadOptions(commit_rows=1000))
        assert replace_all(connection, Target.of(connection, TABLE), load, writers=4, store=Closed(store.dsn)) == 600


@pytest.mark.parametrize("lost", ["the first session", "the one beside it"])
def test_a_writer_that_loses_its_session_ends_the_load_at_whole_slices(store: StoreUnderTest, lost: str) -> None:
    store.land(every(1, 3600))
    store.register(HOUR)
    beside: list[psycopg.Connection] = []
    load = TickLoad(store.database, store.zone(), FEEDS, HOUR, LoadOptions(commit_rows=300))

    class Watched(Store):
        def connect(self, *, owner: bool = False) -> psycopg.Connection:
            beside.append(super().connect(owner=owner))
            return beside[-1]

    def lose(replacement: Replacement) -> None:
        if beside:
            victim = connection if lost == "the first session" else beside[0]
            store.rows("SELECT pg_terminate_backend(%s)", victim.info.backend_pid)

    load.committed = lose  # type: ignore[method-assign]
    with store.connect() as connection, pytest.raises(TransientError, match="ended the connection"):
        replace_all(connection, Target.of(connection, TABLE), load, writers=2, store=Watched(store.dsn))
    assert beside[0].closed
    assert len(ids(store)) < 3600
    assert set(store.rows("SELECT count(*) FROM market_data.btc_ticks GROUP BY bucket_5m")) <= {(300,)}
    store.load(HOUR, commit_rows=300)
    assert ids(store) == list(range(1, 3601))


def test_a_load_that_is_interrupted_does_not_wait_for_a_writer_that_waits_for_a_lock(store: StoreUnderTest) -> None:
    store.land(every(1, 600))
    store.register(HOUR)
    load = TickLoad(store.database, store.zone(), FEEDS, HOUR, LoadOptions(commit_rows=300))

    def interrupt(replacement: Replacement) -> None:
        waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'"
        wait_for(lambda: store.rows(waiting), "the other writer waits for the lock")
        raise KeyboardInterrupt

    load.committed = interrupt  # type: ignore[method-assign]
    with store.connect() as other, other.transaction(), store.connect() as connection, pytest.raises(KeyboardInterrupt):
        lock_slices(other.cursor(), TABLE, Window.of_slice(NOON + FIVE))
        replace_all(connection, Target.of(connection, TABLE), load, writers=2, store=store.database)
    assert ids(store) == list(range(1, 301))


def test_two_loaders_on_the_same_range_give_one_exact_result(store: StoreUnderTest) -> None:
    store.land(every(1, 3000))
    store.register(HOUR)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            store.load(HOUR, commit_rows=200)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert ids(store) == list(range(1, 3001))
    assert store.rows("SELECT last_sequence, last_ts FROM ingestion.stream_offsets") == [(3000, NOON + timedelta(seconds=2999))]


def test_what_is_registered_while_a_load_reads_is_in_it(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    store.land(every(1, 100))
    store.register(HOUR)
    read = SourceReader.read
    landed: list[bool] = []

    def lands_meanwhile(self: SourceReader, *arguments: object) -> object:
        rows = read(self, *arguments)  # type: ignore[arg-type]
        if not landed:
            landed.append(True)
            store.land(every(1, 100, first_id=101, start=NOON + timedelta(seconds=100)))
            store.register(HOUR)
        return rows

    monkeypatch.setattr(SourceReader, "read", lands_meanwhile)
    store.load(HOUR)
    assert ids(store) == list(range(1, 201))


def test_the_offset_follows_the_data_also_backwards(store: StoreUnderTest) -> None:
    path, data = encode_batch(every(1, 60), FEED)
    store.zone().put(path, data)
    store.ingest(HOUR)
    store.zone().put(path, encode_batch(every(1, 20), FEED)[1])
    store.ingest(HOUR)
    assert store.rows("SELECT source, last_sequence, last_ts FROM ingestion.stream_offsets") == [
        ("market_data.btc_ticks/BTCUSDT", 20, NOON + timedelta(seconds=19)),
    ]


def test_loading_old_slices_does_not_move_the_offset_back(store: StoreUnderTest) -> None:
    store.land(every(1, 10, start=NOON + timedelta(minutes=30), first_id=500))
    store.ingest(HOUR)
    store.land(every(1, 10, first_id=1))
    store.ingest(Window.of_slice(NOON))
    assert store.rows("SELECT last_sequence FROM ingestion.stream_offsets") == [(509,)]


@pytest.mark.parametrize("shuffled", [False, True], ids=["in order of time", "in any order"])
def test_a_large_object_is_decoded_once_and_loaded_slice_by_slice(
    store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch, shuffled: bool
) -> None:
    monkeypatch.setattr("btc_assets.landing.objects.LARGE_BYTES", 1000)
    monkeypatch.setattr("btc_assets.landing.parquet_file.BATCH_ROWS", 100)
    monkeypatch.setattr("btc_assets.landing.sliced_object.PENDING_ROWS", 500)
    ticks = every(1, 3600)
    if shuffled:
        import numpy as np

        ticks = ticks.take(pa.array(np.random.default_rng(5).permutation(3600)))
    store.put("2024/01/10/12/00/dump.parquet", encode_batch(ticks, FEED)[1])
    store.register(HOUR)
    reads = []
    read = LandingZone.read

    def counted_read(zone: LandingZone, obj: LandedObject) -> tuple[bytes | Path, str]:
        reads.append(obj)
        return read(zone, obj)

    monkeypatch.setattr(LandingZone, "read", counted_read)
    store.load(HOUR, commit_rows=300)
    assert ids(store) == list(range(1, 3601))
    assert len(reads) == 1


def test_objects_read_under_other_settings_are_refused_and_not_loaded_wrongly(store: StoreUnderTest) -> None:
    uris = store.land(every(1, 10))
    store.register(HOUR)
    with pytest.raises(UserError) as raised:
        store.load(HOUR, feeds=Feeds([Feed("Binance/BTCUSDT", "ETHUSDT", "BTCUSDT")]))
    assert str(raised.value) == (
        f"{uris[0]} holds 0 ticks of BTCUSDT in slice 2024-01-10T12:00Z, but 10 were registered: the settings changed since, so register it "
        "again (btc-assets load --reread)."
    )
    assert ids(store) == []


def test_objects_of_a_feed_whose_prefix_moved_since_are_loaded_as_they_were_registered(store: StoreUnderTest) -> None:
    store.land(every(1, 10))
    store.register(HOUR)
    store.load(HOUR, feeds=Feeds([Feed("Other", "BTCUSDT", "BTCUSDT")]))
    assert ids(store) == list(range(1, 11))


def test_ticks_of_a_range_over_midnight_go_to_daily_partitions_made_as_needed(store: StoreUnderTest) -> None:
    midnight = NOON + timedelta(hours=12)
    store.land(every(1, 600, start=midnight - FIVE))
    store.ingest(Window(midnight - FIVE, midnight + FIVE))
    assert len(ids(store)) == 600
    assert SLICE == FIVE


def test_a_partition_that_two_loaders_need_at_once_is_made_once(store: StoreUnderTest) -> None:
    ensure = "SELECT market_data.ensure_tick_partitions(%s, %s)"
    with store.connect() as one, store.connect() as other, ThreadPoolExecutor(1) as pool:
        with one.transaction():
            one.execute(ensure, (HOUR.start, HOUR.end))
            waits = pool.submit(other.execute, ensure, (HOUR.start, HOUR.end))
            waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"  # on a server without partitions of its own nobody waits
            wait_for(lambda: waits.done() or store.rows(waiting), "the other loader waits or is done")
        assert waits.result().fetchone() == (0,)
