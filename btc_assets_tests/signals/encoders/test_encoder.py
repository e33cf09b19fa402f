"""Encoders: one interface, vectors of length one, and the same vector in a batch of any size."""

from __future__ import annotations

import numpy as np
import pytest

from btc_assets.domain.errors import UserError
from btc_assets.signals.encoders.encoder import KINDS, Encoder, build_encoder
from btc_assets.signals.encoders.fitting import fit_encoder
from btc_assets.signals.encoders.options import FitOptions
from btc_assets.signals.encoders.windows import TrainingWindows
from btc_assets_tests.support.windows import training_windows, windows


@pytest.fixture(scope="module", params=KINDS)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    fitted = fit_encoder(request.param, training_windows(40), FitOptions(dim=16, epochs=1))
    assert isinstance(fitted, Encoder)
    return fitted


def test_vectors_have_length_one(encoder: Encoder) -> None:
    vectors = encoder.embed(*windows(9, seed=1))
    assert vectors.shape == (9, 16)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("batch_size", [1, 7])
def test_a_vector_does_not_depend_on_the_batch_size(encoder: Encoder, batch_size: int) -> None:
    bars, features = windows(30, seed=1)
    assert encoder.embed(bars, features, batch_size=batch_size) == pytest.approx(encoder.embed(bars, features), abs=1e-5)


def test_similar_windows_have_similar_vectors(encoder: Encoder) -> None:
    bars, features = windows(30, seed=1)
    vectors = encoder.embed(bars, features)
    again = encoder.embed(bars * 1.001, features * 1.001)
    assert ((vectors @ again.T).argmax(1) == np.arange(30)).all()


def test_another_amplitude_gives_another_vector(encoder: Encoder) -> None:
    bars, features = windows(30, seed=1)
    assert np.abs(encoder.embed(bars, features) - encoder.embed(3 * bars, features)).max(axis=1).min() > 1e-3


def test_bars_are_encoded_without_features() -> None:
    bars, _ = windows(10)
    for kind in KINDS:
        encoder = fit_encoder(kind, TrainingWindows(bars, np.empty((10, 0), np.float32)), FitOptions(dim=8, epochs=1))
        assert np.linalg.norm(encoder.embed(bars, np.empty((10, 0), np.float32)), axis=1) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda bars, features: (bars[:, :-1], features), r"Bars of shape \(3, 19, 3\) do not fit .* takes \(3, 20, 3\)"),
        (lambda bars, features: (bars, features[:, :-1]), r"Features of shape \(3, 3\) do not fit"),
        (lambda bars, features: (bars, features[:-1]), "bars of 3 slices and features of 2"),
    ],
)
def test_input_of_another_shape_is_refused(encoder: Encoder, change: object, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        encoder.embed(*change(*windows(3)))  # type: ignore[operator]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_input_that_is_not_finite_is_refused(encoder: Encoder, value: float) -> None:
    bars, features = windows(6)
    features[[1, 4], 2] = value
    with pytest.raises(UserError, match=r"Features are NaN or infinite in 2 of 6 rows, in columns 2 \("):
        encoder.embed(bars, features)
    bars, features = windows(6)
    bars[3, 5, 1] = value
    with pytest.raises(UserError, match=r"Bars are NaN or infinite in 1 of 6 rows, in columns 1 \("):
        encoder.embed(bars, features)


def test_a_kind_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UserError, match="no encoder of the kind 'lstm': choose one of rocket-pca"):
        build_encoder("lstm", {})
