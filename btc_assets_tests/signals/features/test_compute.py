"""Computing features from stored ticks: replacements, due marks, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE, Window
from btc_assets.ingestion import due
from btc_assets.signals.features.compute import SliceFeatures
from btc_assets.signals.features.table import TABLE, read_feature_differences
from btc_assets.signals.keys import SLICE_FEATURES
from btc_assets.store.replace import Replacement
from btc_assets.store.tables import Target
from btc_assets.store.writers import replace_all
from btc_assets_tests.support.databases import write_ticks
from btc_assets_tests.support.stored_slices import store_features
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import NOON, every

WINDOW = Window(NOON, NOON + 3 * SLICE)


def test_a_slice_known_to_have_no_trades_has_a_row(store: StoreUnderTest) -> None:
    write_ticks(store.connection, every(1.0, 60), Window.of_slice(NOON))
    store.connection.execute(
        "INSERT INTO landing.raw_blobs_5m (bucket_5m, asset, uri, etag, size_bytes, row_count, status, last_modified, loaded_at, loaded_rows) "
        "VALUES (%s, 'BTCUSDT', 'file:///empty', 'etag', 1, 0, 'registered', now(), now(), 0)",
        (NOON + SLICE,),
    )
    store_features(store, WINDOW)
    assert store.rows(f"SELECT bucket_5m, trade_count, mean_interarrival FROM {TABLE} ORDER BY 1")[1:] == [(NOON + SLICE, 0, 300)]


def test_computing_a_window_again_replaces_it_and_nothing_else(store: StoreUnderTest) -> None:
    write_ticks(store.connection, every(1.7, 500), WINDOW)
    store_features(store, WINDOW)
    before = store.rows(f"SELECT bucket_5m, volume, xmin::text FROM {TABLE} ORDER BY 1")
    write_ticks(store.connection, every(5.0, 60, start=NOON + SLICE), Window.of_slice(NOON + SLICE))
    store_features(store, Window.of_slice(NOON + SLICE))
    after = store.rows(f"SELECT bucket_5m, volume, xmin::text FROM {TABLE} ORDER BY 1")
    assert (after[0], after[2]) == (before[0], before[2]) and after[1][1] == pytest.approx(15.0) != before[1][1]


def test_computing_clears_earlier_due_marks_and_keeps_those_set_meanwhile(store: StoreUnderTest) -> None:
    write_ticks(store.connection, every(1.7, 500), WINDOW)
    with store.connection.transaction(), store.connection.cursor() as cursor:
        due.mark_due(cursor, [SLICE_FEATURES], WINDOW)
    making = iter(SliceFeatures(store.database, WINDOW, ["BTCUSDT"]))
    replacement = next(making)  # read, not written yet
    with store.connection.transaction(), store.connection.cursor() as cursor:
        due.mark_due(cursor, [SLICE_FEATURES], Window.of_slice(NOON))  # other ticks are loaded
    with store.connection.transaction(), store.connection.cursor() as cursor:
        replacement.record(cursor)
    assert [one.bucket for one in due.read_due_slices(store.connection, [SLICE_FEATURES])] == [NOON]


def test_a_slow_run_does_not_write_features_of_replaced_ticks(store: StoreUnderTest) -> None:
    hour = Window(NOON, NOON + 12 * SLICE)
    store.land(every(2.0, 300))
    store.ingest(hour)

    class Slow(SliceFeatures):
        """Reads ticks; before it writes, another run loads more and makes their features."""

        def __iter__(self) -> Iterator[Replacement]:
            made = list(super().__iter__())
            store.land(every(2.0, 300, start=NOON + timedelta(seconds=1), first_id=1000))
            store.ingest(hour)
            store_features(store, hour)
            return iter(made)

    with store.connect() as connection:
        replace_all(connection, Target.of(connection, TABLE), Slow(store.database, hour, ["BTCUSDT"]))
    assert read_feature_differences(store.connection, hour) == []


def test_features_whose_ticks_were_dropped_are_not_erased(store: StoreUnderTest) -> None:
    write_ticks(store.connection, every(1.7, 500), WINDOW)
    store_features(store, WINDOW)
    store.connection.execute("DELETE FROM market_data.btc_ticks WHERE bucket_5m = %s", (NOON,))
    with pytest.raises(UserError) as raised:
        store_features(store, WINDOW)
    assert str(raised.value) == (
        "The features of 2024-01-10T12:00Z to 2024-01-10T12:15Z cannot be computed again: the ticks of 1 slice(s) from 2024-01-10T12:00Z to "
        "2024-01-10T12:05Z were dropped since they were loaded, and refreshing would erase their features. Leave that range "
        "out, or load its ticks again first (btc-assets load)."
    )
    assert len(store.rows(f"SELECT 1 FROM {TABLE}")) == 3


def test_ticks_are_not_dropped_while_their_features_are_due(store: StoreUnderTest) -> None:
    write_ticks(store.connection, every(1.7, 500), WINDOW)
    store.refresh(WINDOW)
    with store.connection.transaction(), store.connection.cursor() as cursor:
        due.mark_due(cursor, [SLICE_FEATURES], WINDOW)
    drop = 'CALL ops.drop_old_chunks(0, \'{"hypertable": "market_data.btc_ticks", "drop_after": "30 days"}\')'
    store.connection.execute(
        "INSERT INTO ops.retention_jobs (job_name, hypertable, policy, state) "
        "VALUES ('drop market_data.btc_ticks', 'x', '{\"after\": \"30 days\"}', 'applied')"
    )
    store.connection.execute(drop)
    assert store.rows("SELECT last_result FROM ops.retention_jobs")[0][0].endswith(
        "2024-01-10, whose features are not made, from 2024-01-10T12:00Z on: make them again, then it is dropped"
    )
    assert [one.bucket for one in due.read_due_slices(store.connection, [SLICE_FEATURES])] == list(WINDOW.slices())
    store_features(store, WINDOW)
    store.connection.execute(drop)
    assert store.rows("SELECT count(*) FROM market_data.btc_ticks") == [(0,)]
    assert len(store.rows(f"SELECT 1 FROM {TABLE}")) == 3  # they outlive their ticks
