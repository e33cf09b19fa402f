"""Rows from a real store: features of their slice alone, targets of what follows, and nothing incomplete without a word."""

from __future__ import annotations

import pickle
from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from btc_assets.domain.slices import SLICE, Window
from btc_assets.domain.ticks import QUANTITY
from btc_assets.market_data.slice_records import describe_slices, record_slices
from btc_assets.signals.datasets.plan import Plan
from btc_assets.signals.datasets.source import RowSource
from btc_assets.signals.datasets.targets import Target
from btc_assets_tests.support.databases import write_candles, write_ticks
from btc_assets_tests.support.stored_slices import DAY_START, store_features
from btc_assets_tests.support.stores import StoreUnderTest

SECOND = 1_000_000
HOURS = Window(DAY_START, DAY_START + timedelta(hours=3))
PLAN = Plan("BTCUSDT", ("volume", "log_return"), ("close", "volume"), Target("return", 300 * SECOND))


@pytest.fixture
def hours(store: StoreUnderTest, market_day: pa.Table) -> StoreUnderTest:
    """A store with three hours of ticks, features and candles."""
    write_market(store, market_day.filter(pc.less(market_day["bucket_5m"], pa.scalar(HOURS.end))))
    return store


def write_market(store: StoreUnderTest, ticks: pa.Table) -> None:
    write_ticks(store.connection, ticks, HOURS)
    store_features(store, HOURS)
    write_candles(store.connection, HOURS)


def read(store: StoreUnderTest, window: Window = HOURS, **changes: Any) -> pa.Table:
    return RowSource(store.dsn, replace(PLAN, **changes)).read(window)


