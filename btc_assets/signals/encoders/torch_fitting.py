"""Fitting our own encoders, on a CPU or a GPU: seeded, without labels, and on a CPU bit-identical on every run of one machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from btc_assets.domain.progress import Listener
from btc_assets.signals.encoders.batches import BATCH, map_batches, single_threaded
from btc_assets.signals.encoders.device import choose_device, full_precision
from btc_assets.signals.encoders.encoder import Encoder, RocketPca, TcnEncoder, build_encoder
from btc_assets.signals.encoders.options import FitOptions
from btc_assets.signals.encoders.projection import fit_projection
from btc_assets.signals.encoders.tcn_training import TcnTraining
from btc_assets.signals.encoders.windows import TrainingWindows

MOST_WINDOWS = 20_160  # windows, drawn at random, that scalers and principal components are fitted on
DAY_WINDOWS = 288
BIAS_STEPS = 4096  # steps of windows whose convolutions give the biases; more were not better


def fit_ours(kind: str, windows: TrainingWindows, options: FitOptions, checkpoint: Path | None, progress: Listener) -> Encoder:
    """Fit an encoder of one of our kinds; the arguments are those of `fit_encoder`.

    Raises:
        UserError: the device does not exist, or all windows are alike.
    """
    _, steps, channels = windows.bars.shape
    device = choose_device(options.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        config = {"steps": steps, "channels": channels, "features": windows.features.shape[1], "dim": options.dim}
        encoder = build_encoder(kind, config)
    generator = torch.Generator().manual_seed(options.seed)
    sample = _Sample(windows, _draw_days(len(windows), generator))
    encoder.bar_scaler.fit(sample.bars.reshape(-1, channels))
    encoder.feature_scaler.fit(sample.features)
    encoder.to(device)
    with full_precision(device):
        if isinstance(encoder, RocketPca):
            with torch.inference_mode():
                _fit_rocket(encoder, sample, generator, progress)
        elif isinstance(encoder, TcnEncoder):
            training = TcnTraining(encoder, windows, options.seed, options.epochs, checkpoint)
            training.run(progress)
            if training.epochs:  # else the encoder keeps its random weights
                with torch.inference_mode():
                    _fit_states(encoder, sample, generator)
    return encoder.eval()


class _Sample:
    """The windows that scalers and principal components are fitted on."""

    def __init__(self, windows: TrainingWindows, rows: np.ndarray) -> None:
        self.bars, self.features, self.follows = windows.bars[rows], windows.features[rows], windows.follows(rows)

    def __len__(self) -> int:
        return len(self.bars)

    def tensors(self, rows: slice, device: torch.device) -> tuple[Tensor, Tensor]:
        """Bars and features of some windows."""
        return torch.from_numpy(self.bars[rows]).to(device), torch.from_numpy(self.features[rows]).to(device)


def _draw_days(windows: int, generator: torch.Generator) -> np.ndarray:
    """Ascending indices of at most `MOST_WINDOWS` windows: runs as long as a day, drawn at random."""
    if windows <= MOST_WINDOWS:
        return np.arange(windows)
    days = torch.randperm(windows // DAY_WINDOWS, generator=generator)[: MOST_WINDOWS // DAY_WINDOWS].sort().values.numpy()
    return (days[:, None] * DAY_WINDOWS + np.arange(DAY_WINDOWS)).ravel()


def _fit_rocket(encoder: RocketPca, sample: _Sample, generator: torch.Generator, progress: Listener) -> None:
    """Fit the biases on a few windows, then the projection on the counts of all windows."""
    device = encoder.mean.device
    few = torch.randperm(len(sample), generator=generator)[: max(4, BIAS_STEPS // encoder.steps)].numpy()
    encoder.rocket.fit(encoder.bar_scaler(torch.from_numpy(sample.bars[few]).to(device)), generator)

    small = torch.uint8 if encoder.steps <= 255 else torch.int16  # each window has ten thousand counts

    def convolve(rows: slice) -> tuple[Tensor, Tensor]:
        bars, features = sample.tensors(rows, device)
        return encoder.rocket.counts(encoder.bar_scaler(bars)).to(small), encoder.feature_scaler(features).float()

    counts, scaled = [], []
    for block, columns in map_batches(convolve, len(sample), BATCH, device):
        counts.append(block)
        scaled.append(columns)
        progress("convolutions", min(len(counts) * BATCH, len(sample)), len(sample))
    with single_threaded():  # how threads share a sum changes its last bit, and so the id of the model
        fit_projection(encoder, lambda: map(encoder.rocket.angles, counts), torch.cat(scaled), sample.follows, generator)
    progress("principal components", 1, 1)


def _fit_states(encoder: TcnEncoder, sample: _Sample, generator: torch.Generator) -> None:
    """Fit the projection on the states of all windows."""
    device = encoder.mean.device

    def compute_states(rows: slice) -> tuple[Tensor, Tensor]:
        bars, features = sample.tensors(rows, device)
        scaled = encoder.feature_scaler(features).float()
        return encoder.join(encoder.tcn(encoder.bar_scaler(bars).float()), scaled), scaled

    with single_threaded():
        joined, scaled = zip(*map_batches(compute_states, len(sample), BATCH, device), strict=True)
        fit_projection(encoder, lambda: iter(joined), torch.cat(scaled), sample.follows, generator)
