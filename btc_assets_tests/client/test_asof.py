"""Each tick meets the last one of the other symbol that was reported by then, however the streams are cut."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import btc_assets as btc
from btc_assets.client.asof import SCHEMA, join_asof
from btc_assets.client.ticks import SCHEMA as TICKS
from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import MICROSECOND, SLICE
from btc_assets_tests.client.conftest import FUTURE, SPOT, Market
from btc_assets_tests.support.trades import NOON, trade

DAY = "2024-01-10"


def last_before(row: dict[str, Any], others: list[dict[str, Any]], tolerance: timedelta) -> dict[str, Any] | None:
    """The definition."""
    before = [one for one in others if timedelta(0) <= row["event_time"] - one["event_time"] <= tolerance]
    return max(before, key=lambda one: (one["event_time"], one["trade_id"]), default=None)


def test_each_tick_meets_the_last_one_of_the_other_symbol(client: btc.ClientStore, market: Market) -> None:
    span = (NOON + timedelta(minutes=4), NOON + timedelta(minutes=21))
    for tolerance in (timedelta(hours=1), timedelta(seconds=2)):
        found = client.asof(SPOT, FUTURE, span, tolerance=tolerance)
        assert found.schema == SCHEMA
        left = [row for row in market.of(SPOT) if span[0] <= row["event_time"] < span[1]]
        rows = found.arrow().to_pylist()
        assert [row["trade_id"] for row in rows] == [row["trade_id"] for row in left]
        for row, tick in zip(rows, left, strict=True):
            other = last_before(tick, market.of(FUTURE), tolerance) or {}
            assert [row[f"right_{name}"] for name in ("trade_id", "price", "event_time")] == [
                other.get(name) for name in ("trade_id", "price", "event_time")
            ]
            assert row["price"] == tick["price"] and row["available_at"] == tick["bucket_5m"] + SLICE + timedelta(seconds=90)


def test_it_is_the_join_of_polars(client: btc.ClientStore) -> None:
    order = ["event_time", "trade_id"]
    left, right = (client.ticks(symbol, DAY, ["event_time", "trade_id", "price"]).polars().sort(order) for symbol in (SPOT, FUTURE))
    theirs = left.join_asof(right, on="event_time", strategy="backward", suffix="_right")
    ours = client.asof(SPOT, FUTURE, DAY).polars().sort(order)
    assert ours["right_price"].to_list() == theirs["price_right"].to_list()
    assert ours["right_trade_id"].to_list() == theirs["trade_id_right"].to_list()


@settings(max_examples=60)
@given(
    left=st.lists(st.integers(0, 1200), min_size=1, max_size=12),
    right=st.lists(st.integers(0, 1200), max_size=12),
    cuts=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    tolerance=st.sampled_from([0, 100, 5000]),
)
def test_however_the_streams_are_cut(left: list[int], right: list[int], cuts: tuple[int, int], tolerance: int) -> None:
    """Seconds of event time within four slices; ids in any order of time within a slice."""

    def rows_of(seconds: list[int]) -> list[dict[str, Any]]:
        made = [trade(number, NOON + timedelta(seconds=at)) | {"available_at": NOON} for number, at in enumerate(seconds)]
        return sorted(made, key=lambda row: (row["bucket_5m"], row["trade_id"]))

    def batches(rows: list[dict[str, Any]], size: int) -> Iterator[pa.RecordBatch]:
        return iter(pa.Table.from_pylist(rows, TICKS).to_batches(max_chunksize=size))

    mine, others = rows_of(left), rows_of(right)
    joined = join_asof(batches(mine, cuts[0]), batches(others, cuts[1]), tolerance * 1_000_000)
    found = [row for batch in joined for row in batch.to_pylist()]
    expected = [last_before(row, others, timedelta(seconds=tolerance)) for row in mine]
    assert [row["right_trade_id"] for row in found] == [other and other["trade_id"] for other in expected]
    assert [row["trade_id"] for row in found] == [row["trade_id"] for row in mine]


def test_what_is_not_there_is_one_sentence(client: btc.ClientStore) -> None:
    with pytest.raises(UserError, match=r"^There is no symbol 'X' in this store: name one of BTCUSDT, BTCUSDT\.P\.$"):
        client.asof(SPOT, "X", DAY)
    with pytest.raises(UserError, match=r"^A tolerance of -1 day, 23:59:59\.999999 is below 0"):
        client.asof(SPOT, FUTURE, DAY, tolerance=-MICROSECOND)
    assert client.asof(SPOT, FUTURE, DAY, decimals="float").schema.field("right_price").type == pa.float64()
