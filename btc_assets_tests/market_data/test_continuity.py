"""Trade ids are contiguous, or the gaps are listed."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_assets.domain.slices import SLICE, Window
from btc_assets.market_data.continuity import Gap, Repeat, not_judged, read_gaps, read_repeats
from btc_assets.simulation.batches import encode_batch
from btc_assets_tests.support.databases import write_ticks
from btc_assets_tests.support.stores import FEED, StoreUnderTest
from btc_assets_tests.support.trades import HOUR, NOON, every, messages, table, trade

FIVE = timedelta(minutes=5)


def put(store: StoreUnderTest, name: str, trades: list[dict[str, object]]) -> None:
    store.put(f"2024/01/10/12/00/{name}.parquet", encode_batch(table(trades), FEED)[1])


def test_a_whole_range_has_no_gap(store: StoreUnderTest) -> None:
    store.land(every(1, 900))
    store.ingest(HOUR)
    assert read_gaps(store.connection, HOUR) == []


def test_a_gap_inside_a_slice_is_listed(store: StoreUnderTest) -> None:
    put(store, "a", [trade(i, NOON + timedelta(seconds=i)) for i in range(100) if i not in (40, 41, 70)])
    store.ingest(HOUR)
    assert read_gaps(store.connection, HOUR) == [Gap("BTCUSDT", 40, 41, NOON), Gap("BTCUSDT", 70, 70, NOON)]
    assert str(read_gaps(store.connection, HOUR)[0]) == "BTCUSDT 40 to 41 (2 trades) before 2024-01-10T12:00Z"


def test_a_gap_between_slices_is_listed_also_over_empty_ones_and_at_the_seam_of_the_window(store: StoreUnderTest) -> None:
    put(store, "a", [trade(i, NOON + timedelta(seconds=i)) for i in range(10)] + [trade(i, NOON + 3 * FIVE) for i in range(15, 20)])
    store.ingest(HOUR)
    assert read_gaps(store.connection, HOUR) == [Gap("BTCUSDT", 10, 14, NOON + 3 * FIVE)]
    assert read_gaps(store.connection, Window(NOON + 2 * SLICE, HOUR.end)) == [Gap("BTCUSDT", 10, 14, NOON + 3 * FIVE)]


def test_ids_that_cross_a_slice_boundary_out_of_order_are_no_gap(store: StoreUnderTest) -> None:
    put(store, "a", [trade(1, NOON), trade(3, NOON + timedelta(seconds=299)), trade(2, NOON + FIVE), trade(4, NOON + FIVE)])
    store.ingest(HOUR)
    assert read_gaps(store.connection, HOUR) == []


def test_ids_of_trades_that_are_no_market_trades_and_of_rows_that_are_left_out_are_no_gap(store: StoreUnderTest) -> None:
    rows = [trade(i, NOON + timedelta(seconds=i), kind="ADL" if i == 3 else "MARKET") for i in range(20) if i not in (11, 12)]
    kinds = messages(rows).replace(b'"p":"42000.5","q":"0.25"', b'"p":"0","q":"0"').splitlines()
    lines = [kinds[i].replace(b"MARKET", b"NA") if row["trade_id"] in (7, 8, 13) else messages([row]).strip() for i, row in enumerate(rows)]
    store.put("2024/01/10/12/00/um.jsonl", b"\n".join(lines))
    store.ingest(HOUR)
    assert store.rows("SELECT count(*) FROM market_data.btc_ticks") == [(15,)]
    assert store.rows("SELECT metadata -> 'left_out' FROM landing.raw_blobs_5m") == [({"NA": 3},)]
    assert read_gaps(store.connection, HOUR) == [Gap("BTCUSDT", 11, 12, NOON)]


@pytest.mark.parametrize("step", [2, 7])
def test_ids_that_the_exchange_skips_are_not_judged(store: StoreUnderTest, step: int) -> None:
    put(store, "a", [trade(step * i, NOON + timedelta(seconds=i)) for i in range(20)])
    store.ingest(HOUR)
    assert len(read_gaps(store.connection, HOUR)) == 19
    assert read_gaps(store.connection, HOUR, {"BTCUSDT"}) == []
    assert not_judged({"BTCUSDT", "A"}) == "The ids of A, BTCUSDT are not judged: the exchange skips ids there."
    assert not_judged(()) == ""


def test_a_trade_in_two_slices_is_found(store: StoreUnderTest) -> None:
    write_ticks(
        store.connection, table([trade(1, NOON), trade(2, NOON + timedelta(seconds=1)), trade(2, NOON + FIVE), trade(3, NOON + FIVE)])
    )
    assert read_repeats(store.connection, HOUR) == [Repeat("BTCUSDT", 2, (NOON, NOON + FIVE))]
    assert read_gaps(store.connection, HOUR) == []


def naive_gaps(ids: set[int]) -> set[int]:
    return set(range(min(ids), max(ids) + 1)) - ids


@pytest.fixture
def loaded(store: StoreUnderTest) -> StoreUnderTest:
    store.land(every(1, 1))
    store.ingest(HOUR)
    return store


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 11)), min_size=1, max_size=60, unique=True))
def test_gaps_and_repeats_agree_with_a_naive_count(loaded: StoreUnderTest, trades: list[tuple[int, int]]) -> None:
    def at(position: int) -> datetime:
        return NOON + position * SLICE

    with loaded.connection.transaction(force_rollback=True):
        loaded.connection.execute("DELETE FROM market_data.btc_ticks")
        loaded.connection.execute("DELETE FROM market_data.loaded_slices")  # as a former release leaves them: the ticks are read
        with loaded.connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO market_data.btc_ticks VALUES (%s, %s, %s, 'BTCUSDT', %s, 1, 1, NULL, NULL, true, NULL)",
                [(at(position), at(position), at(position), trade_id) for trade_id, position in trades],
            )
        missing = {i for gap in read_gaps(loaded.connection, HOUR) for i in range(gap.first_missing, gap.last_missing + 1)}
        repeated = {repeat.trade_id for repeat in read_repeats(loaded.connection, HOUR)}
    ids = [trade_id for trade_id, _ in trades]
    assert missing == naive_gaps(set(ids))
    assert repeated == {i for i in ids if ids.count(i) > 1}
