"""Where bars end: each clock finds the trades that close a bar in a piece of the stream, and keeps what it has counted so far.

All counting is in integers that count the smallest unit of the measure, so that it does not depend on how the stream is cut. What an
adaptive clock expects is in floats, which change only when a bar closes, by what the whole bar counted.

Source: López de Prado (2018), Advances in Financial Machine Learning, section 2.3. What it leaves open is said at `ImbalanceClock` and
`RunsClock`.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from btc_assets.domain.exact_sums import Units, running_sums
from btc_assets.market_data.clock_bars.sizes import SCALES, Expectation, Rule
from btc_assets.market_data.clock_bars.trades import Trades

_FIRST_LOOK = 256  # trades that are compared with a threshold at once; then twice as many


class ClockHand(Protocol):
    """A clock in the middle of a bar; plain data, so that it can be copied and pickled."""

    def cuts(self, trades: Trades, up: np.ndarray) -> np.ndarray:
        """The ends of bars in the next trades of the stream.

        Args:
            trades: [n].
            up: bool [n], on which side each of them counts.

        Returns:
            int64, ascending: each the number of these trades before the end of a bar; 0 if the bar closed with the trades before them.
        """


def new_clock(rule: Rule, size: int, expectation: Expectation) -> ClockHand:
    """A clock at the beginning of its first bar; `size` as `parse_size` gives it."""
    if rule.kind == "time":
        return TimeClock(size)
    if rule.kind == "fixed":
        return FixedClock(rule.measure, size)
    return (ImbalanceClock if rule.kind == "imbalance" else RunsClock)(rule.measure, size, expectation)


@dataclass
class TimeClock:
    """A bar holds the trades whose times lie in one interval of `size` microseconds, counted from 1970; intervals without trades have no bar."""

    size: int
    interval: int | None = None

    def cuts(self, trades: Trades, up: np.ndarray) -> np.ndarray:
        intervals = trades.time // self.size
        before = intervals[0] if self.interval is None else self.interval
        self.interval = int(intervals[-1])
        return np.flatnonzero(np.diff(intervals, prepend=before))


@dataclass
class FixedClock:
    """A bar closes with the trade that makes its measure reach the size. That trade belongs to it whole; the next bar starts at zero."""

    measure: str
    size: int
    reached: int = 0

    def cuts(self, trades: Trades, up: np.ndarray) -> np.ndarray:
        if self.measure == "tick":
            found = np.arange(min(self.size - self.reached, len(trades) + 1), len(trades) + 1, min(self.size, len(trades)))
            self.reached = (self.reached + len(trades)) % self.size
            return found
        course = _Course(trades.measure(self.measure), SCALES[self.measure])
        ends, start = [], 0
        while (end := course.reach(start, self.size - self.reached) + 1) <= len(trades):
            ends.append(end)
            start, self.reached = end, 0
        self.reached += course.since(start)
        return np.array(ends, np.int64)


@dataclass
class _AdaptiveClock:
    """What imbalance and runs clocks share: the first bar has as many trades as the size says; no bar has more than `longest` times that.

    Attributes:
        size: trades that a bar is expected to have at first.
        count: trades of the present bar.
        length: the average of the bars so far, weighted exponentially, in trades; None before the first one has closed.
    """

    measure: str
    size: int
    expectation: Expectation
    count: int = 0
    length: float | None = None

    @property
    def _least(self) -> int:
        """The trade of this number closes the bar whatever it has counted."""
        longest = self.size * (1.0 if self.length is None else self.expectation.longest)
        return min(math.ceil(longest), sys.maxsize) if math.isfinite(longest) else sys.maxsize

    @property
    def _expected_length(self) -> float:
        assert self.length is not None
        return min(max(self.length, self.size * self.expectation.shortest), self.size * self.expectation.longest)

    def _learn(self, known: float | None, new: float) -> float:
        return new if known is None else known + 2 / (self.expectation.span + 1) * (new - known)

    def _threshold(self, level: float) -> int:
        """The least integer of the measure's units that reaches a level, which is taken as the exact value of the float."""
        numerator, denominator = level.as_integer_ratio()
        return -(-numerator * 10 ** SCALES[self.measure] // denominator)

    def _mean(self, counted: int, trades: int) -> float:
        """Of a measure, in its own unit; rounded once."""
        return counted / (trades * 10 ** SCALES[self.measure])


@dataclass
class ImbalanceClock(_AdaptiveClock):
    """A bar closes with the trade that makes |theta|, the sum of side times measure, reach max(E[T] |E[b v]|, floor).

    E[T] and E[b v] are averages over the bars before it, weighted exponentially: of their numbers of trades, kept within the bounds, and
    of their theta per trade. floor is that of the expectation, times sqrt(size E[theta^2] / E[T]): what a market without drift, whose
    variance per trade is E[theta^2] / E[T] by Wald's second identity, reaches in `size` trades on average. Without it, a balanced
    market expects no imbalance, and every trade is a bar.

    Attributes:
        theta: of the present bar.
        drift: E[b v].
        square: E[theta^2].
    """

    theta: int = 0
    drift: float | None = None
    square: float | None = None

    def cuts(self, trades: Trades, up: np.ndarray) -> np.ndarray:
        counted = trades.measure(self.measure)
        course = _Course(Units(np.where(up, counted.values, -counted.values), counted.scale), SCALES[self.measure])
        ends: list[int] = []
        start = 0
        while True:
            stop = start + self._least - self.count
            end = min(self._leave(course, start, min(stop, len(trades))) + 1, stop)
            if end > len(trades):
                self.count += len(trades) - start
                self.theta += course.since(start)
                return np.array(ends, np.int64)
            self._close(self.count + end - start, self.theta + course.since(start, end))
            ends.append(end)
            start = end

    def _leave(self, course: _Course, start: int, stop: int) -> int:
        """The first of these trades that takes theta to the threshold; `stop` if none does."""
        if self.length is None or self.drift is None or self.square is None:
            return stop
        chance = math.sqrt(self.size * self.square / self.length)
        threshold = self._threshold(max(self._expected_length * abs(self.drift), self.expectation.floor * chance))
        return course.leave(start, stop, threshold - self.theta, -threshold - self.theta)

    def _close(self, count: int, theta: int) -> None:
        self.length = self._learn(self.length, count)
        self.drift = self._learn(self.drift, self._mean(theta, count))
        self.square = self._learn(self.square, self._mean(theta, 1) ** 2)
        self.count = self.theta = 0


@dataclass
class RunsClock(_AdaptiveClock):
    """A bar closes with the trade that makes theta, the larger of what both sides count, reach E[T] max(P E[v+], (1 - P) E[v-]).

    All four are averages over the bars before it, weighted exponentially: of their numbers of trades, kept within the bounds; of the
    share P of trades on the upper side; and of the mean that a trade counts on the upper and on the lower side, of the bars that have
    any.

    Attributes:
        ups: trades of the present bar on the upper side.
        sides: what both sides count in it, the upper one first.
        share: P.
        means: E[v+] and E[v-].
    """

    ups: int = 0
    sides: list[int] = field(default_factory=lambda: [0, 0])
    share: float | None = None
    means: list[float | None] = field(default_factory=lambda: [None, None])

    def cuts(self, trades: Trades, up: np.ndarray) -> np.ndarray:
        counted = trades.measure(self.measure)
        courses = [_Course(counted.where(side), SCALES[self.measure]) for side in (up, ~up)]
        ups = _Course(Units(up.astype(np.int64), 0), 0)
        ends: list[int] = []
        start = 0
        while True:
            stop = start + self._least - self.count
            end = min(self._reach(courses, start) + 1, stop)
            last = min(end, len(trades))
            self.count += last - start
            self.ups += ups.since(start, last)
            self.sides = [side + course.since(start, last) for side, course in zip(self.sides, courses, strict=True)]
            if end > len(trades):
                return np.array(ends, np.int64)
            self._close()
            ends.append(end)
            start = end

    def _reach(self, courses: list[_Course], start: int) -> int:
        """The first trade that takes one of both sides to the threshold; the largest integer if none does."""
        if self.share is None:
            return sys.maxsize
        high, low = (mean or 0.0 for mean in self.means)
        threshold = self._threshold(self._expected_length * max(self.share * high, (1 - self.share) * low))
        return min(course.reach(start, threshold - side) for course, side in zip(courses, self.sides, strict=True))

    def _close(self) -> None:
        self.length = self._learn(self.length, self.count)
        self.share = self._learn(self.share, self.ups / self.count)
        for place, trades in enumerate((self.ups, self.count - self.ups)):
            if trades:
                self.means[place] = self._learn(self.means[place], self._mean(self.sides[place], trades))
        self.count, self.ups, self.sides = 0, 0, [0, 0]


class _Course:
    """The running sum of a measure over the trades of a piece; sums are given in the measure's smallest unit."""

    def __init__(self, counted: Units, scale: int) -> None:
        self._sums = running_sums(counted)
        self._factor = 10 ** (scale - counted.scale)

    def _before(self, start: int) -> int:
        return int(self._sums[start - 1]) if start else 0

    def since(self, start: int, end: int | None = None) -> int:
        """The sum of the trades from `start` up to `end`; of all that follow if omitted."""
        return (self._before(len(self._sums) if end is None else end) - self._before(start)) * self._factor

    def reach(self, start: int, missing: int) -> int:
        """The first trade from `start` on with which the sum, which never falls, is `missing` or more; the largest integer if none."""
        wanted = self._before(start) - -max(missing, 1) // self._factor
        return int(self._sums.searchsorted(wanted)) if wanted <= self._before(len(self._sums)) else sys.maxsize

    def leave(self, start: int, stop: int, above: int, below: int) -> int:
        """The first trade from `start` up to `stop` with which the sum is at least `above` or at most `below`; `stop` if none."""
        before = self._before(start)
        high, low = before - -above // self._factor, before + below // self._factor
        if self._sums.dtype != object:
            high, low = min(high, 2**63 - 1), max(low, -(2**63))
        look = _FIRST_LOOK
        while start < stop:
            some = self._sums[start : min(start + look, stop)]
            out = (some >= high) | (some <= low)
            if out[first := int(out.argmax())]:
                return start + first
            start += len(some)
            look *= 2
        return stop
