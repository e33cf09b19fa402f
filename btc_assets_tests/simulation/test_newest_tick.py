"""The newest tick of a feed: of what is loaded, of what is registered, and of what has only landed."""

from __future__ import annotations

from datetime import timedelta

from btc_assets.simulation.newest_tick import NewestTick, read_newest_tick
from btc_assets_tests.support.plays import planned
from btc_assets_tests.support.stores import FEED, StoreUnderTest
from btc_assets_tests.support.trades import HOUR, NOON, every


def newest(store: StoreUnderTest) -> NewestTick | None:
    return read_newest_tick(store.connection, store.zone(), FEED)


def test_an_empty_store_has_no_newest_tick_and_a_play_keeps_the_ids_of_its_file(store: StoreUnderTest) -> None:
    assert newest(store) is None
    assert planned(every(1, 3)).id_shift == 0


def test_the_newest_tick_counts_from_when_it_lands_until_it_is_loaded(store: StoreUnderTest) -> None:
    store.land(every(1, 300))
    landed = NewestTick(NOON + timedelta(seconds=299), 300)
    assert newest(store) == landed
    store.register(HOUR)
    assert newest(store) == landed
    uris = store.uris()
    store.load(HOUR)
    store.delete(*uris)
    assert newest(store) == landed


def test_time_and_id_may_belong_to_two_trades(store: StoreUnderTest) -> None:
    store.land(every(1, 10, first_id=500))
    store.ingest(HOUR)
    store.land(every(1, 10, start=NOON + timedelta(minutes=30)))
    assert newest(store) == NewestTick(NOON + timedelta(minutes=30, seconds=9), 509)
