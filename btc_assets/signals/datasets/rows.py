"""Rows of a data set, from features, prices and doubts: Arrow in, Arrow out."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from btc_assets.domain.slices import SLICE_US, Window, to_microseconds
from btc_assets.domain.ticks import TIME, int64
from btc_assets.signals.datasets.doubts import Doubts
from btc_assets.signals.datasets.own_columns import OwnTarget
from btc_assets.signals.datasets.plan import COMPLETE, Plan
from btc_assets.signals.datasets.targets import Prices, Target, compute_targets
from btc_assets.signals.features.bars import CHANNELS
from btc_assets.signals.features.table import decode_bars, feature_matrix

_CHANNELS = [channel.name for channel in CHANNELS]


def make_rows(plan: Plan, window: Window, features: pa.Table, later: np.ndarray, prices: Prices, doubts: Doubts) -> pa.Table:
    """The rows of a window.

    Args:
        plan: what they consist of.
        window: of slices.
        features: of the slices of the window, as `fetch_features` returns them.
        later: starts of the stored slices after the window that targets reach into, µs, ascending.
        prices: of the spans of the targets.
        doubts: of the slices of the window and of those.

    Returns:
        A table in `plan.schema`, in order of time: every slice of the window if the plan masks, otherwise the complete ones. Its inputs
        are null if its slice is in doubt, its target is null if that is.
    """
    starts = np.arange(to_microseconds(window.start), to_microseconds(window.end), SLICE_US)
    rows = _Rows(plan, starts, features, doubts)
    rows.add_own_columns()
    if plan.target:
        rows.add_target(prices, later)
    table = rows.table()
    return table if plan.mask else table.filter(pa.array(rows.states == COMPLETE))


class _Rows:
    def __init__(self, plan: Plan, starts: np.ndarray, features: pa.Table, doubts: Doubts) -> None:
        self._plan, self._starts, self._features, self._doubts = plan, starts, features, doubts
        self._times = int64(features["bucket_5m"])
        self.states = np.full(len(starts), COMPLETE, object)
        position = np.searchsorted(self._times, starts)
        self._there: np.ndarray = np.isin(starts, self._times)
        self._position = np.where(self._there, position, 0)
        self._mark(~self._there, "no features")
        for row, number in enumerate((starts // SLICE_US).tolist()):
            if state := doubts.ticks.get(number):
                self._mark_row(row, state)
        self._mark(np.isin(starts // SLICE_US, list(doubts.features)), "features due")
        self.known: np.ndarray = self.states == COMPLETE  # rows whose inputs are known
        self._own = np.empty((len(starts), 0))
        self._target: list[pa.Array] = []

    def _mark(self, rows: np.ndarray, state: str) -> None:
        self.states[rows & (self.states == COMPLETE)] = state

    def _mark_row(self, row: int, state: str) -> None:
        if self.states[row] == COMPLETE:
            self.states[row] = state

    def add_own_columns(self) -> None:
        if self._plan.own:
            self._own = self._plan.own.at(self._starts)
            self._mark(np.logical_or.reduce(np.isnan(self._own), axis=1), "own columns missing")

    def add_target(self, prices: Prices, later: np.ndarray) -> None:
        stored = np.concatenate([self._times, later])
        began, ends, values = self._compute(prices)
        if isinstance(self._plan.target, Target):
            doubted = self._doubts_of_spans(stored, began, ends)
            for row, doubt in doubted.items():
                self._mark_row(row, f"target: {doubt}")
            values[list(doubted)] = np.nan
        self._mark(np.isnan(values), "target: no price" if isinstance(self._plan.target, Target) else "target missing")
        without = ends == 0
        times = [pa.array(each, pa.int64(), mask=without).cast(TIME) for each in (began, ends)]
        self._target = [*times, pa.array(values, mask=np.isnan(values))]

    def _compute(self, prices: Prices) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        target = self._plan.target
        if isinstance(target, OwnTarget):
            return target.at(self._starts)
        assert target
        began = self._starts + self._plan.target_after
        return began, began + target.horizon, compute_targets(target, prices, began)

    def _doubts_of_spans(self, stored: np.ndarray, began: np.ndarray, ends: np.ndarray) -> dict[int, str]:
        """Why prices are in doubt, by row: the first reason from the last trade before a span to its end."""
        first, last = (began - 1) // SLICE_US, (ends - 1) // SLICE_US
        numbers = np.arange(first[0], last[-1] + 1)
        states = np.array([self._doubts.ticks.get(number) for number in numbers.tolist()], object)
        states[np.isin(numbers, list(self._doubts.candles)) & (states == None)] = "candles due"  # noqa: E711  # of each
        states[~np.isin(numbers * SLICE_US, stored)] = "no trades"
        doubtful = np.append(np.flatnonzero(states != None), len(numbers))  # noqa: E711
        nearest = doubtful[np.searchsorted(doubtful, first - first[0])]
        return {int(row): states[nearest[row]] for row in np.flatnonzero(nearest <= last - first[0])}

    def table(self) -> pa.Table:
        plan, unknown = self._plan, ~self.known
        matrix = (
            feature_matrix(self._features, plan.features)[self._position]
            if len(self._times)
            else np.full((len(self._starts), len(plan.features)), np.nan)
        )
        columns = [
            pa.array(self._starts).cast(TIME),
            pa.repeat(plan.symbol, len(self._starts)),
            pa.array(self._starts + SLICE_US + plan.latency).cast(TIME),
            *(pa.array(np.ascontiguousarray(column), mask=unknown) for column in matrix.T),
            *(pa.array(np.ascontiguousarray(column), mask=np.isnan(column)) for column in self._own.T),
            *([self._bars()] if plan.channels else []),
            *self._target,
            pa.array(self.states, pa.string()),
        ]
        return pa.Table.from_arrays(columns, schema=plan.schema)

    def _bars(self) -> pa.Array:
        kind = self._plan.schema.field("bars").type
        if not len(self._times):
            return pa.nulls(len(self._starts), kind)
        chosen = decode_bars(self._features)[self._position][:, :, [_CHANNELS.index(name) for name in self._plan.channels]]
        flat = pa.array(np.ascontiguousarray(chosen).reshape(-1))
        inner = pa.FixedSizeListArray.from_arrays(flat, kind.value_type.list_size)
        return pa.FixedSizeListArray.from_arrays(inner, kind.list_size, mask=pa.array(~self.known))
