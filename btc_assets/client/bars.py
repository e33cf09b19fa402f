"""Bars on any clock, made of the ticks of a range while they are read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pyarrow as pa

from btc_assets.client.ranges import RangeLike, TimeRange, parse_range
from btc_assets.client.relation import Relation
from btc_assets.client.source import Source
from btc_assets.client.ticks import ticks
from btc_assets.domain.errors import UserError
from btc_assets.market_data.clock_bars.bars import SCHEMA, BarState, ClockBars
from btc_assets.market_data.clock_bars.sizes import Clock, Expectation, Side, Size
from btc_assets.market_data.clock_bars.trades import NEEDED

_READ = (*NEEDED, "symbol", "trade_kind")


class BarsRelation(Relation):
    """Bars that nobody has made yet, and the state with which those of the next range go on."""

    _making: _Making

    @classmethod
    def of(cls, source: Source, name: str, making: _Making, decimals: str | None) -> BarsRelation:
        """The relation of bars that are made while the store is read."""
        plain = source.relation_of(name, SCHEMA, making.batches, decimals=decimals)
        relation = cls(name, plain.schema, plain.batches, settings=source.settings)
        relation._making = making
        return relation

    @property
    def state(self) -> BarState:
        """What bars of the range that follows need to go on: pass it to `store.bars`. Reads the range, unless it was read to its end."""
        if self._making.state is None:
            for _ in self.batches():
                pass
        assert self._making.state is not None
        return self._making.state


@dataclass
class _Making:
    """Makes the bars of a range, from the beginning for each reading."""

    read: Relation
    span: TimeRange
    first: ClockBars
    source: Source
    state: BarState | None = field(default=None, init=False)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The bars, as they close."""
        bars = self.first.copy()
        for batch in self.read.batches():
            if len(closed := bars.add(batch)):
                yield closed
        if len(last := bars.finish(min(self.span.end, datetime.now(UTC) - self.source.latency))):
            yield last
        self.state = bars.state


def bars(  # noqa: PLR0913  # what is read, each by its keyword
    source: Source,
    symbol: str,
    range: RangeLike,
    *,
    clock: Clock | str,
    size: Size | None,
    side: Side | str = "aggressor",
    expectation: Expectation | None = None,
    state: BarState | None = None,
    decimals: str | None = None,
) -> BarsRelation:
    """As `ClientStore.bars`."""
    first = ClockBars(clock, size, side=side, expectation=expectation, latency=source.latency, state=state)
    if state and state.symbol not in (None, symbol):
        raise UserError(f"This state is one of bars of {state.symbol}: go on with it for that symbol, and leave it out for {symbol}.")
    span = parse_range(range)
    read = ticks(source, symbol, span, _READ, by="trade_time" if clock == "time" else "event_time", decimals="exact")
    return BarsRelation.of(source, f"bars of {symbol}, {clock} {size}, {span}", _Making(read, span, first, source), decimals)
