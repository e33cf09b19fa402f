"""The trades of a piece of the stream as arrays, and what each of them counts on a clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from btc_assets.domain.errors import UserError
from btc_assets.domain.exact_sums import Units, products, units
from btc_assets.domain.ticks import PRICE, QUANTITY, TIME, int64, market_trades

_TYPES = {
    "bucket_5m": TIME,
    "trade_time": TIME,
    "trade_id": pa.int64(),
    "price": PRICE,
    "quantity": QUANTITY,
    "is_market_maker": pa.bool_(),
}

NEEDED = tuple(_TYPES)

_PIECE = 1 << 16  # trades whose arrays fit into the processor's cache


@dataclass(frozen=True)
class Trades:
    """Market trades of one symbol in the order of their slices and ids, as arrays [n], n > 0.

    Attributes:
        bucket: starts of their slices, int64 microseconds.
        time: trade times, int64 microseconds, none below the one before it.
        trade_id: int64.
        priced: their prices, in the largest unit that all are multiples of.
        traded: their quantities, in the largest unit that all are multiples of.
        bought: bool, whether the taker bought.
    """

    bucket: np.ndarray
    time: np.ndarray
    trade_id: np.ndarray
    priced: Units
    traded: Units
    bought: np.ndarray

    def __len__(self) -> int:
        return len(self.trade_id)

    @cached_property
    def price(self) -> np.ndarray:
        """The prices in the smallest unit that is stored, int64."""
        return self.priced.values * 10 ** (PRICE.scale - self.priced.scale)

    def measure(self, measure: str) -> Units:
        """What each trade counts: one, its quantity, or its price times its quantity."""
        if measure == "tick":
            return Units(np.ones(len(self), np.int64), 0)
        return self.traded if measure == "volume" else products(self.priced, self.traded)


def read_trades(batch: pa.RecordBatch | pa.Table) -> pa.Table:
    """The market trades of a batch, with decimals as they are stored.

    Raises:
        UserError: a column is missing or of another type.
    """
    ticks = batch if isinstance(batch, pa.Table) else pa.Table.from_batches([batch])
    if missing := [name for name in NEEDED if name not in ticks.column_names]:
        raise UserError(f"These ticks lack the column {missing[0]}, which bars are made of: pass {', '.join(NEEDED)}.")
    if "trade_kind" in ticks.column_names:
        ticks = market_trades(ticks)
    for name in ("price", "quantity"):
        if not pa.types.is_decimal(ticks[name].type):
            raise UserError(f"The column {name} of these ticks is {ticks[name].type}: bars are exact, so pass the decimals of the store.")
    return pa.table({name: ticks[name].cast(_TYPES.get(name, pa.string())) for name in (*NEEDED, "symbol") if name in ticks.column_names})


def one_symbol(ticks: pa.Table) -> str | None:
    """The symbol of ticks; None if they do not tell it.

    Raises:
        UserError: there are several.
    """
    if "symbol" not in ticks.column_names or not len(ticks):
        return None
    symbol = ticks["symbol"][0]
    if not pc.all(pc.equal(ticks["symbol"], symbol)).as_py():
        raise UserError("These ticks belong to several symbols, whose trades do not form one market: make the bars of each by itself.")
    return symbol.as_py()


def pieces(ticks: pa.Table, earliest: int) -> Iterator[Trades]:
    """The trades a bounded number at a time.

    Args:
        ticks: from `read_trades`.
        earliest: the last trade time before them; a trade whose time steps back counts at the time of the trade before it.
    """
    for start in range(0, len(ticks), _PIECE):
        some = ticks.slice(start, _PIECE)
        time = np.maximum(np.maximum.accumulate(int64(some["trade_time"])), earliest)
        earliest = int(time[-1])
        yield Trades(
            int64(some["bucket_5m"]),
            time,
            some["trade_id"].to_numpy(),
            units(some["price"]),
            units(some["quantity"]),
            ~some["is_market_maker"].to_numpy(),
        )
