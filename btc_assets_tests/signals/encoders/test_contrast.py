"""Contrastive learning: what views change, and which windows belong together."""

from __future__ import annotations

import pytest
import torch

from btc_assets.signals.encoders.contrast import soft_targets, thin_bars


def test_thinning_changes_the_sums_over_trades_and_nothing_else() -> None:
    bars = torch.ones(200, 10, 3) * torch.tensor([100.0, 50.0, 7.0])
    thinned = thin_bars(bars, ("trade_count", "signed_volume", "close"), torch.Generator().manual_seed(0))
    assert torch.equal(thinned[:, :, 2], bars[:, :, 2])
    assert torch.allclose(thinned[:, :, 0], 2 * thinned[:, :, 1])
    assert thinned[:, :, 0].mean().item() == pytest.approx(100, rel=0.01)  # neither amplitude
    assert (thinned[:, :, 1] > 0).all()  # nor sign
    assert 1 < thinned[:, :, 0].std().item() < 5  # 100 trades at most vary by sqrt(0.2 / 0.8 / 100), which is 5 %
    assert torch.equal(thin_bars(bars, (), torch.Generator()), bars)


def test_similar_windows_belong_together() -> None:
    targets = soft_targets(torch.tensor([[0.0], [0.1], [5.0]]))
    assert targets.diagonal().tolist() == [1, 1, 1]
    assert targets[0, 1] > 10 * targets[0, 2]
