"""Training of the tcn: it learns, and resumes from a checkpoint as if it had not been interrupted."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from btc_assets.domain.errors import UserError
from btc_assets.signals.encoders.artifacts import compute_model_id
from btc_assets.signals.encoders.contrast import contrast_loss, soft_targets
from btc_assets.signals.encoders.encoder import TcnEncoder
from btc_assets.signals.encoders.fitting import fit_encoder
from btc_assets.signals.encoders.options import FitOptions
from btc_assets.signals.encoders.windows import TrainingWindows
from btc_assets_tests.support.windows import training_windows, windows


def test_interrupted_training_ends_with_the_same_encoder(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(stage: str, done: int, total: int) -> None:
        if done == 2:
            raise Killed

    checkpoint, options = tmp_path / "training", FitOptions(dim=8, epochs=3)
    with pytest.raises(Killed):
        fit_encoder("tcn", training_windows(20), options, checkpoint=checkpoint, progress=kill)
    assert checkpoint.exists()
    epochs: list[int] = []
    resumed = fit_encoder("tcn", training_windows(20), options, checkpoint=checkpoint, progress=lambda _, done, __: epochs.append(done))
    assert epochs == [2, 3]
    assert compute_model_id(resumed) == compute_model_id(fit_encoder("tcn", training_windows(20), options))
    assert not checkpoint.exists()


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    def keep(stage: str, done: int, total: int) -> None:
        if done == 1:
            shutil.copy(tmp_path / "training", tmp_path / "kept")

    options = FitOptions(dim=8, epochs=2)
    fit_encoder("tcn", training_windows(20), options, checkpoint=tmp_path / "training", progress=keep)
    with pytest.raises(UserError, match="belongs to other windows, another seed or another number of epochs"):
        fit_encoder("tcn", training_windows(20), FitOptions(dim=8, epochs=2, seed=1), checkpoint=tmp_path / "kept")
    (tmp_path / "kept").write_bytes(b"no checkpoint")
    with pytest.raises(UserError, match="kept cannot be read: delete it"):
        fit_encoder("tcn", training_windows(20), options, checkpoint=tmp_path / "kept")


@pytest.mark.slow
def test_the_tcn_learns() -> None:
    """The contrastive loss on unseen windows falls with training."""

    def loss(epochs: int) -> float:
        encoder = fit_encoder("tcn", training_windows(64), FitOptions(dim=16, epochs=epochs))
        assert isinstance(encoder, TcnEncoder)
        bars, features = (torch.from_numpy(values) for values in windows(32, seed=1))
        scaled = encoder.feature_scaler(features).float()
        noisy = bars + 0.3 * torch.randn(bars.shape, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            one, other = (encoder.join(encoder.tcn(encoder.bar_scaler(view).float()), scaled) for view in (bars, noisy))
        return contrast_loss(one, other, soft_targets(scaled)).item()

    assert loss(20) < loss(1) - 0.1


def test_next_labels_may_be_unknown() -> None:
    bars, features = windows(20)
    labels = np.column_stack([features[:, 0], np.full(20, np.nan), np.where(np.arange(20) % 2, np.nan, 1.0)])
    encoder = fit_encoder("tcn", TrainingWindows(bars, features, next_labels=labels), FitOptions(dim=8, epochs=1))
    assert np.isfinite(encoder.embed(bars, features)).all()
    assert compute_model_id(encoder) != compute_model_id(fit_encoder("tcn", TrainingWindows(bars, features), FitOptions(dim=8, epochs=1)))
