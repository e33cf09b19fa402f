"""What a futures exchange reports beside the trades of the market is kept apart: nothing is computed from it, and nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from btc_assets.domain.slices import DAY, SLICE, Window, floor_day
from btc_assets.market_data import candles
from btc_assets.market_data.pictures import VolumeStrips
from btc_assets.ops.retention_jobs import apply_policies
from btc_assets.signals.features.compute import SliceFeatures
from btc_assets.signals.features.table import TABLE as FEATURES
from btc_assets.signals.features.table import read_feature_differences
from btc_assets.store.engines import engine
from btc_assets.store.migrations import migrate
from btc_assets.store.tables import Target
from btc_assets.store.writers import replace_all
from btc_assets_tests.support.databases import numbered_files, read_candles, write_candles, write_ticks
from btc_assets_tests.support.paths import case_file
from btc_assets_tests.support.policies import DECLARED
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import HOUR, NOON, every, table, trade

LAST_WITHOUT_KINDS = 19  # the newest numbered file of the last release whose ticks had no trade_kind


# ---- what lands


def test_trades_of_the_insurance_fund_are_kept_and_stand_in_no_candle_and_a_message_of_no_trade_is_counted(store: StoreUnderTest) -> None:
    store.put("2026/11/20/12/00/um.jsonl", case_file("12-insurance-fund", "um.jsonl").read_bytes())
    noon = datetime(2026, 11, 20, 12, tzinfo=UTC)
    hour = Window(noon, noon + timedelta(hours=1))
    store.ingest(hour)
    others = store.rows("SELECT trade_id, price, trade_kind FROM market_data.btc_ticks WHERE trade_kind <> 'MARKET' ORDER BY 1")
    assert others == [(5812000031, Decimal(82125), "INSURANCE_FUND"), (5812000091, Decimal(99000), "ADL")]
    assert store.rows("SELECT count(*) FROM market_data.btc_ticks WHERE trade_kind = 'MARKET'") == [(117,)]
    assert store.rows("SELECT * FROM landing.rejected_rows") == []
    assert store.rows("SELECT metadata -> 'left_out', metadata -> 'left_out_ids' FROM landing.raw_blobs_5m") == [({"NA": 1}, [5812000061])]
    ((low, high, trades),) = store.rows("SELECT min(low), max(high), sum(trade_count) FROM market_data.candles_1m")
    assert 91_200 < low < high < 91_300 and trades == 117
    assert [candles.read_candle_differences(store.connection, interval, hour) for interval in candles.INTERVALS] == [[]] * 6


def test_an_object_of_nothing_but_messages_of_no_trade_is_registered_and_rejects_nothing(store: StoreUnderTest) -> None:
    message = b'{"e":"trade","E":1704888001000,"T":1704888001000,"s":"BTCUSDT","t":%d,"p":"0","q":"0","X":"NA","m":true}\n'
    store.put("2024/01/10/12/00/na.jsonl", b"".join(message % i for i in range(3)))
    registered = store.register(HOUR)
    assert (registered.rejected_rows, registered.left_out_rows) == (0, 3)
    store.load(HOUR)
    assert store.rows("SELECT bucket_5m, row_count, loaded_rows, metadata -> 'left_out_ids' FROM landing.raw_blobs_5m") == [
        (NOON, 0, 0, [0, 1, 2])
    ]


# ---- what is computed


def mixed() -> list[dict[str, object]]:
    """Two slices of market trades between others at prices of their own; a third slice of others alone."""
    kinds = (None, "MARKET", "INSURANCE_FUND", "MARKET", "ADL", None, "SOMETHING_NEW")
    return [
        trade(
            i,
            NOON + i * timedelta(seconds=1),
            price=f"{42_000 + i}" if kind in (None, "MARKET") else f"{1 + i}",
            maker=i % 3 == 0,
            kind=kind,
        )
        for i in range(900)
        for kind in [kinds[i % 7] if i < 600 else "ADL"]
    ]


def test_candles_of_every_level_hold_market_trades_alone(on_each_engine: psycopg.Connection) -> None:
    candles.create_optional_candles(on_each_engine)
    market = [row for row in mixed() if row["trade_kind"] in (None, "MARKET")]
    levels = [*candles.OPTIONAL_INTERVALS, *candles.INTERVALS]

    def made(window: Window) -> list[object]:
        for interval in levels:
            candles.refresh_candles(on_each_engine, interval, window)
        return [on_each_engine.execute(f"SELECT * FROM market_data.candles_{interval} ORDER BY bucket").fetchall() for interval in levels]

    window = write_ticks(on_each_engine, table(market), HOUR)
    expected = made(window)
    write_ticks(on_each_engine, table(mixed()), HOUR)
    assert made(window) == expected
    assert candles.find_outdated_candles(on_each_engine, window) == []
    assert [candles.read_candle_differences(on_each_engine, interval, window) for interval in levels] == [[]] * 7


def test_candles_that_hold_what_is_no_market_trade_are_outdated_also_in_a_slice_without_any(on_each_engine: psycopg.Connection) -> None:
    """As after a reload that told the kinds, before candles were made again."""
    window = write_ticks(on_each_engine, table([trade(1, NOON)]))
    write_candles(on_each_engine, window)
    on_each_engine.execute("UPDATE market_data.btc_ticks SET trade_kind = 'ADL'")
    assert candles.find_outdated_candles(on_each_engine, window) == ["candles_1s are not what they are made of, from 2024-01-10T12:00Z on"]
    write_candles(on_each_engine, window)
    assert candles.find_outdated_candles(on_each_engine, window) == []
    assert on_each_engine.execute("SELECT count(*) FROM market_data.candles_1s").fetchone() == (0,)


def test_features_and_bars_are_computed_from_market_trades_alone(store: StoreUnderTest) -> None:
    def computed() -> list[tuple[object, ...]]:
        features = SliceFeatures(store.database, HOUR, ["BTCUSDT"])
        replace_all(store.connection, Target.of(store.connection, FEATURES), features, store=store.database)
        assert read_feature_differences(store.connection, HOUR) == []
        return [row[:-1] for row in store.rows(f"SELECT * FROM {FEATURES} WHERE trade_count > 0 ORDER BY bucket_5m")]

    write_ticks(store.connection, table([row for row in mixed() if row["trade_kind"] in (None, "MARKET")]), HOUR)
    expected = computed()
    assert len(expected) == 2
    write_ticks(store.connection, table(mixed()), HOUR)
    assert computed() == expected


def test_the_picture_of_volume_shows_market_trades_alone() -> None:
    def drawn(rows: list[dict[str, object]]) -> dict[str, str]:
        strips = VolumeStrips(HOUR, ["BTCUSDT"])
        strips.add(table(rows))
        return strips.draw([])

    assert drawn(mixed()) == drawn([row for row in mixed() if row["trade_kind"] in (None, "MARKET")])


# ---- a store of before


@pytest.fixture(params=["postgres", "timescale"])
def older(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[psycopg.Connection]:
    """A store whose ticks have no kind yet."""
    dsn = request.getfixturevalue("empty_plain" if request.param == "postgres" else "empty_timescale")
    with psycopg.connect(dsn, autocommit=True, options="-c timezone=UTC") as connection:
        migrate(connection, numbered_files(LAST_WITHOUT_KINDS, tmp_path))
        yield connection


@pytest.mark.slow
def test_a_store_of_before_keeps_its_candles_also_those_whose_ticks_were_dropped_and_leaves_out_what_comes(
    older: psycopg.Connection,
) -> None:
    candles.create_optional_candles(older)
    levels = [*candles.OPTIONAL_INTERVALS, *candles.INTERVALS]
    days = [floor_day(NOON) + i * DAY for i in range(3)]
    for i, day in enumerate(days):
        window = write_ticks(older, every(1, 600, start=day + timedelta(hours=1), first_id=600 * i).drop_columns(["trade_kind"]))
        for interval in levels:
            candles.refresh_candles(older, interval, window)
    apply_policies(older, DECLARED)
    if engine(older) == "timescale":
        older.execute("SELECT ops.compress_chunk(name) FROM ops.chunks('market_data.btc_ticks') WHERE range_start = %s", (days[1],))
    older.execute("SELECT ops.drop_chunk('market_data.btc_ticks', %s, %s)", (days[0], days[0] + DAY))

    def made() -> list[object]:
        return [older.execute(f"SELECT * FROM market_data.candles_{interval} ORDER BY bucket").fetchall() for interval in levels]

    policies = "SELECT kind, hypertable, enabled, to_jsonb(policy) -> 'job_id' FROM ops.policies_in_force() AS policy ORDER BY 1, 2"
    before, in_force = made(), older.execute(policies).fetchall()
    migrate(older)
    assert made() == before
    assert older.execute(policies).fetchall() == in_force
    assert older.execute("SELECT count(*), count(trade_kind) FROM market_data.btc_ticks").fetchone() == (1200, 0)
    # Two slices are loaded again, one of them in the compressed chunk, with a trade of the insurance fund.
    for day in days[1:]:
        start = day + timedelta(hours=1)
        again = [row for row in every(1, 600, start=start, first_id=600 * days.index(day)).to_pylist() if row["bucket_5m"] == start]
        fund = trade(9_000_000, start + timedelta(seconds=7), price="1", kind="INSURANCE_FUND")
        window = write_ticks(older, table([*again, fund]), Window.of_slice(start))
        for interval in levels:
            candles.refresh_candles(older, interval, window)
    assert older.execute("SELECT count(*) FROM market_data.btc_ticks WHERE trade_kind = 'INSURANCE_FUND'").fetchone() == (2,)
    assert made() == before
    assert candles.find_outdated_candles(older, Window(days[0], days[2] + DAY)) == []


@pytest.mark.slow
def test_code_of_before_loads_into_the_newer_schema(on_each_engine: psycopg.Connection) -> None:
    write_ticks(on_each_engine, every(1, 300).drop_columns(["trade_kind"]))
    assert on_each_engine.execute("SELECT count(*), count(trade_kind) FROM market_data.btc_ticks").fetchone() == (300, 0)


def test_the_newest_and_the_oldest_candles_are_those_of_market_trades(on_each_engine: psycopg.Connection) -> None:
    rows = [
        trade(1, NOON, price="10", kind="ADL"),
        trade(2, NOON, price="20", kind="MARKET"),
        trade(3, NOON + SLICE, price="30", kind="ADL"),
    ]
    write_candles(on_each_engine, write_ticks(on_each_engine, table(rows)))
    assert [row[3:7] for row in read_candles(on_each_engine)["1d"]] == [(Decimal(20),) * 4]
