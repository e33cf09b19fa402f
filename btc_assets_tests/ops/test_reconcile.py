"""Reconciling finds what differs between landing zone, registry and tables, reports it, and hands it to the sensors."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from btc_assets.domain.feeds import Feed, Feeds
from btc_assets.domain.slices import DAY, SLICE, Window, floor_day
from btc_assets.landing.arrivals import read_waiting_slices
from btc_assets.landing.registry import notice
from btc_assets.market_data import candles
from btc_assets.market_data.registry_equality import find_unequal_slices
from btc_assets.ops.differences import Differences
from btc_assets.ops.reconcile import ReconcileOptions, reconcile
from btc_assets.simulation.batches import encode_batch
from btc_assets_tests.support.stores import FEED, FEEDS, StoreUnderTest
from btc_assets_tests.support.trades import HOUR, NOON, every

TWO_DAYS = Window(NOON - DAY, NOON + DAY)  # clipped, like the hourly comparison
LONG_AGO = datetime(2023, 10, 4, 5, tzinfo=UTC)


def compare(store: StoreUnderTest, window: Window | None = None, *, heal: bool = False, feeds: Feeds = FEEDS) -> Differences:
    with store.connect() as connection:
        return reconcile(
            connection, store.zone(), feeds, window, datetime.now(UTC), ReconcileOptions(heal=heal, min_object_age=timedelta(0))
        )


def due_slices(store: StoreUnderTest) -> list[datetime]:
    return [one.bucket for one in read_waiting_slices(store.connection, datetime.now(UTC) + timedelta(minutes=1), grace=timedelta(0)).due]


def repair(store: StoreUnderTest) -> None:
    """Do what the sensors request: load the slices that are due, and rebuild the candles that are."""
    for bucket in due_slices(store):
        store.ingest(Window.of_slice(bucket))
    for (bucket,) in store.rows("SELECT DISTINCT bucket_5m FROM ingestion.due_slices"):
        store.refresh(Window.of_slice(bucket))


def two_hours_pass(store: StoreUnderTest) -> None:
    store.connection.execute("UPDATE landing.raw_blobs_5m SET noticed_at = noticed_at - interval '2 hours'")
    store.connection.execute("UPDATE ingestion.due_slices SET due_since = due_since - interval '2 hours'")


def read_trade_ids(store: StoreUnderTest) -> list[int]:
    return [trade_id for (trade_id,) in store.rows("SELECT trade_id FROM market_data.btc_ticks ORDER BY 1")]


def is_consistent(store: StoreUnderTest) -> bool:
    """Whether registry, ticks and candles agree."""
    return not find_unequal_slices(store.connection, Window(LONG_AGO, NOON + DAY)) and not candles.find_outdated_candles(
        store.connection, Window(NOON - DAY, NOON + DAY)
    )


def load_hour(store: StoreUnderTest) -> list[str]:
    """Load an hour with a trade every ten seconds, in objects of a minute; returns their URIs."""
    uris = store.land(every(10, 360), seconds=60)
    store.ingest(HOUR)
    return uris


def put_batch(store: StoreUnderTest, start: datetime, first_id: int, count: int = 3, path: str | None = None) -> str:
    _, data = encode_batch(every(1, count, start=start, first_id=first_id), FEED)
    return store.put(path or f"{start:%Y/%m/%d/%H/%M}/batch-{first_id}.parquet", data)


def test_a_clean_store_has_nothing_to_report(on_each_zone: StoreUnderTest) -> None:
    load_hour(on_each_zone)
    two_hours_pass(on_each_zone)
    for window in (TWO_DAYS, None):
        found = compare(on_each_zone, window, heal=True)
        assert (found.counts, found.sentences, found.healed, due_slices(on_each_zone)) == ({}, [], 0, [])


def test_an_empty_store_has_nothing_to_report(on_each_zone: StoreUnderTest) -> None:
    assert compare(on_each_zone, heal=True).counts == {}


def lose_an_event(store: StoreUnderTest, uris: list[str]) -> str:
    return f"{put_batch(store, LONG_AGO, 9001)} landed at"


def overwrite(store: StoreUnderTest, uris: list[str]) -> str:
    store.put(store.zone().path(uris[0]).removeprefix(f"{FEED.prefix}/"), encode_batch(every(1, 3, first_id=9001), FEED)[1])
    return f"{uris[0]} was overwritten at"


def delete_rows(store: StoreUnderTest, uris: list[str]) -> str:
    store.connection.execute("DELETE FROM market_data.btc_ticks WHERE trade_id IN (5, 6)")
    return "BTCUSDT 2024-01-10T12:00Z: loaded, 30 rows by the registry, 28 in the table"


def delete_a_slice(store: StoreUnderTest, uris: list[str]) -> str:
    store.connection.execute("DELETE FROM market_data.btc_ticks WHERE bucket_5m = '2024-01-10T12:55Z'")
    return "BTCUSDT 2024-01-10T12:55Z: loaded, 30 rows by the registry, 0 in the table"


def insert_rows(store: StoreUnderTest, uris: list[str]) -> str:
    columns = "bucket_5m, event_time, trade_time, symbol, price, quantity, is_market_maker"
    store.connection.execute(
        f"INSERT INTO market_data.btc_ticks (trade_id, {columns}) SELECT 9000, {columns} FROM market_data.btc_ticks WHERE trade_id = 5"
    )
    return "BTCUSDT 2024-01-10T12:00Z: loaded, 30 rows by the registry, 31 in the table"


def notice_and_forget(store: StoreUnderTest, uris: list[str]) -> str:
    put_batch(store, NOON, 9001)
    notice(store.connection, FEEDS, store.zone().list_window(FEED.prefix, HOUR))
    two_hours_pass(store)
    return "BTCUSDT 2024-01-10T12:00Z: stale for more than an hour, with 6 objects: look at the last failed run of its range"


def register_and_forget(store: StoreUnderTest, uris: list[str]) -> str:
    put_batch(store, NOON - timedelta(hours=1), 9001)
    store.register(Window.of_slice(NOON - timedelta(hours=1)))
    two_hours_pass(store)
    return "BTCUSDT 2024-01-10T11:00Z: pending for more than an hour, with 1 objects: look at the last failed run of its range"


def forget_candles(store: StoreUnderTest, uris: list[str]) -> str:
    store.connection.execute("INSERT INTO ingestion.due_slices VALUES ('market_data/candles_1m', '2024-01-10T12:00Z')")
    two_hours_pass(store)
    return "market_data/candles_1m: 1 slices from 2024-01-10T12:00Z to 2024-01-10T12:00Z were not rebuilt since their ticks changed"


MISHAPS: list[tuple[str, Callable[[StoreUnderTest, list[str]], str], range | list[int]]] = [
    ("missing", lose_an_event, [*range(1, 361), 9001, 9002, 9003]),
    ("changed", overwrite, [*range(7, 361), 9001, 9002, 9003]),
    ("unequal", delete_rows, range(1, 361)),
    ("unequal", delete_a_slice, range(1, 361)),
    ("unequal", insert_rows, range(1, 361)),
    ("stuck", notice_and_forget, [*range(1, 361), 9001, 9002, 9003]),
    ("stuck", register_and_forget, [*range(1, 361), 9001, 9002, 9003]),
    ("behind", forget_candles, range(1, 361)),
]


# On S3, only those that concern objects.
ANYWHERE = [("directory", *case) for case in MISHAPS] + [("S3", *case) for case in MISHAPS if case[0] != "unequal" and case[0] != "behind"]


@pytest.mark.parametrize(
    ("on_each_zone", "kind", "mishap", "then"),
    ANYWHERE,
    ids=[f"{case[2].__name__}-{case[0]}" for case in ANYWHERE],
    indirect=["on_each_zone"],
)
def test_each_difference_is_reported_and_healed_on_request(
    on_each_zone: StoreUnderTest, kind: str, mishap: Callable[[StoreUnderTest, list[str]], str], then: range | list[int]
) -> None:
    sentence = mishap(on_each_zone, load_hour(on_each_zone))
    before = on_each_zone.rows("SELECT * FROM landing.raw_blobs_5m ORDER BY bucket_5m, uri, etag")
    found = compare(on_each_zone)
    assert (found.counts, found.healed) == ({kind: 1}, 0)
    assert found.sentences[0].startswith(sentence)
    assert on_each_zone.rows("SELECT * FROM landing.raw_blobs_5m ORDER BY bucket_5m, uri, etag") == before  # it is only reported

    assert compare(on_each_zone, heal=True).healed == 1
    repair(on_each_zone)
    assert read_trade_ids(on_each_zone) == list(then) and is_consistent(on_each_zone) and due_slices(on_each_zone) == []
    assert compare(on_each_zone, heal=True).counts == {}


def test_a_window_finds_what_happened_in_it_alone(store: StoreUnderTest) -> None:
    uris = load_hour(store)
    for mishap in (overwrite, delete_rows, register_and_forget, forget_candles):
        mishap(store, uris)
    assert compare(store, TWO_DAYS).counts == {"changed": 1, "unequal": 1, "stuck": 1, "behind": 1}
    assert compare(store, Window(NOON + DAY, NOON + 2 * DAY)).counts == {}


def test_an_object_that_disappeared_is_reported_once_and_its_rows_stay(on_each_zone: StoreUnderTest) -> None:
    uris = load_hour(on_each_zone)
    on_each_zone.delete(uris[0])
    assert compare(on_each_zone).sentences == [f"{uris[0]} is registered and no longer in the landing zone"]
    assert compare(on_each_zone, heal=True).healed == 1
    two_hours_pass(on_each_zone)
    assert (due_slices(on_each_zone), compare(on_each_zone).counts) == ([], {})
    assert read_trade_ids(on_each_zone) == list(range(1, 361))
    assert on_each_zone.rows("SELECT bucket_5m FROM landing.slices WHERE state = 'source gone'") == [(NOON,)]


def test_a_slice_with_new_objects_and_a_gone_one_waits_for_a_person(store: StoreUnderTest) -> None:
    uris = load_hour(store)
    store.delete(uris[0])
    put_batch(store, NOON, 9001)
    compare(store, heal=True)
    store.register(HOUR)
    two_hours_pass(store)
    found = compare(store, heal=True)
    assert found.sentences == [
        "BTCUSDT 2024-01-10T12:00Z: an object that it was loaded from is gone: restore it, or load the slice with --force"
    ]
    assert (found.healed, due_slices(store)) == (0, [])
    store.load(HOUR, force=True)
    store.refresh(HOUR)
    assert read_trade_ids(store) == [*range(7, 361), 9001, 9002, 9003]
    assert compare(store).counts == {}


def test_an_object_that_is_overwritten_and_then_deleted_keeps_its_rows_and_is_not_requested_forever(store: StoreUnderTest) -> None:
    uris = load_hour(store)
    overwrite(store, uris)
    compare(store, heal=True)
    store.delete(uris[0])
    assert compare(store, heal=True).counts == {"extra": 1}
    two_hours_pass(store)
    assert (due_slices(store), compare(store).counts) == ([], {})
    assert read_trade_ids(store) == list(range(1, 361))


def test_an_object_that_comes_back_is_loaded_again(store: StoreUnderTest) -> None:
    uris = load_hour(store)
    path = store.zone().path(uris[0]).removeprefix(f"{FEED.prefix}/")
    data = (store.landing / FEED.prefix / path).read_bytes()
    store.delete(uris[0])
    compare(store, heal=True)
    store.put(path, data)
    assert compare(store, heal=True).counts == {"missing": 1}
    repair(store)
    assert read_trade_ids(store) == list(range(1, 361)) and is_consistent(store)
    assert compare(store).counts == {}


def test_rows_that_differ_in_a_slice_whose_object_is_gone_are_reported_and_stay(store: StoreUnderTest) -> None:
    uris = load_hour(store)
    store.delete(uris[0])
    compare(store, heal=True)
    store.connection.execute("DELETE FROM market_data.btc_ticks WHERE trade_id = 30")
    found = compare(store, heal=True)
    assert found.sentences == ["BTCUSDT 2024-01-10T12:00Z: source gone, 30 rows by the registry, 29 in the table"]
    assert (found.healed, due_slices(store)) == (0, [])
    assert compare(store).counts == {"unequal": 1}  # as before, and not worse


def test_rows_without_any_object_are_reported_and_stay(store: StoreUnderTest) -> None:
    load_hour(store)
    store.connection.execute("DELETE FROM landing.raw_blobs_5m WHERE bucket_5m = '2024-01-10T12:00Z'")
    for uri in store.uris()[:5]:
        store.delete(uri)
    found = compare(store, heal=True)
    assert found.sentences == ["BTCUSDT 2024-01-10T12:00Z: not registered, 0 rows by the registry, 30 in the table"]
    assert (found.healed, len(read_trade_ids(store))) == (0, 360)


def test_an_object_in_no_minute_folder_is_a_stray(on_each_zone: StoreUnderTest) -> None:
    load_hour(on_each_zone)
    strays = ["README.md", "2024/x.csv", "2024/01/x.csv", "2024/13/45/x.csv", "odd/folder/of/mine/x.csv", "2024/01/10/12/odd/x.csv",
              "2024/01/10/12/05/deep/x.csv"]  # fmt: skip
    uris = sorted(on_each_zone.put(path, b"data") for path in strays)
    on_each_zone.put("2024/01/10/12/05/.not-whole-yet", b"data")
    found = compare(on_each_zone, heal=True)
    assert found.counts == {"stray": 7}
    assert sorted(sentence.partition(" lies in no minute folder, ")[0] for sentence in found.sentences) == uris
    assert due_slices(on_each_zone) == []
    assert compare(on_each_zone, TWO_DAYS).counts == {"stray": 2}


@pytest.mark.parametrize(
    ("folder", "name"),
    [("2024/01/10", "!.parquet"), ("2024/01/10", "dump.parquet"), ("2024/01/10/12", "00.parquet"), ("2023/10/04", "00.parquet")],
)
def test_objects_in_the_folders_of_days_and_hours_are_compared_as_well(on_each_zone: StoreUnderTest, folder: str, name: str) -> None:
    start = NOON + timedelta(hours=2) if folder.startswith("2024") else LONG_AGO
    uri = put_batch(on_each_zone, start, 1, path=f"{folder}/{name}")
    assert compare(on_each_zone, heal=True).counts == {"missing": 1}
    repair(on_each_zone)
    repair(on_each_zone)  # the slices that became known when it was read
    assert (read_trade_ids(on_each_zone), compare(on_each_zone).counts) == ([1, 2, 3], {})
    put_batch(on_each_zone, start, 11, path=f"{folder}/{name}")
    assert compare(on_each_zone, heal=True).counts == {"changed": 1}
    repair(on_each_zone)
    repair(on_each_zone)
    assert (read_trade_ids(on_each_zone), compare(on_each_zone).counts) == ([11, 12, 13], {})
    on_each_zone.delete(uri)
    assert compare(on_each_zone, heal=True).counts == {"extra": 1}


@pytest.mark.parametrize("healed_by", ["reconciling", "registering"])
def test_an_object_with_two_registered_versions_is_reported_and_counts_once_after_healing(store: StoreUnderTest, healed_by: str) -> None:
    uri = put_batch(store, NOON, 1)
    store.ingest(HOUR)
    store.connection.execute(
        "INSERT INTO landing.raw_blobs_5m (bucket_5m, asset, uri, etag, size_bytes, row_count, status, last_modified, loaded_at, loaded_rows) "
        "SELECT bucket_5m, asset, uri, 'another', size_bytes, row_count, status, last_modified, loaded_at, 0 FROM landing.raw_blobs_5m"
    )
    found = compare(store, heal=healed_by == "reconciling")
    assert found.counts == {"double": 1}
    assert found.sentences == [f"{uri} is registered in 2 versions, of which only one can be there"]
    if healed_by == "registering":
        store.register(HOUR)
    assert due_slices(store) == [NOON]
    repair(store)
    assert compare(store).counts == {}
    assert read_trade_ids(store) == [1, 2, 3]


@pytest.mark.parametrize("start", [NOON - timedelta(minutes=5), NOON, NOON + timedelta(minutes=5)])
def test_a_window_that_starts_within_an_hour_reports_nothing_as_missing_or_extra(store: StoreUnderTest, start: datetime) -> None:
    for path in ("2024/01/10/dump.parquet", "2024/01/10/12/dump.parquet", "2024/01/10/12/00/dump.parquet"):
        put_batch(store, NOON, 1, path=path)
    store.register(Window(NOON.replace(hour=0), NOON + DAY))
    store.load(HOUR)
    assert compare(store, Window(start, start + timedelta(minutes=20))).counts == {}


def test_a_version_that_is_noticed_but_not_registered_is_no_difference(on_each_zone: StoreUnderTest) -> None:
    uris = load_hour(on_each_zone)
    overwrite(on_each_zone, uris)
    notice(on_each_zone.connection, FEEDS, on_each_zone.zone().list_window(FEED.prefix, HOUR))
    assert compare(on_each_zone).counts == {}


def test_a_rejected_object_is_known(store: StoreUnderTest) -> None:
    load_hour(store)
    bad = store.put("2024/01/10/12/00/bad.parquet", b"not parquet")
    store.ingest(HOUR)
    two_hours_pass(store)
    assert compare(store).counts == {}
    store.delete(bad)
    assert compare(store, heal=True).counts == {"extra": 1}
    assert compare(store).counts == {}


def test_an_object_that_landed_just_now_is_left_to_the_sensors(store: StoreUnderTest) -> None:
    put_batch(store, NOON, 1)
    with store.connect() as connection:
        assert reconcile(connection, store.zone(), FEEDS, None, datetime.now(UTC)).counts == {}
        assert reconcile(connection, store.zone(), FEEDS, None, datetime.now(UTC) + timedelta(minutes=11)).counts == {"missing": 1}


def test_slices_whose_ticks_retention_may_have_dropped_are_no_difference(store: StoreUnderTest) -> None:
    load_hour(store)
    store.connection.execute(
        "INSERT INTO ops.retention_jobs (job_name, hypertable, policy, enabled, state) "
        "VALUES ('drop market_data.btc_ticks', 'market_data.btc_ticks', '{\"after\": \"90 days\"}', true, 'applied')"
    )
    store.connection.execute("DELETE FROM market_data.btc_ticks")
    store.connection.execute("INSERT INTO ingestion.due_slices VALUES ('market_data/candles_1m', '2024-01-10T12:00Z')")
    two_hours_pass(store)
    assert compare(store, heal=True).counts == {}


def test_each_prefix_is_compared_for_its_own_feed(store: StoreUnderTest) -> None:
    futures = Feed("BinanceUM/BTCUSDT", "BTCUSDT", "BTCUSDT.P")
    load_hour(store)
    uri = store.zone().put("BinanceUM/BTCUSDT/2024/01/10/12/00/x.parquet", encode_batch(every(1, 3), FEED)[1])
    assert compare(store, feeds=Feeds([FEED, futures]), heal=True).sentences[0].startswith(f"{uri} landed at")
    assert store.rows("SELECT asset FROM landing.raw_blobs_5m WHERE status = 'noticed'") == [("BTCUSDT.P",)]
    assert compare(store, feeds=Feeds([FEED, futures])).counts == {}


def test_only_the_first_of_a_kind_are_described_but_all_are_counted_and_healed(store: StoreUnderTest) -> None:
    store.land(every(60, 30), seconds=60)
    found = compare(store, heal=True)
    assert (found.counts, len(found.sentences), found.healed, len(due_slices(store))) == ({"missing": 30}, 20, 30, 6)


def test_an_object_from_before_the_first_day_of_the_store_is_not_missing(store: StoreUnderTest) -> None:
    put_batch(store, NOON - DAY, 1)
    put_batch(store, NOON, 1)
    now = datetime.now(UTC)
    found = reconcile(
        store.connection, store.zone(), FEEDS, None, now, ReconcileOptions(since=floor_day(NOON), min_object_age=timedelta(0))
    )
    assert found.counts == {"missing": 1}


def test_a_slice_that_is_not_closed_yet_is_not_stuck(store: StoreUnderTest) -> None:
    now = datetime.now(UTC)
    bucket = Window.covering(now, now + SLICE).start
    put_batch(store, bucket, 1)
    notice(store.connection, FEEDS, store.zone().list_window(FEED.prefix, Window.of_slice(bucket)))
    two_hours_pass(store)
    assert compare(store).counts == {}


def test_stuck_slices_are_left_to_the_sensors_without_ask_again(store: StoreUnderTest) -> None:
    put_batch(store, NOON, 1)
    store.register(HOUR)
    two_hours_pass(store)
    before = store.rows("SELECT noticed_at FROM landing.raw_blobs_5m")
    found = reconcile(store.connection, store.zone(), FEEDS, None, datetime.now(UTC), ReconcileOptions(heal=True, ask_again=False))
    assert (found.counts, found.healed) == ({"stuck": 1}, 0)
    assert store.rows("SELECT noticed_at FROM landing.raw_blobs_5m") == before
