"""What landed and is loaded, by day and symbol."""

from __future__ import annotations

from datetime import date, timedelta

from btc_assets.domain.slices import DAY, SLICE, Window, floor_day
from btc_assets.ops.status import DayStatus, read_daily_status, sum_symbols
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import NOON, every


def read(store: StoreUnderTest) -> list[DayStatus]:
    return read_daily_status(store.connection, Window(NOON - DAY, NOON + 2 * DAY))


def test_an_empty_store_has_no_day(store: StoreUnderTest) -> None:
    assert read(store) == []


def test_slices_are_counted_by_their_state(store: StoreUnderTest) -> None:
    store.land(every(1, 600), seconds=60)
    store.ingest(Window(NOON, NOON + 2 * SLICE))
    gone = store.land(every(1, 300, start=NOON + 3 * SLICE, first_id=1000), seconds=300)
    store.ingest(Window.of_slice(NOON + 3 * SLICE))
    store.delete(*gone)
    store.register(Window.of_slice(NOON + 3 * SLICE))
    store.land(every(1, 10, start=NOON + 5 * SLICE, first_id=2000))
    store.put(f"{NOON + 5 * SLICE:%Y/%m/%d/%H/%M}/bad.parquet", b"not parquet")
    store.register(Window.of_slice(NOON + 5 * SLICE))
    (day,) = read(store)
    assert (day.day, day.symbol) == (date(2024, 1, 10), "BTCUSDT")
    assert (day.landed_rows, day.loaded_rows) == (610, 900)  # the rows of the object that is gone are still loaded
    assert (day.slices, day.loaded, day.waiting, day.gone, day.missing, day.rejected_objects) == (3, 2, 1, 1, 3, 1)
    assert day.problems() == ["1 waiting", "3 missing", "1 with a source gone", "1 objects rejected"]


def test_an_object_that_covers_several_slices_is_one_object_of_each_of_its_days(store: StoreUnderTest) -> None:
    midnight = floor_day(NOON) + DAY
    store.land(every(100, 15, start=midnight - 2 * SLICE), seconds=3600)  # 20 minutes before midnight to 5 after it
    store.ingest(Window(midnight - 2 * SLICE, midnight + 3 * SLICE))
    before, after = read(store)
    size = before.bytes
    assert [(day.objects, day.bytes, day.slices) for day in (before, after)] == [(1, size, 2), (1, size, 3)] and size > 0


def test_slices_are_missing_only_between_the_first_and_the_last_with_an_object(store: StoreUnderTest) -> None:
    for start, first_id in ((NOON, 1), (NOON + DAY, 1000)):
        store.land(every(1, 300, start=start, first_id=first_id))
        store.ingest(Window.of_slice(start))
    first, second = read(store)
    assert (first.missing, second.missing) == (143, 144)
    assert second.day - first.day == timedelta(days=1)


def test_the_symbols_of_a_day_are_summed_but_for_rows_that_are_counted_by_day() -> None:
    first, second = date(2024, 1, 10), date(2024, 1, 11)
    days = [
        DayStatus(first, "BTC", 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, rejected_rows=11),
        DayStatus(first, "ETH", 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, rejected_rows=11),
        DayStatus(second, "ETH", 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, rejected_rows=0),
    ]
    assert sum_symbols(days) == [
        DayStatus(first, "2 symbols", 11, 22, 33, 44, 55, 66, 77, 88, 99, 110, rejected_rows=11),
        DayStatus(second, "1 symbols", 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, rejected_rows=0),
    ]
