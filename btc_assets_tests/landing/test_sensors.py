"""The landing sensor as Dagster evaluates it: new objects are noticed, requested in few runs, loaded once and never forgotten."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from btc_assets.domain.errors import UserError
from btc_assets.domain.feeds import folder_path
from btc_assets.domain.slices import DAY, SLICE, Window, floor_slice
from btc_assets.ingestion.offsets import rewind_listing
from btc_assets.ingestion.requests import RETRY_AFTER
from btc_assets.landing import sensors
from btc_assets.landing.arrivals import WaitingSlices, read_waiting_slices
from btc_assets.landing.objects import LandedObject
from btc_assets.landing.registry import notice
from btc_assets.landing.strays import read_strays
from btc_assets.landing.zone import LandingZone
from btc_assets.ops.reconcile import ReconcileOptions, reconcile
from btc_assets.orchestration import automation
from btc_assets.orchestration.partitions import partition_tags
from btc_assets.simulation.batches import encode_batches
from btc_assets_tests.support.daemon import Daemon
from btc_assets_tests.support.stores import FEED, FEEDS, StoreUnderTest
from btc_assets_tests.support.trades import every
from btc_assets_tests.support.zones import StoreOnS3

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


@pytest.fixture
def daemon(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    daemon = Daemon(store, "landing_sensor", monkeypatch)
    yield daemon
    daemon.close()


@pytest.fixture
def start() -> datetime:
    """A slice an hour ago; the landing zone's own clock cannot be set, so the tests play in the present."""
    return floor_slice(datetime.now(UTC)) - HOUR


def slices(start: datetime, first: int, last: int | None = None) -> Window:
    """From the slice number `first` after `start` to number `last`, both included."""
    return Window(start + first * SLICE, start + ((first if last is None else last) + 1) * SLICE)


def land_apart(store: StoreUnderTest, ticks: pa.Table, folder: datetime) -> str:
    """Land one object in the folder of another time than that of its ticks; returns its URI."""
    ((path, data),) = encode_batches([ticks], FEED, [folder])
    return store.zone().put(path, data)


def landed(store: StoreUnderTest, uri: str) -> LandedObject:
    obj = store.zone().head(uri, FEED.prefix)
    assert obj is not None
    return obj


def noticed_in(store: StoreUnderTest, window: Window) -> None:
    """An object noticed in each slice of a window, without landing any."""
    store.connection.execute(
        "INSERT INTO landing.raw_blobs_5m (bucket_5m, asset, uri, etag, size_bytes, row_count, status, last_modified) "
        "SELECT bucket, 'BTCUSDT', %s || '/' || bucket, 'etag', 1, 0, 'noticed', now() - interval '1 hour' "
        "FROM generate_series(%s, %s, interval '5 minutes') AS bucket",
        (store.zone().url, window.start, window.end - SLICE),
    )


def loaded_in(store: StoreUnderTest, window: Window) -> None:
    """What was noticed in a window is loaded."""
    store.connection.execute(
        "UPDATE landing.raw_blobs_5m SET status = 'registered', loaded_at = now() WHERE bucket_5m >= %s AND bucket_5m < %s",
        (window.start, window.end),
    )


def load(store: StoreUnderTest, window: Window) -> None:
    """What a run does about the ticks."""
    store.register(window)
    store.load(window)


def ticks(store: StoreUnderTest) -> int:
    return store.rows("SELECT count(*) FROM market_data.btc_ticks")[0][0]


def states(store: StoreUnderTest) -> dict[datetime, str]:
    return dict(store.rows("SELECT bucket_5m, state FROM landing.slices ORDER BY 1"))


# ---- from landing to candles


