"""Stream offsets: how far symbols are ingested, and how far prefixes are listed."""

from __future__ import annotations

from datetime import datetime, timedelta

import psycopg

from btc_assets.domain.slices import DAY, SLICE, Window, floor_day
from btc_assets.ingestion.offsets import Listed, advance_offsets, read_listing_positions, record_listings, rewind_listing
from btc_assets.store.database import only_row
from btc_assets_tests.support.databases import write_ticks
from btc_assets_tests.support.stores import FEED, StoreUnderTest
from btc_assets_tests.support.trades import NOON, every, table, trade

HOUR = timedelta(hours=1)


POSITION = (
    "SELECT last_sequence, last_ts, (state ->> 'bucket_5m')::timestamptz FROM ingestion.stream_offsets "
    "WHERE source = 'market_data.btc_ticks/BTCUSDT'"
)


def advance(connection: psycopg.Connection, window: Window, newest: datetime | None, symbol: str = "BTCUSDT") -> list[tuple[object, ...]]:
    """Advance the offset of a symbol; returns trade id, event time and slice of that of BTCUSDT."""
    with connection.transaction(), connection.cursor() as cursor:
        advance_offsets(cursor, "market_data.btc_ticks", window, {symbol: newest})
    return connection.execute(POSITION).fetchall()


def test_an_offset_is_the_last_trade_of_the_newest_slice(on_each_engine: psycopg.Connection) -> None:
    window = write_ticks(on_each_engine, every(1, 450))
    assert advance(on_each_engine, window, NOON + SLICE) == [(450, NOON + timedelta(seconds=449), NOON + SLICE)]


def test_an_offset_is_exact_after_slices_lost_rows(on_each_engine: psycopg.Connection) -> None:
    window = write_ticks(on_each_engine, every(1, 1_000))
    advance(on_each_engine, window, NOON + 3 * SLICE)
    write_ticks(on_each_engine, every(1, 310), window)
    assert advance(on_each_engine, window, NOON + SLICE) == [(310, NOON + timedelta(seconds=309), NOON + SLICE)]
    last = Window.of_slice(NOON + SLICE)
    write_ticks(on_each_engine, every(1, 310).slice(0, 0), last)
    assert advance(on_each_engine, last, None) == [(300, NOON + timedelta(seconds=299), NOON)]


def test_an_offset_moves_back_over_slices_in_which_only_others_have_rows(on_each_engine: psycopg.Connection) -> None:
    write_ticks(on_each_engine, every(1, 10))
    others = table([trade(i, NOON + i * SLICE, symbol="ETHUSDT") for i in range(1, 50)])
    write_ticks(on_each_engine, others)
    later = Window.of_slice(NOON + 60 * SLICE)
    write_ticks(on_each_engine, every(1, 10, first_id=900, start=later.start), later)
    assert advance(on_each_engine, later, later.start)[0][0] == 909
    write_ticks(on_each_engine, others.slice(0, 0), later)
    assert advance(on_each_engine, later, None) == [(10, NOON + timedelta(seconds=9), NOON)]


def test_the_offset_of_a_symbol_without_rows_is_removed_and_returns_with_its_rows(on_each_engine: psycopg.Connection) -> None:
    window = write_ticks(on_each_engine, every(1, 10))
    advance(on_each_engine, window, NOON)
    write_ticks(on_each_engine, every(1, 10).slice(0, 0), window)
    assert advance(on_each_engine, window, None) == []
    write_ticks(on_each_engine, every(1, 10), window)
    assert advance(on_each_engine, window, NOON)[0][0] == 10


def test_a_symbol_that_no_registry_knows_loses_its_offset_with_its_rows(on_each_engine: psycopg.Connection) -> None:
    """As after its feed got another label: nothing of the load names the old one."""
    window = write_ticks(on_each_engine, every(1, 10))
    advance(on_each_engine, window, NOON)
    write_ticks(on_each_engine, table([trade(1, NOON, symbol="XBTUSDT")]), window)
    assert advance(on_each_engine, window, NOON, "XBTUSDT") == []


def test_an_offset_that_says_nothing_is_removed(on_each_engine: psycopg.Connection) -> None:
    """Former releases made one for each feed, also without ticks."""
    on_each_engine.execute("INSERT INTO ingestion.stream_offsets (source) VALUES ('market_data.btc_ticks/ETHUSDT')")
    window = write_ticks(on_each_engine, every(1, 10))
    advance(on_each_engine, window, NOON)
    assert on_each_engine.execute("SELECT source FROM ingestion.stream_offsets").fetchall() == [("market_data.btc_ticks/BTCUSDT",)]


