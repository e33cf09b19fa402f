"""What an encoder is: one interface, vectors of length one, and the same vector however many are made at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from btc_assets.domain.errors import UserError
from btc_assets.signals.encoders import optional
from btc_assets.signals.encoders.encoder import KINDS, Encoder, build, embed
from btc_assets.signals.encoders.rocket import KERNELS, MiniRocket, dilations, principal_components
from btc_assets.signals.encoders.scaling import RobustScaler
from btc_assets.signals.encoders.training import fit
from btc_assets_tests.support.windows import windows


@pytest.fixture(scope="module", params=KINDS)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return fit(request.param, *windows(40), dim=16, epochs=1)


def test_an_encoder_makes_rows_of_length_one(encoder: Encoder) -> None:
    vectors = embed(encoder, *windows(9, seed=1))
    assert vectors.shape == (9, 16)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("batch_size", [1, 7])
def test_a_vector_does_not_depend_on_how_many_are_made_at_once(encoder: Encoder, batch_size: int) -> None:
    bars, features = windows(30, seed=1)
    assert embed(encoder, bars, features, batch_size=batch_size) == pytest.approx(embed(encoder, bars, features), abs=1e-5)


def test_a_vector_does_not_depend_on_how_many_threads_there_are() -> None:
    bars, features = windows(30, seed=1)
    encoder = fit("rocket-pca", *windows(40), dim=16)
    alone = embed(encoder, bars, features, batch_size=8)
    torch.set_num_threads(2)
    try:
        together = embed(encoder, bars, features, batch_size=8)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert np.array_equal(together, alone)


def test_windows_that_are_alike_have_vectors_that_are_near(encoder: Encoder) -> None:
    bars, features = windows(30, seed=1)
    vectors = embed(encoder, bars, features)
    again = embed(encoder, bars * 1.001, features * 1.001)
    assert ((vectors @ again.T).argmax(1) == np.arange(30)).all()


def test_a_larger_amplitude_is_another_vector(encoder: Encoder) -> None:
    bars, features = windows(30, seed=1)
    assert np.abs(embed(encoder, bars, features) - embed(encoder, 3 * bars, features)).max(axis=1).min() > 1e-3


def test_bars_can_stand_alone() -> None:
    bars, _ = windows(10)
    for kind in KINDS:
        encoder = fit(kind, bars, np.empty((10, 0), np.float32), dim=8, epochs=1)
        assert np.linalg.norm(embed(encoder, bars, np.empty((10, 0), np.float32)), axis=1) == pytest.approx(1, abs=1e-6)


def test_dimensions_that_the_windows_do_not_span_are_zero() -> None:
    vectors = embed(fit("rocket-pca", *windows(5), dim=16), *windows(9, seed=1))
    assert vectors.shape == (9, 16)
    assert not vectors[:, 4:].any()


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
        embed(encoder, *change(*windows(3)))  # type: ignore[operator]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_input_that_is_not_finite_is_refused(encoder: Encoder, value: float) -> None:
    bars, features = windows(6)
    features[[1, 4], 2] = value
    with pytest.raises(UserError, match=r"Features are NaN or infinite in 2 of 6 rows, in columns 2 \("):
        embed(encoder, bars, features)
    bars, features = windows(6)
    bars[3, 5, 1] = value
    with pytest.raises(UserError, match=r"Bars are NaN or infinite in 1 of 6 rows, in columns 1 \("):
        embed(encoder, bars, features)


def test_a_kind_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UserError, match="no encoder of the kind 'lstm': choose one of rocket-pca"):
        build("lstm", {})


def test_without_torch_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    optional.require_torch()
    monkeypatch.setattr(optional, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'btc-assets\[torch\]'"):
        optional.require_torch()


def test_the_kernels_are_the_84_of_the_paper() -> None:
    assert KERNELS.shape == (84, 9)
    assert (KERNELS.sum(1) == 0).all()
    assert ((KERNELS == 2).sum(1) == 3).all()
    assert len({tuple(kernel) for kernel in KERNELS.tolist()}) == 84


@given(st.integers(9, 500), st.integers(1, 150))
def test_every_bias_has_a_dilation_that_fits_into_the_window(steps: int, biases: int) -> None:
    found = dilations(steps, biases)
    assert sum(found.values()) == biases
    assert min(found) == 1 and 8 * max(found) < steps


def test_counts_are_those_of_plain_convolutions() -> None:
    """One channel, against NumPy's own correlation, with the zeros around the window and without."""
    window = np.random.default_rng(0).integers(-900, 900, 30) / 1024
    rocket = MiniRocket(30, 1, biases=3)
    rocket.fit(torch.from_numpy(window)[None, :, None], torch.Generator().manual_seed(0))
    counts = rocket.counts(torch.from_numpy(window)[None, :, None])[0].tolist()
    biases = rocket.biases.tolist()
    assert rocket.dilations == {1: 2, 3: 1}
    for number, (dilation, count) in enumerate(rocket.dilations.items()):
        for row, kernel in enumerate([*KERNELS[number % 2 :: 2], *KERNELS[1 - number % 2 :: 2]]):
            spread = np.zeros(8 * dilation + 1)
            spread[::dilation] = kernel.numpy()
            values = np.correlate(np.pad(window, 4 * dilation) if row < 42 else window, spread, mode="valid")
            for _ in range(count):
                assert counts.pop(0) == (values > biases.pop(0) / 1024).sum()
    assert not counts


def test_windows_shorter_than_a_kernel_are_padded() -> None:
    rocket = MiniRocket(4, 2, biases=2)
    rocket.fit(torch.randn(8, 4, 2, dtype=torch.float64), torch.Generator().manual_seed(0))
    assert rocket(torch.randn(3, 4, 2, dtype=torch.float64)).shape == (3, 168)


def test_principal_components_are_those_of_the_whole_matrix() -> None:
    rows = torch.randn(50, 12, generator=torch.Generator().manual_seed(0)) * torch.tensor(0.5) ** torch.arange(12)
    components, values = principal_components(lambda: iter(rows.split(16)), 12, 4, torch.Generator().manual_seed(1))
    exact = torch.linalg.svd(rows, full_matrices=False)
    assert torch.allclose(values, exact.S[:4], rtol=1e-3)
    assert torch.allclose((components.T @ exact.Vh[:4].T).abs(), torch.eye(4), atol=1e-3)


@given(st.floats(1e3, 1e30), st.integers(0, 99))
@hypothesis_settings(max_examples=20)
def test_an_outlier_does_not_move_the_scale(outlier: float, row: int) -> None:
    values = np.random.default_rng(0).normal(5, 2, (100, 1))
    plain, disturbed = RobustScaler(1), RobustScaler(1)
    plain.fit(values)
    values[row] = outlier
    disturbed.fit(values)
    assert disturbed.centre.item() == pytest.approx(plain.centre.item(), abs=0.3)
    assert disturbed.width.item() == pytest.approx(plain.width.item(), rel=0.15)


def test_a_column_that_is_mostly_one_value_keeps_what_differs() -> None:
    values = np.zeros((100, 2))
    values[:10, 0] = 8.0
    scaler = RobustScaler(2)
    scaler.fit(values)
    assert scaler(torch.tensor([[0.0, 0.0], [8.0, 0.0]])).tolist() == [[0, 0], [pytest.approx(np.arcsinh(1)), 0]]
