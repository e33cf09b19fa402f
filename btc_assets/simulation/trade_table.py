"""What the generators share: where their trades begin, and how arrays become a table of ticks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from btc_assets.domain.slices import SLICE_US
from btc_assets.domain.ticks import PRICE, QUANTITY, TICK_SCHEMA, TIME, decimal128


@dataclass(frozen=True)
class FirstTrade:
    """Where a sequence of generated trades begins.

    Attributes:
        symbol: of all trades.
        trade_id: of the first trade; each next one is one higher.
        price: before the first trade.
    """

    symbol: str = "BTCUSDT"
    trade_id: int = 1_000_000_000
    price: float = 42_000.0


FIRST_TRADE = FirstTrade()


@dataclass(frozen=True)
class TradeArrays:
    """Trades as arrays of equal length.

    Attributes:
        event_us, trade_us: event and trade times in microseconds since 1970.
        cents: prices in units of 0.01.
        quantity: quantities in units of 0.00001.
        sold: whether the taker sold, so that the buyer is the market maker.
    """

    event_us: np.ndarray
    trade_us: np.ndarray
    cents: np.ndarray
    quantity: np.ndarray
    sold: np.ndarray

    def __len__(self) -> int:
        return len(self.cents)

    def as_ticks(self, symbol: str, first_trade_id: int) -> pa.Table:
        """The trades in `TICK_SCHEMA`, with contiguous ids."""
        count = len(self)
        return pa.table(
            [
                pa.array(self.event_us // SLICE_US * SLICE_US).cast(TIME),
                pa.array(self.event_us).cast(TIME),
                pa.array(self.trade_us).cast(TIME),
                pa.repeat(symbol, count),
                pa.array(np.arange(first_trade_id, first_trade_id + count)),
                decimal128(self.cents * 10**6, PRICE),
                decimal128(self.quantity * 10**7, QUANTITY),
                pa.nulls(count, pa.int64()),
                pa.nulls(count, pa.int64()),
                pa.array(self.sold),
                pa.nulls(count, pa.string()),
            ],
            schema=TICK_SCHEMA,
        )


def sent_after(random: np.random.Generator, trade_ms: np.ndarray, last_ms: int) -> np.ndarray:
    """Event times of trades in order: the exchange sends each some milliseconds after it was made, never out of order.

    Args:
        random: where the delays come from.
        trade_ms: trade times, ascending.
        last_ms: no event is later than this.
    """
    return np.maximum.accumulate(np.minimum(trade_ms + random.poisson(2.0, len(trade_ms)), last_ms))


def autoregression(level: float, keep: float, shocks: np.ndarray) -> np.ndarray:
    """A first-order autoregression that starts after `level`: each value is a share `keep` of the one before, plus a shock."""
    levels = np.empty(len(shocks))
    for i, shock in enumerate(shocks.tolist()):
        level = keep * level + shock
        levels[i] = level
    return levels
