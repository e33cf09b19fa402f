"""The kinetic map: what lasts is found under what does not, without a label."""

from __future__ import annotations

import pytest
import torch

from btc_assets.signals.encoders.kinetic import kinetic_map


def lasting_and_fleeting(n: int = 4000, size: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    """States [n, size] of unit variance in which one direction lasts (autocorrelation .9), and that direction."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(n, size, generator=generator)
    lasting = torch.empty(n)
    lasting[0] = states[0, 0]
    for i in range(1, n):
        lasting[i] = 0.9 * lasting[i - 1] + (1 - 0.81) ** 0.5 * states[i, 0]
    states[:, 0] = lasting
    rotation = torch.linalg.qr(torch.randn(size, size, generator=generator)).Q
    return states @ rotation, rotation[0]


def test_a_direction_that_lasts_comes_first_and_weighs_what_its_autocorrelation_is() -> None:
    states, lasting = lasting_and_fleeting()
    mapped = kinetic_map(states, torch.arange(len(states)) > 0)
    first = mapped[:, 0]
    assert abs(first @ lasting) / first.norm() > 0.99
    assert first.norm().item() == pytest.approx(0.9, abs=0.03)
    assert mapped[:, 1:].norm(dim=0).max() < 0.1  # what is chance weighs next to nothing


def test_slices_that_do_not_follow_each_other_tell_nothing() -> None:
    states, _ = lasting_and_fleeting(500)
    assert (kinetic_map(states, torch.zeros(500, dtype=torch.bool)) == torch.eye(10)).all()
    shuffled = states[torch.randperm(500, generator=torch.Generator().manual_seed(1))]
    assert kinetic_map(shuffled, torch.arange(500) > 0).norm(dim=0).max() < 0.3


def test_a_gap_in_time_is_not_bridged() -> None:
    states, _ = lasting_and_fleeting()
    follows = torch.arange(len(states)) % 2 == 1  # every second slice is missing the one before it
    assert kinetic_map(states, follows)[:, 0].norm().item() == pytest.approx(0.9, abs=0.05)


def test_the_rest_of_the_components_stays_and_weighs_little() -> None:
    states, _ = lasting_and_fleeting(4000, 80)
    mapped = kinetic_map(states, torch.arange(len(states)) > 0)
    assert mapped.shape == (80, 80)
    assert torch.linalg.matrix_rank(mapped) == 80
