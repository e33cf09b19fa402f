"""Windows to fit encoders on: bars and features of slices, when they start, and what followed them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE_US
from btc_assets.signals.features.slice_arrays import SliceArrays

_LABELS = ("realized_volatility", "volume", "trade_count")


@dataclass(frozen=True)
class TrainingWindows:
    """Windows in raw units, ascending by time.

    Attributes:
        bars: float32 [n, steps, channels].
        features: float32 [n, features]; may have no columns.
        times: starts of the slices, int64 µs [n]. If known, directions are weighted by their persistence.
        next_labels: [n, 3], of the window after each, NaN if unknown; only the `tcn` uses them, as a second objective.

    Raises:
        UserError: the shapes do not fit each other.
    """

    bars: np.ndarray
    features: np.ndarray
    times: np.ndarray | None = None
    next_labels: np.ndarray | None = None

    def __post_init__(self) -> None:
        if len(self.bars) != len(self.features) or self.bars.ndim != 3 or self.features.ndim != 2:
            raise UserError(
                f"Bars of shape {self.bars.shape} and features of shape {self.features.shape} do not fit: give [n, steps, channels] and "
                "[n, features]."
            )
        if self.next_labels is not None and len(self.next_labels) != len(self.bars):
            raise UserError(
                f"There are labels of {len(self.next_labels)} windows and bars of {len(self.bars)}: give one row of labels per window, NaN "
                "if unknown."
            )

    @classmethod
    def of(cls, slices: SliceArrays) -> TrainingWindows:
        """The windows of slices."""
        return cls(slices.bars, slices.features.astype(np.float32), slices.times, next_labels(slices))

    def __len__(self) -> int:
        return len(self.bars)

    def follows(self, rows: np.ndarray) -> np.ndarray | None:
        """bool [k]: each of these rows starts right after the row before; None if times are unknown."""
        return None if self.times is None else np.diff(self.times[rows], prepend=0) == SLICE_US


def next_labels(slices: SliceArrays) -> np.ndarray:
    """Labels from the slice after each: logarithms of realized volatility (+1e-6), volume and trade count (+1 each).

    Returns:
        float32 [n, 3]; NaN if the next slice is not stored.
    """
    logs = np.log(np.column_stack([slices.feature(name) for name in _LABELS]) + np.array([1e-6, 1.0, 1.0]))
    labels = np.full((len(slices), len(_LABELS)), np.nan, np.float32)
    followed = np.flatnonzero(slices.followed)
    labels[followed] = logs[followed + 1]
    return labels


def require_finite(what: str, values: np.ndarray) -> None:
    """Raise a `UserError` that names the columns (of the last dimension) in which `values` are NaN or infinite."""
    if np.isfinite(values).all():
        return
    rows = ~np.isfinite(values).reshape(len(values), -1, values.shape[-1]).all(1)
    columns = ", ".join(map(str, rows.any(0).nonzero()[0][:8].tolist()))
    raise UserError(
        f"{what} are NaN or infinite in {rows.any(1).sum()} of {len(rows)} rows, in columns {columns} (counted from 0): "
        "compute these slices again from their ticks, or leave them out."
    )
