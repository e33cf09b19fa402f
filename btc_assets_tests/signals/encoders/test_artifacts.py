"""Encoders as artifacts: named by their content, and verified when they are loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import obstore
import pytest

from btc_assets.domain.errors import UserError
from btc_assets.landing.zone import LandingZone
from btc_assets.signals.encoders.artifacts import compute_model_id, load_encoder, save_encoder
from btc_assets.signals.encoders.encoder import KINDS, Encoder
from btc_assets.signals.encoders.fitting import fit_encoder
from btc_assets.signals.encoders.options import FitOptions
from btc_assets.signals.features import schema
from btc_assets_tests.support.windows import training_windows, windows


@pytest.fixture
def zone(tmp_path: Path) -> LandingZone:
    return LandingZone(tmp_path.as_uri())


@pytest.fixture(scope="module", params=KINDS)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    fitted = fit_encoder(request.param, training_windows(20), FitOptions(dim=8, epochs=1))
    assert isinstance(fitted, Encoder)
    return fitted


def test_a_loaded_encoder_equals_the_saved_one_to_the_last_bit(encoder: Encoder, zone: LandingZone) -> None:
    name = save_encoder(encoder, zone)
    again = load_encoder(name, zone)
    assert compute_model_id(again) == name
    assert again.config == encoder.config
    assert np.array_equal(again.embed(*windows(5, seed=1)), encoder.embed(*windows(5, seed=1)))


def test_saving_twice_writes_once(encoder: Encoder, zone: LandingZone) -> None:
    name = save_encoder(encoder, zone)
    written = obstore.head(zone.store, f"models/{name}.safetensors")
    assert save_encoder(encoder, zone) == name
    assert obstore.head(zone.store, f"models/{name}.safetensors") == written


def test_an_id_is_the_kind_and_a_hash_of_every_tensor(encoder: Encoder) -> None:
    name = compute_model_id(encoder)
    assert name.startswith(encoder.kind + "-")
    for tensor in encoder.state_dict().values():
        if tensor.numel():
            before = tensor.view(-1)[0].clone()
            tensor.view(-1)[0] += 1
            assert compute_model_id(encoder) != name
            tensor.view(-1)[0] = before
    assert compute_model_id(encoder) == name


def test_a_missing_artifact_is_an_error(zone: LandingZone) -> None:
    with pytest.raises(UserError, match=r"rocket-pca-0123456789abcdef is missing at .*models/rocket-pca-0123456789abcdef.safetensors"):
        load_encoder("rocket-pca-0123456789abcdef", zone)


@pytest.mark.parametrize("name", ["Lstm-0123456789abcdef", "rocket-pca-0123", "rocket-pca-../../secrets", ""])
def test_text_that_is_not_a_model_id_is_an_error(zone: LandingZone, name: str) -> None:
    with pytest.raises(UserError, match="is no model id"):
        load_encoder(name, zone)


@pytest.mark.parametrize("damage", ["flipped", "truncated", "no safetensors", "empty", "renamed"])
def test_a_damaged_artifact_is_refused(encoder: Encoder, zone: LandingZone, damage: str) -> None:
    name = save_encoder(encoder, zone)
    data = zone.get(f"models/{name}.safetensors") or b""
    flipped = bytearray(data)
    flipped[-3] ^= 1
    spoilt = {"flipped": bytes(flipped), "truncated": data[:-100], "no safetensors": b"PK" + data[2:], "empty": b"", "renamed": data}[
        damage
    ]
    if damage == "renamed":
        name = name[:-1] + ("0" if name[-1] != "0" else "1")
    zone.put(f"models/{name}.safetensors", spoilt)
    with pytest.raises(UserError, match="is damaged"):
        load_encoder(name, zone)


def test_saving_again_repairs_a_damaged_artifact(encoder: Encoder, zone: LandingZone) -> None:
    name = save_encoder(encoder, zone)
    data = zone.get(f"models/{name}.safetensors") or b""
    zone.put(f"models/{name}.safetensors", data[:-1] + bytes([data[-1] ^ 1]))
    assert save_encoder(encoder, zone) == name
    assert compute_model_id(load_encoder(name, zone)) == name


def test_an_artifact_for_other_features_is_refused(encoder: Encoder, zone: LandingZone, monkeypatch: pytest.MonkeyPatch) -> None:
    name, digest = save_encoder(encoder, zone), schema.digest()
    monkeypatch.setattr(schema, "digest", lambda: "0123456789ab")
    assert compute_model_id(encoder) != name
    with pytest.raises(UserError, match=f"was trained on the features {digest}, and this version computes 0123456789ab"):
        load_encoder(name, zone)
