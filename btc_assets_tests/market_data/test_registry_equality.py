"""Slices of which the table holds other ticks than the registry says are found, each with a sentence."""

from __future__ import annotations

from btc_assets.domain.slices import SLICE
from btc_assets.market_data.registry_equality import find_unequal_slices
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import HOUR, NOON, every


def sentences(store: StoreUnderTest, *, unloaded: bool = True) -> list[str]:
    return [sentence for _, sentence in find_unequal_slices(store.connection, HOUR, unloaded=unloaded)]


def test_a_loaded_window_is_equal(store: StoreUnderTest) -> None:
    store.land(every(10, 90))
    store.ingest(HOUR)
    assert sentences(store) == []


def test_missing_and_surplus_ticks_are_counted(store: StoreUnderTest) -> None:
    store.land(every(10, 60))
    store.ingest(HOUR)
    store.connection.execute("DELETE FROM market_data.btc_ticks WHERE trade_id <= 2")
    columns = "symbol, price, quantity, is_market_maker"
    store.connection.execute(
        f"INSERT INTO market_data.btc_ticks (trade_id, bucket_5m, event_time, trade_time, {columns}) "
        f"SELECT 9000, %s, %s, %s, {columns} FROM market_data.btc_ticks WHERE trade_id = 3",
        [NOON + 2 * SLICE] * 3,
    )
    assert sentences(store) == [
        "BTCUSDT 2024-01-10T12:00Z: loaded, 30 rows by the registry, 28 in the table",
        "BTCUSDT 2024-01-10T12:10Z: not registered, 0 rows by the registry, 1 in the table",
    ]


def test_what_is_registered_and_not_loaded_counts_on_request(store: StoreUnderTest) -> None:
    store.land(every(10, 30))
    store.register(HOUR)
    assert sentences(store) == ["BTCUSDT 2024-01-10T12:00Z: pending, 0 rows by the registry, 0 in the table"]
    assert sentences(store, unloaded=False) == []
