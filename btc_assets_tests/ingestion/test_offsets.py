"""Stream offsets: how far symbols are ingested, and how far prefixes are listed."""

from __future__ import annotations

from datetime import timedelta

from btc_assets.domain.slices import SLICE, Window
from btc_assets.ingestion.offsets import advance_offsets, read_listing_position, record_listing, rewind_listing
from btc_assets_tests.support.databases import write_ticks
from btc_assets_tests.support.stores import FEED, StoreUnderTest
from btc_assets_tests.support.trades import NOON, every

HOUR = timedelta(hours=1)


def advance(store: StoreUnderTest) -> list[tuple[object, ...]]:
    """Advance the offset of BTCUSDT; returns its trade id, event time and slice."""
    with store.connection.transaction(), store.connection.cursor() as cursor:
        advance_offsets(cursor, "market_data.btc_ticks", ["BTCUSDT"])
    return store.rows(
        "SELECT last_sequence, last_ts, (state ->> 'bucket_5m')::timestamptz FROM ingestion.stream_offsets "
        "WHERE source = 'market_data.btc_ticks/BTCUSDT'"
    )


def test_an_offset_is_the_last_trade_of_the_newest_slice(store: StoreUnderTest) -> None:
    write_ticks(store.connection, every(1, 450))
    assert advance(store) == [(450, NOON + timedelta(seconds=449), NOON + SLICE)]


def test_an_offset_is_exact_after_a_slice_lost_rows_and_stays_without_any(store: StoreUnderTest) -> None:
    window = write_ticks(store.connection, every(1, 450))
    advance(store)
    write_ticks(store.connection, every(1, 310), window)
    exact = (310, NOON + timedelta(seconds=309), NOON + SLICE)
    assert advance(store) == [exact]
    store.connection.execute("DELETE FROM market_data.btc_ticks")
    assert advance(store) == [exact]


def test_two_loaders_take_turns_at_an_offset(store: StoreUnderTest) -> None:
    write_ticks(store.connection, every(1, 300), Window.of_slice(NOON))
    with store.connect() as other, other.transaction(), other.cursor() as cursor:
        advance_offsets(cursor, "market_data.btc_ticks", ["BTCUSDT"])
        waits = store.rows(
            "SELECT count(*) FROM (SELECT FROM ingestion.stream_offsets WHERE source = %s FOR UPDATE SKIP LOCKED) AS free",
            "market_data.btc_ticks/BTCUSDT",
        )
        assert waits == [(0,)]
    assert advance(store)[0][0] == 300


def test_a_prefix_that_was_never_listed_has_no_position(store: StoreUnderTest) -> None:
    assert read_listing_position(store.connection, FEED.prefix) == (None, None)


def test_an_interrupted_listing_moves_the_folder_and_keeps_the_time_of_the_last_complete_one(store: StoreUnderTest) -> None:
    record_listing(store.connection, FEED.prefix, None, NOON, NOON + HOUR)
    record_listing(store.connection, FEED.prefix, NOON, NOON + SLICE, None)
    assert read_listing_position(store.connection, FEED.prefix) == (NOON + SLICE, NOON + HOUR)


def test_a_position_that_somebody_rewound_during_a_listing_stays_there(store: StoreUnderTest) -> None:
    record_listing(store.connection, FEED.prefix, None, NOON, NOON)
    rewind_listing(store.connection, FEED.prefix, NOON - HOUR)
    record_listing(store.connection, FEED.prefix, NOON, NOON + SLICE, NOON + HOUR)
    assert read_listing_position(store.connection, FEED.prefix) == (NOON - HOUR, NOON + HOUR)


def test_rewinding_never_moves_forward(store: StoreUnderTest) -> None:
    rewind_listing(store.connection, FEED.prefix, NOON)
    rewind_listing(store.connection, FEED.prefix, NOON + HOUR)
    assert read_listing_position(store.connection, FEED.prefix).newest_folder == NOON
