"""Bars of a stream of ticks, Arrow in and Arrow out, whose state can be taken away and put back.

Whatever pieces the stream is cut into, the bars are the same to the last digit.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import MICROSECOND, SLICE_US, to_microseconds
from btc_assets.domain.ticks import PRICE, TIME, int64
from btc_assets.market_data.clock_bars.clocks import ClockHand, TimeClock, new_clock
from btc_assets.market_data.clock_bars.figures import VALUE, VOLUME, Figures, OpenBar
from btc_assets.market_data.clock_bars.sizes import ADAPTIVE, SIDES, Clock, Expectation, Side, Size, parse_size, rule_of
from btc_assets.market_data.clock_bars.trades import Trades, one_symbol, pieces, read_trades

SCHEMA = pa.schema(
    [
        pa.field(name, type, nullable=False)
        for name, type in {
            "open_time": TIME,
            "close_time": TIME,
            "bucket_5m": TIME,
            "available_at": TIME,
            "symbol": pa.string(),
            "open": PRICE,
            "high": PRICE,
            "low": PRICE,
            "close": PRICE,
            "volume": VOLUME,
            "quote_volume": VALUE,
            "trade_count": pa.int64(),
            "taker_buy_volume": VOLUME,
            "taker_buy_quote_volume": VALUE,
            "first_trade_id": pa.int64(),
            "last_trade_id": pa.int64(),
            "vwap": pa.float64(),
            "order_flow_imbalance": pa.float64(),
            "realized_variance": pa.float64(),
            "bipower_variation": pa.float64(),
        }.items()
    ]
)


@dataclass
class BarState:
    """All that bars carry from one piece of the stream to the next; plain data, so that it can be pickled.

    Attributes:
        terms: clock, size as an integer, side and expectation: bars go on only on the terms that they began with.
        hand: the clock.
        symbol: of the trades; None before the first one, or if they do not tell it.
        last: slice, in microseconds, and id of the last trade; None before the first one.
        time: the latest trade time so far, in microseconds.
        price: of the last trade, in units of 1e-8.
        up: its side.
        bar: the bar that has not closed, if one has begun.
    """

    terms: tuple[str, int, str, Expectation]
    hand: ClockHand
    symbol: str | None = None
    last: tuple[int, int] | None = None
    time: int = -(2**63)
    price: int = 0
    up: bool = True
    bar: OpenBar | None = None


class ClockBars:
    """Makes bars of the ticks of one symbol, a piece of the stream at a time.

    A bar closes with the trade that makes what it counts reach its size, or what its clock expects; that trade belongs to it whole, and
    nothing is carried into the next bar. On the clock `time`, a bar holds the trades of one interval. Only trades of the market count
    (`market_data.is_market_trade`). A trade whose time steps back counts at the time of the trade before it.

    Args:
        clock: one of `sizes.CLOCKS`.
        size: trades of a bar (`tick`), base units (`volume`), quote units (`dollar`), a duration (`time`), or the trades of the first
            bar, from which an adaptive clock learns what to expect.
        side: on which side a trade counts on an adaptive clock: `aggressor`, the taker's, which the exchange reports; or by the
            `tick_rule`: up if the price is above that of the trade before it, down if below, else as that trade did.
        expectation: of an adaptive clock.
        latency: from the end of a slice until its trades can be known.
        state: of bars on the same terms, which go on with the trades that follow.

    Raises:
        UserError: there is no such clock, the size is none, an argument does not belong to the clock, or the state has other terms.
    """

    def __init__(  # the keywords are what a clock can be told
        self,
        clock: Clock | str,
        size: Size | None,
        *,
        side: Side | str = "aggressor",
        expectation: Expectation | None = None,
        latency: timedelta = timedelta(0),
        state: BarState | None = None,
    ) -> None:
        rule = rule_of(clock)
        if side not in SIDES:
            raise UserError(f"There is no side {side!r}: use one of {', '.join(SIDES)}.")
        if clock not in ADAPTIVE and (expectation or side != "aggressor"):
            raise UserError(f"The clock {clock!r} expects nothing: give side and expectation only for {', '.join(ADAPTIVE)}.")
        count = parse_size(clock, size)
        terms = (clock, count, side, expectation or Expectation())
        if state is not None and not isinstance(state, BarState):
            raise UserError(f"{state!r} is no state of bars: give `state` of the bars of the range before.")
        if state and state.terms != terms:
            raise UserError(
                f"This state is one of bars on the clock {state.terms[0]!r} with another size, side or expectation, or on another clock than "
                f"{clock!r}: go on with the arguments that it was made with."
            )
        self._state = deepcopy(state) if state else BarState(terms, new_clock(rule, count, terms[-1]))
        self._latency = latency // MICROSECOND

    def copy(self) -> ClockBars:
        """Bars that go on from here by themselves."""
        return deepcopy(self)

    @property
    def state(self) -> BarState:
        """A copy of the state, from which bars of the ticks that follow can go on."""
        return deepcopy(self._state)

    def add(self, ticks: pa.RecordBatch | pa.Table) -> pa.RecordBatch:
        """The bars that close with these ticks.

        Args:
            ticks: bucket_5m, trade_time, trade_id, price, quantity (decimals), is_market_maker, and trade_kind and symbol if they are
                known; of one symbol, in the order of (bucket_5m, trade_id), and after all ticks before.

        Returns:
            In `SCHEMA`; no row if no bar closes.

        Raises:
            UserError: the ticks are out of order, of several symbols, or lack a column.
        """
        market = read_trades(ticks)
        self._check(market)
        batches = [batch for trades in pieces(market, self._state.time) for batch in self._add(trades)]
        return _together(batches)

    def finish(self, end: datetime) -> pa.RecordBatch:
        """On the clock `time`, the last bar, if its interval is over.

        Args:
            end: no trade before this time follows.
        """
        state = self._state
        if state.bar and isinstance(state.hand, TimeClock) and _interval_end(state.bar.close_time, state.hand.size) <= to_microseconds(end):
            return _together(list(self._close_open()))
        return _together([])

    def _check(self, ticks: pa.Table) -> None:
        state, symbol = self._state, one_symbol(ticks)
        if symbol and state.symbol not in (None, symbol):
            raise UserError(f"These ticks are of {symbol}, those before them of {state.symbol}: make the bars of each symbol by itself.")
        state.symbol = state.symbol or symbol
        if not len(ticks):
            return
        bucket, ids = int64(ticks["bucket_5m"]), ticks["trade_id"].to_numpy()
        ascend = (bucket[1:] > bucket[:-1]) | ((bucket[1:] == bucket[:-1]) & (ids[1:] > ids[:-1]))
        if not ascend.all() or (state.last and (int(bucket[0]), int(ids[0])) <= state.last):
            raise UserError(
                "These ticks are not in the order of their slices and trade ids: sort them by bucket_5m and trade_id, each once."
            )
        state.last = int(bucket[-1]), int(ids[-1])

    def _add(self, trades: Trades) -> Iterator[pa.RecordBatch]:
        state = self._state
        cuts = state.hand.cuts(trades, self._sides(trades))
        state.time, state.price = int(trades.time[-1]), int(trades.price[-1])
        if len(cuts) and not cuts[0]:  # the clock moved on between the trades before and these
            yield from self._close_open()
            cuts = cuts[1:]
        closed = len(cuts)
        starts = np.append(np.zeros(1, np.int64), cuts)
        whole = closed > 0 and cuts[-1] == len(trades)  # no bar is open after these trades
        figures = Figures.of(trades, starts[:-1] if whole else starts, state.bar)
        state.bar = None if whole else figures.last()
        if closed:
            yield self._bars(figures, closed)

    def _close_open(self) -> Iterator[pa.RecordBatch]:
        """The open bar, if there is one: `finish` may have given it already."""
        bar, self._state.bar = self._state.bar, None
        if bar:
            yield self._bars(Figures.of_open(bar), 1)

    def _sides(self, trades: Trades) -> np.ndarray:
        """bool [n]: which trades count as up."""
        if self._state.terms[2] == "aggressor":
            return trades.bought
        before = self._state.price or int(trades.price[0])
        step = np.diff(trades.price, prepend=before)
        latest = np.maximum.accumulate(np.where(step != 0, np.arange(len(step)), -1))
        first = self._state.up if self._state.price else bool(trades.bought[0])
        up = np.where(latest < 0, first, step[latest] > 0)
        self._state.up = bool(up[-1])
        return up

    def _bars(self, figures: Figures, count: int) -> pa.RecordBatch:
        try:
            columns = figures.columns(count)
        except pa.ArrowInvalid:
            raise UserError("A bar of these ticks is worth more than 38 digits can say: give a smaller size.") from None
        known = figures.bucket[:count] + SLICE_US
        if isinstance(self._state.hand, TimeClock):
            ends = _interval_end(figures.close_time[:count], self._state.hand.size)
            known = np.maximum(known, -(-ends // SLICE_US) * SLICE_US)
        columns["available_at"] = pa.array(known + self._latency).cast(TIME)
        columns["symbol"] = pa.repeat(pa.scalar(self._state.symbol or "", pa.string()), count)
        return pa.RecordBatch.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def _interval_end(time: int | np.ndarray, size: int) -> int | np.ndarray:
    return (time // size + 1) * size


def _together(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    table = pa.Table.from_batches(batches, SCHEMA).combine_chunks()
    return table.to_batches()[0] if len(table) else pa.RecordBatch.from_pylist([], SCHEMA)
