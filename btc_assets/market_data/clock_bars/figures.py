"""What bars say: the figures of consecutive groups of trades, merged with those of a bar that began earlier.

Sums are integers, so that they do not depend on where the stream was cut. Squares and products of returns, which are floats, are added
as integers of 2**-86: a return of one hundredth of a dollar keeps eleven digits. What is divided or rounded is so once, at last.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa

from btc_assets.domain.exact_sums import Units, product_sums, sums
from btc_assets.domain.segments import reduce_segments
from btc_assets.domain.ticks import PRICE, QUANTITY, TIME, decimal128
from btc_assets.market_data.clock_bars.trades import Trades

VOLUME = pa.decimal128(38, QUANTITY.scale)
VALUE = pa.decimal128(38, PRICE.scale + QUANTITY.scale)

_FLOAT = pa.float64()

_COARSE, _FINE = 40, 46  # bits: squares are split into multiples of 2**-40 and, of what is left, of 2**-86
_BITS = _COARSE + _FINE


@dataclass
class OpenBar:
    """A bar that has not closed: what `Figures` say of it, prices and sums in the smallest unit that is stored.

    Attributes:
        price: of the last trade of the stream, which is not always that of the highest id.
        change: absolute log return of the last change of the price within the bar.
    """

    bucket: int
    open_time: int
    close_time: int
    first_trade_id: int
    last_trade_id: int
    open: int
    high: int
    low: int
    close: int
    trade_count: int
    volume: int
    value: int
    bought: int
    bought_value: int
    squares: int
    products: int
    changes: int
    price: int
    change: float


@dataclass
class Figures:
    """Figures of k groups of consecutive trades; the first group may continue an open bar.

    Attributes:
        bucket: slice of the last trade.
        open_time, close_time: of the first and the last trade.
        first_trade_id, last_trade_id: the lowest and the highest one.
        open, high, low, close: int64, in units of 1e-8; first and last are those of these ids, as in candles.
        volume, value, bought, bought_value: quantity and price times quantity, of all trades and of those whose taker bought.
        squares: sums of squared log returns from trade to trade, as integers of 2**-86.
        products: sums of products of the absolute values of consecutive ones, leaving out those that are 0.
        changes: log returns that are not 0, int64.
        price: of the last trade of the last group.
        change: the last log return in it that is not 0, absolute; 0 without one.
    """

    bucket: np.ndarray
    open_time: np.ndarray
    close_time: np.ndarray
    first_trade_id: np.ndarray
    last_trade_id: np.ndarray
    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    trade_count: np.ndarray
    volume: Units
    value: Units
    bought: Units
    bought_value: Units
    squares: list[int]
    products: list[int]
    changes: np.ndarray
    price: int
    change: float

    @classmethod
    def of(cls, trades: Trades, starts: np.ndarray, before: OpenBar | None) -> Figures:
        """Group trades.

        Args:
            trades: [n].
            starts: [k], position of the first trade of each group, ascending from 0.
            before: the bar that the first group continues, if it does.
        """
        last = np.append(starts[1:], len(trades)) - 1
        lowest, highest = _extremes(trades.trade_id, starts, last)
        price, bought = trades.price, trades.traded.where(trades.bought)
        squares, products, changes, change = _variations(price, starts, before)
        figures = cls(
            bucket=trades.bucket[last],
            open_time=trades.time[starts],
            close_time=trades.time[last],
            first_trade_id=trades.trade_id[lowest],
            last_trade_id=trades.trade_id[highest],
            open=price[lowest],
            high=np.maximum.reduceat(price, starts),
            low=np.minimum.reduceat(price, starts),
            close=price[highest],
            trade_count=last - starts + 1,
            volume=sums(trades.traded, starts),
            value=product_sums(trades.priced, trades.traded, starts),
            bought=sums(bought, starts),
            bought_value=product_sums(trades.priced, bought, starts),
            squares=squares,
            products=products,
            changes=changes,
            price=int(price[-1]),
            change=change,
        )
        if before:
            figures._continue(before)
        return figures

    @classmethod
    def of_open(cls, bar: OpenBar) -> Figures:
        """An open bar as a group of its own."""
        types = {"volume": VOLUME, "value": VALUE, "bought": VOLUME, "bought_value": VALUE}
        others: dict[str, Any] = {"squares": [bar.squares], "products": [bar.products], "price": bar.price, "change": bar.change}
        others |= {name: Units(np.array([getattr(bar, name)], object), type.scale) for name, type in types.items()}
        return cls(**{name: np.array([value], np.int64) for name, value in vars(bar).items() if name not in others} | others)

    def _continue(self, bar: OpenBar) -> None:
        """Add to the first group what was known of its bar before."""
        self.open_time[0] = bar.open_time
        if bar.first_trade_id < self.first_trade_id[0]:
            self.first_trade_id[0], self.open[0] = bar.first_trade_id, bar.open
        if bar.last_trade_id > self.last_trade_id[0]:
            self.last_trade_id[0], self.close[0] = bar.last_trade_id, bar.close
        self.high[0], self.low[0] = max(bar.high, int(self.high[0])), min(bar.low, int(self.low[0]))
        self.trade_count[0] += bar.trade_count
        self.changes[0] += bar.changes
        self.squares[0] += bar.squares
        self.products[0] += bar.products
        self.volume = _plus(self.volume, bar.volume, VOLUME.scale)
        self.value = _plus(self.value, bar.value, VALUE.scale)
        self.bought = _plus(self.bought, bar.bought, VOLUME.scale)
        self.bought_value = _plus(self.bought_value, bar.bought_value, VALUE.scale)

    def last(self) -> OpenBar:
        """The last group as an open bar."""
        values: dict[str, int] = {}
        for one in fields(self):
            figure = getattr(self, one.name)
            if isinstance(figure, Units):
                scale = VALUE.scale if one.name.endswith("value") else VOLUME.scale
                values[one.name] = int(figure.values[-1]) * 10 ** (scale - figure.scale)
            elif one.name not in ("price", "change"):
                values[one.name] = int(figure[-1])
        return OpenBar(**values, price=self.price, change=self.change)

    def columns(self, count: int) -> dict[str, pa.Array]:
        """The figures of the first `count` groups as columns of `SCHEMA`."""
        some = slice(0, count)
        volume, value, bought, bought_value = (
            Units(figure.values[some], figure.scale) for figure in (self.volume, self.value, self.bought, self.bought_value)
        )
        traded = _integers(volume, VOLUME.scale)
        times = {"open_time": self.open_time, "close_time": self.close_time, "bucket_5m": self.bucket}
        prices = {"open": self.open, "high": self.high, "low": self.low, "close": self.close}
        return {
            **{name: pa.array(figure[some]).cast(TIME) for name, figure in times.items()},
            **{name: decimal128(figure[some], PRICE) for name, figure in prices.items()},
            "first_trade_id": pa.array(self.first_trade_id[some]),
            "last_trade_id": pa.array(self.last_trade_id[some]),
            "trade_count": pa.array(self.trade_count[some]),
            "volume": volume.arrow(VOLUME),
            "quote_volume": value.arrow(VALUE),
            "taker_buy_volume": bought.arrow(VOLUME),
            "taker_buy_quote_volume": bought_value.arrow(VALUE),
            "vwap": pa.array(
                [paid / (sold * 10**PRICE.scale) for paid, sold in zip(_integers(value, VALUE.scale), traded, strict=True)], _FLOAT
            ),
            "order_flow_imbalance": pa.array(
                [(2 * up - all_) / all_ for up, all_ in zip(_integers(bought, VOLUME.scale), traded, strict=True)], _FLOAT
            ),
            "realized_variance": pa.array([math.ldexp(one, -_BITS) for one in self.squares[some]], _FLOAT),
            "bipower_variation": pa.array(_bipower(self.products[some], self.changes[some])),
        }


def _extremes(ids: np.ndarray, starts: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the lowest and the highest id of each group."""
    if (np.diff(ids) > 0).all():
        return starts, last  # the common case
    order = np.lexsort((ids, np.repeat(np.arange(len(starts)), last - starts + 1)))  # each group keeps its place
    return order[starts], order[last]


