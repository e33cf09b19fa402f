"""What a load records of each slice is what the table holds of it, and whatever changes afterwards turns a check red."""

from __future__ import annotations

from datetime import timedelta
from decimal import localcontext
from itertools import groupby

import psycopg
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_assets.domain.slices import SLICE, Window
from btc_assets.domain.ticks import MARKET, tick_order
from btc_assets.market_data.candles import INTERVALS, find_candle_differences, read_candle_differences
from btc_assets.market_data.continuity import Gap, Repeat, read_gaps, read_repeats
from btc_assets.market_data.registry_equality import find_changed_slices
from btc_assets.market_data.slice_records import describe_slices, read_record_differences, read_unrecorded, record_slices
from btc_assets.signals.features.table import find_feature_differences, read_feature_differences
from btc_assets_tests.support.databases import write_candles, write_ticks
from btc_assets_tests.support.stored_slices import store_features
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import HOUR, NOON, eight_decimals, every, messages, table, trade

LATER = NOON + SLICE

TICKS = st.builds(
    lambda number, minute, symbol, price, quantity, maker, kind: trade(
        number, NOON + timedelta(minutes=minute), symbol=symbol, price=str(price), quantity=str(quantity), maker=maker, kind=kind
    ),
    st.integers(-(2**63), 2**63 - 1) | st.integers(1, 50),
    st.integers(0, 12),
    st.sampled_from(["BTCUSDT", "ETHUSDT"]),
    eight_decimals(200_000),
    eight_decimals(1_000),
    st.booleans(),
    st.sampled_from([None, MARKET, "ADL"]),
)


@given(st.lists(TICKS, max_size=40, unique_by=lambda row: (row["bucket_5m"], row["symbol"], row["trade_id"])))
def test_what_is_recorded_is_what_plain_python_counts(rows: list[dict[str, object]]) -> None:
    ticks = table(rows)
    ticks = ticks.take(tick_order(ticks))
    expected = []
    for (bucket, symbol), group in groupby(ticks.to_pylist(), lambda row: (row["bucket_5m"], row["symbol"])):
        own = list(group)
        ids = [row["trade_id"] for row in own]
        xor = 0
        for number in ids:
            xor ^= number
        market = [row for row in own if row["trade_kind"] in (None, MARKET)]
        bought = [row for row in market if not row["is_market_maker"]]
        with localcontext(prec=60):
            volumes = [
                total for side in (market, bought)
                for total in (sum(row["quantity"] for row in side), sum(row["price"] * row["quantity"] for row in side))
            ]  # fmt: skip
        expected.append((bucket, symbol, len(own), min(ids), max(ids), xor, len(market), *volumes))
    assert list(zip(*describe_slices(ticks), strict=True)) == expected


@pytest.fixture
def loaded(store: StoreUnderTest) -> StoreUnderTest:
    """Three slices with ticks, one trade of which is no market trade, with their candles and features."""
    rows = every(5, 180).to_pylist()
    rows[10]["trade_kind"] = "ADL"
    store.put("2024/01/10/12/00/a.jsonl", messages(rows))
    store.ingest(HOUR)
    store_features(store, HOUR)
    return store


def red(store: StoreUnderTest) -> set[str]:
    """The checks that fail."""
    connection = store.connection
    found: dict[str, object] = {
        "registry_equals_table": find_changed_slices(connection, HOUR),
        "trade_ids_contiguous": read_gaps(connection, HOUR),
        "no_trade_twice": read_repeats(connection, HOUR),
        "features_equal_ticks": find_feature_differences(connection, HOUR),
        **find_candle_differences(connection, list(INTERVALS), HOUR),
    }
    return {name for name, problems in found.items() if problems}


def test_the_record_of_a_load_is_what_the_table_holds(loaded: StoreUnderTest) -> None:
    assert red(loaded) == set()
    assert loaded.rows("SELECT ticks, first_trade_id, last_trade_id, market_trades FROM market_data.loaded_slices ORDER BY bucket_5m") == [
        (60, 1, 60, 59), (60, 61, 120, 60), (60, 121, 180, 60)
    ]  # fmt: skip
    assert read_record_differences(loaded.connection, HOUR) == [] == read_unrecorded(loaded.connection, HOUR)


def test_the_planner_knows_a_new_day_before_its_ticks_are_compared(loaded: StoreUnderTest) -> None:
    find_changed_slices(loaded.connection, HOUR)
    assert loaded.rows("SELECT reltuples FROM pg_class WHERE relname = 'btc_ticks_20240110'") == [(180.0,)]


