"""The server describes its tables: columns, key and rows of a window."""

from __future__ import annotations

import psycopg
import pytest

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE, Window
from btc_assets.domain.ticks import TABLE, TICK_SCHEMA
from btc_assets.store.tables import Column, Target, count_all_rows, count_rows, read_columns
from btc_assets_tests.support.databases import write_candles, write_ticks
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import HOUR, NOON, every


def test_columns_have_types_defaults_and_descriptions(store: StoreUnderTest) -> None:
    store.connection.execute(
        "CREATE TABLE ops.one (a integer NOT NULL, gone text, b numeric(5, 2) DEFAULT 3, c integer GENERATED ALWAYS AS (a * 2) STORED)"
    )
    store.connection.execute("COMMENT ON COLUMN ops.one.a IS 'How many.'")
    store.connection.execute("ALTER TABLE ops.one DROP COLUMN gone")
    a, b, c = read_columns(store.connection, "ops.one")
    assert a == Column("a", "integer", nullable=False, has_default=False, generated=False, description="How many.")
    assert (a.required, b.required) == (True, False)
    assert (b.type, b.has_default, c.generated) == ("numeric", True, True)


def test_a_table_that_does_not_exist_has_no_columns(store: StoreUnderTest) -> None:
    assert read_columns(store.connection, "market_data.none") == ()


def test_a_target_knows_what_can_be_written_and_its_key(store: StoreUnderTest) -> None:
    target = Target.of(store.connection, TABLE)
    assert [column.name for column in target.columns] == TICK_SCHEMA.names
    assert set(target.key) == {"bucket_5m", "symbol", "trade_id"}
    store.connection.execute("CREATE TABLE ops.two (bucket_5m timestamptz, n int, twice int GENERATED ALWAYS AS (n * 2) STORED)")
    target = Target.of(store.connection, "ops.two")
    assert ([column.name for column in target.columns], target.key) == (["bucket_5m", "n"], ())


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("signals.nothing", "The table signals.nothing does not exist: run btc-assets db migrate."),
        ("ops.migrations", "The table ops.migrations has no column bucket_5m: name its slice column in the asset's metadata."),
    ],
)
def test_a_table_without_slices_is_refused(store: StoreUnderTest, table: str, sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        Target.of(store.connection, table)
    assert str(refused.value) == sentence


def test_all_rows_are_counted_or_estimated_where_there_are_many(on_each_engine: psycopg.Connection) -> None:
    write_ticks(on_each_engine, every(1, 7200))
    write_candles(on_each_engine, HOUR)
    assert count_all_rows(on_each_engine, TABLE) == 7200
    assert count_all_rows(on_each_engine, "market_data.candles_1m") == 60
    on_each_engine.execute("ANALYZE market_data.btc_ticks")
    assert count_all_rows(on_each_engine, TABLE, estimated_from=1000) == pytest.approx(7200, rel=0.05)
    assert count_all_rows(on_each_engine, "signals.btc_embeddings") == 0


def test_rows_are_counted_by_slice(store: StoreUnderTest) -> None:
    store.land(every(100, 7))
    store.ingest(HOUR)
    assert count_rows(store.connection, TABLE, HOUR) == {NOON: 3, NOON + SLICE: 3, NOON + 2 * SLICE: 1}
    assert count_rows(store.connection, TABLE, Window.of_slice(NOON + SLICE)) == {NOON + SLICE: 3}
    candles = count_rows(store.connection, "market_data.candles_1m", HOUR, time_column="bucket")
    assert candles == {NOON: 3, NOON + SLICE: 3, NOON + 2 * SLICE: 1}
