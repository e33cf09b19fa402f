"""The temporal convolutional network: shapes, and pooling that preserves the level."""

from __future__ import annotations

import torch

from btc_assets.signals.encoders.tcn import Tcn, pool_states


def test_states_are_half_as_long_as_the_sequence_for_any_length() -> None:
    for steps in (1, 7, 60):
        assert Tcn(steps, channels=3, width=8)(torch.randn(2, steps, 3)).shape == (2, 8, (steps + 1) // 2)


def test_pooling_preserves_the_level_of_the_states() -> None:
    states = torch.randn(4, 8, 30, generator=torch.Generator().manual_seed(0))
    pooled, doubled = pool_states(states), pool_states(2 * states)
    assert pooled.shape == (4, 24)
    assert torch.allclose(doubled, 2 * pooled, atol=1e-3)
