"""What a data set consists of: its columns, its targets, and how its rows are split."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
import pyarrow as pa

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE, SLICE_US, Window, to_microseconds
from btc_assets.domain.ticks import TIME
from btc_assets.signals.datasets.own_columns import OwnColumns, OwnTarget
from btc_assets.signals.datasets.spans import SECOND_US
from btc_assets.signals.datasets.targets import Target
from btc_assets.signals.evaluation.purging import EMBARGO_US, keeps_clear
from btc_assets.signals.features.bars import CHANNELS, STEPS
from btc_assets.signals.features.formulas import FEATURES

COMPLETE = "complete"


@dataclass(frozen=True)
class Plan:
    """One row for each slice.

    Attributes:
        symbol: label of the feed.
        features: names of features.
        channels: names of the channels of the slice's bars; empty for no bars.
        target: what to forecast, computed from candles; a table of a user's own; or None.
        own: columns of a user's own.
        latency: how long after its end a slice is known, µs.
        mask: keep incomplete rows, with nulls; otherwise they are left out.
        contiguous: the feed's trade ids increase by one.

    Raises:
        UserError: a feature or channel does not exist, or there are no columns.
    """

    symbol: str
    features: tuple[str, ...]
    channels: tuple[str, ...] = ()
    target: Target | OwnTarget | None = None
    own: OwnColumns | None = None
    latency: int = 90 * SECOND_US
    mask: bool = False
    contiguous: bool = True

    def __post_init__(self) -> None:
        _require("feature", self.features, [feature.name for feature in FEATURES])
        _require("channel of bars", self.channels, [channel.name for channel in CHANNELS])
        if not (self.features or self.channels or self.own):
            raise UserError("A data set without features and bars has no inputs: name some features, or pass bars=True.")

    @property
    def target_after(self) -> int:
        """When a row's target begins, µs after the start of its slice: when the row is known, in whole seconds."""
        return SLICE_US - (-self.latency // SECOND_US) * SECOND_US

    @property
    def reach(self) -> int:
        """How far a row reaches, µs after the start of its slice: to the end of its target if that is computed, else until it is known."""
        return self.target_after + self.target.horizon if isinstance(self.target, Target) else SLICE_US + self.latency

    @property
    def inputs(self) -> list[str]:
        """The columns that a model may see, without bars."""
        return [*self.features, *(self.own.names if self.own else ())]

    def ends(self, starts: np.ndarray) -> np.ndarray:
        """When rows of slices that start then (µs) end: with what their targets are made of."""
        ends = starts + self.reach
        return np.maximum(ends, self.target.ends(starts)) if isinstance(self.target, OwnTarget) else ends

    @cached_property
    def schema(self) -> pa.Schema:
        """Of the rows."""
        bars = pa.list_(pa.list_(pa.float32(), len(self.channels)), STEPS)
        target = [pa.field("target_start", TIME), pa.field("target_end", TIME), pa.field("target", pa.float64())]
        return pa.schema(
            [
                pa.field("bucket_5m", TIME, nullable=False),
                pa.field("symbol", pa.string(), nullable=False),
                pa.field("available_at", TIME, nullable=False),
                *(pa.field(name, pa.float64()) for name in self.inputs),
                *([pa.field("bars", bars)] if self.channels else []),
                *(target if self.target else []),
                pa.field("state", pa.string(), nullable=False),
            ]
        )

    @property
    def fingerprint(self) -> str:
        """Changes with everything that the rows depend on, except the data."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Split:
    """Which rows train and which test.

    Attributes:
        train, test: windows of slices, each in order and without overlaps.
        purge: how long before the first row of a test window a row that trains must have ended, µs.
        embargo: how long after the end of a test window's last row a row that trains may start, µs.
    """

    train: tuple[Window, ...]
    test: tuple[Window, ...] = ()
    purge: int = EMBARGO_US
    embargo: int = EMBARGO_US

    def keeps(self, plan: Plan, starts: np.ndarray) -> np.ndarray:
        """Which rows of slices that start then (µs, bool [n]) may train: those that keep clear of every row of every test window."""
        kept, ends = np.ones(len(starts), bool), plan.ends(starts)
        for window in self.test:
            tested = np.arange(to_microseconds(window.start), to_microseconds(window.end), SLICE_US)
            until = int(plan.ends(tested).max())
            kept &= keeps_clear(starts, ends, int(tested[0]), until, purge=self.purge, embargo=self.embargo)
        return kept

    def walk_forward(self, folds: int, *, expanding: bool) -> list[Split]:
        """The test windows in equal parts, each after training on what is before it.

        Raises:
            UserError: there is one test window or none, too few slices, or training after the test.
        """
        if len(self.test) != 1 or len(self.train) != 1 or self.train[0].end > self.test[0].start:
            raise UserError("Walking forward needs one range to train on and one after it to test on: name train and test so.")
        (train,), (test,) = self.train, self.test
        if not 0 < folds <= len(test):
            raise UserError(f"{folds} folds do not fit a test of {len(test)} slices: give a number from 1 to {len(test)}.")
        edges = [test.start + len(test) * number // folds * SLICE for number in range(folds + 1)]
        return [
            replace(
                self, train=(Window(train.start if expanding else train.start + (start - test.start), start),), test=(Window(start, end),)
            )
            for start, end in pairwise(edges)
        ]


def _require(what: str, names: Sequence[str], known: Sequence[str]) -> None:
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"There is no {what} {unknown[0]!r}: name some of {', '.join(known)}.")
    if len(set(names)) < len(names):
        raise UserError(f"A {what} is named twice: name each of {', '.join(dict.fromkeys(names))} once.")
