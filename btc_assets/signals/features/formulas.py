"""Features of a slice from its own ticks: activity, price path, flow, liquidity, sizes and arrivals of its trades.

Notation: `r` are the 60 log returns of 5-second bars, `q` the quantities of trades, `s` their sides (+1 if the taker bought, -1 if
the taker sold; the exchange reports the side, so it is not estimated). If event times step back in the order of trade ids, a trade
arrives with the trade before it. If a formula is undefined (no trade, one trade, a constant price), the feature takes its `neutral`
value: that of prices without memory or of arrivals without clusters if such a value exists, otherwise 0.

The drift over 5 seconds is negligible beside the volatility, so second moments of returns are taken about 0, not about their mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from btc_assets.domain.segments import reduce_segments
from btc_assets.domain.slices import SLICE_US
from btc_assets.signals.features.grid import STEPS, Grid, compute_grid, same_as_before
from btc_assets.signals.features.tick_arrays import TickArrays, log_excess

_SLICE_SECONDS = SLICE_US / 1e6
_VPIN_BUCKETS = 10
_VOLUME_UNITS = 1 << 40  # per slice: float64 sums the units of 8,192 slices exactly, and a part has fewer slices

# Below this number most features take their neutral values, so all such slices would look alike.
FEWEST_TICKS = 10


@dataclass(frozen=True)
class Feature:
    """One feature of a slice.

    Attributes:
        name: the term of the field, and the name of the column.
        unit: of its values.
        description: the formula and its source. The database stores this text as a comment.
        neutral: its value if the formula is undefined.
    """

    name: str
    unit: str
    description: str
    neutral: float = 0.0


FEATURES = (
    # Activity
    Feature("trade_count", "trades", "Number of trades."),
    Feature("volume", "base", "Sum of q."),
    Feature("quote_volume", "quote", "Sum of price times q."),
    Feature("active_bar_share", "share", "Bars with a trade, of 60."),
    # Price path
    Feature("log_return", "log", "Log of the last price over the first."),
    Feature("parkinson_volatility", "log", "Log of high over low, divided by sqrt(4 ln 2) (Parkinson 1980)."),
    Feature("realized_volatility", "log", "sqrt of the realised variance RV, the sum of r^2 (Andersen and Bollerslev 1998)."),
    Feature("bipower_volatility", "log", "sqrt of the bipower variation BV = pi/2 * 60/59 * sum |r_t| |r_(t-1)| (Barndorff-Nielsen and Shephard 2004)."),
    Feature("jump_share", "share", "max(0, 1 - BV / RV), the part of RV that is due to jumps (Barndorff-Nielsen and Shephard 2004)."),
    Feature("positive_semideviation", "log", "sqrt of the sum of r^2 where r > 0 (Barndorff-Nielsen, Kinnebrock and Shephard 2010)."),
    Feature("negative_semideviation", "log", "sqrt of the sum of r^2 where r < 0 (Barndorff-Nielsen, Kinnebrock and Shephard 2010)."),
    Feature("realized_skewness", "1", "sqrt(60) * sum r^3 / RV^1.5 (Amaya et al. 2015)."),
    Feature("realized_kurtosis", "1", "60 * sum r^4 / RV^2, 3 for normal returns (Amaya et al. 2015).", 3.0),
    Feature("variance_ratio_2", "1", "Mean square of overlapping 10 s returns over twice that of r, 1 for a random walk (Lo and MacKinlay 1988).", 1.0),
    Feature("variance_ratio_6", "1", "Mean square of overlapping 30 s returns over six times that of r (Lo and MacKinlay 1988).", 1.0),
    Feature("close_to_vwap", "log", "Log of the last price over the volume-weighted average price."),
    Feature("trend_slope", "log/slice", "Slope of the least-squares line through the bars' log closes, over the 5 minutes."),
    Feature("trend_fit", "share", "R^2 of that line."),
    Feature("max_drawdown", "log", "Largest fall of the log price from an earlier high, trade by trade (Magdon-Ismail et al. 2004)."),
    Feature("max_runup", "log", "Largest rise of the log price from an earlier low, trade by trade."),
    Feature("close_location", "share", "Where the last log price lies between low (0) and high (1).", 0.5),
    Feature("efficiency_ratio", "share", "|sum of r| / sum of |r| (Kaufman 1995)."),
    # Flow
    Feature("volume_imbalance", "share", "Sum of s q over the volume (Chordia, Roll and Subrahmanyam 2002)."),
    Feature("trade_imbalance", "share", "Mean of s (Chordia, Roll and Subrahmanyam 2002)."),
    Feature("imbalance_shift", "share", "Sum of s q of the second half (by time) less that of the first, over the volume."),
    Feature("sign_autocorrelation_1", "1", "Autocorrelation of s from trade to trade (Lillo and Farmer 2004)."),
    Feature("sign_autocorrelation_10", "1", "Autocorrelation of s at 10 trades (Lillo and Farmer 2004)."),
    Feature("mean_run_length", "trades", "Mean length of a run of trades on one side."),
    Feature("longest_run", "trades", "Length of the longest run of trades on one side."),
    Feature("vpin", "share", "Mean |imbalance| of 10 buckets of equal volume; trades across their bounds are split (Easley, Lopez de Prado and O'Hara 2012)."),
    # Liquidity
    Feature("roll_spread", "log", "2 sqrt(max(0, -mean d_t d_(t-1))), d the log return from trade to trade (Roll 1984)."),
    Feature("amihud_illiquidity", "log/M quote", "Mean of |r| over million quote units traded, of bars with trades (Amihud 2002)."),
    Feature("kyle_lambda", "log/base", "Slope through 0 of r on the bars' signed volume (Kyle 1985)."),
    Feature("flow_return_correlation", "1", "Correlation about 0 of r and the bars' signed volume, the fit of kyle_lambda (Hasbrouck 1991)."),
    Feature("tick_volatility", "log", "sqrt of the sum of d^2: with realized_volatility, the noise of prices (Zhang, Mykland and Ait-Sahalia 2005)."),
    Feature("zero_tick_share", "share", "Trades at the price of the one before, of those that have one before (Lesmond, Ogden and Trzcinka 1999)."),
    # Sizes
    Feature("mean_trade_size", "base", "Mean of q."),
    Feature("median_trade_size", "base", "Median of q."),
    Feature("p95_trade_size", "base", "95 % quantile of q, interpolated linearly."),
    Feature("trade_size_gini", "share", "Gini coefficient of q, 0 for equal sizes (Gini 1912)."),
    Feature("largest_trade_share", "share", "Largest q over the volume."),
    # Arrivals
    Feature("mean_interarrival", "s", "Mean wait between trades; the slice's 300 s for fewer than two trades.", _SLICE_SECONDS),
    Feature("p95_interarrival", "s", "95 % quantile of waits, interpolated linearly; 300 s for fewer than two trades.", _SLICE_SECONDS),
    Feature("interarrival_cv", "1", "Standard deviation of waits over their mean, 1 for a Poisson process (Engle and Russell 1998).", 1.0),
    Feature("burstiness", "1", "(CV - 1) / (CV + 1) of waits: -1 regular, 0 Poisson, 1 bursty (Goh and Barabasi 2008)."),
    Feature("fano_factor", "1", "Variance over mean of the bars' trade counts, 1 for a Poisson process (Fano 1947).", 1.0),
    Feature("same_millisecond_share", "share", "Trades in the millisecond of the one before, of those that have one before."),
    Feature("volume_centroid", "share", "Volume-weighted mean time of trades, from start (0) to end (1) of the slice.", 0.5),
)  # fmt: skip


def compute_features(ticks: TickArrays) -> np.ndarray:
    """Compute the features of every slice, from its own ticks alone.

    Returns:
        float64 [n, len(FEATURES)], in the order of `FEATURES`, always finite.
    """
    result = np.empty((len(ticks), len(FEATURES)))
    first = 0
    for part in ticks.parts():
        fill_features(result[first : first + len(part)], part, compute_grid(part))
        first += len(part)
    return result


def fill_features(result: np.ndarray, ticks: TickArrays, grid: Grid) -> None:
    """Compute the features of one of `TickArrays.parts` from it and its grid, into float64 [n, len(FEATURES)]."""
    columns = _of_bars(grid) | _of_sequence(ticks) | _of_sorted(ticks) | _of_arrivals(ticks)
    for place, feature in enumerate(FEATURES):
        column = columns[feature.name]
        result[:, place] = np.where(np.isnan(column), feature.neutral, column)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """NaN if the denominator is 0; `compute_features` replaces it by the neutral value."""
    return np.divide(numerator, denominator, out=np.full(np.shape(denominator), np.nan), where=denominator != 0)


def _of_bars(bars: Grid) -> dict[str, np.ndarray]:
    """Features that depend on the 60 bars alone."""
    r, close, count = bars.log_return, bars.close[:, -1], bars.count.sum(1)
    volume, quote_volume, pairs = bars.volume.sum(1), bars.quote_volume.sum(1), bars.pairs.sum(1)
    variance = (r**2).sum(1)
    bipower = np.pi / 2 * STEPS / (STEPS - 1) * (np.abs(r[:, 1:]) * np.abs(r[:, :-1])).sum(1)
    low, high = bars.low.min(1), bars.high.max(1)
    half = bars.signed_volume[:, STEPS // 2 :].sum(1) - bars.signed_volume[:, : STEPS // 2].sum(1)
    covariance, flow_variance = (r * bars.signed_volume).sum(1), (bars.signed_volume**2).sum(1)
    standardized = _ratio(r, np.broadcast_to(np.sqrt(variance)[:, None], r.shape))
    return {
        "trade_count": count,
        "volume": volume,
        "quote_volume": quote_volume,
        "active_bar_share": (bars.count > 0).mean(1),
        "log_return": close,
        "parkinson_volatility": (high - low) / np.sqrt(4 * np.log(2)),
        "realized_volatility": np.sqrt(variance),
        "bipower_volatility": np.sqrt(bipower),
        "jump_share": np.maximum(0.0, 1 - _ratio(bipower, variance)),
        "positive_semideviation": np.sqrt((np.maximum(r, 0) ** 2).sum(1)),
        "negative_semideviation": np.sqrt((np.minimum(r, 0) ** 2).sum(1)),
        "realized_skewness": np.sqrt(STEPS) * (standardized**3).sum(1),
        "realized_kurtosis": STEPS * (standardized**4).sum(1),
        "variance_ratio_2": _variance_ratio(bars.close, variance, 2),
        "variance_ratio_6": _variance_ratio(bars.close, variance, 6),
        "close_to_vwap": close - log_excess(_ratio(bars.excess.sum(1), volume)),
        **_trend(bars.close),
        "close_location": _ratio(close - low, high - low),
        "efficiency_ratio": _ratio(np.abs(close), np.abs(r).sum(1)),
        "volume_imbalance": _ratio(bars.signed_volume.sum(1), volume),
        "trade_imbalance": _ratio(bars.signed_count.sum(1), count),
        "imbalance_shift": _ratio(half, volume),
        "amihud_illiquidity": _ratio((1e6 * np.abs(r) / np.where(bars.count > 0, bars.quote_volume, 1.0)).sum(1), (bars.count > 0).sum(1)),
        "kyle_lambda": _ratio(covariance, flow_variance),
        "flow_return_correlation": _ratio(covariance, np.sqrt(variance * flow_variance)),
        "tick_volatility": np.sqrt(bars.variation.sum(1)),
        "zero_tick_share": _ratio(bars.same_price.sum(1), pairs),
        "mean_trade_size": _ratio(volume, count),
        "largest_trade_share": _ratio(bars.largest.max(1), volume),
        "fano_factor": _ratio(bars.count.var(1), bars.count.mean(1)),
        "mean_run_length": _ratio(count, count - bars.same_side.sum(1)),
    }


def _variance_ratio(close: np.ndarray, variance: np.ndarray, q: int) -> np.ndarray:
    path = np.concatenate([np.zeros((len(close), 1)), close], axis=1)
    return _ratio(((path[:, q:] - path[:, :-q]) ** 2).sum(1) / (STEPS + 1 - q), q / STEPS * variance)


def _trend(close: np.ndarray) -> dict[str, np.ndarray]:
    time = np.arange(STEPS) - (STEPS - 1) / 2
    above = close - close[:, :1]  # so that the mean of a constant path is exactly 0
    above -= above.mean(1, keepdims=True)
    slope = (above * time).sum(1) / (time**2).sum()
    return {"trend_slope": slope * STEPS, "trend_fit": _ratio(slope**2 * (time**2).sum(), (above**2).sum(1))}


def _of_sequence(ticks: TickArrays) -> dict[str, np.ndarray]:
    """Features that depend on the order of trades."""
    runs = np.flatnonzero(~(ticks.follows & same_as_before(ticks.buy)))  # starts of runs
    lengths = np.diff(runs, append=len(ticks.buy))
    return {
        "sign_autocorrelation_1": _sign_autocorrelation(ticks, 1),
        "sign_autocorrelation_10": _sign_autocorrelation(ticks, 10),
        "longest_run": reduce_segments(np.maximum, lengths, np.searchsorted(runs, ticks.offsets)),
        "vpin": _vpin(ticks),
        "roll_spread": _roll_spread(ticks),
    }


def _sign_autocorrelation(ticks: TickArrays, lag: int) -> np.ndarray:
    """Autocovariance over variance, both about the mean and divided by the number of trades."""
    mean = _ratio(reduce_segments(np.add, ticks.side, ticks.offsets, dtype=np.int64), ticks.counts)
    above = ticks.side - ticks.repeat_per_tick(mean)
    products = np.zeros(len(above))
    products[lag:] = above[lag:] * above[:-lag]
    for first in range(lag):  # these products would reach into the previous slice
        has = ticks.counts > first
        products[ticks.offsets[:-1][has] + first] = 0.0
    return _ratio(reduce_segments(np.add, products, ticks.offsets), ticks.counts * (1 - mean**2))


def _vpin(ticks: TickArrays) -> np.ndarray:
    """From the signed volume at each bound of the buckets, in integer units: their sums over many slices are exact."""
    share = _ratio(np.full(len(ticks), float(_VOLUME_UNITS)), reduce_segments(np.add, ticks.quantity, ticks.offsets))
    units = np.rint(ticks.quantity * ticks.repeat_per_tick(share))
    reached, signed = (np.append(0.0, np.cumsum(steps)) for steps in (units, ticks.side * units))
    begin, end = reached[ticks.offsets[:-1], None], reached[ticks.offsets[1:], None]
    bounds = begin + np.floor((end - begin) * np.arange(_VPIN_BUCKETS + 1) / _VPIN_BUCKETS)
    return _ratio(np.abs(np.diff(np.interp(bounds, reached, signed))).sum(1), (end - begin)[:, 0])


def _roll_spread(ticks: TickArrays) -> np.ndarray:
    products = ticks.change.copy()
    products[1:] *= ticks.change[:-1]  # the first change of a slice is 0, so no product reaches into the previous slice
    covariance = _ratio(reduce_segments(np.add, products, ticks.offsets), np.maximum(ticks.counts - 2, 0))
    return 2 * np.sqrt(np.maximum(0.0, -covariance))


def _of_sorted(ticks: TickArrays) -> dict[str, np.ndarray]:
    """Features that need running extremes or sorted values: computed on matrices of slices of similar length."""
    names = ["max_drawdown", "max_runup", "median_trade_size", "p95_trade_size", "trade_size_gini", "p95_interarrival"]
    result = {name: np.full(len(ticks), np.nan) for name in names}
    for slices, index, inside in _groups_of_similar_length(ticks):
        count = ticks.counts[slices]
        path = ticks.path[index]
        result["max_drawdown"][slices] = (np.maximum.accumulate(path, axis=1) - path).max(1)
        result["max_runup"][slices] = (path - np.minimum.accumulate(path, axis=1)).max(1)
        sizes = np.sort(np.where(inside, ticks.quantity[index], np.inf), axis=1)
        result["median_trade_size"][slices] = _quantile(sizes, count, 0.5)
        result["p95_trade_size"][slices] = _quantile(sizes, count, 0.95)
        sizes[~inside] = 0.0
        rank = 2.0 * np.arange(1, sizes.shape[1] + 1) - count[:, None] - 1
        result["trade_size_gini"][slices] = (rank * sizes).sum(1) / (count * sizes.sum(1))
        if sizes.shape[1] > 1:  # the slices of a group have at least two trades, or all have one
            waits = np.sort(np.where(inside[:, 1:], ticks.wait[index[:, 1:]] / 1e6, np.inf), axis=1)
            result["p95_interarrival"][slices] = _quantile(waits, count - 1, 0.95)
    return result


def _groups_of_similar_length(ticks: TickArrays) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Slices grouped by the power of two that bounds their number of ticks.

    Yields:
        Indices of the slices [k]; indices of their ticks [k, w], padded with the last one; bool [k, w], False for the padding.
    """
    exponent = np.ceil(np.log2(np.maximum(ticks.counts, 1))).astype(int)
    for e in np.unique(exponent[ticks.filled]):
        slices = np.flatnonzero(ticks.filled & (exponent == e))
        place = np.arange(1 << e)
        last = ticks.counts[slices, None] - 1
        yield slices, ticks.offsets[slices, None] + np.minimum(place, last), place <= last


