"""The table of features: what is written is what the features say of the ticks, and what was written is read back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import numpy as np
import psycopg
import pytest

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE, Window
from btc_assets.ingestion import due
from btc_assets.signals.features import schema
from btc_assets.signals.features import table as slice_features
from btc_assets.signals.features.bars import CHANNELS, bars
from btc_assets.signals.features.formulas import FEATURES, features
from btc_assets.signals.features.table import TABLE, SliceFeatures, read_features
from btc_assets.signals.features.tick_arrays import TickArrays
from btc_assets.signals.keys import FEATURES as FEATURES_KEY
from btc_assets.store.replace import Replacement
from btc_assets.store.tables import Target, read_columns
from btc_assets.store.writers import replace_all
from btc_assets_tests.support.databases import write_ticks
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import NOON, every

WINDOW = Window(NOON, NOON + 3 * SLICE)


def make(store: StoreUnderTest, window: Window = WINDOW, symbols: tuple[str, ...] = ("BTCUSDT",)) -> SliceFeatures:
    made = SliceFeatures(store.database, window, symbols)
    replace_all(store.connection, Target.of(store.connection, TABLE), made)
    return made


def test_the_table_has_the_features_and_the_view_the_channels_that_python_makes(on_postgres: psycopg.Connection) -> None:
    table = {column.name: column.description for column in read_columns(on_postgres, TABLE)}
    assert [name for name in table if name in {f.name for f in FEATURES}] == [feature.name for feature in FEATURES]
    assert {feature.name: f"{feature.unit}: {feature.description}" for feature in FEATURES}.items() <= table.items()
    view = {column.name: column.description for column in read_columns(on_postgres, "signals.slice_bars")}
    assert list(view)[3:] == [channel.name for channel in CHANNELS]
    assert {channel.name: f"{channel.unit}: {channel.description}" for channel in CHANNELS}.items() <= view.items()


def test_what_is_stored_is_what_the_ticks_say(store: StoreUnderTest) -> None:
    ticks = every(1.7, 500)
    write_ticks(store.connection, ticks, WINDOW)
    assert make(store).slice_rows == {bucket: 1 for bucket in WINDOW.slices()}
    stored, wanted = read_features(store.database, "BTCUSDT", WINDOW), TickArrays.of(ticks)
    assert (stored.times == wanted.starts).all()
    # Arrow and PostgreSQL turn a decimal into a float with a difference in the last bit.
    np.testing.assert_allclose(stored.features, features(wanted), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(stored.bars, bars(wanted), rtol=1e-6, atol=1e-9)
    assert stored.tick_count.tolist() == [177, 176, 147] and stored.range == (WINDOW.start, WINDOW.end)


def test_bars_can_be_queried_as_rows(store: StoreUnderTest) -> None:
    write_ticks(store.connection, every(1.7, 500), WINDOW)
    make(store)
    rows = store.rows("SELECT bar, trade_count FROM signals.slice_bars WHERE bucket_5m = %s ORDER BY bar", NOON)
    assert [bar for bar, _ in rows] == [NOON + i * timedelta(seconds=5) for i in range(60)]
    assert sum(count for _, count in rows) == 177


def test_a_slice_without_trades_has_a_row_where_that_is_known(store: StoreUnderTest) -> None:
    write_ticks(store.connection, every(1.0, 60), Window.of_slice(NOON))
    store.connection.execute(
        "INSERT INTO landing.raw_blobs_5m (bucket_5m, asset, uri, etag, size_bytes, row_count, status, last_modified, loaded_at, loaded_rows) "
        "VALUES (%s, 'BTCUSDT', 'file:///empty', 'etag', 1, 0, 'registered', now(), now(), 0)",
        (NOON + SLICE,),
    )
    make(store)
    assert store.rows(f"SELECT bucket_5m, trade_count, mean_interarrival FROM {TABLE} ORDER BY 1")[1:] == [(NOON + SLICE, 0, 300)]


def test_making_a_window_again_replaces_it_and_nothing_else(store: StoreUnderTest) -> None:
    write_ticks(store.connection, every(1.7, 500), WINDOW)
    make(store)
    before = store.rows(f"SELECT bucket_5m, volume, xmin::text FROM {TABLE} ORDER BY 1")
    write_ticks(store.connection, every(5.0, 60, start=NOON + SLICE), Window.of_slice(NOON + SLICE))
    make(store, Window.of_slice(NOON + SLICE))
    after = store.rows(f"SELECT bucket_5m, volume, xmin::text FROM {TABLE} ORDER BY 1")
    assert (after[0], after[2]) == (before[0], before[2]) and after[1][1] == pytest.approx(15.0) != before[1][1]


def test_features_differ_from_ticks_that_changed_since(store: StoreUnderTest) -> None:
    write_ticks(store.connection, every(1.7, 500), WINDOW)
    make(store)
    assert slice_features.read_feature_differences(store.connection, WINDOW) == []
    write_ticks(store.connection, every(5.0, 60, start=NOON + SLICE), Window.of_slice(NOON + SLICE))
    (difference,) = slice_features.read_feature_differences(store.connection, WINDOW)
    assert difference.startswith("BTCUSDT 2024-01-10T12:05Z: 60 ticks of volume 15")


def test_making_settles_what_was_due_before_it_and_not_what_changed_meanwhile(store: StoreUnderTest) -> None:
    write_ticks(store.connection, every(1.7, 500), WINDOW)
    with store.connection.transaction(), store.connection.cursor() as cursor:
        due.mark_due(cursor, [FEATURES_KEY], WINDOW)
    making = iter(SliceFeatures(store.database, WINDOW, ["BTCUSDT"]))
    replacement = next(making)  # read, not written yet
    with store.connection.transaction(), store.connection.cursor() as cursor:
        due.mark_due(cursor, [FEATURES_KEY], Window.of_slice(NOON))  # somebody loads other ticks
    with store.connection.transaction(), store.connection.cursor() as cursor:
        replacement.record(cursor)
    assert [one.bucket for one in due.read_due_slices(store.connection, [FEATURES_KEY])] == [NOON]


def test_whoever_is_slow_does_not_write_features_of_ticks_that_are_no_more(store: StoreUnderTest) -> None:
    hour = Window(NOON, NOON + 12 * SLICE)
    store.land(every(2.0, 300))
    store.ingest(hour)

    class Slow(SliceFeatures):
        """Reads ticks; before it writes, another run loads more and makes their features."""

        def __iter__(self) -> Iterator[Replacement]:
            made = list(super().__iter__())
            store.land(every(2.0, 300, start=NOON + timedelta(seconds=1), first_id=1000))
            store.ingest(hour)
            make(store, hour)
            return iter(made)

    with store.connect() as connection:
        replace_all(connection, Target.of(connection, TABLE), Slow(store.database, hour, ["BTCUSDT"]))
    assert slice_features.read_feature_differences(store.connection, hour) == []


def test_features_whose_ticks_were_dropped_are_not_erased(store: StoreUnderTest) -> None:
    write_ticks(store.connection, every(1.7, 500), WINDOW)
    make(store)
    store.connection.execute("DELETE FROM market_data.btc_ticks WHERE bucket_5m = %s", (NOON,))
    with pytest.raises(UserError) as raised:
        make(store)
    assert str(raised.value) == (
        "The features of 2024-01-10T12:00Z to 2024-01-10T12:15Z cannot be made again: the ticks of 1 slice(s) from 2024-01-10T12:00Z to "
        "2024-01-10T12:05Z were dropped since they were loaded, and refreshing would erase their features. Leave that range out, or load "
        "its ticks again first (btc-assets load)."
    )
    assert len(store.rows(f"SELECT 1 FROM {TABLE}")) == 3


def test_ticks_whose_features_are_due_are_not_dropped_and_the_features_still_asked_for(store: StoreUnderTest) -> None:
    write_ticks(store.connection, every(1.7, 500), WINDOW)
    store.refresh(WINDOW)
    with store.connection.transaction(), store.connection.cursor() as cursor:
        due.mark_due(cursor, [FEATURES_KEY], WINDOW)
    drop = 'CALL ops.drop_old_chunks(0, \'{"hypertable": "market_data.btc_ticks", "drop_after": "30 days"}\')'
    store.connection.execute(
        "INSERT INTO ops.retention_jobs (job_name, hypertable, policy, state) "
        "VALUES ('drop market_data.btc_ticks', 'x', '{\"after\": \"30 days\"}', 'applied')"
    )
    store.connection.execute(drop)
    assert store.rows("SELECT last_result FROM ops.retention_jobs")[0][0].endswith(
        "2024-01-10, whose features are not made, from 2024-01-10T12:00Z on: make them again, then it is dropped"
    )
    assert [one.bucket for one in due.read_due_slices(store.connection, [FEATURES_KEY])] == list(WINDOW.slices())
    make(store)
    store.connection.execute(drop)
    assert store.rows("SELECT count(*) FROM market_data.btc_ticks") == [(0,)]
    assert len(store.rows(f"SELECT 1 FROM {TABLE}")) == 3  # they outlive their ticks


def test_rows_of_another_version_of_the_features_are_not_mixed_in(store: StoreUnderTest) -> None:
    write_ticks(store.connection, every(1.7, 500), WINDOW)
    make(store)
    store.connection.execute(f"UPDATE {TABLE} SET feature_schema = 'older' WHERE bucket_5m = %s", (NOON,))
    with pytest.raises(UserError) as raised:
        read_features(store.database, "BTCUSDT", WINDOW)
    assert str(raised.value) == (
        f"Features of BTCUSDT in {WINDOW} were made by another version of btc_assets (older, this one makes {schema.digest()}): materialise "
        "signals/slice_features there again."
    )
