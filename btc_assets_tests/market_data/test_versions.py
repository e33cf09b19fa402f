"""Versions of data: the same for the same ticks wherever they are, another one for any other ticks."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from itertools import pairwise

import psycopg
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_assets.domain.slices import SLICE, Window
from btc_assets.market_data import versions
from btc_assets.market_data.slice_records import describe_slices, record_slices
from btc_assets.market_data.versions import digest_ticks, read_recorded_digests, read_slice_digests
from btc_assets_tests.support.databases import write_ticks
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import NOON, every, table

WINDOW = Window(NOON, NOON + 4 * SLICE)
TICKS = every(5.0, 200, start=NOON)  # the last 40 of them in the fourth slice


def record(connection: psycopg.Connection, ticks: pa.Table, window: Window = WINDOW) -> None:
    """Load as a load does, with its record."""
    write_ticks(connection, ticks, window)
    with connection.transaction(), connection.cursor() as cursor:
        record_slices(cursor, window, describe_slices(ticks))


def changed(row: int, **values: object) -> pa.Table:
    rows = TICKS.to_pylist()
    rows[row] |= values
    return table(rows)


def version(connection: psycopg.Connection) -> str:
    return read_slice_digests(connection, "BTCUSDT", WINDOW).version


def test_the_same_ticks_have_the_same_version_recorded_or_counted_on_each_engine(on_each_engine: psycopg.Connection) -> None:
    write_ticks(on_each_engine, TICKS, WINDOW)
    counted = version(on_each_engine)
    record(on_each_engine, TICKS)
    assert version(on_each_engine) == counted == "records1:af90f4790c08b5f500f2d36c4bef93e7"
    record(on_each_engine, changed(7, price=Decimal("1.5")))
    assert version(on_each_engine) != counted
    record(on_each_engine, TICKS)
    assert version(on_each_engine) == counted


CHANGES: dict[str, dict[str, object]] = {
    "price": {"price": Decimal("42000.00000001")},
    "quantity": {"quantity": Decimal("0.250000000001")},
    "trade_id": {"trade_id": 1_000},
    "is_market_maker": {"is_market_maker": True},
    "trade_kind": {"trade_kind": "INSURANCE"},
}
UNSEEN: dict[str, dict[str, object]] = {
    "event_time": {"event_time": NOON + timedelta(seconds=36)},
    "trade_time": {"trade_time": NOON + timedelta(seconds=34)},
    "buyer_order_id": {"buyer_order_id": 0},
    "seller_order_id": {"seller_order_id": 7},
}


def test_every_change_of_a_trade_that_the_record_tells_changes_the_version(store: StoreUnderTest) -> None:
    found = {}
    for name, values in {"none": {}, **CHANGES}.items():
        record(store.connection, table(sorted(changed(7, **values).to_pylist(), key=lambda row: (row["bucket_5m"], row["trade_id"]))))
        found[name] = version(store.connection)
    record(store.connection, TICKS.slice(0, 199))
    found["a trade less"] = version(store.connection)
    assert len(set(found.values())) == len(found)
    for values in UNSEEN.values():
        record(store.connection, changed(7, **values))
        assert version(store.connection) == found["none"]


def test_only_slices_that_changed_have_changed(store: StoreUnderTest) -> None:
    record(store.connection, TICKS)
    former = read_slice_digests(store.connection, "BTCUSDT", WINDOW)
    assert former.changed_since(former.to_bytes()) == []
    record(store.connection, changed(70, price=Decimal(1)))
    now = read_slice_digests(store.connection, "BTCUSDT", WINDOW)
    assert now.changed_since(former.to_bytes()) == [NOON + SLICE]
    record(store.connection, TICKS.slice(0, 120), WINDOW)
    assert read_slice_digests(store.connection, "BTCUSDT", WINDOW).changed_since(former.to_bytes()) == [NOON + 2 * SLICE, NOON + 3 * SLICE]


def test_slices_without_a_record_are_counted_unasked_only_if_they_are_few(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    write_ticks(store.connection, TICKS, WINDOW)
    few = read_recorded_digests(store.connection, "BTCUSDT", WINDOW)
    assert few and few.version == version(store.connection)
    monkeypatch.setattr(versions, "_FEW", 3)
    assert read_recorded_digests(store.connection, "BTCUSDT", WINDOW) is None
    assert version(store.connection) == few.version
    record(store.connection, TICKS)
    assert read_recorded_digests(store.connection, "BTCUSDT", WINDOW)


def test_the_version_of_a_part_is_that_of_its_slices(store: StoreUnderTest) -> None:
    record(store.connection, TICKS)
    whole = read_slice_digests(store.connection, "BTCUSDT", WINDOW.widened(SLICE))
    assert whole.version == version(store.connection)
    part = Window(NOON + SLICE, NOON + 3 * SLICE)
    assert whole.part(part).version == read_slice_digests(store.connection, "BTCUSDT", part).version != whole.version
    assert read_slice_digests(store.connection, "BTCUSDT.P", WINDOW).digests.tolist() == [0] * 4


def test_ticks_that_were_dropped_are_still_told_by_the_record(store: StoreUnderTest) -> None:
    record(store.connection, TICKS)
    before = version(store.connection)
    store.connection.execute("DELETE FROM market_data.btc_ticks")
    assert version(store.connection) == before


@given(st.lists(st.integers(0, 200), max_size=5))
def test_the_digest_of_ticks_does_not_depend_on_their_batches(cuts: list[int]) -> None:
    ticks = table(
        [row | {"buyer_order_id": i or None, "trade_kind": [None, "MARKET", "ADL"][i % 3]} for i, row in enumerate(TICKS.to_pylist())]
    )
    edges = [0, *sorted(cuts), 200]
    pieces = [ticks.slice(first, last - first).combine_chunks() for first, last in pairwise(edges)]
    batches = [batch for piece in pieces for batch in piece.to_batches()]
    assert digest_ticks(batches) == digest_ticks(ticks.to_batches()) == "ticks1:73a19880339714367b1ffd68973795be"


@pytest.mark.parametrize("values", [*CHANGES.values(), *UNSEEN.values()])
def test_the_digest_of_ticks_sees_every_value(values: dict[str, object]) -> None:
    assert digest_ticks(changed(7, **values).to_batches()) != digest_ticks(TICKS.to_batches())


def test_the_digest_of_ticks_tells_nothing_from_zero() -> None:
    assert digest_ticks(changed(7, seller_order_id=0).to_batches()) != digest_ticks(changed(7, seller_order_id=None).to_batches())
    assert digest_ticks(changed(7, trade_kind="").to_batches()) != digest_ticks(TICKS.to_batches())
    assert digest_ticks(TICKS.slice(0, 199).to_batches()) != digest_ticks(TICKS.to_batches())
