"""Arrivals: new objects are noticed wherever the landing zone is, and their slices are due once they are closed and quiet."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import pytest

from btc_assets.domain.feeds import Feed, Feeds
from btc_assets.domain.slices import SLICE, Window
from btc_assets.ingestion.offsets import Listed, read_listing_positions, record_listings, rewind_listing
from btc_assets.landing import arrivals
from btc_assets.landing.arrivals import Arrivals, ArrivalTiming, notice_arrivals, read_waiting_slices
from btc_assets.landing.registry import notice
from btc_assets.simulation.batches import encode_batch
from btc_assets_tests.support.stores import FEED, FEEDS, StoreUnderTest
from btc_assets_tests.support.trades import NOON, every

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
GRACE = 90 * SECOND
LOOKBACK = 2 * HOUR
TIMING = ArrivalTiming(LOOKBACK, GRACE)


def put(store: StoreUnderTest, *folders: datetime, name: str = "batch-a.csv", data: bytes = b"1") -> None:
    for folder in folders:
        store.put(f"{folder:%Y/%m/%d/%H/%M}/{name}", data)


def list_at(store: StoreUnderTest, now: datetime, *, clock: Callable[[], float] = lambda: 0.0) -> Arrivals | None:
    return notice_arrivals(store.connection, store.zone(), FEEDS, now, TIMING, clock)


def listed_to(store: StoreUnderTest) -> datetime | None:
    return read_listing_positions(store.connection, [FEED.prefix])[FEED.prefix][0]


def noticed(store: StoreUnderTest) -> list[tuple[datetime, str]]:
    """Slice and path below the feed's prefix of each object that is noticed and not read yet."""
    start = f"{store.zone().url}/{FEED.prefix}/"
    rows = store.rows("SELECT bucket_5m, uri FROM landing.raw_blobs_5m WHERE status = 'noticed' ORDER BY 1, 2")
    return [(bucket, uri.removeprefix(start)) for bucket, uri in rows]


def registry(store: StoreUnderTest) -> list[tuple[datetime, str, bool]]:
    """Slice, status and whether it is loaded, of every row."""
    return store.rows("SELECT bucket_5m, status, loaded_at IS NOT NULL FROM landing.raw_blobs_5m ORDER BY 1, 2, 3")


# ---- listing


def test_objects_are_noticed_under_the_slice_of_their_folder_and_only_once(on_each_zone: StoreUnderTest) -> None:
    put(on_each_zone, NOON, NOON + 6 * MINUTE)
    assert list_at(on_each_zone, NOON + HOUR) == Arrivals(listed=2, noticed=2)
    assert noticed(on_each_zone) == [(NOON, "2024/01/10/12/00/batch-a.csv"), (NOON + SLICE, "2024/01/10/12/06/batch-a.csv")]
    put(on_each_zone, NOON + 7 * MINUTE)
    assert list_at(on_each_zone, NOON + HOUR + MINUTE) == Arrivals(listed=3, noticed=1)
    assert list_at(on_each_zone, NOON + HOUR + 2 * MINUTE) == Arrivals(listed=3, noticed=0)


def test_a_listing_starts_a_lookback_before_the_newest_folder_not_before_the_present(on_each_zone: StoreUnderTest) -> None:
    put(on_each_zone, NOON)
    list_at(on_each_zone, NOON)
    # Then nothing lands for a day, and what does belongs to folders before the last one that was listed.
    put(on_each_zone, NOON - LOOKBACK, NOON - LOOKBACK - SLICE, name="batch-late.csv")
    assert list_at(on_each_zone, NOON + 24 * HOUR) == Arrivals(listed=2, noticed=1)
    assert noticed(on_each_zone) == [(NOON - LOOKBACK, "2024/01/10/10/00/batch-late.csv"), (NOON, "2024/01/10/12/00/batch-a.csv")]


def test_the_position_is_the_newest_listed_folder_and_is_kept_in_the_store(on_each_zone: StoreUnderTest) -> None:
    put(on_each_zone, NOON)
    list_at(on_each_zone, NOON + MINUTE)
    rows = on_each_zone.rows("SELECT last_ts, state ->> 'listed_at' FROM ingestion.stream_offsets WHERE source = 'landing/Binance/BTCUSDT'")
    assert rows == [(NOON + MINUTE, "2024-01-10T12:01:00+00:00")]  # nothing was known before, so it began with the present
    list_at(on_each_zone, NOON + HOUR)
    assert listed_to(on_each_zone) == NOON + MINUTE  # time alone does not move it
    put(on_each_zone, NOON + 30 * MINUTE, NOON + 3 * MINUTE)
    list_at(on_each_zone, NOON + 2 * HOUR)
    assert listed_to(on_each_zone) == NOON + 30 * MINUTE


