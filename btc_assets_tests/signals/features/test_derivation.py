"""What a load makes of its ticks while it has them: features and candles, as if they were made of the stored ticks, in one transaction."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Event
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from btc_assets.domain.feeds import Feed, Feeds
from btc_assets.domain.slices import SLICE, Window
from btc_assets.ingestion.due import read_due_windows
from btc_assets.market_data import candles
from btc_assets.market_data.derived import Derivation, Maker, Part
from btc_assets.market_data.keys import candles_key
from btc_assets.market_data.partial_candles import CandlesOfTicks
from btc_assets.signals.features.derivation import FeaturesOfTicks
from btc_assets.signals.features.table import TABLE
from btc_assets.signals.keys import EMBEDDINGS, SLICE_FEATURES
from btc_assets_tests.support.stored_slices import materialize, store_features
from btc_assets_tests.support.stores import FEED, StoreUnderTest
from btc_assets_tests.support.trades import HOUR, NOON, every, messages, trade
from btc_assets_tests.support.waiting import wait_for

LOW, HIGH = ["1s", "30s", "1m", "5m"], ["1h", "1d"]
FIRST, SECOND = Window.of_slice(NOON), Window.of_slice(NOON + SLICE)
OTHER = Feed("Binance/ETHUSDT", "ETHUSDT", "ETHUSDT")
BOTH = Feeds([FEED, OTHER])

FEATURE_ROWS = f"SELECT to_jsonb(row) - 'created_at' FROM {TABLE} AS row ORDER BY bucket_5m, symbol"


@pytest.fixture
def making(store: StoreUnderTest) -> StoreUnderTest:
    """A store whose loads make features and candles."""
    store.followers = (*(candles_key(interval) for interval in candles.INTERVALS), SLICE_FEATURES, EMBEDDINGS)
    store.derivations = (FeaturesOfTicks(), CandlesOfTicks(list(candles.INTERVALS)))
    return store


def makes_candles(store: StoreUnderTest) -> bool:
    """Whether candles are rows of tables, which a load can write."""
    return CandlesOfTicks(list(candles.INTERVALS)).open(store.connection) is not None


def due(store: StoreUnderTest) -> dict[str, list[Window]]:
    assets = [row[0] for row in store.rows("SELECT DISTINCT asset FROM ingestion.due_slices ORDER BY 1")]
    return {asset: read_due_windows(store.connection, asset, HOUR) for asset in assets}


def left_to_make(store: StoreUnderTest) -> set[str]:
    """What a load makes due, because something else has to make it."""
    return {EMBEDDINGS, *map(candles_key, HIGH if makes_candles(store) else candles.INTERVALS)}


def both_feeds(store: StoreUnderTest) -> None:
    """Ten minutes of two symbols: fund trades, trades that are reported late, and prices and quantities that no float holds exactly."""
    rows = [
        trade(
            i,
            NOON + i * timedelta(seconds=0.7),
            made=NOON + i * timedelta(seconds=0.7) - timedelta(seconds=(0, 0, 1, 40)[i % 4]),
            price=f"{(40_000 + i * 7 % 50)}.{i % 89:02d}1",
            quantity=f"{1 + i % 3}.{i % 97:08d}",
            maker=i % 3 == 0,
            kind="INSURANCE_FUND" if i % 50 == 0 else None,
        )
        for i in range(800)
    ]
    store.put("2024/01/10/12/00/a.jsonl", messages(rows))
    others: list[dict[str, Any]] = [row | {"symbol": "ETHUSDT", "trade_id": 7 * row["trade_id"]} for row in rows[100:700:3]]  # type: ignore[operator]
    store.zone().put(f"{OTHER.prefix}/2024/01/10/12/00/b.jsonl", messages(others))


def test_features_of_a_load_are_those_of_the_stored_ticks_to_the_last_bit(making: StoreUnderTest) -> None:
    both_feeds(making)
    making.put(
        "2024/01/10/12/30/empty.jsonl", messages([trade(9_000, NOON + 6 * SLICE, price="0", quantity="0", kind="NA")])
    )  # of no trade
    making.register(HOUR, feeds=BOTH)
    making.load(HOUR, feeds=BOTH)
    made = making.rows(FEATURE_ROWS)
    store_features(making, HOUR, ("BTCUSDT", "ETHUSDT"))
    assert made == making.rows(FEATURE_ROWS)
    counts = making.rows(f"SELECT bucket_5m, symbol, trade_count FROM {TABLE} ORDER BY 1, 2")
    assert [(bucket, symbol) for bucket, symbol, _ in counts] == [
        *((bucket, symbol) for bucket in (NOON, NOON + SLICE) for symbol in ("BTCUSDT", "ETHUSDT")),
        (NOON + 6 * SLICE, "BTCUSDT"),
    ]
    assert counts[-1][2] == 0


def test_a_load_leaves_nothing_due_of_what_it_makes(making: StoreUnderTest) -> None:
    both_feeds(making)
    making.register(HOUR, feeds=BOTH)
    making.load(HOUR, feeds=BOTH)
    assert due(making) == {asset: [Window(NOON, NOON + 2 * SLICE)] for asset in left_to_make(making)}
    for interval in candles.INTERVALS:
        candles.refresh_due_candles(making.connection, interval, HOUR)
    assert due(making) == {EMBEDDINGS: [Window(NOON, NOON + 2 * SLICE)]}
    assert candles.find_outdated_candles(making.connection, HOUR) == []


def test_what_a_load_makes_is_committed_with_the_ticks(making: StoreUnderTest) -> None:
    making.land(every(1, 100))
    making.register(HOUR)
    making.load(HOUR)
    tables = ["market_data.btc_ticks", TABLE, *(f"market_data.candle_partials_{level}" for level in LOW if makes_candles(making))]
    committed_by = making.rows(" UNION ".join(f"SELECT xmin::text FROM {name}" for name in tables))
    assert len(committed_by) == 1


def test_a_late_object_replaces_what_was_made_of_its_slice_and_nothing_else(making: StoreUnderTest) -> None:
    making.land(every(2, 300))
    making.register(HOUR)
    making.load(HOUR)
    before = making.rows(f"SELECT bucket_5m, xmin::text FROM {TABLE} ORDER BY 1")
    making.land(every(7, 30, start=NOON + timedelta(seconds=1), first_id=5_000))
    making.register(HOUR)
    making.load(FIRST)
    after = making.rows(f"SELECT bucket_5m, xmin::text FROM {TABLE} ORDER BY 1")
    assert before[1] == after[1] and before[0] != after[0]
    assert making.rows(f"SELECT trade_count FROM {TABLE} ORDER BY bucket_5m") == [(180,), (150,)]
    for interval in candles.INTERVALS:
        candles.refresh_due_candles(making.connection, interval, HOUR)
    assert candles.find_outdated_candles(making.connection, HOUR) == []


def test_a_feed_that_was_retired_keeps_its_features_and_candles(making: StoreUnderTest) -> None:
    both_feeds(making)
    making.register(HOUR, feeds=BOTH)
    making.load(HOUR, feeds=BOTH)
    making.refresh(HOUR)
    kept = [making.rows(f"SELECT xmin::text, ctid::text FROM {TABLE} WHERE symbol = 'ETHUSDT' ORDER BY bucket_5m")]
    assert len(kept[0]) == 2
    making.land(every(3, 90, start=NOON + timedelta(seconds=1), first_id=5_000))
    making.register(HOUR)
    making.load(HOUR)
    assert [making.rows(f"SELECT xmin::text, ctid::text FROM {TABLE} WHERE symbol = 'ETHUSDT' ORDER BY bucket_5m")] == kept
    store_features(making, HOUR)
    assert [making.rows(f"SELECT xmin::text, ctid::text FROM {TABLE} WHERE symbol = 'ETHUSDT' ORDER BY bucket_5m")] == kept
    for interval in candles.INTERVALS:
        candles.refresh_due_candles(making.connection, interval, HOUR)
    assert candles.find_outdated_candles(making.connection, HOUR) == []


def test_what_was_due_because_of_a_retired_feed_stays_due(making: StoreUnderTest) -> None:
    both_feeds(making)
    making.register(HOUR, feeds=BOTH)
    derivations, making.derivations = making.derivations, ()
    making.load(HOUR, feeds=BOTH)  # makes nothing, so that the candles of both are due
    making.derivations = derivations
    making.land(every(3, 90, start=NOON + timedelta(seconds=1), first_id=5_000))
    making.register(HOUR)
    making.load(HOUR)
    for interval in candles.INTERVALS:
        candles.refresh_due_candles(making.connection, interval, HOUR)
    assert candles.find_outdated_candles(making.connection, HOUR) == []


def test_an_object_without_rows_that_is_registered_while_the_others_are_written_gets_its_features(making: StoreUnderTest) -> None:
    making.land(every(1, 100))
    making.register(HOUR)

    class Meanwhile(Maker):
        """Registers the object in the middle of the transaction of the load, once."""

        def __init__(self) -> None:
            super().__init__("meanwhile", [], [])
            self.done = 0

        def open(self, connection: psycopg.Connection) -> Maker:
            return self

        def make(self, part: Part) -> list[pa.Table]:
            return []

        def lock(self, cursor: psycopg.Cursor) -> None:
            self.done += 1
            if self.done == 1:
                making.put("2024/01/10/12/30/empty.jsonl", messages([trade(9_000, NOON + 6 * SLICE, price="0", quantity="0", kind="NA")]))
                making.register(HOUR)

    meanwhile = Meanwhile()
    making.derivations = (*making.derivations, meanwhile)
    making.load(HOUR)
    assert meanwhile.done == 2
    assert making.rows(f"SELECT bucket_5m, trade_count FROM {TABLE} ORDER BY 1") == [(NOON, 100), (NOON + 6 * SLICE, 0)]


# ---- beside a refresh


class Waiting(Maker):
    """Stops the load once it holds the locks of what it made before; `reached`, then waits for `go`."""

    def __init__(self) -> None:
        super().__init__("waiting", [], [])
        self.reached, self.go = Event(), Event()

    def open(self, connection: psycopg.Connection) -> Maker:
        return self

    def make(self, part: Part) -> list[pa.Table]:
        return []

    def lock(self, cursor: psycopg.Cursor) -> None:
        self.reached.set()
        assert self.go.wait(60)


def somebody_waits(store: StoreUnderTest) -> bool:
    return bool(store.rows("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"))


def with_late_object(making: StoreUnderTest) -> StoreUnderTest:
    """Loaded and made; then another object lands in the first slice."""
    if not makes_candles(making):
        pytest.skip("the candles of this engine are refreshed by the engine")
    making.land(every(2, 300))
    making.ingest(HOUR)
    making.land(every(7, 30, start=NOON + timedelta(seconds=1), first_id=5_000))
    making.register(HOUR)
    return making


def test_a_load_waits_for_a_refresh_of_the_same_candles(making: StoreUnderTest) -> None:
    store = with_late_object(making)
    with store.connect() as other, ThreadPoolExecutor(1) as pool:
        with other.transaction():
            other.execute("CALL market_data.refresh_candles('1s', %s, %s)", (HOUR.start, HOUR.end))  # of the old ticks
            loading = pool.submit(store.load, HOUR)
            wait_for(lambda: somebody_waits(store), "the load waits for the refresh")
        loading.result(60)
    assert [
        one for one in candles.find_outdated_candles(store.connection, HOUR) if one.startswith(tuple(f"candles_{x} " for x in LOW))
    ] == []


def test_a_refresh_waits_for_a_load_of_the_same_candles_and_sees_its_ticks(making: StoreUnderTest) -> None:
    store, waiting = with_late_object(making), Waiting()
    store.derivations = (*store.derivations, waiting)
    with store.connect() as other, ThreadPoolExecutor(2) as pool:
        loading = pool.submit(store.load, FIRST)
        assert waiting.reached.wait(60)
        refreshing = [pool.submit(candles.refresh_candles, other, "1s", HOUR)]
        wait_for(lambda: somebody_waits(store), "the refresh waits for the load")
        waiting.go.set()
        loading.result(60), [one.result(60) for one in refreshing]
    assert candles.find_outdated_candles(store.connection, HOUR)[0].startswith("candles_1h ")


def test_loads_of_different_slices_write_their_candles_at_the_same_time(making: StoreUnderTest) -> None:
    store, waiting = with_late_object(making), Waiting()
    derivations: tuple[Derivation, ...] = store.derivations
    store.derivations = (*derivations, waiting)
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(store.load, FIRST)
        assert waiting.reached.wait(60)  # holds the locks of all levels
        store.derivations = derivations
        store.load(SECOND)
        waiting.go.set()
        loading.result(60)
    assert candles.find_outdated_candles(store.connection, HOUR)[0].startswith("candles_1h ")


def test_rows_of_a_symbol_that_no_object_names_any_more_go_with_the_slice(making: StoreUnderTest) -> None:
    """As after `forget`: nothing says that these rows belong to a feed that was retired."""
    making.land(every(2, 10))
    making.register(HOUR)
    making.load(HOUR)
    making.connection.execute(f"UPDATE {TABLE} SET symbol = 'FORGOTTEN'")
    making.load(HOUR)
    assert making.rows(f"SELECT symbol FROM {TABLE}") == [("BTCUSDT",)]


# ---- in Dagster


def versions(store: StoreUnderTest) -> list[tuple[Any, ...]]:
    """What tells that rows of features and candles were written again."""
    tables = [TABLE, *(f"market_data.candle_partials_{level}" for level in LOW if makes_candles(store))]
    return [row for name in tables for row in store.rows(f"SELECT DISTINCT xmin::text FROM {name}")]


def test_a_run_with_ticks_makes_only_what_is_due_and_one_without_makes_all_that_it_is_asked_for(store: StoreUnderTest) -> None:
    store.land(every(2, 300))
    assert materialize(store, "ingest", HOUR)
    ticks = store.rows("SELECT DISTINCT xmin::text FROM market_data.btc_ticks")
    assert set(versions(store)) == set(ticks) and due(store) == {}
    assert candles.find_outdated_candles(store.connection, HOUR) == []
    before, features = versions(store), store.rows(FEATURE_ROWS)
    assert materialize(store, "rebuild_candles", HOUR) and materialize(store, "rebuild_signals", HOUR)
    assert len(before) == len(versions(store)) and not set(before) & set(versions(store))
    assert store.rows(FEATURE_ROWS) == features and candles.find_outdated_candles(store.connection, HOUR) == []
