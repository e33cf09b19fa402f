"""The sensor of the signals as Dagster evaluates it: features follow ticks that were loaded alone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from btc_assets.domain.slices import SLICE, Window
from btc_assets.ingestion import due
from btc_assets.signals.keys import EMBEDDINGS, SLICE_FEATURES
from btc_assets_tests.support.daemon import Daemon
from btc_assets_tests.support.databases import write_ticks
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import NOON, every

WINDOW = Window(NOON, NOON + 2 * SLICE)


@pytest.fixture
def daemon(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    daemon = Daemon(store, "signals_follow_ticks", monkeypatch)
    yield daemon
    daemon.close()


def test_ticks_that_were_loaded_alone_get_their_features_in_one_run(store: StoreUnderTest, daemon: Daemon) -> None:
    write_ticks(store.connection, every(2, 300), WINDOW)
    with store.connection.transaction(), store.connection.cursor() as cursor:
        due.mark_due(cursor, [SLICE_FEATURES, EMBEDDINGS], WINDOW)  # as the loader does
    assert daemon.tick() == [("rebuild_signals", WINDOW)]
    daemon.run()
    assert store.rows("SELECT bucket_5m, trade_count FROM signals.slice_features ORDER BY 1") == [(NOON, 150), (NOON + SLICE, 150)]
    assert daemon.tick_after(timedelta(minutes=1)) == []
    assert daemon.skipped == "No slice is due."