def test_new_objects_are_requested_once_and_the_run_makes_registry_ticks_and_candles(
    on_each_zone: StoreUnderTest, daemon: Daemon, start: datetime
) -> None:
    on_each_zone.land(every(10, 90, start=start), seconds=60)  # three slices
    assert daemon.tick() == [("ingest", slices(start, 0, 2))]
    daemon.run()
    assert daemon.tick_after(MINUTE) == []
    assert states(on_each_zone) == dict.fromkeys(slices(start, 0, 2).slices(), "loaded")
    assert ticks(on_each_zone) == 90
    assert on_each_zone.rows("SELECT sum(trade_count)::int FROM market_data.candles_1m") == [(90,)]
    assert on_each_zone.rows("SELECT count(*) FROM ingestion.due_slices") == [(0,)]


def test_slices_without_objects_are_not_requested(store: StoreUnderTest, daemon: Daemon, start: datetime) -> None:
    store.land(every(10, 30, start=start))
    store.land(every(10, 60, start=start + 3 * SLICE, first_id=1000))
    assert daemon.tick() == [("ingest", slices(start, 3, 4)), ("ingest", slices(start, 0))]


def test_a_late_object_reloads_its_slice_and_no_other(on_each_zone: StoreUnderTest, daemon: Daemon, start: datetime) -> None:
    on_each_zone.land(every(10, 90, start=start), seconds=60)
    assert daemon.settle(partial(load, on_each_zone)) == [[("ingest", slices(start, 0, 2))]]
    on_each_zone.land(every(1, 5, start=start + SLICE, first_id=1000))
    daemon.now += HOUR
    assert daemon.settle(partial(load, on_each_zone)) == [[("ingest", slices(start, 1))]]
    assert ticks(on_each_zone) == 95


def test_an_object_that_is_overwritten_reloads_its_slice(on_each_zone: StoreUnderTest, daemon: Daemon, start: datetime) -> None:
    first, second, third = (every(10, 30, start=start + i * SLICE, first_id=1 + i * 100) for i in range(3))
    on_each_zone.land(first, second, third, seconds=300)
    load(on_each_zone, slices(start, 0, 2))
    assert daemon.tick() == []
    (path, _), (_, corrected) = encode_batches([second, second.slice(0, 20)], FEED)
    on_each_zone.zone().put(path, corrected)
    assert daemon.settle(partial(load, on_each_zone)) == [[("ingest", slices(start, 1))]]
    assert ticks(on_each_zone) == 80


def test_a_deleted_object_requests_nothing_and_its_ticks_stay(on_each_zone: StoreUnderTest, daemon: Daemon, start: datetime) -> None:
    uris = on_each_zone.land(every(10, 60, start=start), seconds=150)
    assert daemon.settle(partial(load, on_each_zone)) == [[("ingest", slices(start, 0, 1))]]
    on_each_zone.delete(uris[0])
    assert daemon.tick_after(HOUR) == []
    on_each_zone.register(slices(start, 0))  # it is marked as gone
    assert states(on_each_zone)[start] == "source gone"
    assert daemon.tick_after(HOUR) == []
    assert ticks(on_each_zone) == 60


def test_an_object_that_is_restored_under_another_etag_is_loaded(store: StoreUnderTest, daemon: Daemon, start: datetime) -> None:
    (uri,) = store.land(every(10, 30, start=start), seconds=300)
    assert daemon.settle(partial(load, store)) == [[("ingest", slices(start, 0))]]
    data = (store.landing / store.zone().path(uri)).read_bytes()
    store.delete(uri)
    store.register(slices(start, 0))
    assert states(store) == {start: "source gone"}
    store.zone().put(store.zone().path(uri), data)
    assert daemon.settle(partial(load, store)) == [[("ingest", slices(start, 0))]]
    assert states(store) == {start: "loaded"}


def test_an_object_of_the_next_slice_is_loaded_although_the_slice_of_its_folder_lost_an_object(
    store: StoreUnderTest, daemon: Daemon, start: datetime
) -> None:
    uris = store.land(every(10, 30, start=start), seconds=300)
    assert daemon.settle(partial(load, store)) == [[("ingest", slices(start, 0))]]
    store.delete(*uris)
    store.register(slices(start, 0))
    land_apart(store, every(10, 30, start=start + SLICE, first_id=1000), start)
    assert daemon.tick_after(MINUTE) == [("ingest", slices(start, 0))]
    with pytest.raises(UserError, match="is gone"):
        load(store, slices(start, 0))
    assert daemon.settle(partial(load, store)) == [[("ingest", slices(start, 1))]]
    assert states(store) == {start: "source gone", start + SLICE: "loaded"}
    assert ticks(store) == 60


