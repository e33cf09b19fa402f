"""Candles: the same on both engines, refreshed for exactly what changed, and never erased because their ticks were dropped."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import psycopg
import pyarrow as pa
import pytest

from btc_assets.domain.errors import UserError
from btc_assets.domain.settings import Settings
from btc_assets.domain.slices import DAY, SLICE, Window, floor_day
from btc_assets.market_data import candles
from btc_assets.market_data.continuity import read_gaps, read_repeats
from btc_assets.simulation.generate_day import generate_day
from btc_assets.simulation.replay import Landed, read_trades
from btc_assets.store.database import Store
from btc_assets_tests.support.databases import read_candles, write_candles, write_ticks
from btc_assets_tests.support.stores import FEED, StoreUnderTest, real_data
from btc_assets_tests.support.trades import HOUR, NOON, every, table, trade

# What a candle is, from ticks alone.
DEFINITION = """
SELECT date_bin(%(width)s, trade_time, '1970-01-01 00:00:00+00') AS bucket, symbol,
       (array_agg(price ORDER BY trade_id))[1], max(price), min(price), (array_agg(price ORDER BY trade_id DESC))[1],
       sum(quantity), sum(price * quantity), count(*),
       coalesce(sum(quantity) FILTER (WHERE NOT is_market_maker), 0), coalesce(sum(price * quantity) FILTER (WHERE NOT is_market_maker), 0),
       min(trade_id), max(trade_id)