def test_an_offset_stays_when_retention_drops_the_rows(on_each_engine: psycopg.Connection) -> None:
    window = write_ticks(on_each_engine, every(1, 10))
    exact = advance(on_each_engine, window, NOON)
    on_each_engine.execute("SELECT ops.drop_chunk('market_data.btc_ticks', %s, %s)", (floor_day(NOON), floor_day(NOON) + DAY))
    elsewhere = write_ticks(on_each_engine, table([trade(1, NOON + DAY, symbol="ETHUSDT")]))
    assert advance(on_each_engine, elsewhere, elsewhere.start, "ETHUSDT") == exact != []


def test_what_advancing_reads_does_not_depend_on_newer_rows_of_other_symbols(on_postgres: psycopg.Connection) -> None:
    """A quiet feed and 99 others: rows and index entries that are read are counted, not time."""
    write_ticks(on_postgres, every(1, 10))
    window = Window.of_slice(NOON)

    def rows_read() -> int:
        with on_postgres.transaction(), on_postgres.cursor() as cursor:
            advance_offsets(cursor, "market_data.btc_ticks", window, {"BTCUSDT": NOON})
            (rows,) = only_row(
                cursor.execute(
                    "SELECT sum(pg_stat_get_xact_tuples_fetched(oid) + pg_stat_get_xact_tuples_returned(oid)) "
                    "FROM pg_class WHERE relname LIKE 'btc_ticks%'"
                )
            )
        return int(rows)

    on_postgres.execute("SELECT market_data.ensure_tick_partitions(%s, %s)", (NOON, NOON + 3 * DAY))
    on_postgres.execute(
        "INSERT INTO market_data.btc_ticks (bucket_5m, event_time, trade_time, symbol, trade_id, price, quantity, is_market_maker) "
        "SELECT at, at, at, 'FEED' || feed, 1, 1, 1, true FROM generate_series(%s, %s, interval '5 minutes') AS at, generate_series(1, 99) AS feed",
        (NOON, NOON + 2 * DAY),
    )
    before = rows_read()  # the counters of a session go on
    assert rows_read() - before <= 2  # the newest trade of the symbol in its slice: once in the index and once in the table


def test_two_loaders_take_turns_at_an_offset(store: StoreUnderTest) -> None:
    window = write_ticks(store.connection, every(1, 300), Window.of_slice(NOON))
    with store.connect() as other, other.transaction(), other.cursor() as cursor:
        advance_offsets(cursor, "market_data.btc_ticks", window, {"BTCUSDT": NOON})
        waits = store.rows(
            "SELECT count(*) FROM (SELECT FROM ingestion.stream_offsets WHERE source = %s FOR UPDATE SKIP LOCKED) AS free",
            "market_data.btc_ticks/BTCUSDT",
        )
        assert waits == [(0,)]
    assert advance(store.connection, window, NOON)[0][0] == 300


def test_a_prefix_that_was_never_listed_has_no_position(store: StoreUnderTest) -> None:
    assert read_listing_positions(store.connection, [FEED.prefix])[FEED.prefix] == (None, None)


def test_an_interrupted_listing_moves_the_folder_and_keeps_the_time_of_the_last_complete_one(store: StoreUnderTest) -> None:
    record_listings(store.connection, [Listed(FEED.prefix, None, NOON, NOON + HOUR)])
    record_listings(store.connection, [Listed(FEED.prefix, NOON, NOON + SLICE, None)])
    assert read_listing_positions(store.connection, [FEED.prefix])[FEED.prefix] == (NOON + SLICE, NOON + HOUR)


def test_a_position_that_somebody_rewound_during_a_listing_stays_there(store: StoreUnderTest) -> None:
    record_listings(store.connection, [Listed(FEED.prefix, None, NOON, NOON)])
    rewind_listing(store.connection, FEED.prefix, NOON - HOUR)
    record_listings(store.connection, [Listed(FEED.prefix, NOON, NOON + SLICE, NOON + HOUR)])
    assert read_listing_positions(store.connection, [FEED.prefix])[FEED.prefix] == (NOON - HOUR, NOON + HOUR)


def test_rewinding_never_moves_forward(store: StoreUnderTest) -> None:
    rewind_listing(store.connection, FEED.prefix, NOON)
    rewind_listing(store.connection, FEED.prefix, NOON + HOUR)
    assert read_listing_positions(store.connection, [FEED.prefix])[FEED.prefix].newest_folder == NOON
