"""Contrastive losses of the `tcn`, and the views of a window that they compare.

Two views of one window belong together, and similar windows do to a degree that falls with their distance. Views differ by accidents
of sampling: fewer trades, bars that start a moment later, a missing channel, a part of the window. They never differ in sign or
amplitude, because those describe the market itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

THINNED = frozenset({"volume", "signed_volume", "trade_count", "signed_trade_count"})
"""Channels that are sums over trades: dropping trades scales them all by the same factor."""

LEAST_KEPT = 0.8  # share of trades that thinning keeps at least
LEAST_CROP = 0.6  # share of the steps that a crop keeps at least
DROPPED = 0.15  # share of channels, and of features
JITTER = 0.1  # of features, in scaled units; bars have none, because it would erase fine shapes
TEMPERATURE = 0.2
SHARPNESS = 20.0  # of soft targets over distances scaled to 0..1
NEARBY = 2.0  # of soft targets over segments of time


def thin_bars(bars: Tensor, names: Sequence[str], generator: torch.Generator) -> Tensor:
    """Raw bars [n, steps, channels] as if each trade had been kept with a probability p of 0.8 to 1, scaled back by 1 / p.

    By the normal approximation to the binomial distribution, sums of a bar vary by sqrt((1 - p) / (p trades)) of their value.
    Without a channel `trade_count`, returns the bars unchanged.
    """
    if "trade_count" not in names:
        return bars
    kept = LEAST_KEPT + (1 - LEAST_KEPT) * _uniform((len(bars), 1), bars, generator)
    trades = bars[:, :, names.index("trade_count")].clamp(min=1)
    factor = (1 + ((1 - kept) / (kept * trades)).sqrt() * _normal(trades.shape, bars, generator)).clamp(min=0)
    sums = torch.tensor([name in THINNED for name in names], device=bars.device)
    return torch.where(sums, bars * factor[:, :, None], bars)


def disturb_view(bars: Tensor, features: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Start scaled bars up to a step later and drop channels; add noise to features and drop some. A dropped value is 0, the median."""
    later = torch.cat([bars[:, 1:], bars[:, -1:]], dim=1)
    bars = bars.lerp(later, _uniform((len(bars), 1, 1), bars, generator))
    if bars.shape[2] > 1:
        bars = bars * (_uniform((len(bars), 1, bars.shape[2]), bars, generator) >= DROPPED)
    features = features + JITTER * _normal(features.shape, features, generator)
    return bars, features * (_uniform(features.shape, features, generator) >= DROPPED)


def draw_crop(steps: int, generator: torch.Generator) -> slice:
    """A part of the window for both views, so that their states cover the same time."""
    length = max(min(steps, 4), int(steps * (LEAST_CROP + (1 - LEAST_CROP) * torch.rand((), generator=generator).item())))
    start = int(torch.randint(steps - length + 1, (), generator=generator))
    return slice(start, start + length)


def soft_targets(described: Tensor) -> Tensor:
    """How much windows [n, columns] belong together, [n, n]: 1 for a window and itself, falling to 0 with the distance.

    A sigmoid of the distances, which are scaled to 0..1 within the batch (SoftCLT: Lee, Park and Lee 2024).
    """
    distances = torch.cdist(described, described)
    targets = torch.sigmoid(-SHARPNESS * distances / distances.max().clamp(min=1e-9))
    return targets.fill_diagonal_(1.0)


def contrast_loss(one: Tensor, other: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy between `targets` [n, n] and the softmax of the similarities between vectors of two views [..., n, columns]."""
    similarities = nn.functional.normalize(one, dim=-1) @ nn.functional.normalize(other, dim=-1).mT / TEMPERATURE
    targets = targets / targets.sum(1, keepdim=True)
    return -((similarities.log_softmax(-1) + similarities.mT.log_softmax(-1)) * targets).sum(-1).mean() / 2


def hierarchical_loss(one: Tensor, other: Tensor, targets: Tensor) -> Tensor:
    """Contrast the states of two views [n, width, steps] among windows and among times, at ever coarser steps (TS2Vec: Yue et al. 2022).

    The targets among times are soft too, because states that are close in time are similar.
    """
    losses = []
    segments = min(8, one.shape[2])
    while segments > 1:
        first, second = (nn.functional.adaptive_max_pool1d(states, segments) for states in (one, other))
        losses.append(contrast_loss(first.permute(2, 0, 1), second.permute(2, 0, 1), targets))
        at = torch.arange(segments, device=one.device, dtype=one.dtype)
        nearby = (2 * torch.sigmoid(-NEARBY * (at[:, None] - at).abs())).fill_diagonal_(1.0)
        losses.append(contrast_loss(first.mT, second.mT, nearby))
        segments //= 2
    return torch.stack(losses).mean() if losses else one.new_zeros(())


def _uniform(shape: Sequence[int], like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(tuple(shape), generator=generator).to(like)


def _normal(shape: Sequence[int], like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(tuple(shape), generator=generator).to(like)
