"""Robust scaling: outliers do not move the median, which becomes 0, nor the quartiles, which end up about one apart."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


class RobustScaler(nn.Module):
    """asinh((x - median) / IQR) for each column of the last dimension; `fit` fills the two buffers.

    asinh (Johnson 1949) is the identity near 0 and a signed logarithm far from it: a burst of a thousand IQRs stays the largest value
    without drowning the rest. Windows are not scaled one by one, because that would erase their level of volatility.
    """

    centre: Tensor  # spelled so in stored artifacts, whose ids are hashes of these names
    width: Tensor

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(columns, dtype=torch.float64))
        self.register_buffer("width", torch.ones(columns, dtype=torch.float64))

    def fit(self, values: np.ndarray) -> None:
        """Take medians and IQRs from `values` [..., columns], which must not include anything to be evaluated later.

        A column whose quartiles coincide is mostly one value; its width is then the mean distance of the other values from it. A
        constant column becomes 0.
        """
        for column, given in enumerate(np.moveaxis(values, -1, 0)):
            low, centre, high = np.percentile(given.astype(np.float64), (25, 50, 75))
            width = high - low
            if not width > 0:
                distances = np.abs(given - centre)
                width = distances[distances > 0].mean(dtype=np.float64) if distances.any() else 1.0
            self.centre[column], self.width[column] = float(centre), float(width)

    def forward(self, values: Tensor) -> Tensor:
        """Scaled values in float64, so that their rounding in `MiniRocket` does not depend on the batch size."""
        return torch.asinh((values.to(torch.float64) - self.centre) / self.width)
