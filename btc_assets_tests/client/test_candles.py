"""Candles of any interval are what the ticks say, whatever kept candles they are made of."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import btc_assets as btc
from btc_assets.client.candle_shapes import SCHEMA
from btc_assets.client.intervals import Grid, choose_level, parse_interval
from btc_assets.client.ranges import parse_range
from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import EPOCH, MICROSECOND, SLICE, ceil_slice, to_microseconds
from btc_assets.market_data.candles import INTERVALS
from btc_assets_tests.client.conftest import FUTURE, SPOT, Market
from btc_assets_tests.support.trades import NOON

DAY = "2024-01-10"
LATENCY = timedelta(seconds=90)


def candles_of(rows: Sequence[dict[str, Any]], width: timedelta) -> list[dict[str, Any]]:
    """Candles from ticks, by their definition: trade time, in the order of the ids."""
    found: dict[datetime, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row["trade_id"]):
        found.setdefault(row["trade_time"] - (row["trade_time"] - EPOCH) % width, []).append(row)
    return [candle(bucket, of_bucket, width) for bucket, of_bucket in sorted(found.items())]


def candle(bucket: datetime, rows: Sequence[dict[str, Any]], width: timedelta) -> dict[str, Any]:
    prices = [row["price"] for row in rows]
    bought = [row for row in rows if not row["is_market_maker"]]
    last_slice = max(row["bucket_5m"] for row in rows) + SLICE
    return {
        "bucket": bucket, "symbol": rows[0]["symbol"], "open": prices[0], "high": max(prices), "low": min(prices), "close": prices[-1],
        "volume": sum(row["quantity"] for row in rows), "quote_volume": sum(row["price"] * row["quantity"] for row in rows),
        "trade_count": len(rows), "taker_buy_volume": sum(row["quantity"] for row in bought),
        "taker_buy_quote_volume": sum(row["price"] * row["quantity"] for row in bought),
        "first_trade_id": rows[0]["trade_id"], "last_trade_id": rows[-1]["trade_id"],
        "available_at": max(last_slice, ceil_slice(bucket + width)) + LATENCY,
    }  # fmt: skip


@pytest.mark.parametrize("interval", [*INTERVALS, "2s", "7s", "90s", "3m", "7m", "15m", "25m", "4h", "7d"])
def test_candles_of_any_multiple_are_what_the_ticks_say(client: btc.ClientStore, market: Market, interval: str) -> None:
    width = parse_interval(interval).width
    assert width is not None
    found = client.candles(SPOT, interval, ("2024-01-04", "2024-01-18"))
    assert found.schema == SCHEMA
    assert found.arrow().to_pylist() == candles_of(market.of(SPOT), width)


@settings(max_examples=20)
@given(seconds=st.integers(1, 5000), start=st.integers(-6000, 6000), length=st.integers(5000, 20_000))
def test_a_candle_does_not_depend_on_the_range_that_it_is_asked_for_with(
    client: btc.ClientStore, market: Market, seconds: int, start: int, length: int
) -> None:
    width, first = timedelta(seconds=seconds), NOON + timedelta(seconds=start)
    end = first + timedelta(seconds=length)
    found = client.candles(SPOT, width, (first, end)).arrow().to_pylist()
    assert found == [one for one in candles_of(market.of(SPOT), width) if first <= one["bucket"] < end]


def test_several_symbols_come_in_the_order_of_time(client: btc.ClientStore, market: Market) -> None:
    found = client.candles([FUTURE, SPOT], "15m", DAY).arrow().to_pylist()
    both = candles_of(market.of(SPOT), timedelta(minutes=15)) + candles_of(market.of(FUTURE), timedelta(minutes=15))
    assert found == sorted(both, key=lambda row: (row["bucket"], row["symbol"]))


def test_floats_of_candles_are_nearest_to_the_decimals(client: btc.ClientStore) -> None:
    exact, floats = (client.candles(SPOT, "5m", DAY, decimals=decimals).arrow() for decimals in ("exact", "float"))
    for name in ("open", "volume", "quote_volume"):
        assert floats[name].to_pylist() == [float(value) for value in exact[name].to_pylist()]


def test_days_of_a_time_zone_begin_at_its_midnights_also_where_clocks_change() -> None:
    """In 2024, Berlin's clocks go forward on March 31 and back on October 27."""
    zone = ZoneInfo("Europe/Berlin")
    grid = parse_interval("day", "Europe/Berlin").grid(parse_range(("2024-03-30T00:00+01:00", "2024-11-01")))
    edges = [EPOCH + int(edge) * MICROSECOND for edge in grid.starts(0, grid.count + 1)]
    local = [edge.astimezone(zone) for edge in edges]
    assert all((one.hour, one.minute) == (0, 0) for one in local)
    assert [one.date() for one in local] == [date(2024, 3, 30) + timedelta(days=number) for number in range(len(local))]
    lengths = {one.date(): (later - edge) // timedelta(hours=1) for one, edge, later in zip(local, edges, edges[1:], strict=False)}
    assert {day: hours for day, hours in lengths.items() if hours != 24} == {date(2024, 3, 31): 23, date(2024, 10, 27): 25}
    assert choose_level(parse_interval("day", "Europe/Berlin"), grid, INTERVALS) == "1h"


@pytest.mark.parametrize(
    ("interval", "tz", "around", "starts"),
    [
        ("week", "UTC", ("2024-01-01", "2024-01-20"), ["2024-01-01T00:00", "2024-01-08T00:00", "2024-01-15T00:00", "2024-01-22T00:00"]),
        ("week", "America/New_York", ("2024-03-01", "2024-03-12"), ["2024-03-04T05:00", "2024-03-11T04:00", "2024-03-18T04:00"]),
        ("month", "Asia/Kolkata", ("2023-12-01", "2024-01-31"), ["2023-12-31T18:30", "2024-01-31T18:30"]),
        ("quarter", "UTC", "2024", ["2024-01-01T00:00", "2024-04-01T00:00", "2024-07-01T00:00", "2024-10-01T00:00", "2025-01-01T00:00"]),
        ("year", "UTC", ("2019-05-01", "2021-01-02"), ["2020-01-01T00:00", "2021-01-01T00:00", "2022-01-01T00:00"]),
        # Clocks go forward at midnight: the day begins at 01:00. They go back at 01:00: it begins at the first of two midnights.
        ("day", "America/Sao_Paulo", ("2018-11-04T01:00", "2018-11-05"), ["2018-11-04T03:00", "2018-11-05T02:00"]),
        ("day", "America/Havana", ("2023-11-05T01:00", "2023-11-06"), ["2023-11-05T04:00", "2023-11-06T05:00"]),
        # Samoa went without 2011-12-30.
        ("day", "Pacific/Apia", ("2011-12-29T01:00", "2011-12-31"), ["2011-12-29T10:00", "2011-12-30T10:00", "2011-12-31T10:00"]),
    ],
)  # fmt: skip
def test_a_calendar_begins_where_people_say_it_does(interval: str, tz: str, around: object, starts: list[str]) -> None:
    grid = parse_interval(interval, tz).grid(parse_range(around))
    assert grid.starts(0, grid.count + 1).tolist() == [
        to_microseconds(datetime.fromisoformat(start).replace(tzinfo=UTC)) for start in starts
    ]
    assert grid.ends_of(grid.starts(0, grid.count)).tolist() == grid.starts(1, grid.count + 1).tolist()
    assert grid.numbers(grid.starts(0, grid.count)).tolist() == list(range(grid.count))


@pytest.mark.parametrize(("tz", "level"), [("UTC", "1d"), ("Europe/Berlin", "1h"), ("Asia/Kathmandu", "5m")])
def test_candles_of_a_calendar_are_those_of_its_days(client: btc.ClientStore, market: Market, tz: str, level: str) -> None:
    rows = market.of(SPOT)
    for interval, start in (("day", datetime(2024, 1, 10)), ("week", datetime(2024, 1, 8)), ("month", datetime(2024, 1, 1))):
        asked = parse_interval(interval, tz)
        assert choose_level(asked, asked.grid(parse_range(("2023-11-01", "2024-01-25"))), INTERVALS) == level
        [found] = client.candles(SPOT, interval, ("2023-12-20", "2024-01-11"), tz=tz).arrow().to_pylist()
        assert found["bucket"] == start.replace(tzinfo=ZoneInfo(tz)).astimezone(UTC)
        expected = candle(found["bucket"], sorted(rows, key=lambda row: row["trade_id"]), timedelta(0))
        assert {name: found[name] for name in found if name != "available_at"} == {
            name: expected[name] for name in expected if name != "available_at"
        }


def test_a_range_from_year_1_and_a_zone_as_an_object_are_taken(client: btc.ClientStore) -> None:
    [found] = client.candles(SPOT, "month", ("0001-01-01", "2024-01-11"), tz="America/New_York").arrow().to_pylist()
    [same] = client.candles(SPOT, "month", ("2023-12-20", "2024-01-11"), tz=ZoneInfo("America/New_York")).arrow().to_pylist()  # type: ignore[arg-type]
    assert found == same


@pytest.mark.parametrize(
    ("interval", "tz", "sentence"),
    [
        ("250ms", "UTC", "Candles of 250ms cannot be built from those that this store keeps (1s, 30s, 1m, 5m, 1h, 1d): name a multiple of 1s,"),
        ("1500ms", "UTC", "Candles of 1500ms cannot be built from those that this store keeps"),
        ("0m", "UTC", "'0m' is no interval: write one such as 3m, 4h or 7d, or day, week, month, quarter, year."),
        ("-5m", "UTC", "'-5m' is no interval"),
        ("fortnight", "UTC", "'fortnight' is no interval"),
        ("999999999d", "UTC", "No candle of 999999999d starts in the range from 2024-01-10 to 2024-01-11: name a longer one, or a shorter"),
        (timedelta(0), "UTC", "'0:00:00' is no interval"),
        ("1h", "Europe/Berlin", "A time zone says nothing about an interval of 1h: name day, week, month, quarter, year with it."),
        ("day", "Europe/Atlantis", "There is no time zone 'Europe/Atlantis': name one such as UTC, Europe/Berlin or America/New_York."),
        ("day", "../etc/passwd", "There is no time zone '../etc/passwd': name one such as"),
        ("month", "UTC", "No candle of month starts in the range from 2024-01-10 to 2024-01-11: name a longer one, or a shorter interval."),
    ],
)  # fmt: skip
def test_an_interval_that_cannot_be_built_is_one_sentence(
    client: btc.ClientStore, interval: str | timedelta, tz: str, sentence: str
) -> None:
    with pytest.raises(UserError) as raised:
        client.candles(SPOT, interval, DAY, tz=tz)
    assert sentence in str(raised.value) and str(raised.value).endswith(".")


def test_unknown_symbols_are_told_with_the_known_ones(client: btc.ClientStore) -> None:
    with pytest.raises(UserError, match=r"^There is no symbol 'X' in this store: name one of BTCUSDT, BTCUSDT\.P\.$"):
        client.candles([SPOT, "X"], "1m", DAY)
    with pytest.raises(UserError, match=r"^No symbol is named: name at least one\.$"):
        client.candles([], "1m", DAY)


def test_a_range_that_reaches_into_the_future_ends_now(client: btc.ClientStore) -> None:
    assert client.candles(SPOT, "day", ("2024-01-10", "9999-12-31")).arrow().num_rows == 1
    assert client.candles(SPOT, "1s", ("2024-01-10", "9999-12-31")).head(2).num_rows == 2


def test_the_head_of_candles_is_the_first_of_them(client: btc.ClientStore) -> None:
    found = client.candles([SPOT, FUTURE], "1m", DAY)
    assert found.head(7) == found.arrow().slice(0, 7)


def test_volumes_are_sums_without_rounding(client: btc.ClientStore, market: Market) -> None:
    total = sum((row["price"] * row["quantity"] for row in market.of(FUTURE)), Decimal(0))
    assert sum(client.candles(FUTURE, "7m", DAY).arrow()["quote_volume"].to_pylist()) == total
    assert np.isclose(client.candles(FUTURE, "7m", DAY, decimals="float").numpy()["quote_volume"].sum(), float(total))


def filled(rows: Sequence[dict[str, Any]], width: timedelta, start: datetime, end: datetime) -> list[dict[str, Any]]:
    """Candles from ticks with those of quiet intervals, one after the other."""
    real = {one["bucket"]: one for one in candles_of(rows, width)}
    last_slice = max(row["bucket_5m"] for row in rows) + SLICE
    found, close, bucket = [], None, EPOCH + (start - EPOCH) // width * width - 400 * width
    while bucket < end:
        if bucket in real:
            close = real[bucket]["close"]
        if bucket >= start and (bucket in real or (close is not None and bucket < last_slice)):
            quiet = {
                "bucket": bucket, "symbol": rows[0]["symbol"], **dict.fromkeys(("open", "high", "low", "close"), close),
                **dict.fromkeys(("volume", "quote_volume", "taker_buy_volume", "taker_buy_quote_volume"), Decimal(0)), "trade_count": 0,
                "first_trade_id": None, "last_trade_id": None, "available_at": ceil_slice(bucket + width) + LATENCY,
            }  # fmt: skip
            found.append(real.get(bucket, quiet))
        bucket += width
    return found


@given(
    seconds=st.integers(20, 900), start=st.integers(-3000, 6000), length=st.integers(1300, 9000), at_once=st.sampled_from([2, 7, 65_536])
)
def test_quiet_intervals_have_the_close_before_them(
    client: btc.ClientStore, market: Market, seconds: int, start: int, length: int, at_once: int
) -> None:
    width, first = timedelta(seconds=seconds), NOON + timedelta(seconds=start)
    end = first + timedelta(seconds=length)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("btc_assets.client.candle_shapes._INTERVALS", at_once)
        found = client.candles([SPOT, FUTURE], width, (first, end), fill=True)
        assert found.schema == SCHEMA
        both = filled(market.of(SPOT), width, first, end) + filled(market.of(FUTURE), width, first, end)
        assert found.arrow().to_pylist() == sorted(both, key=lambda row: (row["bucket"], row["symbol"]))


def test_the_close_before_a_range_may_be_that_of_an_earlier_day(client: btc.ClientStore, market: Market) -> None:
    """Nothing is known after the last slice of a symbol, so no candle is made up there."""
    assert client.candles(SPOT, "1m", ("2024-01-11", "2024-01-12"), fill=True).arrow().num_rows == 0
    first_minute = NOON + timedelta(minutes=12)
    [found] = client.candles(SPOT, "1m", (first_minute, first_minute + timedelta(minutes=1)), fill=True).arrow().to_pylist()
    before = [row for row in market.of(SPOT) if row["trade_time"] < first_minute]
    assert (found["close"], found["trade_count"]) == (max(before, key=lambda row: row["trade_id"])["price"], 0)


def test_years_before_the_first_trade_are_not_gone_through(
    client: btc.ClientStore, market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    starts = Grid.starts

    def count(grid: Grid, begin: int, end: int) -> np.ndarray:
        counted.append(end - begin)
        return starts(grid, begin, end)

    monkeypatch.setattr(Grid, "starts", count)
    first = market.of(SPOT)[0]["trade_time"].replace(microsecond=0)
    assert client.candles(SPOT, "1s", ("1970-01-01", "2024-01-11"), fill=True).head(1)["bucket"].to_pylist() == [first]
    assert sum(counted) < 10**6  # of 1.7 billion seconds


def test_candles_of_two_symbols_side_by_side_are_those_of_each(client: btc.ClientStore) -> None:
    for fill in (False, True):
        wide = client.candles([SPOT, FUTURE], "20s", DAY, fill=fill, wide=True)
        long = client.candles([SPOT, FUTURE], "20s", DAY, fill=fill).arrow().to_pylist()
        rows = wide.arrow().to_pylist()
        assert wide.columns[:4] == ["bucket", "open_BTCUSDT", "high_BTCUSDT", "low_BTCUSDT"] and wide.columns[-1] == "available_at"
        assert [row["bucket"] for row in rows] == sorted({row["bucket"] for row in long})
        for symbol in (SPOT, FUTURE):
            of_symbol = {row["bucket"]: row for row in long if row["symbol"] == symbol}
            for name in ("open", "quote_volume", "trade_count", "last_trade_id"):
                assert [row[f"{name}_{symbol}"] for row in rows] == [of_symbol.get(row["bucket"], {}).get(name) for row in rows]
        assert [row["available_at"] for row in rows] == [
            max(row["available_at"] for row in long if row["bucket"] == bucket) for bucket in sorted({row["bucket"] for row in long})
        ]


def test_candles_have_the_columns_that_are_asked_for(client: btc.ClientStore) -> None:
    assert client.candles(SPOT, "1m", DAY, ["close", "bucket"]).arrow().column_names == ["close", "bucket"]
    wide = client.candles([SPOT, FUTURE], "1m", DAY, ["close"], wide=True)
    assert wide.columns == wide.arrow().column_names == ["bucket", "close_BTCUSDT", "close_BTCUSDT.P"]
    with pytest.raises(UserError, match=r"^There is no column 'vwap' in candles: name some of bucket, symbol, open,"):
        client.candles(SPOT, "1m", DAY, ["vwap"])


def test_the_basis_is_the_perpetual_over_spot(client: btc.ClientStore) -> None:
    closes = client.candles([SPOT, FUTURE], "1m", DAY, ["close"], fill=True, wide=True, decimals="float").polars()
    basis = closes.select("bucket", basis=closes["close_BTCUSDT.P"] / closes["close_BTCUSDT"] - 1).drop_nulls()
    assert len(basis) > 80 and all(abs(value) < 0.01 for value in basis["basis"].to_list())
