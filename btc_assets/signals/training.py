"""Training encoders: seeded, label-free, and the same on every run of one machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from btc_assets.errors import UserError
from btc_assets.signals.encoders import BATCH, Encoder, RocketPca, build, check_finite
from btc_assets.signals.rocket import principal_components

MOST_WINDOWS = 20_000  # of the training windows, drawn at random, that scalers and principal components are taken from
BIAS_WINDOWS = 256
WHITENING = 0.25  # 0 leaves the principal components as large as they are, 1 makes all alike
Progress = Callable[[str, int, int], None]
"""Called with the stage's name, how much of it is done, and how much there is."""


def fit(
    kind: str,
    bars: np.ndarray,
    features: np.ndarray,
    *,
    next_labels: np.ndarray | None = None,
    dim: int = 256,
    seed: int = 0,
    device: str | None = None,
    epochs: int | None = None,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
) -> Encoder:
    """Train an encoder of a kind on the windows given, and on nothing else.

    Args:
        kind: one of `encoders.KINDS`.
        bars, features: [n, steps, channels] and [n, features] in raw units; `features` may have no column.
        next_labels: [n, 3], of the window after each, NaN where unknown; only `tcn` uses them, as a second aim.
        dim: of the vectors; where the windows do not span as many dimensions, the rest is 0.
        seed: the same one gives the same encoder on one machine.
        device: of PyTorch; the GPU where there is one.
        epochs: of `tcn`.
        progress: told how far it is.
        checkpoint: a file that `tcn` keeps its state in; training that was killed goes on from it, to the same end.

    Raises:
        UserError: an unknown kind or device, fewer than two windows, shapes that do not fit, or values that are not finite.
    """
    if len(bars) != len(features) or bars.ndim != 3 or features.ndim != 2:
        raise UserError(
            f"Bars of shape {bars.shape} and features of shape {features.shape} do not fit: give [n, steps, channels] and [n, features]."
        )
    if len(bars) < 2:
        raise UserError(f"An encoder cannot be trained on {len(bars)} windows: give at least two, better thousands.")
    check_finite("Bars", torch.from_numpy(bars))
    check_finite("Features", torch.from_numpy(features))
    encoder = build(kind, {"steps": bars.shape[1], "channels": bars.shape[2], "features": features.shape[1], "dim": dim})
    generator = torch.Generator().manual_seed(seed)
    if len(bars) > MOST_WINDOWS:
        drawn = torch.randperm(len(bars), generator=generator)[:MOST_WINDOWS].sort().values.numpy()
    else:
        drawn = np.arange(len(bars))
    encoder.bar_scaler.fit(bars[drawn].reshape(-1, bars.shape[2]))
    encoder.feature_scaler.fit(features[drawn])
    encoder.to(_device(device))
    assert isinstance(encoder, RocketPca)
    with torch.inference_mode():
        _fit_components(encoder, bars[drawn], features[drawn], generator, progress or (lambda *_: None))
    return encoder.eval()


def _device(name: str | None) -> torch.device:
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"PyTorch has no device {name!r} here ({str(error).splitlines()[0]}): leave it out to have it chosen.") from error
    return device


def _fit_components(encoder: RocketPca, bars: np.ndarray, features: np.ndarray, generator: torch.Generator, progress: Progress) -> None:
    """Biases from a few windows; then the counts of all, their means and deviations, and the principal components.

    Each of the two blocks, counts and features, is divided by its first singular value (multiple factor analysis: Escofier and
    Pagès 1994), so that neither drowns the other by its number of columns.
    """
    device = encoder.mean.device
    some = torch.randperm(len(bars), generator=generator)[:BIAS_WINDOWS].numpy()
    encoder.rocket.fit(encoder.bar_scaler(torch.from_numpy(bars[some]).to(device)), generator)

    small = torch.uint8 if encoder.steps <= 255 else torch.int16  # of counts there are ten thousand a window
    blocks = []
    for start in range(0, len(bars), BATCH):
        at = slice(start, start + BATCH)
        scaled = encoder.bar_scaler(torch.from_numpy(bars[at]).to(device))
        blocks.append((encoder.rocket(scaled).to(small), encoder.feature_scaler(torch.from_numpy(features[at]).to(device)).float()))
        progress("convolutions", min(start + BATCH, len(bars)), len(bars))

    width, total = encoder.rocket.width, encoder.rocket.width + encoder.features
    weights = torch.ones(total, device=device)

    def rows(columns: slice) -> Iterator[Tensor]:
        for counts, scaled in blocks:
            yield (torch.cat([counts.float(), scaled], dim=1) - encoder.mean)[:, columns] * weights[columns]

    def mean(values: Iterator[Tensor]) -> Tensor:
        sums = torch.zeros(total, dtype=torch.float64, device=device)
        for block in values:
            sums += block.sum(0, dtype=torch.float64)
        return sums / len(bars)

    everything = slice(total)
    encoder.mean.copy_(mean(rows(everything)))
    variance = mean(block.square() for block in rows(everything))
    weights.copy_(torch.where(variance > 1e-10, variance.rsqrt(), 0.0))  # what is constant weighs nothing
    for columns in (slice(width), slice(width, total)):
        if weights[columns].any():
            weights[columns] /= principal_components(partial(rows, columns), weights[columns].numel(), 1, generator)[1]
    components, values = principal_components(partial(rows, everything), total, min(encoder.dim, len(bars) - 1), generator)
    spanned = values > 1e-4 * values[0]
    components, values = components[:, spanned], values[spanned]
    encoder.projection[:, : len(values)] = weights[:, None] * components * (values[0] / values) ** WHITENING
    progress("principal components", 1, 1)