IN_TICKS = {
    "deleted": "DELETE FROM market_data.btc_ticks WHERE trade_id = 30",
    "added": """INSERT INTO market_data.btc_ticks SELECT bucket_5m, event_time, trade_time, symbol, 1000, price, quantity, buyer_order_id,
        seller_order_id, is_market_maker, trade_kind FROM market_data.btc_ticks WHERE trade_id = 180""",
    "price": "UPDATE market_data.btc_ticks SET price = price + 0.01 WHERE trade_id = 30",
    "quantity": "UPDATE market_data.btc_ticks SET quantity = quantity + 0.00001 WHERE trade_id = 30",
    "side": "UPDATE market_data.btc_ticks SET is_market_maker = NOT is_market_maker WHERE trade_id = 30",
    "id at the end": "UPDATE market_data.btc_ticks SET trade_id = 1000 WHERE trade_id = 180",
    "kind": "UPDATE market_data.btc_ticks SET trade_kind = 'ADL' WHERE trade_id = 30",
    "a slice moved": "UPDATE market_data.btc_ticks SET bucket_5m = bucket_5m + interval '15 minutes' WHERE trade_id > 120",
    "a slice deleted": "DELETE FROM market_data.btc_ticks WHERE trade_id > 120",
}


def red_after(store: StoreUnderTest, fault: str) -> set[str]:
    """The checks that fail after a fault, which is undone again."""
    with store.connection.transaction(force_rollback=True):
        assert store.connection.execute(fault).rowcount
        return red(store)


def test_whatever_changes_in_the_table_after_the_load_fails_a_check(loaded: StoreUnderTest) -> None:
    unseen = [fault for fault, statement in IN_TICKS.items() if "registry_equals_table" not in red_after(loaded, statement)]
    assert unseen == []


def test_an_id_that_changes_between_the_first_and_the_last_is_seen(store: StoreUnderTest) -> None:
    store.put("2024/01/10/12/00/a.jsonl", messages([trade(i, NOON + timedelta(seconds=i)) for i in (1, 2, 9)]))
    store.ingest(HOUR)
    assert find_changed_slices(store.connection, HOUR) == []
    store.connection.execute("UPDATE market_data.btc_ticks SET trade_id = 3 WHERE trade_id = 2")
    (sentence,) = find_changed_slices(store.connection, HOUR)
    assert sentence.startswith("BTCUSDT 2024-01-10T12:00Z: 3 ticks of volume 0.75")


ELSEWHERE = {
    "UPDATE landing.raw_blobs_5m SET loaded_rows = 59 WHERE bucket_5m = '2024-01-10T12:00Z'": {"registry_equals_table"},
    "DELETE FROM landing.raw_blobs_5m WHERE bucket_5m = '2024-01-10T12:00Z'": {"registry_equals_table"},
    "UPDATE landing.raw_blobs_5m SET loaded_at = NULL, loaded_rows = NULL": {"registry_equals_table"},
    "UPDATE signals.slice_features SET volume = volume * 1.001 WHERE bucket_5m = '2024-01-10T12:05Z'": {"features_equal_ticks"},
    "UPDATE signals.slice_features SET trade_count = trade_count + 1 WHERE bucket_5m = '2024-01-10T12:05Z'": {"features_equal_ticks"},
    "DELETE FROM signals.slice_features WHERE bucket_5m = '2024-01-10T12:05Z'": {"features_equal_ticks"},
    "UPDATE market_data.loaded_slices SET ticks = 61 WHERE bucket_5m = '2024-01-10T12:00Z'": {"registry_equals_table"},
    "UPDATE market_data.loaded_slices SET quote_volume = quote_volume + 1": {"registry_equals_table"},
    "INSERT INTO market_data.loaded_slices VALUES ('2024-01-10T12:30Z', 'BTCUSDT', 1, 1, 1, 1, 1, 1, 1, 1, 1)": {"registry_equals_table"},
}


def test_whatever_changes_in_the_registry_the_features_or_the_record_fails_its_check(loaded: StoreUnderTest) -> None:
    ids = {"trade_ids_contiguous", "no_trade_twice"}  # what they find in ids that were made up does not matter
    assert {fault: red_after(loaded, fault) - ids for fault in ELSEWHERE} == ELSEWHERE


CHANGES = ["volume", "quote_volume", "trade_count", "taker_buy_volume", "taker_buy_quote_volume"]


@pytest.mark.parametrize("interval", INTERVALS)
def test_a_candle_of_any_interval_that_changes_fails_its_check_alone(loaded: StoreUnderTest, interval: str) -> None:
    table = f"market_data.candle_partials_{interval}"
    first = f"WHERE first_trade_id = (SELECT min(first_trade_id) FROM {table})"
    faults = [f"UPDATE {table} SET {column} = {column} + 1 {first}" for column in CHANGES] + [f"DELETE FROM {table} {first}"]
    assert [red_after(loaded, fault) for fault in faults] == [{interval}] * 6


