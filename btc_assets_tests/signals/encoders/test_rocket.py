"""MiniRocket against the paper and against plain convolutions; principal components against an exact decomposition."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from btc_assets.signals.encoders.rocket import KERNELS, MiniRocket, distribute_biases, principal_components


def test_the_kernels_are_the_84_of_the_paper() -> None:
    assert KERNELS.shape == (84, 9)
    assert (KERNELS.sum(1) == 0).all()
    assert ((KERNELS == 2).sum(1) == 3).all()
    assert len({tuple(kernel) for kernel in KERNELS.tolist()}) == 84


@given(st.integers(9, 500), st.integers(1, 150))
def test_every_bias_has_a_dilation_that_fits_into_the_window(steps: int, biases: int) -> None:
    found = distribute_biases(steps, biases)
    assert sum(found.values()) == biases
    assert min(found) == 1 and 8 * max(found) < steps


def test_counts_are_those_of_plain_convolutions() -> None:
    """One channel, against NumPy's own correlation, with the zeros around the window and without."""
    window = np.random.default_rng(0).integers(-900, 900, 30) / 1024
    rocket = MiniRocket(30, 1, biases=3)
    rocket.fit(torch.from_numpy(window)[None, :, None], torch.Generator().manual_seed(0))
    counts = rocket.counts(torch.from_numpy(window)[None, :, None])[0].tolist()
    biases = rocket.biases.tolist()
    assert rocket.dilations == {1: 2, 3: 1}
    for number, (dilation, count) in enumerate(rocket.dilations.items()):
        for row, kernel in enumerate([*KERNELS[number % 2 :: 2], *KERNELS[1 - number % 2 :: 2]]):
            spread = np.zeros(8 * dilation + 1)
            spread[::dilation] = kernel.numpy()
            values = np.correlate(np.pad(window, 4 * dilation) if row < 42 else window, spread, mode="valid")
            for _ in range(count):
                assert counts.pop(0) == (values > biases.pop(0) / 1024).sum()
    assert not counts


def test_windows_shorter_than_a_kernel_are_padded() -> None:
    rocket = MiniRocket(4, 2, biases=2)
    rocket.fit(torch.randn(8, 4, 2, dtype=torch.float64), torch.Generator().manual_seed(0))
    assert rocket(torch.randn(3, 4, 2, dtype=torch.float64)).shape == (3, 168)


def test_principal_components_are_those_of_the_whole_matrix() -> None:
    rows = torch.randn(50, 12, generator=torch.Generator().manual_seed(0)) * torch.tensor(0.5) ** torch.arange(12)
    components, values = principal_components(lambda: iter(rows.split(16)), 12, 4, torch.Generator().manual_seed(1))
    exact = torch.linalg.svd(rows, full_matrices=False)
    assert torch.allclose(values, exact.S[:4], rtol=1e-3)
    assert torch.allclose((components.T @ exact.Vh[:4].T).abs(), torch.eye(4), atol=1e-3)
