"""The registry equals the landing zone, whatever happens there."""

from __future__ import annotations

import os
from datetime import timedelta

import pytest

from btc_assets.domain.feeds import Feeds
from btc_assets.landing.checks import find_rejected_rows
from btc_assets.landing.reading import fetch
from btc_assets.landing.registration import record_missing, register_group
from btc_assets.landing.sources import count_sources
from btc_assets.landing.zone import LandingZone
from btc_assets.ops.status import read_daily_status
from btc_assets.simulation.batches import encode_batch
from btc_assets_tests.support.stores import FEED, FEEDS, StoreUnderTest
from btc_assets_tests.support.trades import HOUR, NOON, every, table, trade

FIVE = timedelta(minutes=5)


def test_an_object_is_registered_under_each_slice_that_it_covers(store: StoreUnderTest) -> None:
    (uri,) = store.land(every(2, 300), seconds=3600)  # ten minutes of trades in one object
    store.register(HOUR)
    rows = store.rows(
        "SELECT bucket_5m, asset, uri, row_count, first_event_time, last_event_time, format, status FROM landing.raw_blobs_5m ORDER BY 1"
    )
    assert rows == [
        (NOON, "BTCUSDT", uri, 150, NOON, NOON + timedelta(seconds=298), "parquet", "registered"),
        (NOON + FIVE, "BTCUSDT", uri, 150, NOON + FIVE, NOON + timedelta(seconds=598), "parquet", "registered"),
    ]


def test_objects_in_the_folder_minutes_just_before_and_after_a_slice_are_found(store: StoreUnderTest) -> None:
    early, late = NOON - timedelta(seconds=30), NOON + FIVE + timedelta(seconds=30)
    for folder, first_id in ((early, 1), (late, 2)):
        _, data = encode_batch(table([trade(first_id, NOON + timedelta(seconds=first_id))]), FEED)
        store.put(f"{folder:%Y/%m/%d/%H/%M}/batch-{first_id}.parquet", data)
    store.register(HOUR.of_slice(NOON))
    assert store.rows("SELECT sum(row_count) FROM landing.raw_blobs_5m WHERE bucket_5m = %s", NOON) == [(2,)]


def test_each_object_is_read_once_however_often_its_slices_are_registered(store: StoreUnderTest) -> None:
    store.land(every(1, 120))
    assert store.register(HOUR).read == 8
    again = store.register(HOUR)
    assert (again.listed, again.read) == (8, 0)


def test_rereading_corrects_what_was_registered_under_other_settings(store: StoreUnderTest) -> None:
    store.land(every(1, 30))
    store.register(HOUR, feeds=Feeds.parse("Binance/BTCUSDT=BTCUSDT:WRONG"))
    store.register(HOUR, reread=True)
    assert store.rows("SELECT asset, sum(row_count) FROM landing.raw_blobs_5m WHERE status = 'registered' GROUP BY 1") == [("BTCUSDT", 30)]


def test_an_overwritten_object_is_read_again_and_its_old_version_is_superseded(store: StoreUnderTest) -> None:
    path, data = encode_batch(every(1, 10), FEED)
    store.zone().put(path, data)
    store.register(HOUR)
    store.zone().put(path, encode_batch(every(60, 10), FEED)[1])
    store.register(HOUR)
    assert store.rows("SELECT bucket_5m, status, row_count FROM landing.raw_blobs_5m ORDER BY status, bucket_5m") == [
        (NOON, "registered", 5),
        (NOON + FIVE, "registered", 5),
        (NOON, "superseded", 10),
    ]


