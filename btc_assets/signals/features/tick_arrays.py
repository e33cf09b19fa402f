"""The ticks of one symbol as flat arrays, slice after slice: the input of features and bars."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE_US
from btc_assets.domain.ticks import float64, int64

_PART_TICKS, _PART_SLICES = 1 << 17, 1 << 11


@dataclass(frozen=True)
class TickArrays:
    """Ticks of one symbol; those of slice `i` are `offsets[i]:offsets[i + 1]`, in the order of their trade ids.

    Attributes:
        starts: int64 [n], starts of the slices in µs since 1970, ascending.
        offsets: int64 [n + 1], from 0 to m.
        time: int64 [m], event times in µs since 1970.
        price: float64 [m], above zero.
        quantity: float64 [m], in base units, above zero.
        buy: bool [m], the taker bought.
    """

    starts: np.ndarray
    offsets: np.ndarray
    time: np.ndarray
    price: np.ndarray
    quantity: np.ndarray
    buy: np.ndarray

    @classmethod
    def of(cls, ticks: pa.Table, starts: np.ndarray | None = None) -> TickArrays:
        """Arrays of a table of ticks.

        Args:
            ticks: bucket_5m, event_time, price, quantity (decimals or float64) and is_market_maker, all of one symbol, ordered by
                (bucket_5m, trade_id).
            starts: starts of the slices in µs since 1970, ascending, including slices without ticks; by default, the slices that
                have ticks.

        Raises:
            UserError: the ticks belong to several symbols, are out of order, or belong to slices that `starts` lacks.
        """
        bucket = int64(ticks["bucket_5m"])
        change = np.diff(bucket)
        if (change < 0).any():
            raise UserError("These ticks are not in the order of their slices: sort them by bucket_5m, symbol and trade_id.")
        if len(ticks) and "symbol" in ticks.column_names and not pc.all(pc.equal(ticks["symbol"], ticks["symbol"][0])).as_py():
            raise UserError("These ticks belong to several symbols, whose trades do not form one market: pass the ticks of one symbol.")
        own = bucket[np.concatenate([[0], np.flatnonzero(change) + 1])] if len(bucket) else bucket
        starts = own if starts is None else np.asarray(starts, np.int64)
        if (np.diff(starts) <= 0).any() or not np.isin(own, starts).all():
            raise UserError(
                "These starts of slices do not ascend or lack slices of the ticks: pass each slice of the range once, in order."
            )
        return cls(
            starts,
            offsets=np.append(np.searchsorted(bucket, starts), len(bucket)),
            time=int64(ticks["event_time"]),
            price=float64(ticks["price"]),
            quantity=float64(ticks["quantity"]),
            buy=~ticks["is_market_maker"].to_numpy(),
        )

    @classmethod
    def of_symbols(cls, ticks: pa.Table, first: np.ndarray, empty: int = 0) -> TickArrays:
        """Arrays of ticks of several symbols: each pair of slice and symbol is a slice here, in the order of the ticks.

        Features compare no slice with another and use no time but that since its start. So these slices follow each other from 1970 on,
        whatever their times are.

        Args:
            ticks: as in `of`, of any symbols, ordered by (bucket_5m, symbol, trade_id).
            first: position of the first tick of each slice and symbol.
            empty: slices without ticks, which come last.
        """
        offsets = np.append(first, np.full(empty + 1, len(ticks)))
        starts = SLICE_US * np.arange(len(offsets) - 1)
        return cls(
            starts,
            offsets,
            time=int64(ticks["event_time"]) - int64(ticks["bucket_5m"]) + np.repeat(starts, np.diff(offsets)),
            price=float64(ticks["price"]),
            quantity=float64(ticks["quantity"]),
            buy=~ticks["is_market_maker"].to_numpy(),
        )

    def __len__(self) -> int:
        """Number of slices."""
        return len(self.starts)

    def parts(self) -> Iterator[TickArrays]:
        """The same slices in consecutive parts, each small enough that its ticks and bars fit into the processor's cache."""
        first = 0
        while first < len(self):
            last = int(np.searchsorted(self.offsets, self.offsets[first] + _PART_TICKS, "right")) - 1
            last = min(max(last, first + 1), first + _PART_SLICES, len(self))
            yield self.part(first, last)
            first = last

    def part(self, first: int, last: int) -> TickArrays:
        """The slices from `first` up to, not including, `last`."""
        these = slice(self.offsets[first], self.offsets[last])
        return TickArrays(
            self.starts[first:last],
            self.offsets[first : last + 1] - self.offsets[first],
            *(column[these] for column in (self.time, self.price, self.quantity, self.buy)),
        )

    @cached_property
    def counts(self) -> np.ndarray:
        """int64 [n]: ticks of each slice."""
        return np.diff(self.offsets)

    @cached_property
    def filled(self) -> np.ndarray:
        """bool [n]: the slice has ticks."""
        return self.counts > 0

    @cached_property
    def arrival(self) -> np.ndarray:
        """int64 [m]: ascending event times in µs; a tick whose time steps back arrives with the tick before it."""
        return np.maximum.accumulate(self.time)

    @cached_property
    def excess(self) -> np.ndarray:
        """float64 [m]: price over the first price of the slice, less 1."""
        first = np.repeat(self.price[self.offsets[:-1][self.filled]], self.counts[self.filled])
        return (self.price - first) / first

    @cached_property
    def path(self) -> np.ndarray:
        """float64 [m]: log of the price over the first price of the slice, without cancellation."""
        return log_excess(self.excess)

    @cached_property
    def follows(self) -> np.ndarray:
        """bool [m]: the slice has a tick before this one."""
        follows = np.ones(len(self.price), bool)
        follows[self.offsets[:-1][self.filled]] = False
        return follows

    @cached_property
    def change(self) -> np.ndarray:
        """float64 [m]: log return since the previous tick of the slice; 0 for the first."""
        return np.diff(self.path, prepend=0.0) * self.follows

    @cached_property
    def wait(self) -> np.ndarray:
        """int64 [m]: µs since the previous tick of the slice; 0 for the first."""
        return np.diff(self.arrival, prepend=0) * self.follows

    @cached_property
    def side(self) -> np.ndarray:
        """int8 [m]: 1 if the taker bought, -1 if the taker sold."""
        return np.where(self.buy, np.int8(1), np.int8(-1))

    def repeat_per_tick(self, values: np.ndarray) -> np.ndarray:
        """Values of slices [n], repeated for each of their ticks [m]."""
        return np.repeat(values, self.counts)


def log_excess(excess: np.ndarray) -> np.ndarray:
    """Log of price ratios from their excess over 1; finite even if one price vanishes beside the other."""
    return np.log1p(np.maximum(excess, np.nextafter(-1.0, 0.0)))