def test_a_collector_whose_clock_runs_ahead_does_not_move_the_position_past_the_present(on_each_zone: StoreUnderTest) -> None:
    put(on_each_zone, NOON + HOUR)
    assert list_at(on_each_zone, NOON) == Arrivals(listed=1, noticed=1)
    assert listed_to(on_each_zone) == NOON


def test_the_position_can_be_moved_back_and_not_forward(on_each_zone: StoreUnderTest) -> None:
    put(on_each_zone, NOON - 24 * HOUR, NOON)
    assert list_at(on_each_zone, NOON) == Arrivals(listed=1, noticed=1)
    rewind_listing(on_each_zone.connection, FEED.prefix, NOON + HOUR)
    assert listed_to(on_each_zone) == NOON
    rewind_listing(on_each_zone.connection, FEED.prefix, NOON - 24 * HOUR)
    assert list_at(on_each_zone, NOON + MINUTE) == Arrivals(listed=2, noticed=1)
    assert listed_to(on_each_zone) == NOON


def test_moving_the_position_back_during_a_listing_is_not_lost(on_each_zone: StoreUnderTest) -> None:
    put(on_each_zone, NOON - 24 * HOUR, NOON)
    list_at(on_each_zone, NOON)

    def meanwhile() -> Iterator[float]:
        yield 0.0  # the listing begins
        rewind_listing(on_each_zone.connection, FEED.prefix, NOON - 24 * HOUR)
        while True:
            yield 0.0

    put(on_each_zone, NOON + MINUTE)
    list_at(on_each_zone, NOON + 2 * MINUTE, clock=meanwhile().__next__)
    assert listed_to(on_each_zone) == NOON - 24 * HOUR
    assert list_at(on_each_zone, NOON + 3 * MINUTE) == Arrivals(listed=3, noticed=1)


def test_the_next_listing_continues_one_that_took_too_long(store: StoreUnderTest) -> None:
    days = [NOON + i * 24 * HOUR for i in range(5)]  # a directory is listed day by day
    put(store, *days)
    rewind_listing(store.connection, FEED.prefix, NOON)
    for i in range(1, 5):
        seconds = iter([0.0, 1.0, arrivals.LIST_SECONDS + 1])  # at the start, and after each day
        assert list_at(store, days[-1] + HOUR + i * SECOND, clock=seconds.__next__) == Arrivals(2, 2 if i == 1 else 1, complete=False)
        assert listed_to(store) == days[i]
    assert list_at(store, days[-1] + HOUR + 5 * SECOND) == Arrivals(listed=1, noticed=0)  # at once, as it never came to its end


def test_a_prefix_is_listed_again_after_half_a_minute_or_when_a_slice_closes(store: StoreUnderTest) -> None:
    put(store, NOON)
    listed_at = NOON + SLICE + GRACE + MINUTE
    assert list_at(store, listed_at)
    assert list_at(store, listed_at + 29 * SECOND) is None
    assert list_at(store, listed_at + 30 * SECOND)
    closing = NOON + 2 * SLICE + GRACE
    assert list_at(store, closing - SECOND)
    assert list_at(store, closing)
    assert list_at(store, closing + SECOND) is None
    assert list_at(store, closing - HOUR)  # a clock that was set back waits for nothing


def test_each_prefix_has_a_position_of_its_own(store: StoreUnderTest) -> None:
    feeds = Feeds([FEED, Feed("Binance/ETHUSDT", "ETHUSDT", "ETHUSDT")])
    store.zone().put("Binance/ETHUSDT/2024/01/10/12/00/batch-a.csv", b"1")
    put(store, NOON + MINUTE)
    record_listings(store.connection, [Listed("Binance/ETHUSDT", None, NOON - HOUR, None)])
    found = notice_arrivals(store.connection, store.zone(), feeds, NOON + 2 * MINUTE, TIMING)
    assert found == Arrivals(listed=2, noticed=2)
    assert read_listing_positions(store.connection, ["Binance/ETHUSDT"])["Binance/ETHUSDT"][0] == NOON
    assert store.rows("SELECT asset FROM landing.raw_blobs_5m ORDER BY 1") == [("BTCUSDT",), ("ETHUSDT",)]


