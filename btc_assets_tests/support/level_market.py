"""A market for tests of evaluations: volatility, volume and trade count follow one slow level, and returns have no direction."""

from __future__ import annotations

import numpy as np

from btc_assets.domain.slices import DAY_US, SLICE_US
from btc_assets.signals.evaluation.dataset import Dataset

NAMES = ("realized_volatility", "volume", "trade_count", "log_return")
START = 19_732 * DAY_US  # 2024-01-10
SLICES = 8 * 288


def level_market(n: int = SLICES, seed: int = 0) -> tuple[Dataset, np.ndarray]:
    """Slices and their level [n]; a regime is the sign of the level together with a coin toss."""
    random = np.random.default_rng(seed)
    level = np.zeros(n)
    for i in range(1, n):
        level[i] = 0.97 * level[i - 1] + 0.24 * random.normal()
    volatility = 5e-4 * np.exp(0.6 * level + 0.2 * random.normal(size=n))
    count = np.rint(np.exp(5 + 0.5 * level + 0.3 * random.normal(size=n)))
    volume = count * 0.02 * np.exp(0.3 * random.normal(size=n))
    features = np.stack([volatility, volume, count, volatility * random.normal(size=n)], axis=1)
    return Dataset(START + np.arange(n) * SLICE_US, features, NAMES, (level > 0) + 2 * (random.random(n) < 0.5)), level


def noise(n: int = SLICES) -> np.ndarray:
    """An embedding [n, 8] that knows nothing."""
    return np.random.default_rng(9).normal(size=(n, 8))