def test_five_thousand_objects_are_noticed_in_one_tick_and_requested_in_few_runs(
    on_each_zone: StoreUnderTest, start: datetime, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("BTC_ASSETS_SENSOR_SLICES_PER_RUN", "6")
    daemon: Daemon = request.getfixturevalue("daemon")
    paths = [f"{folder_path(FEED.prefix, start + i % 50 * MINUTE)}/batch-{i}.csv" for i in range(5000)]  # ten slices
    zone = on_each_zone.zone()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda path: zone.put(path, b"tiny"), paths))
    assert daemon.tick() == [("ingest", slices(start, 4, 9)), ("ingest", slices(start, 0, 3))]
    assert on_each_zone.rows("SELECT sum(noticed_objects)::int, count(*) FROM landing.slices WHERE state = 'pending'") == [(5000, 10)]
    daemon.start()
    assert daemon.tick_after(MINUTE) == []
    assert daemon.skipped and daemon.skipped.startswith("0 of 5,000 listed objects are new; ")


@pytest.mark.parametrize("wrong", [5 * MINUTE, -5 * MINUTE], ids=["ahead", "behind"])
def test_objects_of_a_collector_whose_clock_is_wrong_by_five_minutes_are_all_loaded(
    on_each_zone: StoreUnderTest, daemon: Daemon, start: datetime, wrong: timedelta
) -> None:
    for i in range(3):
        batch = every(10, 30, start=start + i * SLICE, first_id=1 + i * 100)
        land_apart(on_each_zone, batch, start + i * SLICE + wrong)
    # Noticed under the slices of the folders; what is read under them shows which slices are meant.
    first, rest = (slices(start, 1, 3), slices(start, 0)) if wrong > timedelta(0) else (slices(start, -1, 1), slices(start, 2))
    assert daemon.settle(partial(load, on_each_zone)) == [[("ingest", first)], [("ingest", rest)]]
    assert ticks(on_each_zone) == 90
    assert states(on_each_zone) == dict.fromkeys(slices(start, 0, 2).slices(), "loaded")


def test_a_collector_whose_clock_runs_ahead_does_not_hide_objects_of_others(
    on_each_zone: StoreUnderTest, daemon: Daemon, start: datetime
) -> None:
    land_apart(on_each_zone, every(10, 30, start=start), daemon.now + HOUR)
    daemon.tick()
    assert on_each_zone.rows("SELECT last_ts FROM ingestion.stream_offsets WHERE source = 'landing/Binance/BTCUSDT'") == [(daemon.now,)]
    on_each_zone.land(every(10, 30, start=start, first_id=1000))
    assert ("ingest", slices(start, 0)) in daemon.tick_after(MINUTE)


def test_a_folder_far_in_the_past_is_not_listed_and_loaded_on_request(
    on_each_zone: StoreUnderTest, daemon: Daemon, start: datetime
) -> None:
    by_event, by_reconciling, by_rewind = (start - days * DAY for days in (4, 3, 2))
    uris = [
        on_each_zone.land(every(10, 30, start=old, first_id=first), seconds=300)[0]
        for old, first in ((by_event, 1), (by_reconciling, 31), (by_rewind, 61))
    ]
    assert daemon.tick() == []
    notice(on_each_zone.connection, FEEDS, [landed(on_each_zone, uris[0])])
    assert daemon.settle(partial(load, on_each_zone)) == [[("ingest", slices(by_event, 0))]]
    found = Window(by_reconciling, by_reconciling + SLICE)
    reconcile(on_each_zone.connection, on_each_zone.zone(), FEEDS, found, daemon.now + HOUR, ReconcileOptions(heal=True))
    assert daemon.settle(partial(load, on_each_zone)) == [[("ingest", slices(by_reconciling, 0))]]
    rewind_listing(on_each_zone.connection, FEED.prefix, by_rewind)
    assert daemon.settle(partial(load, on_each_zone)) == [[("ingest", slices(by_rewind, 0))]]
    assert ticks(on_each_zone) == 90


