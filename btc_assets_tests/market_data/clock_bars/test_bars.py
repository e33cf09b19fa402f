"""Bars are those of the book, trade by trade, and the same to the last digit however the stream is cut."""

from __future__ import annotations

import math
import pickle
from datetime import timedelta
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import EPOCH, SLICE, ceil_slice
from btc_assets.domain.ticks import first_of_slices, tick_order
from btc_assets.market_data.clock_bars.bars import BarState, ClockBars
from btc_assets.market_data.clock_bars.sizes import ADAPTIVE, CLOCKS, Expectation
from btc_assets_tests.support.book_bars import Book, describe, known_at
from btc_assets_tests.support.real_trades import KLINE_FIGURES, klines, real_ticks
from btc_assets_tests.support.trades import NOON, every, table, trade

LATENCY = timedelta(seconds=90)
Trades = list[dict[str, Any]]


def figures(highest: str, places: int) -> st.SearchStrategy[str]:
    """Decimals above zero with any number of places."""
    some = st.integers(0, places).flatmap(lambda shown: st.decimals(Decimal(1).scaleb(-shown), Decimal(highest), places=shown))
    return some.map(lambda value: f"{value:f}")


@st.composite
def streams(draw: st.DrawFn) -> Trades:
    """Trades of several slices, many at one price and in one moment, some reported late, some no part of the market."""
    extreme = draw(st.integers(0, 3)) == 0
    prices = figures("999999999", 8) if extreme else st.sampled_from(["100", "100.01", "99.99", "101.5"])
    quantities = figures("99999", 12) if extreme else st.sampled_from(["0.5", "1", "2", "0.00001", "7.25"])
    at, trades = NOON, []
    for number in range(draw(st.integers(0, 60))):
        at += timedelta(milliseconds=draw(st.sampled_from([0, 0, 1, 900, 5_000, 400_000])))
        trades.append(
            trade(
                number if draw(st.integers(0, 5)) else 1000 - number, at, made=at - timedelta(seconds=draw(st.sampled_from([0, 0, 0, 0.1, 60]))), price=draw(prices),
                quantity=draw(quantities), maker=draw(st.booleans()), kind=draw(st.sampled_from([None, None, None, "MARKET", "ADL"])),
            )
        )  # fmt: skip
    return table(trades).take(tick_order(table(trades))).to_pylist()


SIZES = {
    "tick": st.integers(1, 20),
    "volume": st.sampled_from(["0.00001", "1", "3.5", "20", "50000"]).map(Decimal),
    "dollar": st.sampled_from(["0.001", "100", "333.33333333", "2000", "1e13"]).map(Decimal),
    "time": st.sampled_from([1_000, 60_000, 300_000, 3_600_000]).map(lambda ms: timedelta(milliseconds=ms)),
} | dict.fromkeys(ADAPTIVE, st.integers(1, 12))

EXPECTATIONS = st.builds(
    Expectation,
    span=st.sampled_from([1.0, 3.0, 20.0]),
    shortest=st.sampled_from([0.0, 0.5, 1.0]),
    longest=st.sampled_from([1.0, 2.5, 5.0, float("inf")]),
    floor=st.sampled_from([0.0, 1.0, 2.0]),
)


@st.composite
def terms(draw: st.DrawFn) -> dict[str, Any]:
    clock = draw(st.sampled_from(CLOCKS))
    more = {"side": draw(st.sampled_from(["aggressor", "tick_rule"])), "expectation": draw(EXPECTATIONS)} if clock in ADAPTIVE else {}
    return {"clock": clock, "size": draw(SIZES[clock])} | more


