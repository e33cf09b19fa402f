"""MiniRocket (Dempster, Schmidt and Webb 2021) for many channels, exact in fixed point, and principal components.

The features of MiniRocket are proportions of positive values (PPV): how often a dilated convolution of the window exceeds a bias.
That function is discontinuous, so the last bit of a sum can change it. Here the scaled input is rounded to multiples of 2^-10: every
sum is then exact in float32, in any order and batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations

import numpy as np
import torch
from torch import Tensor, nn

TAPS = 9
UNIT = 2.0**-10  # of the fixed-point numbers
LARGEST = 64.0  # scaled values beyond it are clipped: 64 / UNIT x 12 (a kernel's absolute weights) x 9 channels is below 2^24
BLOCK = 256  # windows at once, so that the counts of one dilation stay in the processor's cache

KERNELS = torch.tensor([[2.0 if tap in chosen else -1.0 for tap in range(TAPS)] for chosen in combinations(range(TAPS), 3)])
"""The 84 kernels of the paper: three weights of 2 and six of -1, so that each sums to zero."""


def distribute_biases(steps: int, biases: int, most: int = 32) -> dict[int, int]:
    """Distribute the `biases` of a kernel over dilations: {dilation: biases}.

    Dilations grow exponentially up to the whole window, and short ones get more biases, as in the paper.
    """
    exponents = np.linspace(0, np.log2((steps - 1) / (TAPS - 1)), min(biases, most))
    found, times = np.unique((2**exponents + 1e-9).astype(int), return_counts=True)
    counts = np.floor(times * biases / times.sum()).astype(int)
    counts[: biases - counts.sum()] += 1
    return {int(dilation): int(count) for dilation, count in zip(found, counts, strict=True) if count}


class MiniRocket(nn.Module):
    """Scaled bars [n, steps, channels] to angles [n, width], float32: arcsin(sqrt(PPV)), with the PPV taken over all steps.

    The angle of a proportion has nearly the same variance for every proportion (Anscombe 1948). So the angles are not standardized,
    which would amplify those that hardly vary.

    Each pair of kernel and dilation sees one to nine channels, drawn at random, as in the multivariate variant of the paper. Half of
    the pairs see the window with zeros around it, half see only its inside. The biases are quantiles of the convolutions of training
    windows at a low-discrepancy sequence of levels.
    """

    channels_seen: Tensor  # [dilations, 84, channels], 0 or 1
    biases: Tensor  # [width], int16, in fixed-point units

    def __init__(self, steps: int, channels: int, biases: int) -> None:
        super().__init__()
        self.steps, self.channels = steps, channels
        self.padded_steps = max(steps, TAPS)  # a kernel does not fit into a shorter window
        self.dilations = distribute_biases(self.padded_steps, biases)
        self.width = len(KERNELS) * sum(self.dilations.values())
        self.register_buffer("channels_seen", torch.ones(len(self.dilations), len(KERNELS), channels, dtype=torch.uint8))
        self.register_buffer("biases", torch.zeros(self.width, dtype=torch.int16))

    def fit(self, windows: Tensor, generator: torch.Generator) -> None:
        """Draw the channels, and take the biases from convolutions of scaled `windows` [n, steps, channels]."""
        most = min(self.channels, TAPS)
        for seen in self.channels_seen.view(-1, self.channels):
            count = int(2 ** (torch.rand((), generator=generator).item() * np.log2(most + 1)))
            seen.zero_()
            seen[torch.randperm(self.channels, generator=generator)[:count]] = 1
        levels = torch.arange(1, self.width + 1, dtype=torch.float64) * ((5**0.5 + 1) / 2) % 1
        start = 0
        for number, (dilation, count) in enumerate(self.dilations.items()):
            convolved = (values for _, values in self._convolutions(self._fixed(windows), number, dilation, inside=False))
            values = torch.cat([values.flatten(1) for values in convolved], dim=1).sort(dim=1).values
            at = levels[start : start + len(KERNELS) * count].view(len(KERNELS), count)
            taken = (at * (values.shape[1] - 1)).round().long().to(values.device)
            self.biases[start : start + len(KERNELS) * count] = values.gather(1, taken).flatten()
            start += len(KERNELS) * count

    def forward(self, scaled: Tensor) -> Tensor:
        return self.angles(self.counts(scaled))

    def counts(self, scaled: Tensor) -> Tensor:
        """Number of steps at which a convolution exceeds a bias, int16 [n, width]."""
        return torch.cat([self._counts(self._fixed(block)) for block in scaled.split(BLOCK)])

    def angles(self, counts: Tensor) -> Tensor:
        """arcsin(sqrt(PPV)) of counts, float32 [n, width]."""
        return (counts.float() / self.padded_steps).sqrt_().asin_()

    def _fixed(self, scaled: Tensor) -> Tensor:
        """Fixed-point numbers as float32 [steps, channels, n]; windows come last, so that every operation runs along them."""
        fixed = (scaled.clamp(-LARGEST, LARGEST) / UNIT).round_().to(torch.float32)
        missing = self.padded_steps - self.steps
        return nn.functional.pad(fixed, (0, 0, missing // 2, missing - missing // 2)).permute(1, 2, 0).contiguous()

    def _counts(self, fixed: Tensor) -> Tensor:
        n = fixed.shape[-1]
        columns, start = [], 0
        for number, (dilation, count) in enumerate(self.dilations.items()):
            size = len(KERNELS) * count
            biases = self.biases[start : start + size].view(len(KERNELS), count, 1)
            # The result of the comparison has the type of its operands, because only then both operations use vector instructions.
            counts, above = (torch.zeros(len(KERNELS), count, n, dtype=torch.int16, device=fixed.device) for _ in range(2))
            for kernels, values in self._convolutions(fixed, number, dilation):
                if values.shape[1] == 1:
                    torch.gt(values, biases[:kernels], out=above[:kernels])
                    counts[:kernels] += above[:kernels]
                else:
                    several = torch.empty(kernels, values.shape[1], count, n, dtype=torch.int16, device=fixed.device)
                    torch.gt(values[:, :, None], biases[:kernels, None], out=several)
                    counts[:kernels] += several.sum(1, dtype=torch.int16)
            columns.append(counts.view(size, n))
            start += size
        return torch.cat(columns).T

    def _convolutions(self, fixed: Tensor, number: int, dilation: int, inside: bool = True) -> Iterator[tuple[int, Tensor]]:
        """Convolve step by step, or several steps at once.

        If `inside`, the second half of the kernels has no values at steps where they would reach over the edges of the window.

        Yields:
            The number of kernels (the first ones) that have values at these steps, and the values, int16 [kernels, steps, n].
        """
        order = torch.arange(len(KERNELS), device=fixed.device).view(-1, 2).T.flip(0 if number % 2 else ()).flatten()
        seen = self.channels_seen[number][order].to(torch.float32)
        weights = (KERNELS.to(fixed.device)[order][:, :, None] * seen[:, None]).flatten(1)
        reach = TAPS // 2 * dilation
        padded = nn.functional.pad(fixed, (0, 0, 0, 0, reach, reach))
        taps = torch.arange(self.padded_steps, device=fixed.device)[:, None] + dilation * torch.arange(TAPS, device=fixed.device)
        at_once = max(1, BLOCK // fixed.shape[-1])  # steps: few windows take several steps per call
        first, last = (reach, self.padded_steps - reach) if inside else (0, self.padded_steps)
        for start, end in ((0, first), (first, last), (last, self.padded_steps)):
            kernels = len(KERNELS) if start == first else len(KERNELS) // 2
            for at in taps[start:end].split(at_once) if start < end else ():
                given = padded[at].permute(1, 2, 0, 3).reshape(weights.shape[1], -1)
                values = (weights[:kernels] @ given).clamp_(-32767, 32767).to(torch.int16)
                yield kernels, values.view(kernels, len(at), -1)


def principal_components(
    rows: Callable[[], Iterator[Tensor]], columns: int, rank: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The first `rank` right singular vectors [columns, rank] and singular values of centered rows that come in blocks.

    Randomized subspace iteration (Halko, Martinsson and Tropp 2011): three passes over the rows, memory for one block.
    """
    basis = torch.randn(columns, min(rank + 16, columns), generator=generator)
    device = next(rows()).device
    basis = basis.to(device)
    for _ in range(3):
        basis = torch.linalg.qr(basis).Q
        basis = sum((block.T @ (block @ basis) for block in rows()), torch.zeros_like(basis))
    basis = torch.linalg.qr(basis).Q
    gram = sum(
        ((small := block @ basis).T @ small for block in rows()), torch.zeros(basis.shape[1], basis.shape[1], device=device)
    ).double()
    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(0)[:rank], vectors.flip(1)[:, :rank]
    components = basis @ vectors.float()
    # The sign of a singular vector is arbitrary; its largest entry is made positive.
    signs = components.gather(0, components.abs().argmax(0, keepdim=True)).sign()
    return components * signs, values.clamp(min=0).sqrt().float()