def test_recent_ticks_in_a_folder_far_in_the_past_are_loaded_on_request(
    on_each_zone: StoreUnderTest, daemon: Daemon, start: datetime
) -> None:
    uri = land_apart(on_each_zone, every(10, 30, start=start), start - 30 * DAY)
    notice(on_each_zone.connection, FEEDS, [landed(on_each_zone, uri)])
    assert daemon.settle(partial(load, on_each_zone)) == [[("ingest", slices(start - 30 * DAY, 0))], [("ingest", slices(start, 0))]]
    assert ticks(on_each_zone) == 30


def test_days_before_the_partitions_start_are_loaded_as_days_and_no_slice_is_owned_twice(
    store: StoreUnderTest, daemon: Daemon, start: datetime
) -> None:
    first = store.settings.first_slice
    uris = store.land(every(10, 60, start=first - SLICE), seconds=600)  # one object, on both sides of it
    uris += store.land(every(10, 30, start=first - 3 * HOUR, first_id=1000), seconds=300)
    notice(store.connection, FEEDS, [landed(store, uri) for uri in uris])
    assert daemon.tick() == [("ingest_history", Window(first - DAY, first))]
    daemon.run()
    assert ticks(store) == 60
    assert daemon.tick_after(MINUTE) == [("ingest", Window.of_slice(first))]
    daemon.run()
    assert ticks(store) == 90
    assert daemon.tick_after(MINUTE) == []


# ---- which runs, and how often


def test_a_backlog_becomes_a_few_runs_newest_first(store: StoreUnderTest, daemon: Daemon, start: datetime) -> None:
    noticed_in(store, slices(start, -800, 0))
    newest, older, oldest = slices(start, -287, 0), slices(start, -575, -288), slices(start, -800, -576)
    assert daemon.tick() == [("ingest", newest), ("ingest", older)]
    first, second = daemon.start()
    assert daemon.tick_after(MINUTE) == []  # two are under way
    loaded_in(store, newest)
    daemon.end(first, dg.DagsterEventType.RUN_SUCCESS)
    assert daemon.tick_after(MINUTE) == [("ingest", oldest)]
    loaded_in(store, older)
    daemon.end(second, dg.DagsterEventType.RUN_SUCCESS)
    daemon.start()
    assert daemon.tick_after(MINUTE) == []
    noticed_in(store, slices(start, 1))
    assert daemon.tick_after(MINUTE) == [("ingest", slices(start, 1))]


def test_slices_of_runs_in_progress_are_not_requested(store: StoreUnderTest, daemon: Daemon, start: datetime) -> None:
    noticed_in(store, slices(start, 0, 10))
    for i, status in enumerate(["NOT_STARTED", "QUEUED", "STARTING", "STARTED", "CANCELING"]):
        daemon.add_run("ingest", partition_tags(slices(start, 2 + i)), dg.DagsterRunStatus[status])  # a backfill
    for status in ("SUCCESS", "FAILURE", "CANCELED"):
        daemon.add_run("ingest", partition_tags(slices(start, 8)), dg.DagsterRunStatus[status])
    assert daemon.tick() == [("ingest", slices(start, 7, 10)), ("ingest", slices(start, 0, 1))]


