"""The last map of every encoder: from what is computed of bars, and the features, to a vector.

Bars and features are reduced together. The features are standardized, the principal components of the bars are half whitened, and
both get their shares of the total variance: otherwise the ten thousand angles of MiniRocket would drown the features. If it is known
which windows follow each other, the kinetic map weights the joint components; otherwise their variance does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from btc_assets.domain.errors import UserError
from btc_assets.signals.encoders.encoder import RocketPca, TcnEncoder
from btc_assets.signals.encoders.kinetic import kinetic_map
from btc_assets.signals.encoders.rocket import principal_components

HALF_WHITE = 0.5  # 1 keeps the sizes of principal components, 0 makes them all equal: neighbors were best in between
FEATURE_VARIANCE = 4.0  # variance of the features, that of the bars being 1: features distinguish regimes better

Blocks = Callable[[], Iterator[Tensor]]


def fit_projection(
    encoder: RocketPca | TcnEncoder, blocks: Blocks, scaled: Tensor, follows: np.ndarray | None, generator: torch.Generator
) -> None:
    """Set `encoder.mean` and `encoder.projection`.

    Args:
        encoder: to fit.
        blocks: yields, from the start at each call, what the encoder computes of the bars of all windows, in blocks [k, width].
        scaled: scaled features of all windows [n, features].
        follows: bool [n], whether a window starts right after the previous one; None if unknown.
        generator: of the randomized principal components.

    Raises:
        UserError: all windows are alike.
    """
    device, width, rows = encoder.mean.device, len(encoder.mean) - encoder.features, len(scaled)
    center = torch.zeros(width, dtype=torch.float64, device=device)
    for block in blocks():
        center += block.sum(0, dtype=torch.float64) / rows
    columns = scaled.double()
    encoder.mean.copy_(torch.cat([center, columns.mean(0)]))

    def centered() -> Iterator[Tensor]:
        return (block - encoder.mean[:width] for block in blocks())

    components = _bar_components(centered, width, min(encoder.dim, rows - 1), generator)
    weights = _feature_weights(columns)
    from_bars = torch.cat([block @ components for block in centered()])
    joined = torch.cat([from_bars, (scaled - encoder.mean[width:]) * weights], dim=1).double()
    axes = _joint_axes(joined, min(encoder.dim, rows - 1), follows)
    split = components.shape[1]
    encoder.projection.zero_()
    encoder.projection[:, : axes.shape[1]] = torch.cat([components @ axes[:split], weights[:, None] * axes[split:]])


def _bar_components(centered: Blocks, width: int, rank: int, generator: torch.Generator) -> Tensor:
    """Half-whitened principal components [width, at most rank]; their projections have a total variance of 1."""
    components, values = principal_components(centered, width, rank, generator)
    spanned = values > max(1e-4 * float(values[0]), 1e-6)
    components, values = components[:, spanned], values[spanned]
    # Components get the sizes of the singular values to this power; their share is of the sum of the squares.
    components *= values ** (HALF_WHITE - 1) / values.pow(2 * HALF_WHITE).sum().sqrt()
    return components


def _feature_weights(columns: Tensor) -> Tensor:
    """Weights [features] that standardize features and give them a total variance of `FEATURE_VARIANCE`; 0 for a constant."""
    deviations = (columns - columns.mean(0)).square().sum(0).sqrt()
    weights = torch.where(deviations > 1e-6, 1 / deviations, 0.0).float()
    weights *= math.sqrt(FEATURE_VARIANCE) / max(1, int((weights > 0).sum())) ** 0.5
    return weights


def _joint_axes(joined: Tensor, rank: int, follows: np.ndarray | None) -> Tensor:
    """Principal axes of the joint components [columns, at most rank], weighted by persistence if `follows` is known."""
    rows = len(joined)
    variances, axes = torch.linalg.eigh(joined.T @ joined / rows)
    most = min(rank, int((variances > 1e-8 * variances[-1]).sum()))
    if most == 0:
        raise UserError(f"The {rows:,} windows are all alike, so nothing can be learned from them: give a range with more trading.")
    variances, axes = variances.flip(0)[:most], axes.flip(1)[:, :most]
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    if follows is not None:
        axes /= variances.sqrt()
        axes @= kinetic_map((joined @ axes).float(), torch.from_numpy(follows).to(joined.device)).double()
    return axes.float()