FROM market_data.btc_ticks WHERE trade_kind IS NULL OR trade_kind = 'MARKET' GROUP BY 1, 2 ORDER BY 2, 1
"""


def drop_day(connection: psycopg.Connection, day: datetime) -> None:
    """Drop the ticks of a day, as retention does or a person."""
    connection.execute("SELECT ops.drop_chunk('market_data.btc_ticks', %s, %s)", (day, day + DAY))


def assert_candles_are_what_the_ticks_say(connection: psycopg.Connection) -> None:
    for interval, width in candles.INTERVALS.items():
        ours = connection.execute(f"SELECT * FROM market_data.candles_{interval} ORDER BY symbol, bucket").fetchall()
        assert [(row[0], *row[2:]) for row in ours] == connection.execute(DEFINITION, {"width": width}).fetchall(), interval


@pytest.mark.slow
@pytest.mark.parametrize("source", ["the real day", "a generated day"])
def test_both_engines_make_the_same_candles(on_postgres: psycopg.Connection, on_timescale: psycopg.Connection, source: str) -> None:
    if source == "the real day":
        ticks = pa.concat_tables(list(read_trades(real_data("um_BTCUSDT_2020-02-22_fullday_trades.csv.gz"), FEED, Landed())))
    else:
        ticks = pa.concat_tables(list(generate_day(datetime(2024, 1, 10, tzinfo=UTC), 60_000, seed=3)))
    for connection in (on_postgres, on_timescale):
        write_candles(connection, write_ticks(connection, ticks))
    ours, theirs = read_candles(on_postgres), read_candles(on_timescale)
    assert ours == theirs
    assert {interval: sum(row[9] for row in rows) for interval, rows in ours.items()} == dict.fromkeys(candles.INTERVALS, len(ticks))


@pytest.mark.slow
def test_candles_are_what_the_ticks_say_also_of_late_trades_and_several_symbols(on_each_engine: psycopg.Connection) -> None:
    late = [
        trade(10_000 + i, NOON + timedelta(minutes=6, seconds=i), made=NOON + timedelta(minutes=4, seconds=50), price=f"{41000 + i}")
        for i in range(5)
    ]
    other = [trade(i, NOON + timedelta(seconds=i), symbol="BTCUSDT.P", price=f"{43000 - i}", maker=i % 2 == 0) for i in range(40)]
    write_candles(on_each_engine, write_ticks(on_each_engine, pa.concat_tables([every(1, 900), table(late + other)])))
    assert_candles_are_what_the_ticks_say(on_each_engine)


def test_a_refresh_touches_exactly_the_slices_it_is_told(on_each_engine: psycopg.Connection) -> None:
    write_candles(on_each_engine, write_ticks(on_each_engine, every(1, 900)))
    on_each_engine.execute("UPDATE market_data.btc_ticks SET quantity = quantity + 1")
    write_candles(on_each_engine, Window.of_slice(NOON + SLICE))
    volumes = on_each_engine.execute("SELECT bucket, volume FROM market_data.candles_5m ORDER BY bucket").fetchall()
    assert [volume for _, volume in volumes] == [Decimal(75), Decimal(375), Decimal(75)]
    assert on_each_engine.execute("SELECT volume FROM market_data.candles_1d").fetchall() == [(Decimal(525),)]
    write_candles(on_each_engine, HOUR)
    assert_candles_are_what_the_ticks_say(on_each_engine)


def test_a_refresh_beyond_what_was_made_so_far_makes_the_last_slice_of_that_again(on_each_engine: psycopg.Connection) -> None:
    """One refresh of TimescaleDB 2.28.0 to 2.28.3 leaves it out (timescaledb#10221)."""
    made = write_ticks(on_each_engine, every(1, 900))
    write_candles(on_each_engine, made)
    write_ticks(on_each_engine, every(2, 150, first_id=601, start=NOON + 2 * SLICE), Window.of_slice(NOON + 2 * SLICE))
    beyond = Window(made.start, made.end + 12 * SLICE)
    write_candles(on_each_engine, beyond)
    for interval in candles.INTERVALS:
        assert candles.read_candle_differences(on_each_engine, interval, beyond) == []


def test_candles_of_a_slice_without_ticks_any_more_go(on_each_engine: psycopg.Connection) -> None:
    window = write_ticks(on_each_engine, every(1, 600))
    write_candles(on_each_engine, window)
    write_ticks(on_each_engine, every(1, 300), window)
    write_candles(on_each_engine, window)
    assert on_each_engine.execute("SELECT bucket FROM market_data.candles_5m").fetchall() == [(NOON,)]
    assert_candles_are_what_the_ticks_say(on_each_engine)


def test_refreshing_where_ticks_were_dropped_is_refused_and_the_candles_stay(on_each_engine: psycopg.Connection) -> None:
    yesterday, today = floor_day(NOON) - DAY, floor_day(NOON)
    write_candles(on_each_engine, write_ticks(on_each_engine, every(1, 600, start=yesterday + timedelta(hours=1))))
    write_candles(on_each_engine, write_ticks(on_each_engine, every(1, 600, start=today + timedelta(hours=1), first_id=601)))
    before = read_candles(on_each_engine)
    drop_day(on_each_engine, yesterday)
    slice_of_yesterday = Window.of_slice(yesterday + timedelta(hours=1))
    for interval in candles.INTERVALS:
        for window in (slice_of_yesterday, Window(yesterday, yesterday + DAY), Window(yesterday, today + DAY)):
            with pytest.raises(UserError) as raised:
                candles.refresh_candles(on_each_engine, interval, window)
            slices, end = ("1", "01:05") if window == slice_of_yesterday else ("2", "01:10")
            assert str(raised.value) == (
                f"Candles of {interval} cannot be rebuilt for {window}: the ticks of {slices} slice(s) from 2024-01-09T01:00Z to "
                f"2024-01-09T{end}Z were dropped since they were loaded, and refreshing would erase their candles. Leave that range out, or "
                "load its ticks again first (btc-assets load)."
            )
    assert read_candles(on_each_engine) == before
    write_candles(on_each_engine, Window(today, today + DAY))
    assert read_candles(on_each_engine) == before


def test_the_database_itself_refuses_it_too(on_each_engine: psycopg.Connection) -> None:
    window = write_ticks(on_each_engine, every(1, 300))
    write_candles(on_each_engine, window)
    drop_day(on_each_engine, floor_day(NOON))
    with pytest.raises(psycopg.Error) as raised:
        on_each_engine.execute("CALL market_data.refresh_candles('1s', %s, %s)", (window.start, window.end))
    assert raised.value.sqlstate == "BTC01"
    assert on_each_engine.execute("SELECT trade_count FROM market_data.candles_5m").fetchall() == [(300,)]


def test_a_slice_of_a_dropped_day_that_is_loaded_again_leaves_the_other_candles_of_the_day(on_each_engine: psycopg.Connection) -> None:
    window = write_ticks(on_each_engine, every(1, 900))
    write_candles(on_each_engine, window)
    before = read_candles(on_each_engine)
    drop_day(on_each_engine, floor_day(NOON))
    write_ticks(on_each_engine, every(1, 300, start=NOON + SLICE, first_id=301), Window.of_slice(NOON + SLICE))
    on_each_engine.execute(
        "INSERT INTO landing.raw_blobs_5m (bucket_5m, asset, uri, etag, size_bytes, row_count, status, last_modified, loaded_at, loaded_rows) "
        "VALUES (%s, 'BTCUSDT', 'file:///x', 'e', 1, 300, 'registered', now(), now(), 300) ON CONFLICT DO NOTHING",
        (NOON,),
    )
    write_candles(on_each_engine, Window.of_slice(NOON + SLICE))
    after = read_candles(on_each_engine)
    assert {interval: sum(row[9] for row in rows) for interval, rows in after.items()} == dict.fromkeys(candles.INTERVALS, 900)
    assert after["1h"][0][9] == before["1h"][0][9]


def test_candles_of_100_ms_are_there_on_demand(on_each_engine: psycopg.Connection) -> None:
    assert on_each_engine.execute("SELECT to_regclass('market_data.candles_100ms')").fetchone() == (None,)
    with pytest.raises(UserError, match="no candles of 100ms in this database: run btc-assets db migrate with the same settings"):
        candles.refresh_candles(on_each_engine, "100ms", HOUR)
    candles.create_optional_candles(on_each_engine)
    candles.create_optional_candles(on_each_engine)
    window = write_ticks(on_each_engine, every(0.05, 100))
    assert candles.refresh_candles(on_each_engine, "100ms", window) == 50
    rows = on_each_engine.execute("SELECT bucket, trade_count FROM market_data.candles_100ms ORDER BY bucket LIMIT 2").fetchall()
    assert rows == [(NOON, 2), (NOON + timedelta(milliseconds=100), 2)]
    assert candles.read_candle_differences(on_each_engine, "100ms", window) == []
    silent = on_each_engine.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'market_data.candles_100ms'::regclass AND col_description(attrelid, attnum) IS NULL AND attnum > 0"
    ).fetchall()
    assert silent == []