@settings(phases=[Phase.explicit, Phase.generate])
@given(streams(), terms())
@example([trade(n, NOON, maker=n % 2 == 0) for n in range(9)], {"clock": "tick_imbalance", "size": 2, "expectation": Expectation(floor=0)})
@example([trade(n, NOON, price=str(100 + n % 2)) for n in range(9)], {"clock": "tick_runs", "size": 2, "side": "tick_rule"})
def test_bars_are_those_of_the_book(trades: Trades, terms: dict[str, Any]) -> None:
    book = Book(terms["clock"], terms["size"], terms.get("side", "aggressor"), **vars(terms.get("expectation", Expectation())))
    made = ClockBars(**terms, latency=LATENCY).add(table(trades)).to_pylist()
    with localcontext(prec=100):
        wanted = book.bars(trades)
        assert [bar["trade_count"] for bar in made] == [len(bar) for bar in wanted]
        for bar, of in zip(made, wanted, strict=True):
            for name, value in describe(of).items():
                if name in ("realized_variance", "bipower_variation"):
                    assert bar[name] == pytest.approx(value, rel=1e-9, abs=1e-20), name
                else:
                    assert (Fraction(bar[name]) if isinstance(bar[name], Decimal) else bar[name]) == value, name
            assert bar["available_at"] == known_at(of, LATENCY, terms["size"] if terms["clock"] == "time" else None)
            assert bar["symbol"] == "BTCUSDT"


@given(streams(), terms(), st.data())
def test_any_cut_of_the_stream_gives_the_same_bars_to_the_last_digit(trades: Trades, terms: dict[str, Any], data: st.DataObject) -> None:
    ticks = table(trades)
    whole = pa.Table.from_batches([ClockBars(**terms).add(ticks)])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(trades)), max_size=8)))
    state: BarState | None = None
    made = []
    for start, end in zip([0, *cuts], [*cuts, len(trades)], strict=True):
        bars = ClockBars(**terms, state=state)
        made.append(bars.add(ticks.slice(start, end - start)))
        state = pickle.loads(pickle.dumps(bars.state))
    assert pa.Table.from_batches(made).equals(whole, check_metadata=True)


REAL_SIZES: dict[str, Any] = {"tick": 20, "volume": Decimal("0.5"), "dollar": 12_000, "time": timedelta(seconds=5)} | dict.fromkeys(
    ADAPTIVE, 25
)


@pytest.mark.parametrize("clock", CLOCKS)
def test_real_trades_make_the_bars_of_the_book(clock: str) -> None:
    ticks = real_ticks("spot_BTCUSDT_2023-04-05_ws_trades.csv.gz").slice(0, 1_000)
    wanted = Book(clock, REAL_SIZES[clock]).bars(ticks.to_pylist())
    made = ClockBars(clock, REAL_SIZES[clock]).add(ticks).to_pylist()
    assert len(wanted) > 10
    assert [(bar["first_trade_id"], bar["last_trade_id"]) for bar in made] == [(bar[0]["trade_id"], bar[-1]["trade_id"]) for bar in wanted]


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_real_day_in_one_piece_is_the_same_day_slice_by_slice(clock: str) -> None:
    ticks = real_ticks("um_BTCUSDT_2020-02-22_fullday_trades.csv.gz")
    size: Any = {"tick": 500, "volume": 100, "dollar": 1_000_000, "time": "1m"}.get(clock, 1000)
    whole, by_slice = ClockBars(clock, size), ClockBars(clock, size)
    at_once = pa.Table.from_batches([whole.add(ticks)])
    edges = [*first_of_slices(ticks).tolist(), len(ticks)]
    assert len(edges) == 289
    in_slices = pa.Table.from_batches([by_slice.add(ticks.slice(start, end - start)) for start, end in pairwise(edges)])
    assert len(at_once) > 20
    assert in_slices.equals(at_once)
    assert by_slice.state == whole.state


def test_bars_of_a_minute_are_the_candles_that_the_exchange_published() -> None:
    made = ClockBars("time", "1m").add(real_ticks("um_BTCUSDT_2020-02-22_fullday_trades.csv.gz")).to_pylist()
    ours = {bar["open_time"].replace(second=0, microsecond=0): [bar[name] for name in KLINE_FIGURES] for bar in made}
    expected = dict(klines())
    assert len(expected) == 110
    assert {start: ours[start] for start in expected} == expected


