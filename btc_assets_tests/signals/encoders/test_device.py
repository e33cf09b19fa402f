"""Devices: one place chooses, and a GPU gives what a CPU gives, but for rounding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from btc_assets.domain.errors import UserError
from btc_assets.landing.zone import LandingZone
from btc_assets.signals.encoders.artifacts import load_encoder, save_encoder
from btc_assets.signals.encoders.device import choose_device, full_precision
from btc_assets.signals.encoders.encoder import KINDS
from btc_assets.signals.encoders.fitting import fit_encoder
from btc_assets.signals.encoders.options import FitOptions
from btc_assets_tests.support.windows import training_windows, windows

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU: torch.cuda.is_available() is false")


def flags() -> tuple[object, ...]:
    cudnn = torch.backends.cudnn
    return cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32, torch.get_float32_matmul_precision()


def test_without_a_name_the_gpu_is_chosen_if_there_is_one() -> None:
    assert choose_device(None).type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(UserError, match="PyTorch has no device 'tpu' here"):
        choose_device("tpu")


def test_float32_is_float32_on_a_gpu_and_what_was_set_before_comes_back() -> None:
    before = flags()
    with full_precision(torch.device("cuda")):  # needs none: it sets what operations on one will do
        assert flags() == (True, False, True, False, "highest")
    with full_precision(torch.device("cpu")):
        assert flags() == before
    assert flags() == before


@needs_gpu
@pytest.mark.parametrize("kind", KINDS)
def test_an_encoder_of_one_device_embeds_on_the_other(kind: str, tmp_path: Path) -> None:
    zone, (bars, features) = LandingZone(tmp_path.as_uri()), windows(40, seed=1)
    for trained_on in ("cpu", "cuda"):
        name = save_encoder(fit_encoder(kind, training_windows(60), FitOptions(dim=8, epochs=1, device=trained_on)), zone)
        on_cpu, on_gpu, chosen = (load_encoder(name, zone, device=device).embed(bars, features) for device in ("cpu", "cuda", None))
        assert np.array_equal(on_gpu, chosen)  # to the last bit
        assert (on_cpu * on_gpu).sum(1) == pytest.approx(1, abs=1e-4)


@needs_gpu
@pytest.mark.parametrize("batch_size", [1, 7])
def test_a_vector_of_a_gpu_does_not_depend_on_the_batch_size(batch_size: int) -> None:
    bars, features = windows(30, seed=1)
    for kind in KINDS:
        encoder = fit_encoder(kind, training_windows(40), FitOptions(dim=16, epochs=1, device="cuda"))
        assert encoder.embed(bars, features, batch_size=batch_size) == pytest.approx(encoder.embed(bars, features), abs=1e-4)  # type: ignore[call-arg]


@needs_gpu
def test_training_in_mixed_precision_finds_what_training_on_a_cpu_finds() -> None:
    bars, features = windows(200, seed=1)
    nearest = []
    for device in ("cpu", "cuda"):
        vectors = fit_encoder("tcn", training_windows(400), FitOptions(dim=8, epochs=4, device=device)).embed(bars, features)
        assert np.isfinite(vectors).all()
        similar = vectors @ vectors.T - 2 * np.eye(200)
        nearest.append(similar.argsort(1)[:, -10:])
    shared = np.mean([len({*one} & {*other}) / 10 for one, other in zip(*nearest, strict=True)])
    assert shared > 0.4  # of the 10 nearest; by chance .05