def test_candles_of_100_ms_are_assets_where_the_settings_say_so() -> None:
    assert candles.enabled_intervals(Settings()) == ("1s", "30s", "1m", "5m", "1h", "1d")
    assert candles.enabled_intervals(Settings(candles_100ms=True)) == ("100ms", "1s", "30s", "1m", "5m", "1h", "1d")
    assert candles.interval_below("100ms") is None


def test_a_query_by_the_start_of_candles_reaches_the_index(on_each_engine: psycopg.Connection) -> None:
    write_candles(on_each_engine, write_ticks(on_each_engine, every(1, 7200)))
    on_each_engine.execute("SET enable_seqscan = off")
    plan = "\n".join(
        row[0]
        for row in on_each_engine.execute(
            "EXPLAIN SELECT * FROM market_data.candles_1s WHERE symbol = 'BTCUSDT' AND bucket >= '2024-01-10 12:00+00' AND bucket < '2024-01-10 12:01+00'"
        )
    )
    assert "bucket >=" in plan.split("Index Cond:")[1].split("\n")[0]


def test_what_is_made_of_a_day_reads_the_ticks_of_no_other_day(on_postgres: psycopg.Connection) -> None:
    """But the slice before it. Else a day costs more the more days the store holds."""
    days = [Window(floor_day(NOON) + n * DAY, floor_day(NOON) + (n + 1) * DAY) for n in range(5)]
    for number, day in enumerate(days):
        write_candles(on_postgres, write_ticks(on_postgres, every(1, 3000, start=day.end - timedelta(hours=1), first_id=1 + number * 3000)))
    on_postgres.execute("ANALYZE")

    def scans() -> dict[str, int]:
        return dict(
            on_postgres.execute(
                "SELECT indrelid::regclass::text, pg_stat_get_xact_numscans(indrelid) + sum(pg_stat_get_xact_numscans(indexrelid)) "
                "FROM pg_partition_tree('market_data.btc_ticks') AS part JOIN pg_index ON indrelid = part.relid WHERE isleaf GROUP BY indrelid"
            ).fetchall()
        )

    with on_postgres.transaction():
        before = scans()
        for _ in range(7):  # after five times a server plans for all windows alike
            for interval in candles.INTERVALS:
                candles.refresh_candles(on_postgres, interval, days[3])
            assert (read_gaps(on_postgres, days[3]), read_repeats(on_postgres, days[3])) == ([], [])
        read = [name for name, count in sorted(scans().items()) if count > before[name]]
    assert read == ["market_data.btc_ticks_20240112", "market_data.btc_ticks_20240113"]


def test_a_long_window_is_refreshed_in_several_sessions_and_its_candles_are_those_of_the_ticks(store: StoreUnderTest) -> None:
    """Also where candles were made before, ticks changed since, and the window goes beyond all of them."""
    day = Window(floor_day(NOON), floor_day(NOON) + DAY)
    for first_id, end in ((1, NOON), (100_000, day.end)):
        window = Window(day.start, end)
        write_ticks(store.connection, every(200, len(window) * 3 // 2, start=day.start, first_id=first_id), window)
        for interval in candles.INTERVALS:
            candles.refresh_candles(store.connection, interval, window, store.database)
        assert candles.find_outdated_candles(store.connection, day) == []


def test_sessions_that_cannot_help_change_nothing(store: StoreUnderTest) -> None:
    day = Window(floor_day(NOON), floor_day(NOON) + DAY)
    write_ticks(store.connection, every(200, 432, start=day.start), day)
    for interval in candles.INTERVALS:
        candles.refresh_candles(store.connection, interval, day, Store(f"{store.dsn}_that_is_not_there"))
    assert candles.find_outdated_candles(store.connection, day) == []
