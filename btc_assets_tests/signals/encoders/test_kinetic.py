"""The kinetic map finds what persists beneath what does not, without a label."""

from __future__ import annotations

import pytest
import torch

from btc_assets.signals.encoders.kinetic import kinetic_map


def persistent_states(n: int = 4000, size: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    """States [n, size] of unit variance in which one direction persists (autocorrelation .9), and that direction."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(n, size, generator=generator)
    persistent = torch.empty(n)
    persistent[0] = states[0, 0]
    for i in range(1, n):
        persistent[i] = 0.9 * persistent[i - 1] + (1 - 0.81) ** 0.5 * states[i, 0]
    states[:, 0] = persistent
    rotation = torch.linalg.qr(torch.randn(size, size, generator=generator)).Q
    return states @ rotation, rotation[0]


def test_a_persistent_direction_comes_first_with_its_autocorrelation_as_weight() -> None:
    states, persistent = persistent_states()
    mapped = kinetic_map(states, torch.arange(len(states)) > 0)
    first = mapped[:, 0]
    assert abs(first @ persistent) / first.norm() > 0.99
    assert first.norm().item() == pytest.approx(0.9, abs=0.03)
    assert mapped[:, 1:].norm(dim=0).max() < 0.1  # chance has almost no weight


def test_slices_that_do_not_follow_each_other_show_no_persistence() -> None:
    states, _ = persistent_states(500)
    assert (kinetic_map(states, torch.zeros(500, dtype=torch.bool)) == torch.eye(10)).all()
    shuffled = states[torch.randperm(500, generator=torch.Generator().manual_seed(1))]
    assert kinetic_map(shuffled, torch.arange(500) > 0).norm(dim=0).max() < 0.3


def test_a_gap_in_time_is_not_bridged() -> None:
    states, _ = persistent_states()
    follows = torch.arange(len(states)) % 2 == 1  # the predecessor of every second slice is missing
    assert kinetic_map(states, follows)[:, 0].norm().item() == pytest.approx(0.9, abs=0.05)


def test_the_other_components_stay_with_a_small_weight() -> None:
    states, _ = persistent_states(4000, 80)
    mapped = kinetic_map(states, torch.arange(len(states)) > 0)
    assert mapped.shape == (80, 80)
    assert torch.linalg.matrix_rank(mapped) == 80
