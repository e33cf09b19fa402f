"""Forgetting a symbol, or objects that should never have been loaded, leaves nothing of them in any table and all else as it was."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa

from btc_assets.domain.feeds import Feed, Feeds
from btc_assets.domain.slices import DAY, SLICE
from btc_assets.domain.ticks import TABLE
from btc_assets.ingestion.offsets import advance_offsets
from btc_assets.landing.registration import RegisterOptions, register_window
from btc_assets.landing.zone import LandingZone
from btc_assets.ops.forget import find_demo_zones, forget_objects, forget_symbol, read_extent
from btc_assets.ops.retention_jobs import apply_policies
from btc_assets.simulation.replay import Landed, land_trades
from btc_assets.store.engines import engine
from btc_assets_tests.support.command_line import run_command
from btc_assets_tests.support.databases import read_candles, write_candles, write_ticks
from btc_assets_tests.support.policies import DECLARED
from btc_assets_tests.support.stores import FEED, FEEDS, StoreUnderTest
from btc_assets_tests.support.trades import HOUR, NOON, every, table, trade


def of_symbol(connection: psycopg.Connection, symbol: str) -> dict[str, int]:
    """Rows of a symbol in each table that has any, found without the code under test."""
    columns = connection.execute(
        "SELECT table_schema || '.' || table_name, column_name FROM information_schema.columns "
        "WHERE table_schema IN ('landing', 'market_data', 'signals') AND column_name IN ('symbol', 'asset') AND data_type = 'text'"
    ).fetchall()
    counts = {}
    for name, column in columns:
        ((count,),) = connection.execute(f"SELECT count(*) FROM {name} WHERE {column} = %s", (symbol,)).fetchall()
        if count:
            counts[name] = count
    ((offsets,),) = connection.execute("SELECT count(*) FROM ingestion.stream_offsets WHERE source LIKE '%%/' || %s", (symbol,)).fetchall()
    return counts | ({"offsets": offsets} if offsets else {})


def test_nothing_of_a_symbol_is_left_and_others_keep_every_row(on_each_engine: psycopg.Connection) -> None:
    two_days = [NOON, NOON + DAY]
    both = pa.concat_tables(
        table([trade(n, day + n * SLICE / 2, symbol=symbol) for n in range(1, 20)]) for day in two_days for symbol in ("BTCUSDT", "ETHUSDT")
    )
    window = write_ticks(on_each_engine, both)
    write_candles(on_each_engine, window)
    with on_each_engine.transaction(), on_each_engine.cursor() as cursor:
        advance_offsets(cursor, TABLE, window, dict.fromkeys(("BTCUSDT", "ETHUSDT"), window.end - SLICE))
    on_each_engine.execute(
        "INSERT INTO signals.models (model_id, kind, symbol, dim, feature_schema, trained_from, trained_to, uri, active, kept_up) "
        "VALUES ('tcn-0', 'tcn', 'ETHUSDT', 2, 'x', now(), now(), 'file:///m', true, true)"
    )
    on_each_engine.execute(
        "INSERT INTO signals.btc_embeddings (bucket_5m, symbol, model_id, embedding, tick_count) VALUES (%s, 'ETHUSDT', 'tcn-0', '[1, 0]', 1)",
        (NOON,),
    )
    if engine(on_each_engine) == "timescale":
        apply_policies(on_each_engine, DECLARED)
        on_each_engine.execute("SELECT ops.compress_chunk(name) FROM ops.chunks('market_data.btc_ticks')")
    before = [row for rows in read_candles(on_each_engine).values() for row in rows if "BTCUSDT" in row]
    kept = of_symbol(on_each_engine, "BTCUSDT")

    forgotten = forget_symbol(on_each_engine, "ETHUSDT")

    assert forgotten.rows["market_data.btc_ticks"] == 38 and forgotten.models == ["tcn-0"]
    assert of_symbol(on_each_engine, "ETHUSDT") == {}
    assert of_symbol(on_each_engine, "BTCUSDT") == kept and kept["offsets"] == 1
    write_candles(on_each_engine, window)
    assert of_symbol(on_each_engine, "ETHUSDT") == {}
    assert [row for rows in read_candles(on_each_engine).values() for row in rows] == before
    assert forget_symbol(on_each_engine, "ETHUSDT").rows.total() == 0


def land_demo(store: StoreUnderTest, ticks: pa.Table) -> LandingZone:
    """Objects of a demo's landing zone, loaded into a store of another, as demos of older releases did."""
    directory = store.home / "landing_demo_20240110_500"
    directory.mkdir(parents=True)
    zone = LandingZone(directory.as_uri())
    land_trades(zone, FEED, iter([ticks]), Landed())
    demo = StoreUnderTest(store.dsn, store.home, directory, store.connection)
    demo.ingest(HOUR)
    return zone


def state(store: StoreUnderTest) -> dict[str, list[tuple[Any, ...]]]:
    rows = {"ticks": store.rows("SELECT * FROM market_data.btc_ticks ORDER BY symbol, trade_id")}
    rows |= {"registry": store.rows("SELECT bucket_5m, uri, etag, status, loaded_rows FROM landing.raw_blobs_5m ORDER BY 1, 2")}
    rows |= {"offsets": store.rows("SELECT source, last_sequence, last_ts FROM ingestion.stream_offsets ORDER BY 1")}
    return rows | read_candles(store.connection)


