"""What a slice is loaded from: readable objects with ticks, and the objects that it lost."""

from __future__ import annotations

import pytest

from btc_assets.domain.slices import SLICE, Window
from btc_assets.landing.sources import count_object_rows, count_objects, count_rows_by_slice, count_sources, read_lost_sources, read_sources
from btc_assets.simulation.batches import encode_batch
from btc_assets_tests.support.stores import FEED, StoreUnderTest
from btc_assets_tests.support.trades import HOUR, NOON, every


def sources(store: StoreUnderTest, window: Window = HOUR) -> list[tuple[str, int]]:
    return [(source.uri, source.row_count) for source in read_sources(store.connection.cursor(), window)]


def test_sources_are_the_registered_objects_with_ticks(store: StoreUnderTest) -> None:
    uris = store.land(every(2, 300), seconds=150)  # two objects for each of two slices
    store.put("2024/01/10/12/01/batch-unreadable.parquet", b"")
    store.put("2024/01/10/12/01/batch-empty.csv", b"trade_id,symbol,trade_time,price,quantity,is_market_maker\n")
    store.register(HOUR)
    assert sources(store) == [(uri, 75) for uri in uris]
    assert sources(store, Window.of_slice(NOON)) == [(uri, 75) for uri in uris[:2]]
    assert count_rows_by_slice(store.connection, HOUR) == [(NOON, 150), (NOON + SLICE, 150)]


def test_the_rows_of_an_object_are_counted_by_slice(store: StoreUnderTest) -> None:
    store.land(every(2, 300), seconds=3600)
    store.register(HOUR)
    (obj, _) = read_sources(store.connection.cursor(), HOUR)
    assert count_object_rows(store.connection, obj.version, HOUR) == {NOON: 150, NOON + SLICE: 150}
    assert count_object_rows(store.connection, obj.version, Window.of_slice(NOON)) == {NOON: 150}


@pytest.mark.parametrize("loaded", [True, False])
def test_only_an_object_that_was_loaded_can_be_lost(store: StoreUnderTest, loaded: bool) -> None:
    (uri,) = store.land(every(2, 10), seconds=60)
    store.register(HOUR)
    if loaded:
        store.load(HOUR)
    assert count_sources(store.connection, HOUR) == (int(loaded), 0)
    store.delete(uri)
    store.register(HOUR)
    assert read_lost_sources(store.connection.cursor(), HOUR, ["BTCUSDT"]) == ([(NOON, uri)] if loaded else [])


def test_an_object_is_counted_once_however_many_slices_it_covers_and_one_that_is_gone_is_remembered(store: StoreUnderTest) -> None:
    (uri,) = store.land(every(10, 90), seconds=3600)
    store.ingest(HOUR)
    assert count_objects(store.connection, HOUR) == (1, True)
    assert count_objects(store.connection, Window(HOUR.end, HOUR.end + SLICE)) == (0, False)
    store.delete(uri)
    store.register(HOUR)
    assert count_objects(store.connection, HOUR) == (0, True)


def test_an_object_that_was_overwritten_is_not_lost(store: StoreUnderTest) -> None:
    path, data = encode_batch(every(1, 10), FEED)
    store.zone().put(path, data)
    store.ingest(HOUR)
    store.zone().put(path, encode_batch(every(1, 5), FEED)[1])
    store.register(HOUR)
    assert read_lost_sources(store.connection.cursor(), HOUR, ["BTCUSDT"]) == []