# ---- from noticed to read


def test_a_noticed_object_is_pending_under_its_folder_and_then_under_the_slices_that_it_covers(on_each_zone: StoreUnderTest) -> None:
    _, data = encode_batch(every(10, 60), FEED)  # two slices, in the folder of a third
    put(on_each_zone, NOON + 11 * MINUTE, name="batch-a.parquet", data=data)
    list_at(on_each_zone, NOON + HOUR)
    slices = "SELECT bucket_5m, state, objects, noticed_objects FROM landing.slices ORDER BY 1"
    assert on_each_zone.rows(slices) == [(NOON + 2 * SLICE, "pending", 0, 1)]
    window = Window(NOON, NOON + HOUR)
    on_each_zone.register(window)
    assert on_each_zone.rows(slices) == [(NOON, "pending", 1, 0), (NOON + SLICE, "pending", 1, 0)]
    on_each_zone.load(window)
    put(on_each_zone, NOON)
    list_at(on_each_zone, NOON + 2 * HOUR)
    assert on_each_zone.rows(slices) == [(NOON, "stale", 1, 1), (NOON + SLICE, "loaded", 1, 0)]


def test_objects_that_disappear_before_they_are_read_are_gone_wherever_they_were(on_each_zone: StoreUnderTest) -> None:
    put(on_each_zone, NOON)
    put(on_each_zone, NOON - 90 * MINUTE, name="batch-apart.csv")
    list_at(on_each_zone, NOON)
    # One of them was noticed under a slice far from its folder, as if a wrong clock had named that.
    on_each_zone.connection.execute("UPDATE landing.raw_blobs_5m SET bucket_5m = %s WHERE uri LIKE '%%apart%%'", (NOON,))
    on_each_zone.delete(*on_each_zone.uris())
    on_each_zone.register(Window.of_slice(NOON))
    assert registry(on_each_zone) == [(NOON, "gone", False)] * 2
    assert read_waiting_slices(on_each_zone.connection, NOON + HOUR, grace=GRACE).due == []


def test_an_object_that_is_overwritten_is_noticed_again_and_only_its_last_version_is_read(on_each_zone: StoreUnderTest) -> None:
    for i in range(1, 4):
        _, data = encode_batch(every(10, i), FEED)
        put(on_each_zone, NOON, name="batch-a.parquet", data=data)
        assert list_at(on_each_zone, NOON + i * MINUTE) == Arrivals(listed=1, noticed=1)
    on_each_zone.register(Window.of_slice(NOON))
    assert registry(on_each_zone) == [(NOON, "registered", False), (NOON, "superseded", False), (NOON, "superseded", False)]
    on_each_zone.load(Window.of_slice(NOON))
    assert on_each_zone.rows("SELECT count(*) FROM market_data.btc_ticks") == [(3,)]
    assert list_at(on_each_zone, NOON + 5 * MINUTE) == Arrivals(listed=1, noticed=0)


@pytest.mark.parametrize("loaded", [True, False], ids=["second version loaded", "second version only read"])
def test_content_that_changes_back_to_an_older_version_is_loaded_again(on_s3: StoreUnderTest, loaded: bool) -> None:
    # On S3 the ETag is that of the content, so the older version comes back; a file that is written again never does.
    window = Window.of_slice(NOON)
    one, two = (encode_batch(every(10, count), FEED)[1] for count in (1, 2))
    for data in (one, two, one):
        put(on_s3, NOON, name="batch-a.parquet", data=data)
        list_at(on_s3, NOON)
        on_s3.connection.execute("DELETE FROM ingestion.stream_offsets WHERE source LIKE 'landing/%'")  # list again at once
        assert noticed(on_s3) == [(NOON, "2024/01/10/12/00/batch-a.parquet")]
        assert read_waiting_slices(on_s3.connection, NOON + 36500 * 24 * HOUR, grace=GRACE).due
        on_s3.register(window)
        if loaded or data is not two:
            on_s3.load(window)
    assert on_s3.rows("SELECT count(*) FROM market_data.btc_ticks") == [(1,)]
    assert registry(on_s3) == [(NOON, "registered", True), (NOON, "superseded", False)]


