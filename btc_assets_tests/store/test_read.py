"""What is read back as Arrow is what was written, to the last digit."""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql

from btc_assets.domain.slices import SLICE, Window
from btc_assets.domain.ticks import TABLE
from btc_assets.store.cut import ArrowReplacements
from btc_assets.store.read import fetch_table, stream_slices
from btc_assets.store.tables import Target
from btc_assets.store.writers import replace_all
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import HOUR, NOON, every
from btc_assets_tests.support.wide_table import rows


def test_ticks_read_back_equal_what_was_loaded(store: StoreUnderTest) -> None:
    ticks = every(0.5, 2000)
    store.land(ticks)
    store.ingest(HOUR)
    back = stream_slices(store.database, Target.of(store.connection, TABLE), HOUR).read_all()
    assert back.sort_by("trade_id").cast(ticks.schema).equals(ticks)


def test_rows_of_every_type_read_back_in_order_of_their_slices(wide: StoreUnderTest) -> None:
    written = rows(36)
    target = Target.of(wide.connection, "signals.wide")
    replace_all(wide.connection, target, ArrowReplacements(written, HOUR, "bucket_5m", 10))
    back = stream_slices(wide.database, target, Window(NOON, NOON + 2 * SLICE)).read_all()
    assert pc.all(pc.equal(back["bucket_5m"], back.sort_by("bucket_5m")["bucket_5m"])).as_py()
    assert back.schema.field("amount").type == pa.decimal128(20, 4)
    assert back.schema.field("vector").type.value_type == pa.float32()
    expected = [row | {"filled_in": 7} for row in written.slice(0, 6).to_pylist()]
    assert back.sort_by("count").to_pylist() == expected


def test_numerics_without_a_declared_scale_keep_12_decimal_places(store: StoreUnderTest) -> None:
    store.connection.execute("CREATE TABLE ops.free (bucket_5m timestamptz, value numeric)")
    store.connection.execute("INSERT INTO ops.free VALUES (%s, 0.123456789012)", (NOON,))
    back = stream_slices(store.database, Target.of(store.connection, "ops.free"), HOUR).read_all()
    assert back["value"].to_pylist() == [Decimal("0.123456789012")]


def test_a_window_without_rows_is_an_empty_table_of_the_same_columns(wide: StoreUnderTest) -> None:
    back = stream_slices(wide.database, Target.of(wide.connection, "signals.wide"), HOUR).read_all()
    assert (len(back), back.column_names[:2]) == (0, ["bucket_5m", "name"])


def test_a_reader_that_is_closed_early_gives_its_connection_back(wide: StoreUnderTest) -> None:
    target = Target.of(wide.connection, "signals.wide")
    replace_all(wide.connection, target, ArrowReplacements(rows(36), HOUR, "bucket_5m", 100))
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    reader = stream_slices(wide.database, target, HOUR)
    reader.read_next_batch()
    assert wide.rows(sessions) == [(1,)]
    del reader
    assert fetch_table(wide.database, sql.SQL("SELECT 1 AS one"))["one"].to_pylist() == [1]
