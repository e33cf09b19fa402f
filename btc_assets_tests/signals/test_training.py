"""Training: the same windows and seed make the same encoder, to the last bit."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from btc_assets.errors import UserError
from btc_assets.signals.artefacts import model_id
from btc_assets.signals.encoders import KINDS
from btc_assets.signals.training import fit
from btc_assets_tests.signals.windows import windows


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_makes_the_same_encoder_and_another_seed_another(kind: str) -> None:
    made = [model_id(fit(kind, *windows(20), dim=8, seed=seed, epochs=1)) for seed in (1, 1, 2)]
    assert made[0] == made[1] != made[2]


def test_another_process_makes_the_same_encoders() -> None:
    code = (
        "from btc_assets.signals.artefacts import model_id; from btc_assets.signals.training import fit; "
        "from btc_assets_tests.signals.windows import windows; "
        f"print([model_id(fit(kind, *windows(20), dim=8, epochs=1)) for kind in {list(KINDS)}])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert answer == str([model_id(fit(kind, *windows(20), dim=8, epochs=1)) for kind in KINDS])


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


def test_a_device_that_is_not_there_is_said() -> None:
    with pytest.raises(UserError, match="no device 'cuda:99' here"):
        fit("rocket-pca", *windows(5), device="cuda:99")
