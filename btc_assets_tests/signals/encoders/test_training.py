"""Training: the same windows and seed make the same encoder, to the last bit."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE_US
from btc_assets.signals.encoders.artefacts import model_id
from btc_assets.signals.encoders.contrast import contrast, soft_targets, thin
from btc_assets.signals.encoders.encoder import KINDS, embed
from btc_assets.signals.encoders.training import fit
from btc_assets_tests.support.windows import windows


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_makes_the_same_encoder_and_another_seed_another(kind: str) -> None:
    made = [model_id(fit(kind, *windows(20), dim=8, seed=seed, epochs=1)) for seed in (1, 1, 2)]
    assert made[0] == made[1] != made[2]


def test_another_process_makes_the_same_encoders() -> None:
    code = (
        "from btc_assets.signals.encoders.artefacts import model_id; from btc_assets.signals.encoders.training import fit; "
        "from btc_assets_tests.support.windows import windows; "
        f"print([model_id(fit(kind, *windows(20), dim=8, epochs=1)) for kind in {list(KINDS)}])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert answer == str([model_id(fit(kind, *windows(20), dim=8, epochs=1)) for kind in KINDS])


def test_training_that_was_killed_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(stage: str, done: int, total: int) -> None:
        if done == 2:
            raise Killed

    checkpoint = tmp_path / "training"
    with pytest.raises(Killed):
        fit("tcn", *windows(20), dim=8, epochs=3, progress=kill, checkpoint=checkpoint)
    assert checkpoint.exists()
    epochs: list[int] = []
    resumed = fit("tcn", *windows(20), dim=8, epochs=3, progress=lambda _, done, __: epochs.append(done), checkpoint=checkpoint)
    assert epochs == [2, 3]
    assert model_id(resumed) == model_id(fit("tcn", *windows(20), dim=8, epochs=3))
    assert not checkpoint.exists()


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    def keep(stage: str, done: int, total: int) -> None:
        if done == 1:
            shutil.copy(tmp_path / "training", tmp_path / "kept")

    fit("tcn", *windows(20), dim=8, epochs=2, progress=keep, checkpoint=tmp_path / "training")
    with pytest.raises(UserError, match="is of other windows, another seed or another number of epochs"):
        fit("tcn", *windows(20), dim=8, epochs=2, seed=1, checkpoint=tmp_path / "kept")
    (tmp_path / "kept").write_bytes(b"no checkpoint")
    with pytest.raises(UserError, match="kept cannot be read: delete it"):
        fit("tcn", *windows(20), dim=8, epochs=2, checkpoint=tmp_path / "kept")


def test_the_tcn_learns() -> None:
    """What it is trained for is nearer after training than before, on windows that it has not seen."""

    def loss(epochs: int) -> float:
        encoder = fit("tcn", *windows(64), dim=16, epochs=epochs)
        bars, features = (torch.from_numpy(values) for values in windows(32, seed=1))
        scaled = encoder.feature_scaler(features).float()
        noisy = bars + 0.3 * torch.randn(bars.shape, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            one, other = (encoder.join(encoder.tcn(encoder.bar_scaler(view).float()), scaled) for view in (bars, noisy))
        return contrast(one, other, soft_targets(scaled)).item()

    assert loss(20) < loss(1) - 0.1


def test_the_tcn_weighs_directions_by_how_long_they_last() -> None:
    lasting = np.sin(np.arange(400) / 30)
    bars, _ = windows(400)
    bars[:, :, 1] += lasting[:, None]
    features = np.random.default_rng(0).normal(size=(400, 4)).astype(np.float32)
    times = SLICE_US * np.arange(400)

    def told(**known: np.ndarray) -> float:
        """How much of what lasts the nearest neighbours share."""
        vectors = embed(fit("tcn", bars, features, dim=8, epochs=1, **known), bars, features)  # type: ignore[arg-type]
        similar = vectors @ vectors.T
        np.fill_diagonal(similar, -1)
        return float(np.corrcoef(lasting[similar.argmax(1)], lasting)[0, 1])

    assert told(times=times) > 0.8 > 0.6 > told()


def test_next_labels_may_be_unknown() -> None:
    bars, features = windows(20)
    labels = np.column_stack([features[:, 0], np.full(20, np.nan), np.where(np.arange(20) % 2, np.nan, 1.0)])
    encoder = fit("tcn", bars, features, next_labels=labels, dim=8, epochs=1)
    assert np.isfinite(embed(encoder, bars, features)).all()
    assert model_id(encoder) != model_id(fit("tcn", bars, features, dim=8, epochs=1))
    with pytest.raises(UserError, match="labels of 19 windows and bars of 20"):
        fit("tcn", bars, features, next_labels=labels[1:], dim=8, epochs=1)


def test_thinning_changes_the_sums_over_trades_and_nothing_else() -> None:
    bars = torch.ones(200, 10, 3) * torch.tensor([100.0, 50.0, 7.0])
    thinned = thin(bars, ("trade_count", "signed_volume", "close"), torch.Generator().manual_seed(0))
    assert torch.equal(thinned[:, :, 2], bars[:, :, 2])
    assert torch.allclose(thinned[:, :, 0], 2 * thinned[:, :, 1])
    assert thinned[:, :, 0].mean().item() == pytest.approx(100, rel=0.01)  # neither amplitude
    assert (thinned[:, :, 1] > 0).all()  # nor sign
    assert 1 < thinned[:, :, 0].std().item() < 5  # 100 trades at most vary by sqrt(0.2 / 0.8 / 100), which is 5 %
    assert torch.equal(thin(bars, (), torch.Generator()), bars)


def test_windows_that_are_alike_are_wanted_near() -> None:
    targets = soft_targets(torch.tensor([[0.0], [0.1], [5.0]]))
    assert targets.diagonal().tolist() == [1, 1, 1]
    assert targets[0, 1] > 10 * targets[0, 2]


def test_progress_is_told_to_the_end() -> None:
    told: list[tuple[str, int, int]] = []
    fit("rocket-pca", *windows(20), dim=8, progress=lambda *step: told.append(step))
    assert [stage for stage, done, total in told if done == total] == ["convolutions", "principal components"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda bars, features: (bars[:1], features[:1]), "cannot be trained on 1 windows"),
        (lambda bars, features: (bars, features[1:]), r"Bars of shape \(5, 20, 3\) and features of shape \(4, 4\) do not fit"),
        (lambda bars, features: (bars[:, 0], features), r"Bars of shape \(5, 3\)"),
        (lambda bars, features: (bars, features / np.float32(0)), "Features are NaN or infinite in 5 of 5 rows"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_windows_that_nothing_can_be_learnt_from_are_refused(change: object, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        fit("rocket-pca", *change(*windows(5)))  # type: ignore[operator]


def test_windows_that_are_all_alike_are_refused() -> None:
    bars, features = windows(1)
    with pytest.raises(UserError, match=r"^The 60 windows are all alike, so nothing can be learned from them"):
        fit("rocket-pca", np.repeat(bars, 60, axis=0), np.repeat(features, 60, axis=0))


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"seed": 2**32}, {"dim": 1}, {"dim": 2001}])
def test_options_out_of_range_are_refused_before_anything_is_trained(wrong: dict[str, int]) -> None:
    with pytest.raises(UserError, match=r"(from 0 to 4294967295|from 2 to 2000)\.$"):
        fit("rocket-pca", *windows(5), **wrong)  # type: ignore[arg-type]


def test_a_device_that_is_not_there_is_said() -> None:
    with pytest.raises(UserError, match="no device 'cuda:99' here"):
        fit("rocket-pca", *windows(5), device="cuda:99")
