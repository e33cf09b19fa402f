"""A temporal convolutional network (Bai, Kolter and Koltun 2018), with pooling that preserves the level of a sequence."""

from __future__ import annotations

import torch
from torch import Tensor, nn

BLOCKS = 6


class Tcn(nn.Module):
    """Scaled sequences [n, steps, channels] to hidden states [n, width, about steps / 2], float32.

    A stem of stride 2, then six residual blocks whose dilation doubles up to a quarter of the states. The blocks are not normalized:
    over a window that would erase the level of volatility, over a batch it would mix windows.
    """

    def __init__(self, steps: int, channels: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv1d(channels, width, 5, stride=2, padding=2)
        most = max(1, steps // 8)
        self.blocks = nn.ModuleList(_block(width, min(2**number, most)) for number in range(BLOCKS))

    def forward(self, bars: Tensor) -> Tensor:
        states = self.stem(bars.transpose(1, 2))
        for block in self.blocks:
            states = states + block(states)
        return states


def _block(width: int, dilation: int) -> nn.Sequential:
    first, second = (nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation) for _ in range(2))
    with torch.no_grad():
        second.weight.mul_(0.1)  # close to the identity at first, as a stack without normalization needs
    return nn.Sequential(nn.GELU(), first, nn.GELU(), second)


def pool_states(states: Tensor) -> Tensor:
    """Mean, maximum and standard deviation over time of states [n, width, steps]: [n, 3 width]."""
    return torch.cat([states.mean(2), states.amax(2), (states.var(2, correction=0) + 1e-5).sqrt()], dim=1)
