"""Slices to evaluate on, and the quantities that are forecast of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import KEY_FORMAT, SLICE_US, from_microseconds

VARIANCE = "log_realized_variance"
SOURCES = ("realized_volatility", "volume", "trade_count", "log_return")  # features that targets are computed from
_VARIANCE_FLOOR = 1e-9  # a third of a basis point per slice: below it, the log would be of rounding errors


@dataclass(frozen=True)
class Dataset:
    """Slices of one symbol in order of time.

    Attributes:
        times: starts, int64 µs, ascending and aligned to slices; gaps are allowed [n].
        features: as `compute_features` returns them, finite [n, f].
        feature_names: names of the columns, including realized_volatility, volume, trade_count and log_return.
        regimes: the known regime of each slice of a generated market [n].

    Raises:
        UserError: shapes, order or values are not as above.
    """

    times: np.ndarray
    features: np.ndarray
    feature_names: Sequence[str]
    regimes: np.ndarray | None = None

    def __post_init__(self) -> None:
        n = len(self.times)
        if self.features.shape != (n, len(self.feature_names)):
            raise UserError(
                f"The features have the shape {self.features.shape}, but there are {n} slices and {len(self.feature_names)} names: give one "
                "row per slice and one name per column."
            )
        if self.regimes is not None and self.regimes.shape != (n,):
            raise UserError(f"The regimes have the shape {self.regimes.shape}, but there are {n} slices: give one regime per slice.")
        if (np.diff(self.times) <= 0).any() or (self.times % SLICE_US).any():
            raise UserError("The times are not ascending starts of 5-minute slices: sort them and drop duplicates.")
        if not np.isfinite(self.features).all():
            row, column = np.argwhere(~np.isfinite(self.features))[0]
            raise UserError(
                f"The feature {self.feature_names[column]} of {format_time(self.times[row])} is not finite: compute the features again."
            )
        if missing := [name for name in SOURCES if name not in self.feature_names]:
            raise UserError(f"The features lack {', '.join(missing)}, which the targets are computed from: compute all features.")

    def quantities(self) -> dict[str, np.ndarray]:
        """The quantities to forecast, of each slice itself: float64 [n] each; the sign of a return of 0 is NaN."""
        volatility, volume, count, log_return = (self.features[:, list(self.feature_names).index(name)] for name in SOURCES)
        variance = np.maximum(volatility**2, _VARIANCE_FLOOR)
        return {
            VARIANCE: np.log(variance),
            "log_volume": np.log1p(volume),
            "log_trade_count": np.log1p(count),
            "realized_variance": variance,
            "return_sign": np.where(log_return == 0, np.nan, np.sign(log_return)),
        }

    def following(self, values: np.ndarray) -> np.ndarray:
        """The values [n] of the slice after each, NaN if that slice is absent."""
        return np.append(np.where(self._adjacent(), values[1:], np.nan), np.nan)

    def preceding(self, values: np.ndarray) -> np.ndarray:
        """The values [n] of the slice before each, NaN if that slice is absent."""
        return np.append(np.nan, np.where(self._adjacent(), values[:-1], np.nan))

    def _adjacent(self) -> np.ndarray:
        return np.diff(self.times) == SLICE_US


def format_time(time: int) -> str:
    """A time in µs as the key of a slice."""
    return from_microseconds(time).strftime(KEY_FORMAT)
