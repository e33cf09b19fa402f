"""Ticks come out as they were loaded, of exactly the range that was asked for."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timedelta
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import btc_assets as btc
from btc_assets.client.ticks import SCHEMA
from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import MICROSECOND, SLICE
from btc_assets.domain.ticks import TICK_SCHEMA, float64
from btc_assets_tests.client.conftest import FUTURE, SPOT, Market
from btc_assets_tests.support.trades import NOON

HOUR = timedelta(hours=1)
ALL = (NOON - HOUR, NOON + 2 * HOUR)


def test_ticks_are_what_was_loaded_in_the_order_of_slices_and_ids(client: btc.ClientStore, market: Market) -> None:
    for symbol in (SPOT, FUTURE):
        found = client.ticks(symbol, ALL).arrow()
        assert found.schema == SCHEMA
        assert found.select(TICK_SCHEMA.names).to_pylist() == market.of(symbol)


@pytest.mark.parametrize("by", ["event_time", "trade_time"])
@settings(max_examples=20)
@given(first=st.integers(0, 3000), length=st.integers(1, 2_000_000_000), shift=st.integers(-2, 2))
def test_a_range_is_exact_to_the_microsecond(client: btc.ClientStore, market: Market, by: str, first: int, length: int, shift: int) -> None:
    rows = market.of(SPOT)
    start: datetime = rows[first][by] + shift * MICROSECOND
    end = start + length * MICROSECOND
    found = client.ticks(SPOT, (start, end), ["trade_id"], by=by).arrow()["trade_id"].to_pylist()
    assert found == [row["trade_id"] for row in rows if start <= row[by] < end]


def test_a_trade_that_is_reported_late_belongs_to_two_ranges(client: btc.ClientStore, market: Market) -> None:
    late = next(row for row in market.of(SPOT) if row["trade_time"] < row["bucket_5m"])
    before = (late["bucket_5m"] - SLICE, late["bucket_5m"])
    assert late["trade_id"] not in client.ticks(SPOT, before).arrow()["trade_id"].to_pylist()
    assert late["trade_id"] in client.ticks(SPOT, before, by="trade_time").arrow()["trade_id"].to_pylist()


def test_a_tick_is_available_once_its_slice_is_over_and_was_loaded(client: btc.ClientStore, market: Market) -> None:
    found = client.ticks(SPOT, ALL, ["bucket_5m", "available_at"]).arrow().to_pylist()
    assert {row["available_at"] - row["bucket_5m"] for row in found} == {SLICE + timedelta(seconds=90)}
    assert all(row["available_at"] > tick["event_time"] for row, tick in zip(found, market.of(SPOT), strict=True))
    alone = client.ticks(SPOT, ALL, ["available_at"]).arrow()
    assert alone.column_names == ["available_at"] and alone["available_at"].to_pylist() == [row["available_at"] for row in found]


def test_columns_come_in_the_order_in_which_they_are_named(client: btc.ClientStore, market: Market) -> None:
    found = client.ticks(SPOT, ALL, ["price", "trade_id", "price"])
    assert found.columns == ["price", "trade_id"]
    assert found.arrow().to_pylist() == [{name: row[name] for name in found.columns} for row in market.of(SPOT)]


def test_floats_are_those_that_are_nearest_to_the_decimals(client: btc.ClientStore, market: Market) -> None:
    found = client.ticks(SPOT, ALL, ["price", "quantity"], decimals="float").arrow()
    assert found.schema.types == [pa.float64(), pa.float64()]
    for name in ("price", "quantity"):
        assert found[name].to_pylist() == [float(row[name]) for row in market.of(SPOT)]
    exact = client.ticks(SPOT, ALL, ["price"]).arrow()["price"]
    assert exact.type == TICK_SCHEMA.field("price").type and float64(exact).tolist() == found["price"].to_pylist()


def test_the_head_is_the_first_rows(client: btc.ClientStore, market: Market) -> None:
    assert client.ticks(SPOT, ALL, TICK_SCHEMA.names).head(3).to_pylist() == market.of(SPOT)[:3]
    assert client.ticks(SPOT, ALL).head().num_rows == 5


def test_a_range_without_ticks_is_empty(client: btc.ClientStore) -> None:
    assert client.ticks(SPOT, (NOON + timedelta(minutes=12), NOON + timedelta(minutes=13))).arrow().num_rows == 0


@pytest.mark.parametrize(
    ("arguments", "options", "sentence"),
    [
        (("ETHUSDT", ALL), {}, "There is no symbol 'ETHUSDT' in this store: name one of BTCUSDT, BTCUSDT.P."),
        ((SPOT, ("2024-01-08", "2024-01-09")), {}, "The range from 2024-01-08 to 2024-01-09 lies before the first tick of BTCUSDT at"),
        ((SPOT, ("2099-01-08", "2099-01-09")), {}, "lies in the future, where nothing is stored"),
        ((SPOT, ALL, ["prise"]), {}, "There is no column 'prise' in ticks: name some of bucket_5m, event_time, trade_time, symbol,"),
        ((SPOT, ALL, []), {}, "No column of ticks is named: name some of bucket_5m,"),
        ((SPOT, ALL), {"by": "time"}, "by='time' is unknown: write by=\"event_time\" or by=\"trade_time\"."),
        ((SPOT, ALL), {"decimals": "double"}, "decimals='double' is unknown: write decimals=\"exact\" or decimals=\"float\"."),
    ],
)  # fmt: skip
def test_what_is_not_there_is_one_sentence_before_anything_is_read(
    client: btc.ClientStore, arguments: tuple[object, ...], options: dict[str, str], sentence: str
) -> None:
    with pytest.raises(UserError) as raised:
        client.ticks(*arguments, **options)  # type: ignore[arg-type]
    assert sentence in str(raised.value) and str(raised.value).endswith(".") and "\n" not in str(raised.value)


def test_decimals_are_exact_to_the_last_digit(client: btc.ClientStore, market: Market) -> None:
    found = client.ticks(SPOT, ALL, ["price", "quantity"]).arrow()
    total = sum((row["price"] * row["quantity"] for row in market.of(SPOT)), Decimal(0))
    assert sum(price * quantity for price, quantity in zip(*found.to_pydict().values(), strict=True)) == total


def test_the_first_batch_does_not_wait_for_pandas(market: Market) -> None:
    """Arrow imports it in `pa.array`, `pa.scalar` and `to_numpy` wherever it is installed; that takes longer than the batch."""
    program = (
        "import sys, btc_assets as btc\n"
        "batches = btc.connect(sys.argv[1]).ticks('BTCUSDT', ('2024-01-10T12:00', '2024-01-10T12:10')).batches()\n"
        "assert batches.read_next_batch().num_rows\n"
        "sys.exit('pandas' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, market.dsn], check=True)