@pytest.mark.parametrize("then", ["stays", "is deleted", "is overwritten"])
def test_an_object_that_is_read_late_gives_way_to_the_version_that_another_registered_meanwhile(store: StoreUnderTest, then: str) -> None:
    """Whatever happens to that one before the landing zone is asked which version is there."""
    path, data = encode_batch(every(1, 10), FEED)
    uri = store.zone().put(path, data)
    (obj,) = store.zone().list_all(FEED.prefix)
    late = fetch(store.zone(), obj)
    store.zone().put(path, encode_batch(every(60, 10), FEED)[1])
    store.register(HOUR)
    if then == "is deleted":
        store.delete(uri)
    elif then == "is overwritten":
        store.zone().put(path, encode_batch(every(90, 10), FEED)[1])
    with store.connect() as connection:
        register_group(connection, store.zone(), [late], FEEDS)
    states = {
        "stays": {("registered", NOON), ("registered", NOON + FIVE)},
        "is deleted": {("gone", NOON), ("gone", NOON + FIVE)},
        "is overwritten": {("registered", NOON), ("registered", NOON + FIVE), ("noticed", NOON)},
    }
    assert set(store.rows("SELECT status, bucket_5m FROM landing.raw_blobs_5m")) == states[then]
    store.register(HOUR)
    if then != "is deleted":
        assert store.rows("SELECT count(DISTINCT etag) FROM landing.raw_blobs_5m WHERE status = 'registered'") == [(1,)]
        assert store.rows("SELECT count(*) FROM landing.raw_blobs_5m WHERE status = 'noticed'") == [(0,)]


def test_the_older_file_that_replaces_a_newer_one_is_registered_in_its_place(store: StoreUnderTest) -> None:
    path, data = encode_batch(every(1, 10), FEED)
    uri = store.zone().put(path, data)
    store.register(HOUR)
    store.zone().put(path, encode_batch(every(60, 10), FEED)[1])
    os.utime(store.landing / store.zone().path(uri), (0, NOON.timestamp()))
    store.register(HOUR)
    assert store.rows("SELECT status, count(*) FROM landing.raw_blobs_5m GROUP BY status ORDER BY status") == [
        ("registered", 2),
        ("superseded", 1),
    ]


def test_an_object_that_lands_again_before_its_disappearance_is_recorded_is_work_to_do(store: StoreUnderTest) -> None:
    uri = store.zone().put(*encode_batch(every(1, 10), FEED))
    store.register(HOUR)
    with store.connect() as connection:
        record_missing(connection, store.zone(), FEEDS, [uri])
    assert store.rows("SELECT status FROM landing.raw_blobs_5m") == [("noticed",)]
    store.register(HOUR)
    assert store.rows("SELECT status FROM landing.raw_blobs_5m") == [("registered",)]


def test_a_deleted_object_is_gone_and_one_that_a_listing_omits_is_not(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    uris = store.land(every(1, 60))
    store.register(HOUR)
    with monkeypatch.context() as forgetful:
        forgetful.setattr(LandingZone, "list_window", lambda self, prefix, window, strays: [])
        assert store.register(HOUR).gone == 0
    store.delete(uris[0])
    assert store.register(HOUR).gone == 1
    assert store.rows("SELECT uri FROM landing.raw_blobs_5m WHERE status = 'gone'") == [(uris[0],)]


def test_an_unreadable_object_is_rejected_with_its_reason_and_the_others_are_registered(store: StoreUnderTest) -> None:
    good = store.land(every(1, 30))
    bad = store.put("2024/01/10/12/01/batch-x.parquet", b"")
    result = store.register(HOUR)
    assert (result.registered, result.rejected) == (len(good), 1)
    assert store.rows("SELECT bucket_5m, uri, status, reason FROM landing.raw_blobs_5m WHERE status <> 'registered'") == [
        (NOON, bad, "rejected", "the object is empty (0 bytes): land it again"),
    ]


def test_an_object_without_rows_is_registered_under_the_slice_of_its_folder(store: StoreUnderTest) -> None:
    _, data = encode_batch(every(1, 1), FEED)
    import io

    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pq.read_table(io.BytesIO(data)).slice(0, 0), buffer)
    store.put("2024/01/10/12/07/batch-empty.parquet", buffer.getvalue())
    store.register(HOUR)
    assert store.rows("SELECT bucket_5m, row_count, status FROM landing.raw_blobs_5m") == [(NOON + FIVE, 0, "registered")]


def test_invalid_rows_are_kept_with_their_object_row_number_and_reason(store: StoreUnderTest) -> None:
    lines = b"trade_id,symbol,trade_time,price,quantity,is_market_maker\n1,BTCUSDT,1704888001000,42000.5,1,true\n2,BTCUSDT,1704888002000,,1,true\n"
    uri = store.put("2024/01/10/12/00/batch-a.csv", lines)
    result = store.register(HOUR)
    assert (result.registered, result.rejected_rows) == (1, 1)
    assert store.rows("SELECT uri, row_number, bucket_5m, reason FROM landing.rejected_rows") == [(uri, 2, NOON, "price is null")]
    assert store.rows("SELECT metadata ->> 'rejected_rows' FROM landing.raw_blobs_5m") == [("1",)]


