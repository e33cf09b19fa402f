"""The sequence of a slice: 60 bars of 5 seconds."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from btc_assets.signals.features import tick_arrays as tick_arrays_module
from btc_assets.signals.features.bars import CHANNELS, STEPS, compute_bars
from btc_assets.signals.features.formulas import FEATURES, compute_features
from btc_assets.signals.features.tick_arrays import TickArrays
from btc_assets_tests.support.hand_made import Trade, markets, read_ordered_trades, slices, split_slices, tick_arrays
from btc_assets_tests.support.stores import real_data

NAMES = [channel.name for channel in CHANNELS]
EMPTY = dict.fromkeys(NAMES, 0.0) | {"taker_buy_share": 0.5, "same_side_share": 0.5, "longest_wait": 5.0}


def named_bars(trades: list[Trade]) -> list[dict[str, float]]:
    """The bars of a slice, by name of channel."""
    return [dict(zip(NAMES, row, strict=True)) for row in compute_bars(tick_arrays(trades))[0].tolist()]


def test_a_slice_without_trades_is_flat_and_quiet() -> None:
    assert named_bars([]) == [EMPTY] * STEPS


def test_four_trades_by_hand() -> None:
    ours = named_bars([(6, 100, 1, True), (7, 102, 2, True), (9, 101, 1, False), (14.5, 101, 4, False)])
    assert ours[0] == EMPTY
    assert ours[1] == pytest.approx(
        {
            "log_return": math.log(1.01), "close": math.log(1.01), "high": math.log(1.02), "low": 0, "vwap": math.log(1.0125),
            "tick_volatility": math.hypot(math.log(1.02), math.log(101 / 102)), "volume": 4, "signed_volume": 2, "trade_count": 3,
            "signed_trade_count": 1, "mean_trade_size": 4 / 3, "largest_trade": 2, "taker_buy_share": 0.75, "same_side_share": 0.5,
            "zero_tick_share": 0, "longest_wait": 2,
        },
        rel=1e-6,
    )  # fmt: skip
    assert ours[2] == pytest.approx(
        {
            "log_return": 0, "close": math.log(1.01), "high": 0, "low": 0, "vwap": 0, "tick_volatility": 0, "volume": 4, "signed_volume": -4,
            "trade_count": 1, "signed_trade_count": -1, "mean_trade_size": 4, "largest_trade": 4, "taker_buy_share": 0,
            "same_side_share": 1, "zero_tick_share": 1, "longest_wait": 4.5,
        },
        rel=1e-6, abs=1e-9,
    )  # fmt: skip
    assert ours[3:] == [EMPTY | {"close": ours[2]["close"]}] * (STEPS - 3)  # carried forward


def reference_bars(trades: list[Trade]) -> list[dict[str, float]]:
    """The bars of a slice from the descriptions of the channels, trade by trade."""
    arrivals = [max(t[0] for t in trades[: i + 1]) for i in range(len(trades))]
    result, before = [], math.log(trades[0][1]) if trades else 0.0
    for step in range(STEPS):
        inside = [i for i, arrival in enumerate(arrivals) if 5 * step <= arrival < 5 * step + 5]
        if not inside:
            result.append(EMPTY | {"close": before - math.log(trades[0][1]) if trades else 0.0})
            continue
        price, q, s = [trades[i][1] for i in inside], [trades[i][2] for i in inside], [1 if trades[i][3] else -1 for i in inside]
        pairs = [(trades[i - 1], trades[i]) for i in inside if i]
        edges = [5 * step, *(arrivals[i] for i in inside), 5 * step + 5]
        close = math.log(price[-1])
        result.append(
            {
                "log_return": close - before,
                "close": close - math.log(trades[0][1]),
                "high": math.log(max(price)) - before,
                "low": math.log(min(price)) - before,
                "vwap": math.log(math.fsum(a * b for a, b in zip(price, q, strict=True)) / math.fsum(q)) - before,
                "tick_volatility": math.sqrt(math.fsum(math.log(b[1] / a[1]) ** 2 for a, b in pairs)),
                "volume": math.fsum(q),
                "signed_volume": math.fsum(a * b for a, b in zip(q, s, strict=True)),
                "trade_count": len(inside),
                "signed_trade_count": sum(s),
                "mean_trade_size": math.fsum(q) / len(q),
                "largest_trade": max(q),
                "taker_buy_share": math.fsum(a for a, b in zip(q, s, strict=True) if b > 0) / math.fsum(q),
                "same_side_share": sum(a[3] == b[3] for a, b in pairs) / len(pairs) if pairs else 0.5,
                "zero_tick_share": sum(a[1] == b[1] for a, b in pairs) / len(pairs) if pairs else 0.0,
                "longest_wait": max(b - a for a, b in pairwise(edges)),
            }
        )
        before = close
    return result


@given(markets)
@hypothesis_settings(max_examples=60)
def test_bars_equal_their_descriptions_trade_by_trade(market: list[list[Trade]]) -> None:
    expected = [[list(bar.values()) for bar in reference_bars(trades)] for trades in market]
    assert [list(bar) for bar in reference_bars(market[0])] == [NAMES] * STEPS or not market[0]
    np.testing.assert_allclose(compute_bars(tick_arrays(*market)), expected, rtol=1e-5, atol=1e-8)


@given(st.lists(slices(), min_size=2, max_size=5), st.integers(1, 40))
@hypothesis_settings(max_examples=40)
def test_bars_of_a_slice_do_not_depend_on_other_slices_to_the_last_bit(market: list[list[Trade]], part: int) -> None:
    together = tick_arrays(*market)
    alone = np.concatenate([compute_bars(one) for one in split_slices(together)])
    assert np.array_equal(compute_bars(together), alone)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tick_arrays_module, "_PART_TICKS", part)
        assert np.array_equal(compute_bars(together), alone)


def test_no_slices_have_no_bars() -> None:
    assert compute_bars(tick_arrays()).shape == (0, STEPS, len(CHANNELS))


def test_the_bars_of_a_real_day_add_up_to_its_features() -> None:
    ticks = TickArrays.of(read_ordered_trades(real_data("um_BTCUSDT_2020-02-22_fullday_trades.csv.gz")))
    ours = dict(zip(NAMES, compute_bars(ticks).astype(float).transpose(2, 0, 1), strict=True))
    whole = dict(zip([feature.name for feature in FEATURES], compute_features(ticks).T, strict=True))
    assert np.array_equal(ours["trade_count"].sum(1), whole["trade_count"])
    assert np.allclose(ours["volume"].sum(1), whole["volume"])
    assert np.allclose(ours["signed_volume"].sum(1), whole["volume_imbalance"] * whole["volume"], atol=1e-3)
    assert np.allclose(ours["close"][:, -1], whole["log_return"], atol=1e-8)
    assert np.allclose((ours["log_return"] ** 2).sum(1), whole["realized_volatility"] ** 2, rtol=1e-5)
    assert (ours["high"] >= ours["low"]).all()
    assert ((ours["longest_wait"] >= 0) & (ours["longest_wait"] <= 5)).all()
