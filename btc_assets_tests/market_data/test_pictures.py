"""Pictures for the UI: well-formed, small, true to what they show."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from xml.etree import ElementTree

import pyarrow as pa
import pytest

from btc_assets.domain.slices import DAY, SLICE, Window
from btc_assets.market_data.candles import COLUMNS, WIDTHS
from btc_assets.market_data.continuity import Gap
from btc_assets.market_data.pictures import VolumeStrips, draw_candles
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import HOUR, NOON, every

SVG = "{http://www.w3.org/2000/svg}"
UP, DOWN, VOLUME, MISSING = "#26a269", "#d73027", "#5b8def", "#e5484d"


def text(svg: str) -> list[str]:
    return ["".join(element.itertext()) for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def sticks(svg: str, color: str) -> list[int]:
    """How many lines each path of a color has."""
    paths = ElementTree.fromstring(svg).iter(f"{SVG}path")
    return [path.get("d", "").count("v") for path in paths if path.get("stroke") == color]


def shapes(svg: str, color: str) -> int:
    return sum(path.get("d", "").count("M") for path in ElementTree.fromstring(svg).iter(f"{SVG}path") if path.get("fill") == color)


def candle(i: int, open_: str, high: str, low: str, close: str, *, width: timedelta = SLICE) -> tuple[object, ...]:
    values = {"bucket": NOON + i * width, "symbol": "BTCUSDT"} | dict(
        zip(("open", "high", "low", "close"), map(Decimal, (open_, high, low, close)), strict=True)
    )
    return tuple(values.get(name) for name in COLUMNS)


def strip(window: Window, *tables: pa.Table, gaps: tuple[Gap, ...] = (), symbol: str = "BTCUSDT") -> str:
    strips = VolumeStrips(window, [symbol])
    for ticks in tables:
        strips.add(ticks)
    return strips.draw(gaps)[symbol]


def test_each_candle_has_a_body_in_the_color_of_its_direction_and_a_wick_if_it_went_further() -> None:
    rows = [candle(0, "100", "105", "99", "104"), candle(1, "104", "104", "101", "101"), candle(2, "101", "103", "100", "102")]
    svg = draw_candles(rows, "5m", "BTCUSDT", HOUR)
    assert sticks(svg, UP) == [2, 2]  # wicks, bodies
    assert sticks(svg, DOWN) == [1]  # from its high to its low: all body
    assert text(svg)[0] == "BTCUSDT, 5m candles, 2024-01-10 12:00 to 13:00 UTC: 3 of them, 100 to 102 (+2.00%)"
    assert {"12:10", "12:50", "100", "105"} <= set(text(svg))


def test_a_day_of_candles_is_small_enough_for_an_event_log() -> None:
    rows = [
        candle(i, f"{42000 + i * 7 % 90}.5", f"{42100 + i * 13 % 70}", f"{41900 - i * 3 % 40}.25", f"{42000 + i * 11 % 95}")
        for i in range(288)
    ]
    svg = draw_candles(rows, "5m", "BTCUSDT", Window(NOON, NOON + DAY))
    assert sum(sticks(svg, UP) + sticks(svg, DOWN)) == 2 * 288
    assert len(svg) < 12_000


@pytest.mark.parametrize("price", ["0.00000001", "1", "42000.5", "90000000"])
def test_one_candle_of_a_constant_price_is_drawn(price: str) -> None:
    svg = draw_candles([candle(3, price, price, price, price)], "5m", "BTCUSDT", HOUR)
    assert sticks(svg, UP) == [1]


def test_prices_are_labeled_with_as_few_decimals_as_distinguish_them() -> None:
    assert {"0.1234", "0.1236"} <= set(text(draw_candles([candle(0, "0.1233", "0.1238", "0.1233", "0.1236")], "5m", "X", HOUR)))
    assert {"42,000", "42,500"} <= set(text(draw_candles([candle(0, "41500.25", "44000", "41000", "42000.125")], "5m", "X", HOUR)))


def test_a_symbol_may_hold_any_character() -> None:
    assert text(draw_candles([candle(0, "1", "2", "1", "2")], "5m", "<A&B>", HOUR))[0].startswith("<A&B>, 5m candles")


@pytest.mark.parametrize("interval", WIDTHS)
def test_every_interval_is_drawn(interval: str) -> None:
    width = WIDTHS[interval]
    rows = [candle(i, "1", "3", "1", "2", width=width) for i in range(20)]
    svg = draw_candles(rows, interval, "BTCUSDT", Window.covering(NOON, NOON + 20 * width))
    assert sum(sticks(svg, UP)) == 40


def test_volume_is_drawn_in_bars_with_trades_and_volume_in_the_title() -> None:
    svg = strip(HOUR, every(1, 2000), every(1, 1600, start=NOON + timedelta(seconds=2000), first_id=2001))
    assert text(svg)[:2] == ["BTCUSDT, volume, 2024-01-10 12:00 to 13:00 UTC: 3,600 trades, 900.00 base units", "nothing is missing"]
    assert sticks(svg, VOLUME) == [240]  # of 15 seconds
    assert shapes(svg, MISSING) == 0


def test_slices_without_trades_and_gaps_are_marked_in_red() -> None:
    gaps = (Gap("BTCUSDT", 301, 900, NOON + 3 * SLICE), Gap("OTHER", 1, 2, NOON))
    svg = strip(HOUR, every(1, 300), every(1, 2700, start=NOON + 3 * SLICE, first_id=901), gaps=gaps)
    assert text(svg)[1] == "2 slices without trades (shaded), 600 trade ids missing before ▼"
    assert shapes(svg, MISSING) == 2  # one shade over both slices, one mark


def test_a_window_without_ticks_is_shaded_completely() -> None:
    svg = strip(HOUR)
    assert text(svg)[1] == "12 slices without trades (shaded)"
    assert shapes(svg, MISSING) == 1


@pytest.mark.parametrize("slices", [1, 2, 12, 24, 288, 8640, 105_120])
def test_a_strip_of_any_length_stays_small(slices: int) -> None:
    window = Window(NOON, NOON + slices * SLICE)
    gaps = tuple(Gap("BTCUSDT", i, i, NOON + i * SLICE) for i in range(0, slices, 2))
    svg = strip(window, every(slices / 10, 3000), gaps=gaps)
    assert 0 < sum(sticks(svg, VOLUME)) <= 300
    assert len(svg) < 16_000
    assert 2 <= len(text(svg)) <= 20


def test_each_symbol_has_a_picture_of_its_own() -> None:
    perpetual = every(1, 600)
    perpetual = perpetual.set_column(perpetual.column_names.index("symbol"), "symbol", pa.repeat("BTCUSDT.P", 600)).cast(perpetual.schema)
    strips = VolumeStrips(HOUR, ["BTCUSDT", "BTCUSDT.P"])
    strips.add(pa.concat_tables([every(1, 300), perpetual]))
    assert [text(svg)[1] for svg in strips.draw([]).values()] == ["11 slices without trades (shaded)", "10 slices without trades (shaded)"]


@pytest.mark.parametrize("hours", [1, 30])
def test_volume_of_candles_is_that_of_the_ticks(store: StoreUnderTest, hours: int) -> None:
    window = Window(NOON - (hours - 1) * timedelta(hours=1), NOON + timedelta(hours=1))
    ticks = every(7, 400)
    store.land(ticks)
    store.ingest(HOUR)
    strips = VolumeStrips.of_candles(store.connection, window, ["BTCUSDT", "OTHER"])
    gaps = [Gap("BTCUSDT", 4, 5, NOON)]
    assert strips.draw(gaps)["BTCUSDT"] == strip(window, ticks, gaps=tuple(gaps))
    assert "400 generated trades" in text(strips.draw([], generated=True)["BTCUSDT"])[0]
    assert not strips.empty
    assert VolumeStrips.of_candles(store.connection, window, ["OTHER"]).empty