def test_a_bar_tells_what_it_is_made_of() -> None:
    """By hand: two trades make a bar of 3 base units, the second of which goes beyond it; a third begins the next."""
    rows = [
        trade(7, NOON, price="100", quantity="1"),
        trade(8, NOON + timedelta(minutes=6), price="110", quantity="3", maker=True),
        trade(9, NOON + timedelta(minutes=7), price="90", quantity="2.5"),
    ]
    (bar,) = ClockBars("volume", 3, latency=LATENCY).add(table(rows)).to_pylist()
    assert bar == {
        "open_time": NOON, "close_time": NOON + timedelta(minutes=6), "bucket_5m": NOON + timedelta(minutes=5),
        "available_at": NOON + timedelta(minutes=10, seconds=90), "symbol": "BTCUSDT",
        "open": Decimal(100), "high": Decimal(110), "low": Decimal(100), "close": Decimal(110),
        "volume": Decimal(4), "quote_volume": Decimal(430), "trade_count": 2, "taker_buy_volume": Decimal(1),
        "taker_buy_quote_volume": Decimal(100), "first_trade_id": 7, "last_trade_id": 8,
        "vwap": 107.5, "order_flow_imbalance": -0.5, "realized_variance": pytest.approx(math.log(1.1) ** 2), "bipower_variation": 0.0,
    }  # fmt: skip


def test_the_variance_leaves_out_trades_at_the_same_price_and_the_step_into_a_bar() -> None:
    prices = ["100", "101", "101", "103", "50", "51"]
    made = ClockBars("tick", 4).add(table([trade(n, NOON, price=price) for n, price in enumerate(["7", "8", "9", "10", *prices[:4]])]))
    first, second = math.log(101 / 100), math.log(103 / 101)
    assert made["realized_variance"][1].as_py() == pytest.approx(first**2 + second**2, rel=1e-12)
    assert made["bipower_variation"][1].as_py() == pytest.approx(math.pi / 2 * 2 * first * second, rel=1e-12)


def test_the_last_interval_is_a_bar_when_it_is_over() -> None:
    bars = ClockBars("time", "1m", latency=LATENCY)
    assert len(bars.add(every(1, 30))) == 0
    assert len(bars.finish(NOON + timedelta(seconds=59))) == 0
    (bar,) = bars.finish(NOON + timedelta(minutes=1)).to_pylist()
    assert (bar["trade_count"], bar["available_at"]) == (30, NOON + timedelta(minutes=5) + LATENCY)
    assert len(bars.finish(NOON + timedelta(minutes=2))) == 0


def test_a_bar_of_an_interval_longer_than_a_slice_is_known_when_the_interval_is_over() -> None:
    bars = ClockBars("time", "7m")
    bars.add(every(1, 30, start=NOON + timedelta(minutes=3)))
    (bar,) = bars.finish(NOON + timedelta(hours=1)).to_pylist()
    start = NOON + timedelta(minutes=3) - (NOON + timedelta(minutes=3) - EPOCH) % timedelta(minutes=7)
    assert bar["available_at"] == ceil_slice(start + timedelta(minutes=7)) != bar["bucket_5m"] + SLICE


def test_a_bar_on_any_other_clock_is_left_out_until_it_closes() -> None:
    bars = ClockBars("tick", 31)
    assert len(bars.add(every(1, 30))) == 0
    assert len(bars.finish(NOON + timedelta(days=1))) == 0
    assert bars.state.bar is not None
    assert bars.state.bar.trade_count == 30


@pytest.mark.parametrize("clock", ["tick_imbalance", "volume_imbalance", "dollar_imbalance"])
def test_bars_of_a_market_without_drift_neither_explode_nor_collapse(clock: str) -> None:
    """Without bounds on the expected length, the floor alone keeps bars near their size; without the floor, each trade is a bar."""
    generator = np.random.default_rng(21)
    rows = [trade(n, NOON, quantity=str(1 + int(q)), maker=bool(m)) for n, (q, m) in enumerate(zip(generator.integers(0, 4, 20_000), generator.integers(0, 2, 20_000), strict=True))]  # fmt: skip
    ticks = table(rows)
    free = Expectation(shortest=0, longest=float("inf"))
    lengths = ClockBars(clock, 100, expectation=free).add(ticks)["trade_count"].to_numpy()
    assert 60 < lengths.mean() < 250
    assert 60 < lengths[-20:].mean() < 400
    alone = ClockBars(clock, 100, expectation=Expectation(floor=0, shortest=0, longest=float("inf"))).add(ticks)["trade_count"].to_numpy()
    assert np.median(alone) < 5 or alone.max() > 5_000
    bounded = ClockBars(clock, 100).add(ticks)["trade_count"].to_numpy()
    assert bounded.max() <= 500