def test_a_demo_that_was_loaded_into_a_store_is_removed_and_its_slices_are_loaded_again(store: StoreUnderTest) -> None:
    store.land(every(1, 600))
    store.ingest(HOUR)
    before = state(store)
    store.connection.execute("TRUNCATE market_data.btc_ticks, market_data.loaded_slices, landing.raw_blobs_5m, ingestion.stream_offsets")
    zone = land_demo(store, every(1, 900, first_id=5_000_000, start=NOON + SLICE))
    assert "generated trades were loaded into this store" in run_command("doctor").output
    assert find_demo_zones(store.connection, store.settings.landing) == [zone.url]
    register_window(store.connection, store.zone(), FEEDS, HOUR, RegisterOptions(timedelta(minutes=5), new_zone=True))

    asked = run_command("db", "forget", "--demo")
    assert asked.exit_code == 1 and "ticks in 3 slices, from 60 objects of file:///" in asked.output
    done = run_command("db", "forget", "--demo", "--yes")
    assert done.exit_code == 0, done.output
    assert "btc-assets load --from 2024-01-10T12:05Z --to 2024-01-10T12:10Z" in done.output
    assert store.rows("SELECT count(*) FROM landing.raw_blobs_5m WHERE uri LIKE '%landing_demo%'") == [(0,)]

    store.ingest(HOUR)
    assert state(store) == before
    assert "No demo was loaded into this store." in run_command("db", "forget", "--demo").output


def test_slices_that_lost_another_object_keep_their_ticks(store: StoreUnderTest) -> None:
    zone = land_demo(store, every(1, 600, first_id=5_000_000))
    store.connection.execute(
        "INSERT INTO landing.raw_blobs_5m (bucket_5m, asset, uri, etag, size_bytes, row_count, status, last_modified, loaded_at, loaded_rows) "
        "VALUES (%s, 'BTCUSDT', 's3://bucket/gone', 'e', 1, 1, 'gone', now(), now(), 1)",
        (NOON,),
    )
    before = store.rows("SELECT * FROM market_data.btc_ticks WHERE bucket_5m = %s ORDER BY trade_id", NOON)
    forgotten = forget_objects(store.connection, zone.url)
    assert forgotten.kept == [NOON]
    assert store.rows("SELECT * FROM market_data.btc_ticks ORDER BY trade_id") == before


def test_a_symbol_is_forgotten_by_command_after_asking(store: StoreUnderTest) -> None:
    store.land(every(1, 300))
    store.put("2024/01/10/12/00/batch-x.parquet", b"")
    store.register(HOUR)
    assert run_command("acknowledge", "file:///none").exit_code == 1
    store.ingest(HOUR)
    assert run_command("db", "forget", "--symbol", "BTCUSDT").exit_code == 1
    assert of_symbol(store.connection, "BTCUSDT")
    done = run_command("db", "forget", "--symbol", "BTCUSDT", "--yes")
    assert done.exit_code == 0, done.output
    assert "300 of market_data.btc_ticks" in done.output and "BTCUSDT is still a feed" in done.output
    assert of_symbol(store.connection, "BTCUSDT") == {}
    assert "rejected object" not in run_command("status").output


def test_two_symbols_of_one_prefix_are_told_apart(store: StoreUnderTest) -> None:
    feeds = Feeds([*FEEDS, Feed(FEED.prefix, "ETHUSDT", "ETHUSDT")])
    both = table([trade(n, NOON, symbol=symbol) for symbol in ("BTCUSDT", "ETHUSDT") for n in range(1, 4)])
    store.land(both)
    store.register(HOUR, feeds=feeds)
    store.load(HOUR, feeds=feeds)
    forget_symbol(store.connection, "ETHUSDT")
    assert store.rows("SELECT symbol, count(*) FROM market_data.btc_ticks GROUP BY 1") == [("BTCUSDT", 3)]
    assert of_symbol(store.connection, "ETHUSDT") == {}


def test_the_landing_zone_itself_is_not_forgotten(store: StoreUnderTest) -> None:
    for url in (store.landing.as_uri(), f"{store.landing.as_uri()}/", store.landing.parent.as_uri()):
        refused = run_command("db", "forget", "--objects", url, "--yes")
        assert refused.exit_code == 1 and "holds the landing zone of this store" in refused.output
    assert run_command("db", "forget").exit_code == 2
    assert run_command("db", "forget", "--symbol", "A", "--demo").exit_code == 2


def test_the_extent_is_that_of_a_symbol_or_of_a_url(store: StoreUnderTest, tmp_path: Path) -> None:
    store.land(every(1, 450))
    store.ingest(HOUR)
    extent = read_extent(store.connection, symbol="BTCUSDT")
    assert (extent.objects, extent.slices, extent.ticks) == (30, 2, 450)
    assert read_extent(store.connection, url=store.landing.as_uri()) == extent
    assert read_extent(store.connection, url=tmp_path.as_uri() + "/land").objects == 0
