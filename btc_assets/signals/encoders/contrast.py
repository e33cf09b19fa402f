"""What the `tcn` learns from: two views of a window belong together, and so, the less the farther, do windows that are alike.

Views differ in what a slice could as well have been: fewer trades, bars that begin a moment later, a channel that is missing, a
part of the window. They never differ in sign or amplitude, for these are what a market does.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

THINNED = frozenset({"volume", "signed_volume", "trade_count", "signed_trade_count"})
"""Channels that are sums over trades, and change by the same factor where some are left out."""

KEPT = 0.8  # the least share of trades that thinning keeps
CROP = 0.6  # the least share of the steps that a crop keeps
DROPPED = 0.15  # of the channels and of the features
JITTER = 0.1  # in scaled units, of features; of bars it would erase shapes that are finer
TEMPERATURE = 0.2
SHARPNESS = 20.0  # of soft targets over distances between 0 and 1
NEARBY = 2.0  # of soft targets over segments of time


def thin(bars: Tensor, names: Sequence[str], generator: torch.Generator) -> Tensor:
    """Raw bars [n, steps, channels] as if each trade had been kept with a probability of 0.8 to 1, and scaled back.

    In the normal approximation to the binomial distribution: the bars' sums vary by sqrt((1 - p) / (p trades)) of themselves.
    Without a channel `trade_count` the bars come back as they are.
    """
    if "trade_count" not in names:
        return bars
    kept = KEPT + (1 - KEPT) * _uniform((len(bars), 1), bars, generator)
    trades = bars[:, :, names.index("trade_count")].clamp(min=1)
    factor = (1 + ((1 - kept) / (kept * trades)).sqrt() * _normal(trades.shape, bars, generator)).clamp(min=0)
    sums = torch.tensor([name in THINNED for name in names], device=bars.device)
    return torch.where(sums, bars * factor[:, :, None], bars)


def disturb(bars: Tensor, features: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Scaled bars that begin up to a step later and lack channels, and noisy features that lack some; 0 is the median."""
    later = torch.cat([bars[:, 1:], bars[:, -1:]], dim=1)
    bars = bars.lerp(later, _uniform((len(bars), 1, 1), bars, generator))
    if bars.shape[2] > 1:
        bars = bars * (_uniform((len(bars), 1, bars.shape[2]), bars, generator) >= DROPPED)
    features = features + JITTER * _normal(features.shape, features, generator)
    return bars, features * (_uniform(features.shape, features, generator) >= DROPPED)


def crop(steps: int, generator: torch.Generator) -> slice:
    """A part of the window that both views see, so that their states are of the same time."""
    length = max(min(steps, 4), int(steps * (CROP + (1 - CROP) * torch.rand((), generator=generator).item())))
    start = int(torch.randint(steps - length + 1, (), generator=generator))
    return slice(start, start + length)


def soft_targets(described: Tensor) -> Tensor:
    """How much windows [n, columns] belong together, [n, n]: 1 with themselves, less with the distance, towards 0.

    A sigmoid of the distances, which are scaled to 0..1 in the batch (SoftCLT: Lee, Park and Lee 2024).
    """
    distances = torch.cdist(described, described)
    targets = torch.sigmoid(-SHARPNESS * distances / distances.max().clamp(min=1e-9))
    return targets.fill_diagonal_(1.0)


def contrast(one: Tensor, other: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy between `targets` [n, n] and the softmax of similarities of two views' vectors [..., n, columns]."""
    similarities = nn.functional.normalize(one, dim=-1) @ nn.functional.normalize(other, dim=-1).mT / TEMPERATURE
    targets = targets / targets.sum(1, keepdim=True)
    return -((similarities.log_softmax(-1) + similarities.mT.log_softmax(-1)) * targets).sum(-1).mean() / 2


def hierarchical(one: Tensor, other: Tensor, targets: Tensor) -> Tensor:
    """Contrast of two views' states [n, width, steps], among windows and among times, at ever coarser steps (TS2Vec: Yue et al. 2022).

    Times are contrasted with soft targets as well, because what is near in time is alike.
    """
    losses = []
    segments = min(8, one.shape[2])
    while segments > 1:
        first, second = (nn.functional.adaptive_max_pool1d(states, segments) for states in (one, other))
        losses.append(contrast(first.permute(2, 0, 1), second.permute(2, 0, 1), targets))
        at = torch.arange(segments, device=one.device, dtype=one.dtype)
        nearby = (2 * torch.sigmoid(-NEARBY * (at[:, None] - at).abs())).fill_diagonal_(1.0)
        losses.append(contrast(first.mT, second.mT, nearby))
        segments //= 2
    return torch.stack(losses).mean() if losses else one.new_zeros(())


def _uniform(shape: Sequence[int], like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(tuple(shape), generator=generator).to(like)


def _normal(shape: Sequence[int], like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(tuple(shape), generator=generator).to(like)