@pytest.mark.parametrize(
    ("clock", "size", "sentence"),
    [
        ("candle", 5, "There is no clock 'candle': use one of tick, volume, dollar, time, tick_imbalance,"),
        ("volume", None, "need a size: give base units, such as 50"),
        ("tick", 0, "0 is no size of a bar on the clock 'tick': give a number of trades, such as 1000; it must be above zero"),
        ("dollar", -5, "-5 is no size .* quote units"),
        ("volume", "many", "'many' is no size"),
        ("volume", float("nan"), "nan is no size"),
        ("dollar", float("inf"), "inf is no size"),
        ("tick", True, "True is no size"),
        ("tick", timedelta(minutes=1), "is no size of a bar on the clock 'tick'"),
        ("tick", 2.5, "The size 2.5 is finer than the clock 'tick' can count: it counts in whole numbers of trades"),
        ("volume", "1e-13", "finer than the clock 'volume' can count: it counts in 12 decimal places"),
        ("tick_runs", "0.5", "whole numbers of trades"),
        ("time", 60, "60 is no size of a bar on the clock 'time': give a duration, such as '1m'"),
        ("time", "soon", "'soon' is no size"),
        ("time", timedelta(0), "is no size"),
        ("time", "99999999999d", "is no size"),
    ],
)
def test_a_clock_or_size_that_makes_no_sense_is_refused_in_one_sentence(clock: str, size: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        ClockBars(clock, size)


@pytest.mark.parametrize("size", [2, "2", 2.0, Decimal("2.000"), np.int64(2), np.float64(2)])
def test_a_size_may_be_any_kind_of_number(size: Any) -> None:
    assert ClockBars("volume", size).state.terms[1] == 2 * 10**12
    assert ClockBars("tick", size).state.terms[1] == 2


def test_a_float_is_rounded_to_what_the_clock_counts() -> None:
    assert ClockBars("volume", 325.280370000000123 / 288).state.terms[1] == 1_129_445_729_167


def test_what_does_not_belong_to_a_clock_is_refused() -> None:
    with pytest.raises(UserError, match="There is no side 'left': use one of aggressor, tick_rule"):
        ClockBars("tick_runs", 5, side="left")
    with pytest.raises(UserError, match="The clock 'tick' expects nothing: give side and expectation only for tick_imbalance"):
        ClockBars("tick", 5, side="tick_rule")
    for wrong in ({"span": 0}, {"shortest": 2}, {"longest": 0.5}, {"floor": -1}, {"span": float("nan")}):
        with pytest.raises(UserError, match="is no expectation of bars"):
            Expectation(**wrong)
    with pytest.raises(UserError, match="'yes' is no state of bars"):
        ClockBars("tick", 5, state="yes")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="This state is one of bars on the clock 'tick' with another size"):
        ClockBars("tick", 6, state=ClockBars("tick", 5).state)


def test_ticks_that_are_no_stream_of_one_market_are_refused() -> None:
    bars = ClockBars("tick", 5)
    bars.add(every(1, 3))
    with pytest.raises(UserError, match="not in the order of their slices and trade ids"):
        bars.add(every(1, 3))
    with pytest.raises(UserError, match="not in the order of their slices and trade ids"):
        ClockBars("tick", 5).add(table([trade(2, NOON), trade(1, NOON)]))
    with pytest.raises(UserError, match="belong to several symbols"):
        ClockBars("tick", 5).add(table([trade(1, NOON), trade(2, NOON, symbol="OTHER")]))
    with pytest.raises(UserError, match="These ticks are of OTHER, those before them of BTCUSDT"):
        bars.add(table([trade(9, NOON + timedelta(hours=1), symbol="OTHER")]))
    with pytest.raises(UserError, match="lack the column quantity"):
        ClockBars("tick", 5).add(every(1, 3).drop_columns(["quantity"]))
    floats = every(1, 3)
    floats = floats.set_column(floats.column_names.index("price"), "price", floats["price"].cast(pa.float64()))
    with pytest.raises(UserError, match="The column price of these ticks is double: bars are exact"):
        ClockBars("tick", 5).add(floats)


def test_a_value_of_more_than_38_digits_is_refused() -> None:
    with pytest.raises(UserError, match="worth more than 38 digits can say: give a smaller size"):
        ClockBars("tick", 1).add(table([trade(1, NOON, price="9999999999", quantity="999999999999")]))
