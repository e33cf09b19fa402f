"""The table of features: what is written is read back, and where it disagrees with the ticks is found."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import psycopg
import pytest

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE, Window
from btc_assets.signals.features import schema
from btc_assets.signals.features.bars import CHANNELS
from btc_assets.signals.features.formulas import FEATURES
from btc_assets.signals.features.slice_arrays import SliceArrays
from btc_assets.signals.features.table import TABLE, read_feature_differences, read_features, read_stored_window
from btc_assets.signals.features.tick_arrays import TickArrays
from btc_assets.store.tables import read_columns
from btc_assets_tests.support.databases import write_ticks
from btc_assets_tests.support.stored_slices import store_features
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import NOON, every

WINDOW = Window(NOON, NOON + 3 * SLICE)


def test_table_and_view_have_the_features_and_channels_of_the_code(on_postgres: psycopg.Connection) -> None:
    table = {column.name: column.description for column in read_columns(on_postgres, TABLE)}
    assert [name for name in table if name in {f.name for f in FEATURES}] == [feature.name for feature in FEATURES]
    assert {feature.name: f"{feature.unit}: {feature.description}" for feature in FEATURES}.items() <= table.items()
    view = {column.name: column.description for column in read_columns(on_postgres, "signals.slice_bars")}
    assert list(view)[3:] == [channel.name for channel in CHANNELS]
    assert {channel.name: f"{channel.unit}: {channel.description}" for channel in CHANNELS}.items() <= view.items()


def test_stored_features_equal_those_of_the_ticks(store: StoreUnderTest) -> None:
    ticks = every(1.7, 500)
    write_ticks(store.connection, ticks, WINDOW)
    assert store_features(store, WINDOW).slice_rows == dict.fromkeys(WINDOW.slices(), 1)
    stored, wanted = read_features(store.database, "BTCUSDT", WINDOW), SliceArrays.of(TickArrays.of(ticks))
    assert (stored.times == wanted.times).all()
    # Arrow and PostgreSQL turn a decimal into a float with a difference in the last bit.
    np.testing.assert_allclose(stored.features, wanted.features, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(stored.bars, wanted.bars, rtol=1e-6, atol=1e-9)
    assert stored.tick_count.tolist() == [177, 176, 147] and stored.range == (WINDOW.start, WINDOW.end)


def test_bars_can_be_queried_as_rows(store: StoreUnderTest) -> None:
    write_ticks(store.connection, every(1.7, 500), WINDOW)
    store_features(store, WINDOW)
    rows = store.rows("SELECT bar, trade_count FROM signals.slice_bars WHERE bucket_5m = %s ORDER BY bar", NOON)
    assert [bar for bar, _ in rows] == [NOON + i * timedelta(seconds=5) for i in range(60)]
    assert sum(count for _, count in rows) == 177


def test_features_of_ticks_that_changed_since_are_found(store: StoreUnderTest) -> None:
    write_ticks(store.connection, every(1.7, 500), WINDOW)
    store_features(store, WINDOW)
    assert read_feature_differences(store.connection, WINDOW) == []
    write_ticks(store.connection, every(5.0, 60, start=NOON + SLICE), Window.of_slice(NOON + SLICE))
    (difference,) = read_feature_differences(store.connection, WINDOW)
    assert difference.startswith("BTCUSDT 2024-01-10T12:05Z: 60 ticks of volume 15")


def test_features_of_another_version_are_refused(store: StoreUnderTest) -> None:
    write_ticks(store.connection, every(1.7, 500), WINDOW)
    store_features(store, WINDOW)
    store.connection.execute(f"UPDATE {TABLE} SET feature_schema = 'older' WHERE bucket_5m = %s", (NOON,))
    with pytest.raises(UserError) as raised:
        read_features(store.database, "BTCUSDT", WINDOW)
    assert str(raised.value) == (
        f"Another version of btc_assets computed features of BTCUSDT in {WINDOW} (older; this version computes {schema.digest()}): "
        "materialize signals/slice_features for that range again."
    )


def test_the_stored_window_spans_all_slices_unless_bounds_are_given(store: StoreUnderTest) -> None:
    with pytest.raises(UserError, match=r"^No features of BTCUSDT are stored: load ticks first \(btc-assets load\)\.$"):
        read_stored_window(store.connection, "BTCUSDT", None, None)
    write_ticks(store.connection, every(1.7, 500), WINDOW)
    store_features(store, WINDOW)
    assert read_stored_window(store.connection, "BTCUSDT", None, None) == WINDOW
    start, end = NOON + timedelta(minutes=6), NOON + timedelta(minutes=11)
    assert read_stored_window(store.connection, "BTCUSDT", start, end) == Window(NOON + SLICE, NOON + 3 * SLICE)
