"""Bars as López de Prado (2018, section 2.3) describes them, trade by trade in plain Python: what the store's bars are compared with.

Written without code of the project, in fractions instead of integers, so that nothing is shared but the rule.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from typing import Any

Trade = dict[str, Any]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass
class Average:
    """An exponentially weighted average that begins with its first value."""

    span: float
    value: float | None = None

    def add(self, new: float) -> None:
        self.value = new if self.value is None else self.value + 2 / (self.span + 1) * (new - self.value)

    @property
    def known(self) -> float:
        return self.value or 0.0


@dataclass
class Book:
    """The rule of one clock; `size` is that of `store.bars`, with a duration for time."""

    clock: str
    size: Any
    side: str = "aggressor"
    span: float = 20
    shortest: float = 0.5
    longest: float = 5
    floor: float = 1
    averages: dict[str, Average] = field(default_factory=dict)

    def bars(self, trades: Sequence[Trade]) -> list[list[Trade]]:
        """The trades of each bar that has closed."""
        closed: list[list[Trade]] = []
        bar: list[Trade] = []
        for trade in self._seen(trades):
            if self.clock == "time" and bar and self._interval(trade) > self._interval(bar[-1]):
                closed.append(bar)
                bar = []
            bar.append(trade)
            if self.clock != "time" and self._closes(bar):
                self._learn(bar)
                closed.append(bar)
                bar = []
        return closed

    def _seen(self, trades: Sequence[Trade]) -> Iterator[Trade]:
        """The market trades, with the time and the side that they count with."""
        latest, price, side = EPOCH, None, 0
        for trade in trades:
            if trade["trade_kind"] not in (None, "MARKET"):
                continue
            latest = max(latest, trade["trade_time"])
            taker = -1 if trade["is_market_maker"] else 1
            if price is None:
                side = taker
            elif trade["price"] != price:
                side = 1 if trade["price"] > price else -1
            price = trade["price"]
            yield trade | {"at": latest, "b": taker if self.side == "aggressor" else side}

    def _interval(self, trade: Trade) -> int:
        return (trade["at"] - EPOCH) // self.size

    def _v(self, trade: Trade) -> Fraction:
        measure = self.clock.split("_")[0]
        quantity = Fraction(trade["quantity"])
        return Fraction(1) if measure == "tick" else quantity if measure == "volume" else quantity * Fraction(trade["price"])

    def _closes(self, bar: list[Trade]) -> bool:
        if "_" not in self.clock:
            return sum(self._v(trade) for trade in bar) >= Fraction(self.size)
        if not self.averages:
            return len(bar) == self.size
        if len(bar) >= self.size * self.longest:
            return True
        length = min(max(self._mean("T"), self.size * self.shortest), self.size * self.longest)
        if self.clock.endswith("imbalance"):
            chance = self.floor * math.sqrt(self.size * self._mean("theta2") / self._mean("T"))
            return abs(sum(trade["b"] * self._v(trade) for trade in bar)) >= Fraction(max(length * abs(self._mean("bv")), chance))
        share = self._mean("share")
        expected = length * max(share * self._mean("up"), (1 - share) * self._mean("down"))
        return max(sum(self._v(trade) for trade in bar if trade["b"] == side) for side in (1, -1)) >= Fraction(expected)

    def _mean(self, name: str) -> float:
        return self.averages[name].known if name in self.averages else 0.0

    def _learn(self, bar: list[Trade]) -> None:
        if "_" not in self.clock:
            return
        theta = sum((trade["b"] * self._v(trade) for trade in bar), Fraction(0))
        ups, downs = ([self._v(trade) for trade in bar if trade["b"] == side] for side in (1, -1))
        new = {"T": len(bar), "bv": float(theta / len(bar)), "theta2": float(theta) ** 2, "share": len(ups) / len(bar)}
        new |= {name: float(sum(values) / len(values)) for name, values in (("up", ups), ("down", downs)) if values}
        for name, value in new.items():
            self.averages.setdefault(name, Average(self.span)).add(value)


def describe(bar: list[Trade]) -> dict[str, Any]:
    """The columns of a bar, but for `available_at` and the symbol; the two measures of variance in fractions of floats."""
    first, last = min(bar, key=lambda t: t["trade_id"]), max(bar, key=lambda t: t["trade_id"])
    volume, bought = sum(t["quantity"] for t in bar), sum(t["quantity"] for t in bar if not t["is_market_maker"])
    value = sum(Fraction(t["price"]) * Fraction(t["quantity"]) for t in bar)
    bought_value = sum(Fraction(t["price"]) * Fraction(t["quantity"]) for t in bar if not t["is_market_maker"])
    prices = [Fraction(t["price"]) for t in bar]
    steps = [math.log1p(abs(b - a) / min(a, b)) for a, b in pairwise(prices) if a != b]
    n = len(steps)
    pairs = math.fsum(a * b for a, b in pairwise(steps))
    return {
        "open_time": bar[0]["at"], "close_time": bar[-1]["at"], "bucket_5m": bar[-1]["bucket_5m"],
        "open": first["price"], "high": max(t["price"] for t in bar), "low": min(t["price"] for t in bar), "close": last["price"],
        "volume": volume, "quote_volume": value, "trade_count": len(bar), "taker_buy_volume": bought, "taker_buy_quote_volume": bought_value,
        "first_trade_id": first["trade_id"], "last_trade_id": last["trade_id"],
        "vwap": float(value / Fraction(volume)), "order_flow_imbalance": float((2 * Fraction(bought) - Fraction(volume)) / Fraction(volume)),
        "realized_variance": math.fsum(step**2 for step in steps), "bipower_variation": math.pi / 2 * n / (n - 1) * pairs if n > 1 else 0.0,
    }  # fmt: skip


def known_at(bar: list[Trade], latency: timedelta, interval: timedelta | None = None) -> datetime:
    """When a bar can have been known: its last trade's slice is over, and its interval."""
    end = bar[-1]["bucket_5m"] + timedelta(minutes=5)
    if interval:
        over = EPOCH + ((bar[-1]["at"] - EPOCH) // interval + 1) * interval
        end = max(end, EPOCH + -(-(over - EPOCH) // timedelta(minutes=5)) * timedelta(minutes=5))
    return end + latency