def test_missing_and_repeated_ids_are_found_by_what_was_recorded(store: StoreUnderTest) -> None:
    rows = [trade(i, NOON + timedelta(seconds=i)) for i in range(1, 20) if i not in (7, 8)] + [trade(25, LATER), trade(26, LATER)]
    store.put("2024/01/10/12/00/a.jsonl", messages(rows))
    store.ingest(HOUR)
    assert read_gaps(store.connection, HOUR) == [Gap("BTCUSDT", 7, 8, NOON), Gap("BTCUSDT", 20, 24, LATER)]
    assert read_repeats(store.connection, HOUR) == []
    store.connection.execute(
        "INSERT INTO market_data.btc_ticks SELECT %s, event_time, trade_time, symbol, 19, price, quantity, NULL, NULL, true, NULL "
        "FROM market_data.btc_ticks WHERE trade_id = 26", (LATER,),
    )  # fmt: skip
    assert read_repeats(store.connection, HOUR) == []  # the record does not know of it,
    (sentence,) = find_changed_slices(store.connection, HOUR)  # and tells that it does not
    assert sentence == "BTCUSDT 2024-01-10T12:05Z: loaded, 2 rows by the registry, 3 in the table"
    store.connection.execute("UPDATE market_data.loaded_slices SET first_trade_id = 19 WHERE bucket_5m = %s", (LATER,))
    assert read_repeats(store.connection, HOUR) == [Repeat("BTCUSDT", 19, (NOON, LATER))]


# ---- slices without a record, or with one that is older than their ticks


def forget_records(store: StoreUnderTest) -> None:
    """What a store looks like that a release without records loaded."""
    store.connection.execute("DELETE FROM market_data.loaded_slices")


def test_slices_without_a_record_are_checked_by_their_ticks(loaded: StoreUnderTest) -> None:
    forget_records(loaded)
    assert red(loaded) == set()
    loaded.connection.execute("DELETE FROM market_data.btc_ticks WHERE trade_id = 30")
    assert red(loaded) == {"registry_equals_table", "trade_ids_contiguous", "features_equal_ticks", *INTERVALS}


def test_a_slice_that_a_former_release_loaded_again_is_checked_by_its_ticks(loaded: StoreUnderTest) -> None:
    loaded.connection.execute("DELETE FROM market_data.btc_ticks WHERE trade_id > 170")
    loaded.connection.execute(
        "UPDATE landing.raw_blobs_5m SET loaded_at = now(), loaded_rows = 50 WHERE bucket_5m = %s", (NOON + 2 * SLICE,)
    )
    loaded.refresh(HOUR)
    store_features(loaded, HOUR)
    assert read_unrecorded(loaded.connection, HOUR) == [NOON + 2 * SLICE]
    assert red(loaded) == set()
    loaded.connection.execute("DELETE FROM market_data.btc_ticks WHERE trade_id = 165")
    assert red(loaded) == {"registry_equals_table", "trade_ids_contiguous", "features_equal_ticks", *INTERVALS}


def test_loading_again_records_again_and_leaves_other_symbols_and_slices(loaded: StoreUnderTest) -> None:
    other = "INSERT INTO market_data.loaded_slices VALUES (%s, 'OTHER', 1, 1, 1, 1, 1, 1, 1, 1, 1)"
    loaded.connection.execute(other, (NOON - SLICE,))
    loaded.put("2024/01/10/12/05/late.jsonl", messages([trade(181, LATER + timedelta(seconds=299))]))
    loaded.ingest(Window(LATER, LATER + SLICE))
    assert loaded.rows("SELECT symbol, ticks, last_trade_id FROM market_data.loaded_slices ORDER BY bucket_5m") == [
        ("OTHER", 1, 1), ("BTCUSDT", 60, 60), ("BTCUSDT", 61, 181), ("BTCUSDT", 60, 180)
    ]  # fmt: skip


def test_a_slice_that_loses_its_ticks_loses_its_record(loaded: StoreUnderTest) -> None:
    loaded.delete(*loaded.uris())
    loaded.load(HOUR, force=True)
    assert loaded.rows("SELECT * FROM market_data.loaded_slices") == []
    assert red(loaded) == {"features_equal_ticks", *INTERVALS}  # which were not made again


def test_what_is_compared_with_the_ticks_themselves_does_not_look_at_the_record(loaded: StoreUnderTest) -> None:
    loaded.connection.execute("UPDATE market_data.loaded_slices SET market_trades = 7, volume = 7")
    assert read_feature_differences(loaded.connection, HOUR) == []
    assert [read_candle_differences(loaded.connection, interval, HOUR) for interval in INTERVALS] == [[]] * 6


def test_no_ticks_have_no_record() -> None:
    assert {len(column) for column in describe_slices(pa.table({}))} == {0}


def test_record_table_and_candles_are_compared_on_each_engine(on_each_engine: psycopg.Connection) -> None:
    window = write_ticks(on_each_engine, every(5, 180))
    with on_each_engine.cursor() as cursor:
        record_slices(cursor, window, describe_slices(every(5, 180)))
    write_candles(on_each_engine, window)
    assert read_record_differences(on_each_engine, window) == [] == find_changed_slices(on_each_engine, window)
    assert read_unrecorded(on_each_engine, window) == []
    assert find_candle_differences(on_each_engine, list(INTERVALS), window) == {interval: [] for interval in INTERVALS}
    on_each_engine.execute("UPDATE market_data.btc_ticks SET price = price + 1 WHERE trade_id = 30")
    write_candles(on_each_engine, window)
    (sentence,) = find_changed_slices(on_each_engine, window)
    assert sentence.startswith("BTCUSDT 2024-01-10T12:00Z: 60 ticks of volume 15.0")
