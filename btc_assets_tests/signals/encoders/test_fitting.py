"""Fitting: the same windows and seed give the same encoder, to the last bit."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE_US
from btc_assets.signals.encoders.artifacts import compute_model_id
from btc_assets.signals.encoders.encoder import KINDS
from btc_assets.signals.encoders.fitting import fit_encoder
from btc_assets.signals.encoders.options import FitOptions
from btc_assets.signals.encoders.windows import TrainingWindows
from btc_assets_tests.support.windows import training_windows, windows


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_encoder_and_another_seed_another(kind: str) -> None:
    made = [compute_model_id(fit_encoder(kind, training_windows(20), FitOptions(dim=8, seed=seed, epochs=1))) for seed in (1, 1, 2)]
    assert made[0] == made[1] != made[2]


@pytest.mark.slow
def test_another_process_fits_the_same_encoders() -> None:
    code = (
        "from btc_assets.signals.encoders.artifacts import compute_model_id; "
        "from btc_assets.signals.encoders.fitting import fit_encoder; "
        "from btc_assets.signals.encoders.options import FitOptions; "
        "from btc_assets_tests.support.windows import training_windows; "
        f"print([compute_model_id(fit_encoder(kind, training_windows(20), FitOptions(dim=8, epochs=1))) for kind in {list(KINDS)}])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert answer == str([compute_model_id(fit_encoder(kind, training_windows(20), FitOptions(dim=8, epochs=1))) for kind in KINDS])


def test_the_tcn_weights_directions_by_their_persistence() -> None:
    persistent = np.sin(np.arange(400) / 30)
    bars, _ = windows(400)
    bars[:, :, 1] += persistent[:, None]
    features = np.random.default_rng(0).normal(size=(400, 4)).astype(np.float32)

    def shared_by_nearest(times: np.ndarray | None = None) -> float:
        """How much of what persists the nearest neighbors share."""
        vectors = fit_encoder("tcn", TrainingWindows(bars, features, times), FitOptions(dim=8, epochs=1)).embed(bars, features)
        similar = vectors @ vectors.T
        np.fill_diagonal(similar, -1)
        return float(np.corrcoef(persistent[similar.argmax(1)], persistent)[0, 1])

    assert shared_by_nearest(SLICE_US * np.arange(400)) > 0.8 > 0.6 > shared_by_nearest()


def test_progress_is_reported_to_the_end() -> None:
    reported: list[tuple[str, int, int]] = []
    fit_encoder("rocket-pca", training_windows(20), FitOptions(dim=8), progress=lambda *step: reported.append(step))
    assert [stage for stage, done, total in reported if done == total] == ["convolutions", "principal components"]


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
def test_windows_from_which_nothing_can_be_learned_are_refused(change: object, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        fit_encoder("rocket-pca", TrainingWindows(*change(*windows(5))))  # type: ignore[operator]


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"seed": 2**32}, {"dim": 1}, {"dim": 2001}])
def test_options_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UserError, match=r"(from 0 to 4294967295|from 2 to 2000)\.$"):
        FitOptions(**wrong)  # type: ignore[arg-type]


def test_a_device_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(UserError, match="no device 'cuda:99' here"):
        fit_encoder("rocket-pca", training_windows(5), FitOptions(device="cuda:99"))