def states(rows: pa.Table) -> dict[int, str]:
    """The incomplete slices, by their number since the beginning."""
    found = zip(rows["bucket_5m"].to_pylist(), rows["state"].to_pylist(), strict=True)
    return {(bucket - DAY_START) // SLICE: state for bucket, state in found if state != "complete"}


def at(number: int) -> datetime:
    return DAY_START + number * SLICE


def test_a_row_has_the_features_of_its_slice_and_the_return_after_it_is_known(hours: StoreUnderTest) -> None:
    rows = read(hours, mask=True)
    assert rows.schema == PLAN.schema
    stored = hours.rows("SELECT bucket_5m, volume, log_return FROM signals.slice_features ORDER BY bucket_5m")
    assert list(zip(*(rows[name].to_pylist() for name in ("bucket_5m", "volume", "log_return")), strict=True)) == stored
    (bars,) = hours.rows("SELECT bars::real[] FROM signals.slice_features WHERE bucket_5m = %s", at(7))[0]
    assert rows["bars"][7].as_py() == np.array(bars, np.float32).reshape(60, 16)[:, [1, 6]].tolist()
    row = rows.slice(7, 1).to_pylist()[0]
    known = at(8) + timedelta(seconds=90)
    assert (row["available_at"], row["target_start"], row["target_end"]) == (known, known, known + SLICE)
    prices = [
        hours.rows("SELECT price FROM market_data.btc_ticks WHERE trade_time < %s ORDER BY trade_id DESC LIMIT 1", moment)[0][0]
        for moment in (known, known + SLICE)
    ]
    assert row["target"] == pytest.approx(float(np.log(float(prices[1]) / float(prices[0]))), abs=1e-14)
    assert states(rows) == {34: "target: no trades", 35: "target: no trades"}
    assert read(hours).equals(rows.slice(0, 34))


def test_the_same_rows_whatever_the_pieces_they_are_read_in(hours: StoreUnderTest) -> None:
    pieces = [Window(at(number), at(number + 12)) for number in range(0, 36, 12)]
    for target in (Target("return", 300 * SECOND), Target("volatility", 900 * SECOND), Target("direction", 7 * SECOND), None):
        whole = read(hours, target=target, mask=True)
        assert pa.concat_tables([read(hours, piece, target=target, mask=True) for piece in pieces]).equals(whole)
        assert pc.sum(pc.equal(whole["state"], "complete")).as_py() >= 30


def test_no_trade_after_a_row_is_known_changes_its_features(hours: StoreUnderTest, market_day: pa.Table) -> None:
    before = read(hours)
    known = before["available_at"][10].as_py()
    ticks = market_day.filter(pc.less(market_day["bucket_5m"], pa.scalar(HOURS.end)))
    later = pc.greater_equal(ticks["event_time"], pa.scalar(known))
    changed = pc.if_else(later, pa.scalar(Decimal(7), QUANTITY), ticks["quantity"])
    write_market(hours, ticks.set_column(ticks.schema.get_field_index("quantity"), "quantity", changed))
    inputs = ["bucket_5m", "available_at", "volume", "log_return", "bars"]
    after = read(hours)
    assert after.slice(0, 11).select(inputs).equals(before.slice(0, 11).select(inputs))
    assert not after.slice(12).select(inputs).equals(before.slice(12).select(inputs))


def test_incomplete_slices_are_left_out_or_masked_with_the_reason(hours: StoreUnderTest) -> None:
    execute = hours.connection.execute
    execute(
        "DELETE FROM market_data.btc_ticks WHERE trade_id = (SELECT min(trade_id) + 3 FROM market_data.btc_ticks WHERE bucket_5m = %s)",
        (at(5),),
    )
    execute("DELETE FROM market_data.loaded_slices WHERE bucket_5m = %s", (at(5),))
    execute("UPDATE landing.raw_blobs_5m SET loaded_at = NULL WHERE bucket_5m = %s", (at(10),))
    execute("DELETE FROM signals.slice_features WHERE bucket_5m = %s", (at(15),))
    execute(
        "INSERT INTO ingestion.due_slices (asset, bucket_5m) "
        "VALUES ('signals/slice_features', %s), ('market_data/candles_30s', %s), ('market_data/btc_ticks', %s)",
        (at(20), at(25), at(30)),
    )
    rows = read(hours, mask=True)
    assert states(rows) == {
        3: "target: gap", 4: "target: gap", 5: "gap",
        8: "target: pending", 9: "target: pending", 10: "pending",
        13: "target: no trades", 14: "target: no trades", 15: "no features",
        20: "features due",
        23: "target: candles due", 24: "target: candles due",
        28: "target: open", 29: "target: open", 30: "open",
        34: "target: no trades", 35: "target: no trades",
    }  # fmt: skip
    unknown = [row for row in rows.to_pylist() if row["volume"] is None]
    assert [(row["bucket_5m"], row["bars"], row["log_return"]) for row in unknown] == [
        (at(number), None, None) for number in (5, 10, 15, 20, 30)
    ]
    assert Counter(row["target"] is None for row in rows.to_pylist() if row["state"].startswith("target")) == {True: 12}
    kept = read(hours)
    assert kept.equals(rows.filter(pc.equal(rows["state"], "complete")))
    assert sum(column.null_count for column in kept.columns) == 0
    assert 5 not in states(read(hours, mask=True, contiguous=False))


def test_lost_trades_are_known_after_the_ticks_were_dropped(hours: StoreUnderTest, market_day: pa.Table) -> None:
    ticks = market_day.filter(pc.less(market_day["bucket_5m"], pa.scalar(HOURS.end)))
    first_of_20 = pc.index(pc.greater_equal(ticks["bucket_5m"], pa.scalar(at(20))), True).as_py()
    lost = ticks.filter(pc.invert(pc.is_in(ticks["trade_id"], pc.take(ticks["trade_id"], pa.array([150, first_of_20 - 1])))))
    write_market(hours, lost)
    with hours.connection.transaction(), hours.connection.cursor() as cursor:
        record_slices(cursor, HOURS, describe_slices(lost))
    before = read(hours, mask=True)
    inside = (ticks["bucket_5m"][150].as_py() - DAY_START) // SLICE
    assert {number for number, state in states(before).items() if state == "gap"} == {inside, 19, 20}
    hours.connection.execute("DELETE FROM market_data.btc_ticks")
    hours.connection.execute(
        "INSERT INTO ops.retention_jobs (job_name, hypertable, policy, enabled, state) "
        "VALUES ('drop market_data.btc_ticks', 'market_data.btc_ticks', '{\"after\": \"1 day\"}', true, 'applied')"
    )
    assert read(hours, mask=True).equals(before)


def test_a_source_goes_to_another_process_without_telling_its_password() -> None:
    source = RowSource("postgresql://reader:secret@localhost/store", PLAN)
    assert pickle.loads(pickle.dumps(source)) == source
    assert "secret" not in repr(source)