def test_a_failed_run_is_requested_again_at_growing_intervals(store: StoreUnderTest, daemon: Daemon, start: datetime) -> None:
    noticed_in(store, slices(start, 0, 2))  # all at once
    ((since,),) = store.rows("SELECT max(noticed_at) FROM landing.raw_blobs_5m")
    for waited in (MINUTE, *RETRY_AFTER, 2 * DAY, 3 * DAY):
        daemon.now = since + waited - timedelta(seconds=1)
        assert waited == MINUTE or daemon.tick() == []
        daemon.now = since + waited
        assert daemon.tick() == [("ingest", slices(start, 0, 2))]
        (run,) = daemon.start()
        daemon.end(run, dg.DagsterEventType.RUN_FAILURE)


def test_a_failed_run_is_requested_again_at_once_when_an_object_lands(store: StoreUnderTest, daemon: Daemon, start: datetime) -> None:
    noticed_in(store, slices(start, 0, 2))
    daemon.tick()
    (run,) = daemon.start()
    daemon.end(run, dg.DagsterEventType.RUN_FAILURE)
    assert daemon.tick_after(MINUTE) == []
    store.land(every(10, 3, start=start))
    assert daemon.tick_after(MINUTE) == [("ingest", slices(start, 0, 2))]


def test_a_slice_that_keeps_failing_does_not_block_later_slices(store: StoreUnderTest, daemon: Daemon, start: datetime) -> None:
    noticed_in(store, slices(start, 0))
    store.connection.execute("UPDATE landing.raw_blobs_5m SET noticed_at = now() - interval '20 minutes'")
    store.land(every(10, 60, start=start + SLICE))
    assert daemon.tick() == [("ingest", slices(start, 1, 2)), ("ingest", slices(start, 0))]


