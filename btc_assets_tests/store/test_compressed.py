"""Writing into compressed history: exact, and the chunk is compressed again afterwards."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import psycopg
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btc_assets.domain.slices import DAY, SLICE, Window, floor_day
from btc_assets.domain.ticks import TICK_SCHEMA
from btc_assets.market_data import candles
from btc_assets.store import compressed
from btc_assets_tests.support.databases import read_candles, write_candles, write_ticks
from btc_assets_tests.support.trades import NOON, every, table, trade

pytestmark = pytest.mark.slow

CONTENT = "SELECT * FROM market_data.btc_ticks ORDER BY bucket_5m, symbol, trade_id"
MIDNIGHT = floor_day(NOON)
RANGE = Window(NOON, NOON + 3 * SLICE)


def compress(connection: psycopg.Connection) -> None:
    connection.execute(
        "ALTER TABLE market_data.btc_ticks SET (timescaledb.enable_columnstore, timescaledb.segmentby = 'symbol', "
        "timescaledb.orderby = 'bucket_5m, trade_id')"
    )
    connection.execute("SELECT ops.compress_chunk(name) FROM ops.chunks('market_data.btc_ticks')")


def assert_all_compressed(connection: psycopg.Connection) -> None:
    """Every chunk is compressed, and nothing lies uncompressed beside it."""
    for name, is_compressed in connection.execute("SELECT name, compressed FROM ops.chunks('market_data.btc_ticks')").fetchall():
        assert is_compressed
        assert connection.execute(f"SELECT count(*) FROM ONLY {name}").fetchone() == (0,)


def rows(ticks: pa.Table) -> list[tuple[object, ...]]:
    return sorted((tuple(row.values()) for row in ticks.to_pylist()), key=lambda row: (row[0], row[3], row[4]))


def with_prices_raised(ticks: pa.Table) -> pa.Table:
    return pa.Table.from_pylist([row | {"price": row["price"] + Decimal(1)} for row in ticks.to_pylist()], schema=TICK_SCHEMA)


def with_order_ids(ticks: pa.Table) -> pa.Table:
    return pa.Table.from_pylist([row | {"buyer_order_id": row["trade_id"] + 7} for row in ticks.to_pylist()], schema=TICK_SCHEMA)


CHANGES: dict[str, Callable[[pa.Table], pa.Table]] = {
    "the same": lambda ticks: ticks,
    "changed prices": with_prices_raised,
    "a NULL that becomes a value": with_order_ids,
    "some gone": lambda ticks: ticks.slice(100),
    "all gone": lambda ticks: ticks.slice(0, 0),
    "some gone, some new": lambda ticks: pa.concat_tables([ticks.slice(0, 50), every(0.3, 40, start=NOON + SLICE, first_id=9000)]),
}


@pytest.mark.parametrize("many", [20_000, 10], ids=["in place", "decompressed as a whole"])
def test_a_slice_of_compressed_history_is_replaced(on_timescale: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, many: int) -> None:
    monkeypatch.setattr(compressed, "MANY_NEW_KEYS", many)
    first, second, third = (every(1, 300, start=NOON + i * SLICE, first_id=1 + 300 * i) for i in range(3))
    for name, change in CHANGES.items():
        write_ticks(on_timescale, pa.concat_tables([first, second, third]), RANGE)
        compress(on_timescale)
        write_candles(on_timescale, RANGE)
        changed = change(second)
        write_ticks(on_timescale, changed, Window.of_slice(NOON + SLICE))
        assert on_timescale.execute(CONTENT).fetchall() == rows(pa.concat_tables([first, changed, third])), name
        assert_all_compressed(on_timescale)
        write_candles(on_timescale, Window.of_slice(NOON + SLICE))
        assert candles.find_outdated_candles(on_timescale, Window(MIDNIGHT, MIDNIGHT + DAY)) == [], name


def test_a_column_that_does_not_come_gets_its_default_as_in_any_chunk(on_timescale: psycopg.Connection) -> None:
    write_ticks(on_timescale, with_order_ids(every(1, 300)))
    compress(on_timescale)
    write_ticks(on_timescale, every(1, 300).drop_columns(["buyer_order_id"]))
    assert on_timescale.execute("SELECT count(buyer_order_id), count(*) FROM market_data.btc_ticks").fetchone() == (0, 300)


def test_loaders_of_one_compressed_day_do_not_get_into_each_others_way(
    timescale: str, server_engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if server_engine != "timescale":
        pytest.skip("TimescaleDB in WebAssembly takes one connection")
    monkeypatch.setattr(compressed, "MANY_NEW_KEYS", 200)  # so that some decompress the day and some do not
    parts = [every(1, 300, start=NOON + i * SLICE, first_id=1 + 300 * i) for i in range(4)]

    def connect() -> psycopg.Connection:
        return psycopg.connect(timescale, autocommit=True, options="-c timezone=UTC")

    with connect() as connection:
        write_ticks(connection, pa.concat_tables(parts))
        compress(connection)
        errors: list[BaseException] = []

        def load(ticks: pa.Table) -> None:
            try:
                with connect() as own:
                    for _ in range(6):
                        write_ticks(own, ticks.slice(0, 10), Window.of_slice(ticks["bucket_5m"][0].as_py()))
                        write_ticks(own, ticks)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=load, args=(part,)) for part in parts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert connection.execute(CONTENT).fetchall() == rows(pa.concat_tables(parts))
        assert_all_compressed(connection)


def test_a_window_over_a_compressed_and_an_open_chunk_is_replaced(on_timescale: psycopg.Connection) -> None:
    midnight = MIDNIGHT + DAY
    write_ticks(on_timescale, every(1, 300, start=midnight - SLICE))
    compress(on_timescale)
    both = every(1, 600, start=midnight - SLICE, first_id=101)
    write_ticks(on_timescale, both)
    assert on_timescale.execute(CONTENT).fetchall() == rows(both)
    assert on_timescale.execute("SELECT compressed FROM ops.chunks('market_data.btc_ticks') ORDER BY range_start").fetchall() == [
        (True,),
        (False,),
    ]


def test_more_rows_than_timescaledb_decompresses_in_one_transaction_by_default(on_timescale: psycopg.Connection) -> None:
    on_timescale.execute("SET timescaledb.max_tuples_decompressed_per_dml_transaction = 200")
    ticks = every(1, 900)
    write_ticks(on_timescale, ticks)
    compress(on_timescale)
    write_ticks(on_timescale, with_prices_raised(ticks))
    assert on_timescale.execute(CONTENT).fetchall() == rows(with_prices_raised(ticks))


def test_a_write_that_fails_leaves_the_compressed_chunk_as_it_was(on_timescale: psycopg.Connection) -> None:
    ticks = every(1, 900)
    write_ticks(on_timescale, ticks)
    compress(on_timescale)
    twice = pa.concat_tables([with_prices_raised(ticks), ticks.slice(0, 1)])
    with pytest.raises(psycopg.errors.UniqueViolation):
        write_ticks(on_timescale, twice)
    assert on_timescale.execute(CONTENT).fetchall() == rows(ticks)
    assert_all_compressed(on_timescale)


trade_ids = st.dictionaries(st.integers(0, 89), st.integers(1, 3), max_size=40)  # id and price


def made_of(trades: dict[int, int]) -> pa.Table:
    made = [trade(i, NOON + i * timedelta(seconds=10), price=str(price), symbol="AB"[i % 2]) for i, price in sorted(trades.items())]
    return table(made)


def test_any_sequence_of_replacements_in_a_compressed_chunk_is_exact(on_timescale: psycopg.Connection) -> None:
    stays = every(1, 10, start=NOON + 3 * SLICE, first_id=1000)  # so that the day has a chunk whatever is drawn

    @settings(max_examples=25, deadline=None)
    @given(before=trade_ids, after=st.lists(st.tuples(trade_ids, st.integers(0, 2), st.booleans()), min_size=1, max_size=4))
    def run(before: dict[int, int], after: list[tuple[dict[int, int], int, bool]]) -> None:
        on_timescale.execute("TRUNCATE market_data.btc_ticks, landing.raw_blobs_5m")
        write_ticks(on_timescale, stays)
        write_ticks(on_timescale, made_of(before), RANGE)
        compress(on_timescale)
        expected = dict(before)
        for trades, slice_number, all_of_them in after:
            window = RANGE if all_of_them else Window.of_slice(NOON + slice_number * SLICE)
            inside = {i for i in range(90) if NOON + i * timedelta(seconds=10) in window}
            new = {i: price for i, price in trades.items() if i in inside}
            expected = {i: price for i, price in expected.items() if i not in inside} | new
            write_ticks(on_timescale, made_of(new), window)
            assert on_timescale.execute(CONTENT).fetchall() == rows(pa.concat_tables([made_of(expected), stays]))
            assert_all_compressed(on_timescale)
        write_candles(on_timescale, RANGE.widened(SLICE))
        assert sum(row[9] for row in read_candles(on_timescale)["1m"]) == len(expected) + len(stays)

    run()
