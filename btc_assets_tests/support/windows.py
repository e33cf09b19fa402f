"""Windows for tests of encoders: small and random, with bursts."""

from __future__ import annotations

import numpy as np
import torch

from btc_assets.signals.encoders.windows import TrainingWindows

torch.set_num_threads(1)  # with windows this small, threads would only wait for each other

STEPS, CHANNELS, FEATURES = 20, 3, 4


def windows(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Bars [count, 20, 3] and features [count, 4]; every other window is twice as volatile."""
    random = np.random.default_rng(seed)
    volatility = np.where(np.arange(count) % 2, 1.0, 2.0)
    bars = random.normal(size=(count, STEPS, CHANNELS)) * volatility[:, None, None]
    bars[:, 5, 0] += random.exponential(10, count)
    features = np.column_stack([bars.std((1, 2)), bars.mean((1, 2)), bars[:, :, 0].max(1), random.normal(size=count)])
    return bars.astype(np.float32), features.astype(np.float32)


def training_windows(count: int, seed: int = 0) -> TrainingWindows:
    """The same, to train on."""
    return TrainingWindows(*windows(count, seed))