def test_a_file_that_is_replaced_by_an_older_one_is_loaded_from_the_older_one(store: StoreUnderTest) -> None:
    window = Window.of_slice(NOON)
    one, two = (encode_batch(every(10, count), FEED)[1] for count in (1, 2))
    put(store, NOON, name="batch-a.parquet", data=two)
    list_at(store, NOON)
    store.register(window)
    store.load(window)
    put(store, NOON, name="batch-a.parquet", data=one)
    (uri,) = store.uris()
    os.utime(store.landing / store.zone().path(uri), (0, NOON.timestamp()))  # as `cp -p` and `rsync -t` leave it
    list_at(store, NOON + MINUTE)
    store.register(window)
    store.load(window)
    assert store.rows("SELECT count(*) FROM market_data.btc_ticks") == [(1,)]
    assert registry(store) == [(NOON, "registered", True), (NOON, "superseded", False)]


def test_an_object_that_returned_and_disappeared_again_still_protects_its_ticks(store: StoreUnderTest) -> None:
    window = Window.of_slice(NOON)
    _, data = encode_batch(every(10, 5), FEED)
    put(store, NOON, name="batch-a.parquet", data=data)
    store.register(window)
    store.load(window)
    (uri,) = store.uris()
    file = store.landing / store.zone().path(uri)
    hidden = file.rename(file.with_name(".hidden"))
    store.register(window)
    assert registry(store) == [(NOON, "gone", True)]
    hidden.rename(file)
    list_at(store, NOON)
    store.register(window)
    file.unlink()
    store.register(window)
    assert registry(store) == [(NOON, "gone", True)]  # a load that drops its rows is refused


# ---- when slices are due


def row(store: StoreUnderTest, bucket: datetime, *, noticed_at: datetime, last_modified: datetime | None = None, status: str = "noticed",
        loaded: bool = False) -> None:  # fmt: skip
    """A row of the registry, of an object that landed when it was noticed unless `last_modified` says otherwise."""
    store.connection.execute(
        "INSERT INTO landing.raw_blobs_5m (bucket_5m, asset, uri, etag, size_bytes, row_count, status, noticed_at, last_modified, loaded_at) "
        "VALUES (%s, 'BTCUSDT', 'file:///' || gen_random_uuid(), 'etag', 1, 1, %s, %s, %s, %s)",
        (bucket, status, noticed_at, last_modified or noticed_at, NOON if loaded else None),
    )


def due_at(store: StoreUnderTest, now: datetime, *, grace: timedelta = GRACE) -> list[datetime]:
    return [one.bucket for one in read_waiting_slices(store.connection, now, grace=grace).due]


def test_a_slice_is_due_when_it_is_closed(store: StoreUnderTest) -> None:
    row(store, NOON, noticed_at=NOON)
    closed = NOON + SLICE + GRACE
    assert read_waiting_slices(store.connection, closed - SECOND, grace=GRACE).open == 1
    assert due_at(store, closed - SECOND) == []
    assert due_at(store, closed) == [NOON]


def test_a_slice_that_just_received_an_object_waits_until_it_is_quiet(store: StoreUnderTest) -> None:
    landed = NOON + HOUR
    row(store, NOON, noticed_at=landed)
    assert read_waiting_slices(store.connection, landed + 29 * SECOND, grace=GRACE).still_receiving == 1
    assert due_at(store, landed + 29 * SECOND) == []
    assert due_at(store, landed + 30 * SECOND) == [NOON]
    assert due_at(store, landed + 10 * SECOND, grace=10 * SECOND) == [NOON]  # a short grace asks for it at once


def test_an_object_that_landed_long_ago_and_was_just_noticed_is_quiet(store: StoreUnderTest) -> None:
    row(store, NOON, noticed_at=NOON + HOUR, last_modified=NOON + MINUTE)
    assert due_at(store, NOON + HOUR) == [NOON]


def test_a_slice_that_receives_objects_all_the_time_is_not_put_off_forever(store: StoreUnderTest) -> None:
    first = NOON + HOUR
    for i in range(60):
        row(store, NOON, noticed_at=first + i * 5 * SECOND)
        dues = due_at(store, first + i * 5 * SECOND)
        assert dues == ([NOON] if i * 5 * SECOND >= arrivals.PATIENCE else [])


def test_slices_with_unsettled_rows_are_due(store: StoreUnderTest) -> None:
    different = [("noticed", False), ("noticed", True), ("registered", False), ("superseded", True)]
    alike = [("registered", True), ("superseded", False), ("rejected", False), ("gone", False), ("gone", True)]
    for i, (status, loaded) in enumerate(different + alike):
        row(store, NOON + i * SLICE, noticed_at=NOON, status=status, loaded=loaded)
    assert due_at(store, NOON + 2 * HOUR) == [NOON + i * SLICE for i in range(len(different))]


