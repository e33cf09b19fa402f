"""Features and bars of slices as arrays: what encoders and evaluations work on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np

from btc_assets.domain.slices import SLICE_US, from_microseconds
from btc_assets.signals.features.bars import CHANNELS, STEPS, fill_bars
from btc_assets.signals.features.formulas import FEATURES, FEWEST_TICKS, fill_features
from btc_assets.signals.features.grid import compute_grid
from btc_assets.signals.features.tick_arrays import TickArrays

_COLUMNS = {feature.name: column for column, feature in enumerate(FEATURES)}


@dataclass(frozen=True)
class SliceArrays:
    """Slices of one symbol, ascending by time.

    Attributes:
        times: start of each slice, int64 [n], microseconds since 1970.
        features: float64 [n, len(FEATURES)], in the order of `FEATURES`.
        bars: float32 [n, 60, 16], in the order of `CHANNELS`.
    """

    times: np.ndarray
    features: np.ndarray
    bars: np.ndarray

    @classmethod
    def of(cls, ticks: TickArrays) -> SliceArrays:
        """Compute features and bars from ticks; both from the same grids."""
        features = np.empty((len(ticks), len(FEATURES)))
        bars = np.empty((len(ticks), STEPS, len(CHANNELS)), np.float32)
        first = 0
        for part in ticks.parts():
            these, grid = slice(first, first + len(part)), compute_grid(part)
            fill_features(features[these], part, grid)
            fill_bars(bars[these], grid)
            first += len(part)
        return cls(ticks.starts, features, bars)

    def __len__(self) -> int:
        return len(self.times)

    def feature(self, name: str) -> np.ndarray:
        """One feature of each slice, float64 [n]."""
        return self.features[:, _COLUMNS[name]]

    def where(self, chosen: np.ndarray) -> SliceArrays:
        """The slices that a boolean array or indices choose."""
        return SliceArrays(self.times[chosen], self.features[chosen], self.bars[chosen])

    @property
    def tick_count(self) -> np.ndarray:
        """Ticks of each slice, int64 [n]."""
        return self.feature("trade_count").astype(np.int64)

    @property
    def embeddable(self) -> np.ndarray:
        """Indices of the slices that have `FEWEST_TICKS` or more, int64 [k]."""
        return np.flatnonzero(self.tick_count >= FEWEST_TICKS)

    @property
    def followed(self) -> np.ndarray:
        """bool [n]: the next row is the slice right after this one."""
        return np.append(np.diff(self.times) == SLICE_US, False)[: len(self)]

    @property
    def range(self) -> tuple[datetime, datetime]:
        """Start of the first slice and end of the last."""
        return from_microseconds(self.times[0]), from_microseconds(self.times[-1] + SLICE_US)
