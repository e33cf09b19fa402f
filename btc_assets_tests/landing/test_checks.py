"""The checks of the registry find objects that are unreadable or lost, and rows that are invalid."""

from __future__ import annotations

from btc_assets.domain.slices import Window
from btc_assets.landing.checks import find_rejected_rows, find_unusable_objects
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import HOUR, NOON, every

HEADER = b"trade_id,symbol,trade_time,price,quantity,is_market_maker\n"
BEFORE_NOON = Window(NOON - (HOUR.end - HOUR.start), NOON)


def test_readable_objects_are_no_problem_whether_they_are_loaded_or_not(store: StoreUnderTest) -> None:
    store.land(every(10, 60))
    store.register(HOUR)
    assert find_unusable_objects(store.connection, HOUR).found == []
    store.load(HOUR)
    assert find_unusable_objects(store.connection, HOUR).found == []


def test_an_unreadable_object_is_named_with_its_reason(store: StoreUnderTest) -> None:
    uri = store.put("2024/01/10/12/01/batch-x.parquet", b"")
    store.register(HOUR)
    assert find_unusable_objects(store.connection, HOUR).found == [f"{uri}: the object is empty (0 bytes): land it again"]
    assert find_unusable_objects(store.connection, BEFORE_NOON).found == []


def test_an_object_that_disappeared_is_named_unless_its_ticks_are_loaded(store: StoreUnderTest) -> None:
    (loaded,) = store.land(every(10, 5), seconds=60)
    store.register(HOUR)
    store.load(HOUR)
    (lost,) = store.land(every(10, 5, first_id=1000), seconds=60)
    store.register(HOUR)
    store.delete(loaded, lost)
    store.register(HOUR)
    assert find_unusable_objects(store.connection, HOUR).found == [f"{lost}: the object is no longer in the landing zone"]


def test_fifty_invalid_rows_are_shown_and_all_are_counted(store: StoreUnderTest) -> None:
    rows = b"".join(b"%d,BTCUSDT,1704888001000,-1,1,true\n" % number for number in range(60))
    uri = store.put("2024/01/10/12/00/batch-a.csv", HEADER + rows + b"60,BTCUSDT,1704888001000,1,1,true\n")
    store.register(HOUR)
    found = find_rejected_rows(store.connection, HOUR)
    assert (len(found.found), found.count) == (50, 60)
    assert str(found.found[0]).startswith(f"{uri}, row 1: ")
