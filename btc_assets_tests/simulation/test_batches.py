"""Batches are the trades in their order, cut as the collector cuts them and written as it writes them."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from btc_assets.domain.feeds import Feed
from btc_assets.landing.decode import decode
from btc_assets.landing.formats import read_object
from btc_assets.landing.raw import ObjectRejected
from btc_assets.simulation.batches import BatchLimits, cut_batches, encode_batch, encode_batches
from btc_assets_tests.support.collected import decoded, ids, pieces
from btc_assets_tests.support.stores import FEED
from btc_assets_tests.support.trades import NOON, every, table, trade


@pytest.mark.parametrize(
    ("seconds_apart", "limits"),
    [(5, BatchLimits(seconds=15)), (60, BatchLimits(seconds=3600, rows=3))],
    ids=["its time is over", "it is full"],
)
def test_a_batch_closes_when(seconds_apart: float, limits: BatchLimits) -> None:
    assert [ids(batch) for batch in cut_batches(iter([every(seconds_apart, 7)]), limits)] == [[1, 2, 3], [4, 5, 6], [7]]


steps = st.lists(st.one_of(st.integers(0, 10**7), st.integers(-(10**8), 10**9)), max_size=60)
lengths = st.lists(st.integers(0, 12), max_size=20)


@given(steps, lengths, st.floats(1e-7, 100), st.integers(1, 10))
@example([0] * 10, [3, 0, 7], 15.0, 5)
def test_batches_are_the_trades_in_their_order_however_the_tables_are_cut(
    steps: list[int], lengths: list[int], seconds: float, rows: int
) -> None:
    times = [NOON + timedelta(microseconds=int(us)) for us in np.cumsum(steps)]
    ticks = table([trade(i, at) for i, at in enumerate(times)])
    batches = list(cut_batches(pieces(ticks, lengths), BatchLimits(seconds, rows)))
    assert pa.concat_tables([ticks.slice(0, 0), *batches]).equals(ticks)  # none is lost, none comes twice
    assert [ids(batch) for batch in batches] == [ids(batch) for batch in cut_batches(iter([ticks]), BatchLimits(seconds, rows))]
    width = max(timedelta(seconds=seconds), timedelta(microseconds=1))
    for batch in batches:
        times = batch["event_time"].to_pylist()
        assert 1 <= len(times) <= rows
        assert all(abs(time - times[0]) < width for time in times)
    for batch, following in pairwise(batches):
        first, closing = batch["event_time"][0].as_py(), following["event_time"][0].as_py()
        assert len(batch) == rows or abs(closing - first) >= width - timedelta(microseconds=1)  # none closes early


def collector_rows(ticks: pa.Table) -> pa.Table:
    return pq.read_table(io.BytesIO(encode_batch(ticks, FEED)[1]))


def test_an_object_has_the_columns_and_types_of_the_collector() -> None:
    at = datetime(2024, 1, 10, 12, 0, 1, tzinfo=UTC)
    rows = collector_rows(
        table(
            [
                trade(7, at, price="42000.01", quantity="0.00015", made=at - timedelta(milliseconds=1), maker=True),
                trade(8, at + timedelta(microseconds=123), made=at),
            ]
        )
    )
    assert rows.to_pylist() == [
        {
            "event_time": "2024-01-10T12:00:01+00:00", "trade_time": "2024-01-10T12:00:00.999000+00:00", "symbol": "BTCUSDT", "trade_id": 7,
            "price": 42000.01, "quantity": 0.00015, "buyer_order_id": None, "seller_order_id": None, "is_market_maker": True,
        },
        {
            "event_time": "2024-01-10T12:00:01.000123+00:00", "trade_time": "2024-01-10T12:00:01+00:00", "symbol": "BTCUSDT", "trade_id": 8,
            "price": 42000.5, "quantity": 0.25, "buyer_order_id": None, "seller_order_id": None, "is_market_maker": False,
        },
    ]  # fmt: skip
    types = {field.name: str(field.type) for field in rows.schema}
    assert types == {
        "event_time": "string", "trade_time": "string", "symbol": "string", "trade_id": "int64", "price": "double", "quantity": "double",
        "buyer_order_id": "null", "seller_order_id": "null", "is_market_maker": "bool",
    }  # fmt: skip


def test_order_ids_are_integers_if_a_batch_has_any() -> None:
    rows = collector_rows(table([trade(1, NOON, buyer=2**62), trade(2, NOON)]))
    assert rows["buyer_order_id"].to_pylist() == [2**62, None]
    assert str(rows.schema.field("seller_order_id").type) == "null"


@given(st.lists(st.datetimes(datetime(2009, 1, 4), datetime(2099, 12, 31)), min_size=1))
def test_times_are_written_as_python_writes_them(times: list[datetime]) -> None:
    utc = [time.replace(tzinfo=UTC) for time in times]
    assert collector_rows(table([trade(1, time) for time in utc]))["event_time"].to_pylist() == [time.isoformat() for time in utc]


@given(st.lists(st.integers(1, 10**15), min_size=1))
def test_prices_and_quantities_are_the_floats_nearest_to_them(units: list[int]) -> None:
    values = [Decimal(unit).scaleb(-8) for unit in units]
    rows = collector_rows(table([trade(1, NOON, price=str(value), quantity=str(value)) for value in values]))
    assert rows["price"].to_pylist() == rows["quantity"].to_pylist() == [float(value) for value in values]


def test_an_object_spells_the_symbol_as_the_exchange_does_and_decodes_to_its_label() -> None:
    futures = Feed("Binance/BTCUSDT_UM", "BTCUSDT", "BTCUSDT_UM")
    ticks = table([trade(1, NOON, symbol="BTCUSDT_UM")])
    _, data = encode_batch(ticks, futures)
    assert pq.read_table(io.BytesIO(data))["symbol"].to_pylist() == ["BTCUSDT"]
    assert decoded(data, futures).equals(ticks)


def test_an_object_lies_in_the_folder_of_the_minute_in_which_its_batch_was_opened() -> None:
    batches = [every(1, 3), every(1, 3, start=NOON + timedelta(minutes=7))]
    assert [path.rsplit("/", 1)[0] for path, _ in encode_batches(batches, FEED)] == [
        "Binance/BTCUSDT/2024/01/10/12/00",
        "Binance/BTCUSDT/2024/01/10/12/07",
    ]
    opened = [NOON - timedelta(seconds=1), NOON + timedelta(minutes=6)]
    assert [path.rsplit("/", 1)[0] for path, _ in encode_batches(batches, FEED, opened)] == [
        "Binance/BTCUSDT/2024/01/10/11/59",
        "Binance/BTCUSDT/2024/01/10/12/06",
    ]


def test_an_object_is_the_same_alone_and_among_others() -> None:
    first, second = every(1, 30), every(1, 40, first_id=31)
    assert list(encode_batches([first, second], FEED)) == [encode_batch(first, FEED), encode_batch(second, FEED)]


def test_a_flipped_byte_in_an_object_never_gives_other_trades() -> None:
    ticks = every(1, 300)
    _, data = encode_batch(ticks, FEED)
    noticed = 0
    for at in range(4, len(data), len(data) // 150):
        try:
            (raw,) = read_object(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])[1]
            assert decode(raw, [FEED]).ticks.cast(ticks.schema).equals(ticks)
        except ObjectRejected:
            noticed += 1
    assert noticed > 100