def test_very_many_invalid_rows_are_counted_and_the_first_thousand_kept(store: StoreUnderTest) -> None:
    header = b"trade_id,symbol,trade_time,price,quantity,is_market_maker\n"
    lines = [b"%d,BTCUSDT,1704888001000,%s,1,true\n" % (i, b"-1" if i else b"42000") for i in range(3001)]
    store.put("2024/01/10/12/00/batch-a.csv", header + b"".join(lines))
    result = store.register(HOUR)
    assert (result.registered, result.rejected_rows) == (1, 3000)
    assert store.rows("SELECT count(*), sum(row_count)::int, max(row_number) FROM landing.rejected_rows") == [(1000, 3000, 1001)]
    assert find_rejected_rows(store.connection, HOUR).count == 3000
    assert count_sources(store.connection, HOUR)[1] == 3000
    (day,) = read_daily_status(store.connection, HOUR)
    assert day.rejected_rows == 3000


def test_rejected_rows_are_deleted_when_a_good_object_overwrites_theirs(store: StoreUnderTest) -> None:
    header = b"trade_id,symbol,trade_time,price,quantity,is_market_maker\n"
    store.put("2024/01/10/12/00/batch-a.csv", header + b"1,BTCUSDT,1704888002000,42000,1,true\n2,BTCUSDT,1704888002000,,1,true\n")
    store.register(HOUR)
    assert store.rows("SELECT count(*) FROM landing.rejected_rows") == [(1,)]
    store.put("2024/01/10/12/00/batch-a.csv", header + b"2,BTCUSDT,1704888002000,42000,1,true\n")
    store.register(HOUR)
    assert store.rows("SELECT count(*) FROM landing.rejected_rows") == [(0,)]


def test_extra_columns_are_reported(store: StoreUnderTest) -> None:
    store.put(
        "2024/01/10/12/00/a.csv", b"trade_id,symbol,trade_time,price,quantity,is_market_maker,venue\n1,BTCUSDT,1704888001000,1,1,true,x\n"
    )
    store.register(HOUR)
    assert store.rows("SELECT metadata -> 'extra_columns' FROM landing.raw_blobs_5m") == [(["venue"],)]


def test_a_large_object_is_registered_under_all_of_its_slices(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("btc_assets.landing.objects.LARGE_BYTES", 1000)
    store.land(every(10, 360), seconds=7200)
    store.register(HOUR)
    assert store.rows("SELECT count(*), sum(row_count) FROM landing.raw_blobs_5m") == [(12, 360)]


def test_two_symbols_of_one_prefix_are_registered_apart(store: StoreUnderTest) -> None:
    feeds = Feeds.parse("Binance/BTCUSDT=BTCUSDT,Binance/BTCUSDT=ETHUSDT")
    lines = ["trade_id,symbol,trade_time,price,quantity,is_market_maker"]
    lines += [f"{i},{symbol},170488800{i}000,100,1,true" for i, symbol in enumerate(["BTCUSDT", "ETHUSDT", "BTCUSDT"])]
    store.put("2024/01/10/12/00/a.csv", "\n".join(lines).encode())
    store.register(HOUR, feeds=feeds)
    assert store.rows("SELECT asset, row_count FROM landing.raw_blobs_5m ORDER BY 1") == [("BTCUSDT", 2), ("ETHUSDT", 1)]


def test_the_slices_view_lists_the_objects_of_each_slice_for_other_tools(store: StoreUnderTest) -> None:
    uris = store.land(every(10, 60), seconds=60)
    store.ingest(HOUR)
    late = store.land(every(1, 5, start=NOON + FIVE, first_id=1000))
    store.register(HOUR)
    rows = store.rows("SELECT bucket_5m, objects, uris, row_count, loaded_rows, state FROM landing.slices ORDER BY 1")
    assert rows == [
        (NOON, 5, uris[:5], 30, 30, "loaded"),
        (NOON + FIVE, 6, sorted(uris[5:] + late), 35, 30, "stale"),
    ]
