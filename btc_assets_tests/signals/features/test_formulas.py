"""Features of a slice: by hand, against plain Python, where formulas are undefined, and what they must not depend on."""

from __future__ import annotations

import math
import statistics
from itertools import groupby, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from btc_assets.domain.slices import SLICE_US
from btc_assets.signals.features import tick_arrays as tick_arrays_module
from btc_assets.signals.features.bars import CHANNELS, compute_bars
from btc_assets.signals.features.formulas import FEATURES, compute_features
from btc_assets.signals.features.tick_arrays import TickArrays
from btc_assets_tests.support.hand_made import Trade, markets, read_ordered_trades, slices, split_slices, tick_arrays
from btc_assets_tests.support.stores import real_data

NAMES = [feature.name for feature in FEATURES]


def named_features(*of: list[Trade]) -> list[dict[str, float]]:
    """The features of slices, by name."""
    return [dict(zip(NAMES, row, strict=True)) for row in compute_features(tick_arrays(*of)).tolist()]


# By hand


def test_four_trades_by_hand() -> None:
    [ours] = named_features([(0, 100, 1, True), (10, 101, 2, True), (150, 100, 4, False), (299, 100, 1, False)])
    step = math.log(1.01)
    expected = {
        "trade_count": 4,
        "volume": 8,
        "quote_volume": 100 + 202 + 400 + 100,
        "active_bar_share": 4 / 60,
        "log_return": 0,
        "parkinson_volatility": step / math.sqrt(4 * math.log(2)),
        "realized_volatility": math.sqrt(2) * step,
        "bipower_volatility": 0,  # no two returns next to each other
        "jump_share": 1,
        "positive_semideviation": step,
        "negative_semideviation": step,
        "realized_skewness": 0,
        "realized_kurtosis": 30,
        "close_to_vwap": math.log(100 / 100.25),
        "max_drawdown": step,
        "max_runup": step,
        "close_location": 0,
        "efficiency_ratio": 0,
        "volume_imbalance": (3 - 5) / 8,
        "trade_imbalance": 0,
        "imbalance_shift": (-5 - 3) / 8,
        "sign_autocorrelation_1": (1 - 1 + 1) / 4,
        "sign_autocorrelation_10": 0,
        "mean_run_length": 2,
        "longest_run": 2,
        "vpin": (3 * 0.8 + 0.4 + 6 * 0.8) / 8,  # the fourth of ten buckets of 0.8 has 0.6 bought and 0.2 sold
        "roll_spread": math.sqrt(2) * step,  # 2 sqrt(step^2 / 2): of the two products of returns next to each other, one is 0
        "zero_tick_share": 1 / 3,
        "mean_trade_size": 2,
        "median_trade_size": 1.5,
        "p95_trade_size": 2 + 0.85 * 2,
        "trade_size_gini": (-3 * 1 - 1 * 1 + 1 * 2 + 3 * 4) / (4 * 8),
        "largest_trade_share": 0.5,
        "mean_interarrival": 299 / 3,
        "p95_interarrival": 140 + 0.9 * 9,
        "same_millisecond_share": 0,
        "volume_centroid": (0 * 1 + 10 * 2 + 150 * 4 + 299 * 1) / (8 * 300),
    }
    assert {name: ours[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_prices_bouncing_between_bid_and_ask_have_the_spread_of_roll_and_no_trend() -> None:
    [ours] = named_features([(i / 2, 100 + 0.01 * (i % 2), 1, i % 2 == 1) for i in range(600)])
    assert ours["roll_spread"] == pytest.approx(2 * math.log(100.01 / 100), rel=1e-3)
    assert ours["sign_autocorrelation_1"] == pytest.approx(-1, abs=0.01)
    assert ours["sign_autocorrelation_10"] == pytest.approx(1, abs=0.02)
    assert (ours["interarrival_cv"], ours["burstiness"], ours["fano_factor"]) == pytest.approx((0, -1, 0))


def test_a_steady_climb_is_all_trend() -> None:
    [ours] = named_features([(i * 5, 100 * math.exp(0.001 * i), 1, True) for i in range(60)])
    assert ours["trend_slope"] == pytest.approx(0.06)
    assert (ours["trend_fit"], ours["efficiency_ratio"], ours["close_location"]) == pytest.approx((1, 1, 1))
    assert (ours["max_drawdown"], ours["negative_semideviation"]) == (0, 0)
    assert ours["max_runup"] == pytest.approx(0.059)
    assert ours["variance_ratio_6"] == pytest.approx(6, rel=0.1)


def test_price_impact_is_the_slope_that_generated_the_prices() -> None:
    flow = np.random.default_rng(1).normal(size=60)
    prices = 100 * np.exp(0.002 * np.cumsum(flow) - 0.002 * flow[0])
    [ours] = named_features(
        [(i * 5, price, abs(q), q > 0) for i, (price, q) in enumerate(zip(prices.tolist(), flow.tolist(), strict=True))]
    )
    assert ours["kyle_lambda"] == pytest.approx(0.002, rel=0.1)  # the first return is 0 by definition
    assert ours["flow_return_correlation"] > 0.95


def test_a_trade_whose_event_time_steps_back_arrives_with_the_one_before() -> None:
    back, level = named_features(
        [(10, 100, 1, True), (8, 101, 1, True), (20, 99, 1, False)], [(10, 100, 1, True), (10, 101, 1, True), (20, 99, 1, False)]
    )
    assert back == level


# Where formulas are undefined


NEUTRAL = {feature.name: feature.neutral for feature in FEATURES}


def test_a_slice_without_trades_has_neutral_features() -> None:
    assert named_features([]) == [NEUTRAL]
    assert {name: value for name, value in NEUTRAL.items() if value} == {
        "realized_kurtosis": 3,
        "variance_ratio_2": 1,
        "variance_ratio_6": 1,
        "close_location": 0.5,
        "mean_interarrival": 300,
        "p95_interarrival": 300,
        "interarrival_cv": 1,
        "fano_factor": 1,
        "volume_centroid": 0.5,
    }


@pytest.mark.parametrize(
    ("trades", "different"),
    [
        pytest.param(
            [(60, 100, 2, True)],
            {
                "trade_count": 1, "volume": 2, "quote_volume": 200, "active_bar_share": 1 / 60, "volume_imbalance": 1, "trade_imbalance": 1,
                "imbalance_shift": -1, "mean_run_length": 1, "longest_run": 1, "vpin": 1, "mean_trade_size": 2, "median_trade_size": 2,
                "p95_trade_size": 2, "largest_trade_share": 1, "fano_factor": 59 / 60, "volume_centroid": 0.2,
            },
            id="one trade",
        ),
        pytest.param(
            [(60, 100, 2, False)] * 3,
            {
                "trade_count": 3, "volume": 6, "quote_volume": 600, "active_bar_share": 1 / 60, "volume_imbalance": -1, "trade_imbalance": -1,
                "imbalance_shift": 1, "mean_run_length": 3, "longest_run": 3, "vpin": 1, "zero_tick_share": 1, "mean_trade_size": 2,
                "median_trade_size": 2, "p95_trade_size": 2, "largest_trade_share": 1 / 3, "mean_interarrival": 0, "p95_interarrival": 0,
                "same_millisecond_share": 1, "fano_factor": 3 * 59 / 60, "volume_centroid": 0.2,
            },
            id="one price, one side, one instant",
        ),
    ],
)  # fmt: skip
def test_a_degenerate_slice_has_neutral_features_where_formulas_are_undefined(trades: list[Trade], different: dict[str, float]) -> None:
    [ours] = named_features(trades)
    assert ours == pytest.approx(NEUTRAL | different, abs=1e-12)


def test_buys_and_sells_that_cancel_leave_no_rounding_error_to_divide_by() -> None:
    [ours] = named_features([(1, 100, 0.1, True), (2, 101, 0.2, True), (3, 102, 0.3, False)])
    assert 0.1 + 0.2 - 0.3 != 0
    assert (ours["kyle_lambda"], ours["flow_return_correlation"], ours["volume_imbalance"]) == (0, 0, 0)


extremes = st.tuples(st.integers(0, 299), st.sampled_from([1e-8, 1.0, 9e9]), st.sampled_from([1e-12, 1.0, 9e11]), st.booleans())


@given(st.lists(extremes, max_size=12))
def test_any_values_that_the_table_accepts_have_finite_features_and_bars(trades: list[Trade]) -> None:
    with np.errstate(divide="raise", over="raise", invalid="raise"):
        assert np.isfinite(compute_features(tick_arrays(trades))).all()
        assert np.isfinite(compute_bars(tick_arrays(trades))).all()


# Against plain Python


def reference_features(trades: list[Trade]) -> dict[str, float]:
    """The features of a slice with at least one trade, from their formulas, trade by trade."""
    clock, arrivals = 0.0, []
    for second, *_ in trades:
        clock = max(clock, second)
        arrivals.append(clock)
    price, q, s = [t[1] for t in trades], [t[2] for t in trades], [1 if t[3] else -1 for t in trades]
    n, volume, log = len(trades), math.fsum(q), [math.log(p) for p in price]
    bars = [[i for i in range(n) if int(arrivals[i] // 5) == bar] for bar in range(60)]
    close: list[float] = []
    r: list[float] = []
    for bar in bars:
        before = close[-1] if close else log[0]
        close.append(log[bar[-1]] if bar else before)
        r.append(close[-1] - before)
    signed = [math.fsum(s[i] * q[i] for i in bar) for bar in bars]
    rv = math.fsum(x * x for x in r)
    bv = math.pi / 2 * 60 / 59 * math.fsum(abs(a * b) for a, b in pairwise(r))
    path = [log[0], *close]
    waits = [b - a for a, b in pairwise(arrivals)]
    moves = [b - a for a, b in pairwise(log)]
    cv = statistics.pstdev(waits) / statistics.mean(waits) if n > 1 and statistics.mean(waits) else 1
    counts = [len(bar) for bar in bars]
    runs = [len(list(run)) for _, run in groupby(s)]
    span = max(log) - min(log)
    time = [i - 29.5 for i in range(60)]
    slope = math.fsum(t * c for t, c in zip(time, close, strict=True)) / math.fsum(t * t for t in time)
    spread = math.fsum((c - statistics.fmean(close)) ** 2 for c in close)
    covariance, flow = math.fsum(a * b for a, b in zip(r, signed, strict=True)), math.fsum(x * x for x in signed if abs(x) > 1e-9)
    serial = math.fsum(a * b for a, b in pairwise(moves)) / (n - 2) if n > 2 else 0
    moving = rv > 0

    def ratio_of_variances(k: int) -> float:
        return (math.fsum((b - a) ** 2 for a, b in zip(path, path[k:], strict=False)) / (61 - k)) / (k * rv / 60) if moving else 1

    def autocorrelation(lag: int) -> float:
        mean = statistics.fmean(s)
        if abs(mean) == 1:
            return 0
        return math.fsum((a - mean) * (b - mean) for a, b in zip(s, s[lag:], strict=False)) / math.fsum((a - mean) ** 2 for a in s)

    def vpin() -> float:
        buckets, reached = [0.0] * 10, 0.0
        for side, size in zip(s, q, strict=True):
            for k in range(10):
                buckets[k] += side * max(0.0, min(reached + size, (k + 1) * volume / 10) - max(reached, k * volume / 10))
            reached += size
        return math.fsum(map(abs, buckets)) / volume

    def quantile(values: list[float], share: float) -> float:
        return statistics.quantiles(values, n=100, method="inclusive")[round(100 * share) - 1] if len(values) > 1 else values[0]

    return {
        "trade_count": n,
        "volume": volume,
        "quote_volume": math.fsum(a * b for a, b in zip(price, q, strict=True)),
        "active_bar_share": sum(map(bool, bars)) / 60,
        "log_return": log[-1] - log[0],
        "parkinson_volatility": span / math.sqrt(4 * math.log(2)),
        "realized_volatility": math.sqrt(rv),
        "bipower_volatility": math.sqrt(bv),
        "jump_share": max(0, 1 - bv / rv) if moving else 0,
        "positive_semideviation": math.sqrt(math.fsum(x * x for x in r if x > 0)),
        "negative_semideviation": math.sqrt(math.fsum(x * x for x in r if x < 0)),
        "realized_skewness": math.sqrt(60) * math.fsum(x**3 for x in r) / rv**1.5 if moving else 0,
        "realized_kurtosis": 60 * math.fsum(x**4 for x in r) / rv**2 if moving else 3,
        "variance_ratio_2": ratio_of_variances(2),
        "variance_ratio_6": ratio_of_variances(6),
        "close_to_vwap": log[-1] - math.log(math.fsum(a * b for a, b in zip(price, q, strict=True)) / volume),
        "trend_slope": 60 * slope,
        "trend_fit": slope**2 * math.fsum(t * t for t in time) / spread if len(set(close)) > 1 else 0,
        "max_drawdown": max(max(log[: i + 1]) - log[i] for i in range(n)),
        "max_runup": max(log[i] - min(log[: i + 1]) for i in range(n)),
        "close_location": (log[-1] - min(log)) / span if span else 0.5,
        "efficiency_ratio": abs(log[-1] - log[0]) / math.fsum(map(abs, r)) if moving else 0,
        "volume_imbalance": math.fsum(signed) / volume,
        "trade_imbalance": sum(s) / n,
        "imbalance_shift": (math.fsum(signed[30:]) - math.fsum(signed[:30])) / volume,
        "sign_autocorrelation_1": autocorrelation(1),
        "sign_autocorrelation_10": autocorrelation(10),
        "mean_run_length": n / len(runs),
        "longest_run": max(runs),
        "vpin": vpin(),
        "roll_spread": 2 * math.sqrt(max(0, -serial)),
        "amihud_illiquidity": statistics.fmean(
            1e6 * abs(move) / math.fsum(price[i] * q[i] for i in bar) for move, bar in zip(r, bars, strict=True) if bar
        ),
        "kyle_lambda": covariance / flow if flow else 0,
        "flow_return_correlation": covariance / math.sqrt(rv * flow) if flow and moving else 0,
        "tick_volatility": math.sqrt(math.fsum(x * x for x in moves)),
        "zero_tick_share": statistics.fmean(a == b for a, b in pairwise(price)) if n > 1 else 0,
        "mean_trade_size": volume / n,
        "median_trade_size": statistics.median(q),
        "p95_trade_size": quantile(q, 0.95),
        "trade_size_gini": math.fsum(abs(a - b) for a in q for b in q) / (2 * n * volume),
        "largest_trade_share": max(q) / volume,
        "mean_interarrival": statistics.fmean(waits) if waits else 300,
        "p95_interarrival": quantile(waits, 0.95) if waits else 300,
        "interarrival_cv": cv,
        "burstiness": (cv - 1) / (cv + 1),
        "fano_factor": statistics.pvariance(counts) / statistics.fmean(counts),
        "same_millisecond_share": statistics.fmean(wait == 0 for wait in waits) if waits else 0,
        "volume_centroid": math.fsum(a * b for a, b in zip(q, arrivals, strict=True)) / volume / 300,
    }


@given(markets)
@hypothesis_settings(max_examples=60)
def test_features_equal_their_formulas_trade_by_trade(market: list[list[Trade]]) -> None:
    for trades, ours in zip(market, named_features(*market), strict=True):
        assert ours == pytest.approx(reference_features(trades) if trades else NEUTRAL, rel=1e-7, abs=1e-9)


# What they must not depend on


@given(st.lists(slices(), min_size=2, max_size=5), st.integers(1, 40))
@hypothesis_settings(max_examples=40)
def test_features_of_a_slice_do_not_depend_on_other_slices_to_the_last_bit(market: list[list[Trade]], part: int) -> None:
    together = tick_arrays(*market)
    alone = np.concatenate([compute_features(one) for one in split_slices(together)])
    assert np.array_equal(compute_features(together), alone)
    with pytest.MonkeyPatch.context() as patch:  # for parts of any size
        patch.setattr(tick_arrays_module, "_PART_TICKS", part)
        assert np.array_equal(compute_features(together), alone)


def scaled(ticks: TickArrays, *, price: float = 1.0, quantity: float = 1.0, shift: int = 0) -> TickArrays:
    return TickArrays(ticks.starts + shift, ticks.offsets, ticks.time + shift, ticks.price * price, ticks.quantity * quantity, ticks.buy)


@given(slices(), st.integers(-12, 12), st.integers(-1000, 1000))
@hypothesis_settings(max_examples=40)
def test_price_level_and_time_change_only_features_in_quote_units(trades: list[Trade], power: int, days: int) -> None:
    ticks, factor = tick_arrays(trades), 2.0**power
    before, after = compute_features(ticks)[0], compute_features(scaled(ticks, price=factor, shift=days * 288 * SLICE_US))[0]
    expected = dict(zip(NAMES, before.tolist(), strict=True))
    expected["quote_volume"] *= factor
    expected["amihud_illiquidity"] /= factor
    assert dict(zip(NAMES, after.tolist(), strict=True)) == expected


@given(slices(), st.integers(-12, 12))
@hypothesis_settings(max_examples=40)
def test_the_unit_of_quantity_changes_only_features_measured_in_it(trades: list[Trade], power: int) -> None:
    ticks, factor = tick_arrays(trades), 2.0**power
    before, after = compute_features(ticks)[0], compute_features(scaled(ticks, quantity=factor))[0]
    in_unit = {"base": factor, "quote": factor, "log/base": 1 / factor, "log/M quote": 1 / factor}
    assert after.tolist() == [value * in_unit.get(feature.unit, 1) for feature, value in zip(FEATURES, before.tolist(), strict=True)]


@given(slices())
@hypothesis_settings(max_examples=40)
def test_swapping_buyers_and_sellers_flips_the_signs_of_flow_and_nothing_else(trades: list[Trade]) -> None:
    [before], [after] = (
        named_features(trades),
        named_features([(second, price, quantity, not buy) for second, price, quantity, buy in trades]),
    )
    turned = {"volume_imbalance", "trade_imbalance", "imbalance_shift", "kyle_lambda", "flow_return_correlation"}
    assert after == pytest.approx({name: -value if name in turned else value for name, value in before.items()})


# Names


def test_features_and_channels_have_names_that_can_be_columns() -> None:
    assert (len(FEATURES), len(CHANNELS)) == (48, 16)
    for described in (FEATURES, CHANNELS):
        assert len({one.name for one in described}) == len(described)
        assert all(one.name.isidentifier() and one.name.islower() and one.unit and one.description for one in described)


# Real trades


def test_features_of_a_real_day_add_up_and_keep_their_bounds() -> None:
    day = read_ordered_trades(real_data("um_BTCUSDT_2020-02-22_fullday_trades.csv.gz"))
    ticks = TickArrays.of(day)
    matrix = compute_features(ticks)
    ours = dict(zip(NAMES, matrix.T, strict=True))
    assert matrix.shape == (288, 48) and np.isfinite(matrix).all()
    assert ours["trade_count"].sum() == 137_988
    assert ours["volume"].sum() == pytest.approx(float(sum(day["quantity"].to_pylist())), rel=1e-12)
    assert ours["quote_volume"].sum() == pytest.approx(ticks.price @ ticks.quantity, rel=1e-12)
    for feature in FEATURES:
        if feature.unit == "share":
            signed = "imbalance" in feature.name
            bound = 2.0 if feature.name == "imbalance_shift" else 1.0 + 1e-9
            assert ours[feature.name].min() >= (-bound if signed else 0) and ours[feature.name].max() <= bound, feature.name
    span = ours["parkinson_volatility"] * math.sqrt(4 * math.log(2))
    assert np.allclose(np.maximum(ours["max_drawdown"], ours["max_runup"]), span)  # whichever extreme comes first
    squares = ours["positive_semideviation"] ** 2 + ours["negative_semideviation"] ** 2
    assert np.allclose(squares, ours["realized_volatility"] ** 2)
    assert np.median(ours["sign_autocorrelation_1"]) > 0.2  # orders are split (Lillo and Farmer 2004)
    assert np.median(ours["kyle_lambda"]) > 0  # buyers move prices up
    assert np.median(ours["interarrival_cv"]) > 1  # trades cluster
