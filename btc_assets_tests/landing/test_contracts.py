"""Contracts of an inverse contract are never taken for coins."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_assets.domain.feeds import Feed
from btc_assets.domain.slices import Window, floor_slice
from btc_assets.landing.raw import ObjectRejected
from btc_assets_tests.support.paths import case_file
from btc_assets_tests.support.producers import csv, parquet, read
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import HOUR, eight_decimals

MS_NOON = 1_704_888_000_000
NAMES = ["id", "price", "qty", "quote_qty", "time", "is_buyer_maker"]


def dump(prices: list[Decimal], quantities: list[Decimal], fourth: list[str], *, header: bool = False, name: str = "quote_qty") -> bytes:
    count = len(prices)
    columns = [range(count), map(str, prices), map(str, quantities), fourth, [MS_NOON + i for i in range(count)], ["true"] * count]
    names = [name if each == "quote_qty" else each for each in NAMES]
    return csv(pa.table([pa.array([str(value) for value in column]) for column in columns], names=names), header=header)


def inverse(size: int, count: int = 30) -> tuple[list[Decimal], list[Decimal], list[str]]:
    prices = [Decimal("91250.1") + i for i in range(count)]
    contracts = [Decimal(1 + i) for i in range(count)]
    return prices, contracts, [str(round(size * each / price, 8)) for each, price in zip(contracts, prices, strict=True)]


def refused(content: bytes, *feeds: Feed) -> str:
    with pytest.raises(ObjectRejected) as caught:
        read(content, *feeds)
    return str(caught.value)


def test_a_dump_with_base_qty_gives_coins_and_not_contracts(store: StoreUnderTest) -> None:
    content = case_file("17-coin-m", "BTCUSD_PERP-trades.csv").read_bytes()
    first = read(content).ticks["trade_time"][0].as_py()
    store.put(f"{first:%Y/%m/%d/%H/%M}/coin-m.csv", content)
    start = floor_slice(first)
    store.ingest(Window(start, start + timedelta(hours=1)))
    ((volume, quote),) = store.rows("SELECT sum(volume), sum(quote_volume) FROM market_data.candles_1m")
    assert abs(volume - Decimal("4.99533")) < Decimal("0.00001")
    assert abs(quote - 456_000) < 1


@pytest.mark.parametrize("name", ["base_qty", "baseQty"])
def test_coins_come_before_contracts_in_json_and_parquet(name: str) -> None:
    rows = [{"id": i, "price": "91250.0", "qty": "7", name: "0.0767123", "time": MS_NOON, "isBuyerMaker": True} for i in range(3)]
    for content in (b"\n".join(map(orjson.dumps, rows)), parquet(pa.Table.from_pylist(rows))):
        assert read(content).ticks["quantity"].to_pylist() == [Decimal("0.0767123")] * 3


@pytest.mark.parametrize("size", [1, 10, 50, 100, 1000])
def test_a_headerless_dump_of_contracts_is_refused_with_the_size_of_the_contract(size: int) -> None:
    assert refused(dump(*inverse(size))) == (
        f"its quantities are contracts of {size} of an inverse contract, and its column quote_qty (the fourth, without a header line) holds "
        "their coins: add a header line in which that column is base_qty"
    )
    assert read(dump(*inverse(size), header=True, name="base_qty")).rejected == []


def test_a_headerless_dump_whose_case_lost_its_header_is_refused() -> None:
    lines = case_file("17-coin-m", "BTCUSD_PERP-trades.csv").read_bytes().split(b"\n", 1)[1]
    assert refused(lines).startswith("its quantities are contracts of 100 of an inverse contract")


@pytest.mark.parametrize("header", [True, False])
def test_a_column_that_contradicts_price_times_quantity_is_refused(header: bool) -> None:
    prices, contracts, _ = inverse(100)
    assert refused(dump(prices, contracts, [str(100 * each) for each in contracts], header=header)) == (
        "its column quote_qty (the fourth, without a header line) is not price times quantity, so the quantities may be contracts: name the "
        "column of coins base_qty in the header line, or correct it"
    )


@given(st.lists(st.tuples(eight_decimals(200_000), eight_decimals(500)), min_size=1, max_size=20), st.integers(0, 16), st.booleans())
def test_a_product_of_any_rounding_passes(trades: list[tuple[Decimal, Decimal]], places: int, header: bool) -> None:
    prices, quantities = [price for price, _ in trades], [quantity for _, quantity in trades]
    for products in (
        [f"{round(price * quantity, places):f}" for price, quantity in trades],
        [repr(float(price * quantity)) for price, quantity in trades],
        [f"{price * quantity:.4e}" for price, quantity in trades],
        [""] * len(trades),
    ):
        assert len(read(dump(prices, quantities, products, header=header)).ticks) == len(trades)


def test_a_few_wrong_products_hold_up_no_dump() -> None:
    prices, quantities = [Decimal(42_000 + i) for i in range(10)], [Decimal(2)] * 10
    products = [str(2 * price) for price in prices]
    assert len(read(dump(prices, quantities, [*products[:8], "1", "abc"])).ticks) == 10


@pytest.mark.parametrize("feed", [Feed("a", "BTCUSD_PERP", "CM"), Feed("a", "BTCUSDT", "CM", market="cm")])
def test_what_comes_from_a_feed_of_contracts_without_coins_is_refused(feed: Feed) -> None:
    message = {"e": "trade", "E": MS_NOON, "T": MS_NOON, "s": feed.symbol, "t": 1, "p": "91250.1", "q": "7", "m": True, "X": "MARKET"}
    sentence = (
        "the quantities of CM are contracts of an inverse contract, and no column base_qty tells their coins: land it with that column, as in "
        "the exchange's dumps"
    )
    assert refused(orjson.dumps(message), feed) == sentence
    spot = Feed("a", "ETHUSDT", "ETH")
    both = read(orjson.dumps(message) + b"\n" + orjson.dumps(message | {"s": "ETHUSDT", "t": 2}), feed, spot)
    assert both.rejected == [(1, "its quantity is in contracts, and no column base_qty tells the coins")]
    assert both.ticks["symbol"].to_pylist() == ["ETH"]


def test_of_many_small_dumps_those_of_contracts_are_refused_alone(store: StoreUnderTest) -> None:
    good = [Decimal(42_000)], [Decimal(2)], ["84000"]
    for i in range(5):
        store.put(f"2024/01/10/12/00/good-{i}.csv", dump(*good))
    bad = store.put("2024/01/10/12/00/contracts.csv", dump(*inverse(100)))
    store.register(HOUR)
    assert store.rows("SELECT uri FROM landing.raw_blobs_5m WHERE status = 'rejected'") == [(bad,)]