def test_a_slice_that_lost_an_object_it_was_loaded_from_waits_for_a_person(store: StoreUnderTest) -> None:
    row(store, NOON, noticed_at=NOON, status="gone", loaded=True)
    row(store, NOON, noticed_at=NOON, status="registered")
    row(store, NOON + SLICE, noticed_at=NOON, status="registered")
    assert due_at(store, NOON + HOUR) == [NOON + SLICE]


def test_a_noticed_object_is_read_even_if_another_one_is_gone(store: StoreUnderTest) -> None:
    row(store, NOON, noticed_at=NOON, status="gone", loaded=True)
    row(store, NOON, noticed_at=NOON)
    assert due_at(store, NOON + HOUR) == [NOON]


def test_the_digest_of_a_slice_changes_with_every_object_and_with_nothing_else(store: StoreUnderTest) -> None:
    digests = []
    for i in range(3):
        row(store, NOON, noticed_at=NOON + i * MINUTE)
        row(store, NOON, noticed_at=NOON + i * MINUTE, status="registered", loaded=True)
        (one,) = read_waiting_slices(store.connection, NOON + HOUR, grace=GRACE).due
        assert [one] == read_waiting_slices(store.connection, NOON + 2 * HOUR, grace=GRACE).due
        assert one.since == NOON + i * MINUTE
        digests.append(one.digest)
    assert len(set(digests)) == 3


def test_the_newest_of_very_many_slices_are_read_first(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "_MOST_SLICES", 2)
    for i in range(4):
        row(store, NOON + i * SLICE, noticed_at=NOON)
    assert due_at(store, NOON + HOUR) == [NOON + 2 * SLICE, NOON + 3 * SLICE]


def test_two_sessions_that_notice_the_same_objects_record_them_once(store: StoreUnderTest) -> None:
    put(store, NOON, NOON + SLICE)
    objects = list(store.zone().list_all(FEED.prefix))
    with store.connect() as other:
        assert notice(store.connection, FEEDS, objects + objects) == 2
        assert notice(other, FEEDS, objects) == 0
    assert len(noticed(store)) == 2


def test_a_rejected_object_is_noticed_again_when_the_same_bytes_are_uploaded_again(on_s3: StoreUnderTest) -> None:
    """Its reason advises that, and on S3 the same bytes have the same ETag."""
    on_s3.put("2024/01/10/12/00/batch-a.csv", b"no trades")
    list_at(on_s3, NOON + HOUR)
    on_s3.register(Window.of_slice(NOON))
    assert registry(on_s3) == [(NOON, "rejected", False)]
    assert list_at(on_s3, NOON + HOUR + MINUTE) == Arrivals(listed=1, noticed=0)
    time.sleep(1.1)  # S3 tells whole seconds
    on_s3.put("2024/01/10/12/00/batch-a.csv", b"no trades")
    assert list_at(on_s3, NOON + HOUR + 2 * MINUTE) == Arrivals(listed=1, noticed=1)
    assert on_s3.register(Window.of_slice(NOON)).rejected == 1
    assert list_at(on_s3, NOON + HOUR + 3 * MINUTE) == Arrivals(listed=1, noticed=0)


def test_unsettled_rows_are_found_by_their_index(store: StoreUnderTest) -> None:
    """The planner sees through landing.is_unsettled, so that the few rows that are work are found among all that are settled."""
    store.connection.execute(
        "INSERT INTO landing.raw_blobs_5m (bucket_5m, asset, uri, etag, size_bytes, row_count, status, last_modified, loaded_at) "
        "SELECT %s + i * interval '5 minutes', 'BTCUSDT', 'file:///' || i, 'etag', 1, 1, 'registered', now(), "
        "CASE WHEN i > 10 THEN now() END FROM generate_series(1, 10000) AS i",
        (NOON,),
    )
    store.connection.execute("ANALYZE landing.raw_blobs_5m")
    plan = "\n".join(
        line for (line,) in store.rows("EXPLAIN SELECT bucket_5m FROM landing.raw_blobs_5m WHERE landing.is_unsettled(status, loaded_at)")
    )
    assert "raw_blobs_5m_unsettled" in plan and "Seq Scan" not in plan and "is_unsettled(" not in plan
    assert len(read_waiting_slices(store.connection, NOON + timedelta(days=36_500), grace=GRACE).due) == 10