def test_many_slices_that_keep_failing_do_not_block_much_earlier_ones(
    store: StoreUnderTest, daemon: Daemon, start: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(automation, "_BATCH", 3)
    for i in range(4):
        noticed_in(store, slices(start, -2 * i))
    while daemon.tick():
        for run in daemon.start():
            daemon.end(run, dg.DagsterEventType.RUN_FAILURE)
    noticed_in(store, slices(start, -10))
    assert daemon.tick() == [("ingest", slices(start, -10))]


def test_a_name_that_cannot_be_read_requests_nothing_and_is_told(on_s3: StoreOnS3, daemon: Daemon, start: datetime) -> None:
    odd = f"{folder_path(FEED.prefix, start)}/a\x01b.csv"  # what S3 tells of it in XML is another name
    on_s3.bucket.server.client().put_object(Bucket=on_s3.bucket.server.bucket, Key=f"{on_s3.bucket.prefix}/{odd}", Body=b"x")
    assert [daemon.tick_after(timedelta(seconds=31)) for _ in range(3)] == [[], [], []]
    assert read_strays(on_s3.connection, ["BTCUSDT"])[0] == 1


def test_an_object_that_is_refused_blocks_no_other(
    store: StoreUnderTest, daemon: Daemon, start: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    uris, read = store.land(every(10, 90, start=start), seconds=300), LandingZone.read
    assert len(uris) == 3

    def refuses(zone: LandingZone, obj: LandedObject) -> tuple[bytes | Path, str]:
        if obj.uri == uris[1]:
            raise UserError("Access Denied")
        return read(zone, obj)

    monkeypatch.setattr(LandingZone, "read", refuses)
    assert daemon.tick() == [("ingest", slices(start, 0, 2))]
    load(store, slices(start, 0, 2))
    assert daemon.tick() == [("ingest", slices(start, 1))]
    load(store, slices(start, 1))  # no error, because an object of a slice beside it can still be read
    assert ticks(store) == 60
    assert store.rows("SELECT status, reason FROM landing.raw_blobs_5m WHERE uri = %s", uris[1]) == [("noticed", "Access Denied")]
    monkeypatch.setattr(LandingZone, "read", read)
    load(store, slices(start, 1))
    assert ticks(store) == 90


def test_a_landing_zone_that_hands_out_nothing_fails_the_run(
    store: StoreUnderTest, daemon: Daemon, start: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.land(every(10, 60, start=start), seconds=300)

    def refuses(zone: LandingZone, obj: LandedObject) -> tuple[bytes | Path, str]:
        raise UserError("Access Denied")

    daemon.tick()
    with monkeypatch.context() as refusing, pytest.raises(UserError, match="Access Denied"):
        refusing.setattr(LandingZone, "read", refuses)
        load(store, slices(start, 0, 1))
    load(store, slices(start, 0, 1))
    store.land(every(10, 3, start=start, first_id=500), seconds=300)
    with monkeypatch.context() as refusing, pytest.raises(UserError, match="Access Denied"):
        refusing.setattr(LandingZone, "read", refuses)
        load(store, slices(start, 0, 1))
    assert ticks(store) == 60


def test_a_run_that_ends_during_the_tick_is_not_requested_again(
    store: StoreUnderTest, daemon: Daemon, start: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    noticed_in(store, slices(start, 0))
    run = daemon.add_run("ingest", partition_tags(slices(start, 0)))

    def ends(*arguments: Any, **options: Any) -> WaitingSlices:
        found = read_waiting_slices(*arguments, **options)
        loaded_in(store, slices(start, 0))
        daemon.end(run, dg.DagsterEventType.RUN_SUCCESS)
        return found

    monkeypatch.setattr(sensors, "read_waiting_slices", ends)
    assert daemon.tick() == []


def test_losing_dagsters_storage_loses_no_slice_and_repeats_none(store: StoreUnderTest, daemon: Daemon, start: datetime) -> None:
    store.land(every(10, 60, start=start), seconds=60)
    assert daemon.settle(partial(load, store)) == [[("ingest", slices(start, 0, 1))]]
    store.land(every(10, 30, start=start + 3 * SLICE, first_id=1000))
    assert daemon.tick_after(MINUTE) == [("ingest", slices(start, 3))]
    daemon.forget()  # before it ran
    assert daemon.settle(partial(load, store)) == [[("ingest", slices(start, 3))]]
    daemon.forget()
    assert daemon.tick_after(MINUTE) == []
    assert ticks(store) == 90


# ---- messages


def test_the_skip_reason_counts_the_slices_that_wait(store: StoreUnderTest, daemon: Daemon, start: datetime) -> None:
    store.land(every(10, 30, start=start), seconds=60)
    noticed_in(store, Window.of_slice(floor_slice(daemon.now)))
    daemon.tick()
    daemon.start()
    assert daemon.tick() == []
    assert daemon.skipped == (
        "Not listed again yet; slices with something to load: 1 not closed yet, 0 still receiving objects, 1 due (in progress, or "
        "requested before)."
    )
    daemon.tick_after(MINUTE)
    assert daemon.skipped and daemon.skipped.startswith("0 of 5 listed objects are new; ")


def test_a_tick_just_before_a_slice_closes_waits_for_the_close(
    store: StoreUnderTest, daemon: Daemon, start: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    now = daemon.now
    closing = Window.of_slice(floor_slice(now) - SLICE)
    noticed_in(store, closing)
    daemon.now = closing.end + timedelta(seconds=90 - 4)
    assert daemon.tick() == [("ingest", closing)]
    assert waited == [4.0]
    daemon.now = closing.end + timedelta(seconds=90 - 21)  # the next tick comes soon enough
    daemon.forget()
    assert daemon.tick() == []
    assert waited == [4.0]


def test_a_missing_landing_zone_is_named(store: StoreUnderTest, daemon: Daemon) -> None:
    store.landing.rmdir()
    with pytest.raises(dg.Failure, match="is not a directory: create it, or set BTC_ASSETS_LANDING_URL"):
        daemon.tick()


def test_an_unreachable_server_is_named(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setenv("BTC_ASSETS_DSN", "postgresql://loader:s3cret@127.0.0.1:1/btc")
    daemon: Daemon = request.getfixturevalue("daemon")
    with pytest.raises(dg.Failure, match=r"^PostgreSQL at 127\.0\.0\.1:1/btc cannot be reached"):
        daemon.tick()
