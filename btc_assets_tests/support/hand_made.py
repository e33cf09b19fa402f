"""Slices for tests, written by hand or drawn by hypothesis: lists of (second, price, quantity, taker bought)."""

from __future__ import annotations

from dataclasses import fields
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from btc_assets.domain.slices import EPOCH, SLICE_US
from btc_assets.domain.ticks import tick_order
from btc_assets.signals.features.tick_arrays import TickArrays
from btc_assets.simulation.replay import Landed, read_trades
from btc_assets_tests.support.stores import FEED
from btc_assets_tests.support.trades import NOON

Trade = tuple[float, float, float, bool]

START = (NOON - EPOCH) // timedelta(microseconds=1)


def tick_arrays(*slices: list[Trade]) -> TickArrays:
    """Consecutive slices from noon on."""
    starts = START + SLICE_US * np.arange(len(slices))
    trades = [trade for one in slices for trade in one]
    second, price, quantity, buy = (np.array(column, float) for column in zip(*trades, strict=True)) if trades else np.empty((4, 0))
    counts = [len(one) for one in slices]
    time = np.repeat(starts, counts) + np.rint(second * 1e6).astype(np.int64)
    return TickArrays(starts, np.cumsum([0, *counts]), time, price, quantity, buy.astype(bool))


def split_slices(ticks: TickArrays) -> list[TickArrays]:
    """Each slice as separate ticks."""
    bounds = zip(ticks.starts, ticks.offsets[:-1], ticks.offsets[1:], strict=True)
    return [
        TickArrays(np.array([start]), np.array([0, end - begin]), *(getattr(ticks, field.name)[begin:end] for field in fields(ticks)[2:]))
        for start, begin, end in bounds
    ]


def read_ordered_trades(path: Path) -> pa.Table:
    """The trades of a file, in the order of the table."""
    ticks = pa.concat_tables(read_trades(path, FEED, Landed()))
    return ticks.take(tick_order(ticks))


trades: st.SearchStrategy[Trade] = st.tuples(
    st.integers(0, 299_999).map(lambda ms: ms / 1000),
    st.integers(4_199_000, 4_201_000).map(lambda cents: cents / 100),
    st.integers(1, 5_000).map(lambda thousandths: thousandths / 1000),
    st.booleans(),
)


@st.composite
def slices(draw: st.DrawFn) -> list[Trade]:
    """A slice of at most 60 trades; in some slices event times step back, the price is constant or all takers buy."""
    made = draw(st.lists(trades, max_size=60))
    if draw(st.booleans()):
        made.sort(key=lambda trade: trade[0])
    if draw(st.integers(0, 3)) == 0:
        made = [(second, 42_000.0, quantity, buy) for second, _, quantity, buy in made]
    if draw(st.integers(0, 3)) == 0:
        made = [(second, price, quantity, True) for second, price, quantity, _ in made]
    return made


markets = st.lists(slices(), min_size=1, max_size=3)