def _quantile(ordered: np.ndarray, count: np.ndarray, share: float) -> np.ndarray:
    """The quantile of the first `count` values of each row, interpolated linearly."""
    place = share * (count - 1)
    below = place.astype(int)
    row = np.arange(len(ordered))
    low, high = ordered[row, below], ordered[row, np.minimum(below + 1, count - 1)]
    return low + (high - low) * (place - below)


def _of_arrivals(ticks: TickArrays) -> dict[str, np.ndarray]:
    """Features that depend on the times of trades."""
    pairs = np.maximum(ticks.counts - 1, 0)
    mean = _ratio(reduce_segments(np.add, ticks.wait, ticks.offsets), pairs)
    above = (ticks.wait - ticks.repeat_per_tick(mean)) * ticks.follows
    cv = _ratio(np.sqrt(_ratio(reduce_segments(np.add, above**2, ticks.offsets), pairs)), mean)
    same = ticks.follows & same_as_before(ticks.arrival // 1000)
    moment = reduce_segments(np.add, ticks.quantity * (ticks.arrival - ticks.repeat_per_tick(ticks.starts)), ticks.offsets)
    return {
        "mean_interarrival": mean / 1e6,
        "interarrival_cv": cv,
        "burstiness": (cv - 1) / (cv + 1),
        "same_millisecond_share": _ratio(reduce_segments(np.add, same, ticks.offsets, dtype=np.int64), pairs),
        "volume_centroid": _ratio(moment, reduce_segments(np.add, ticks.quantity, ticks.offsets) * SLICE_US),
    }