def _plus(figure: Units, value: int, scale: int) -> Units:
    """Sums of groups with a value, which counts units of `10 ** -scale`, added to the first of them."""
    factor = 10 ** (scale - figure.scale)
    total = int(figure.values[0]) * factor + value
    if figure.values.dtype != object and total % factor == 0 and total // factor < 2**62:
        figure.values[0] = total // factor
        return figure
    values = figure.values.astype(object) * factor
    values[0] = total
    return Units(values, scale)


def _integers(figure: Units, scale: int) -> list[int]:
    """Sums in units of `10 ** -scale`."""
    factor = 10 ** (scale - figure.scale)
    return [value * factor for value in figure.values.tolist()]


def _bipower(products: list[int], changes: np.ndarray) -> np.ndarray:
    """pi/2 times n / (n - 1) times the sum of products of n returns; 0 for fewer than two."""
    summed = np.array([math.ldexp(one, -_BITS) for one in products])
    return math.pi / 2 * changes / np.maximum(changes - 1, 1) * summed


def _variations(price: np.ndarray, starts: np.ndarray, before: OpenBar | None) -> tuple[list[int], list[int], np.ndarray, float]:
    """`squares`, `products`, `changes` and `change` of `Figures`."""
    step = np.diff(price, prepend=before.price if before else price[0])
    step[starts[1:]] = 0  # no change reaches into another bar
    at = np.flatnonzero(step)
    step = step[at]
    change = np.log1p(np.abs(step) / np.minimum(price[at], price[at] - step))  # the absolute log return
    offsets = np.append(np.searchsorted(at, starts), len(at))
    previous = np.empty_like(change)
    previous[1:] = change[:-1]
    first = offsets[:-1][offsets[:-1] < offsets[1:]]
    previous[first] = 0.0
    if before and offsets[1]:
        previous[0] = before.change
    in_last = change[offsets[-2] :]
    carried = before.change if before and len(starts) == 1 else 0.0
    squares, products = _sums_of_floats(change * change, offsets), _sums_of_floats(change * previous, offsets)
    return squares, products, np.diff(offsets), float(in_last[-1]) if len(in_last) else carried


def _sums_of_floats(values: np.ndarray, offsets: np.ndarray) -> list[int]:
    """The sums of segments, each value rounded to a multiple of 2**-86, in units of that."""
    coarse = np.rint(values * 2.0**_COARSE)
    fine = np.rint((values - coarse * 2.0**-_COARSE) * 2.0**_BITS)
    large = len(values) and float(values.max()) * len(values) >= 2.0 ** (62 - _COARSE)
    parts = [part.astype(np.int64).astype(object if large else np.int64) for part in (coarse, fine)]
    high, low = (reduce_segments(np.add, part, offsets).tolist() for part in parts)
    return [(a << _FINE) + b for a, b in zip(high, low, strict=True)]
