"""Encoders as artefacts: named by their content, and checked when they are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import obstore
import pytest

from btc_assets.domain.errors import UserError
from btc_assets.landing.zone import LandingZone
from btc_assets.signals.encoders.artefacts import load, model_id, save
from btc_assets.signals.encoders.encoder import KINDS, Encoder, embed
from btc_assets.signals.encoders.training import fit
from btc_assets.signals.features import schema
from btc_assets_tests.support.windows import windows


@pytest.fixture
def zone(tmp_path: Path) -> LandingZone:
    return LandingZone(tmp_path.as_uri())


@pytest.fixture(scope="module", params=KINDS)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return fit(request.param, *windows(20), dim=8, epochs=1)


def test_what_is_loaded_is_what_was_saved_to_the_last_bit(encoder: Encoder, zone: LandingZone) -> None:
    name = save(encoder, zone)
    again = load(name, zone)
    assert model_id(again) == name
    assert again.config == encoder.config
    assert np.array_equal(embed(again, *windows(5, seed=1)), embed(encoder, *windows(5, seed=1)))


def test_saving_twice_writes_once(encoder: Encoder, zone: LandingZone) -> None:
    name = save(encoder, zone)
    written = obstore.head(zone.store, f"models/{name}.safetensors")
    assert save(encoder, zone) == name
    assert obstore.head(zone.store, f"models/{name}.safetensors") == written


def test_an_id_is_kind_and_hash_of_every_tensor(encoder: Encoder) -> None:
    name = model_id(encoder)
    assert name.startswith(encoder.kind + "-")
    for tensor in encoder.state_dict().values():
        if tensor.numel():
            before = tensor.view(-1)[0].clone()
            tensor.view(-1)[0] += 1
            assert model_id(encoder) != name
            tensor.view(-1)[0] = before
    assert model_id(encoder) == name


def test_a_missing_artefact_is_said(zone: LandingZone) -> None:
    with pytest.raises(UserError, match=r"rocket-pca-0123456789abcdef is missing at .*models/rocket-pca-0123456789abcdef.safetensors"):
        load("rocket-pca-0123456789abcdef", zone)


@pytest.mark.parametrize("name", ["lstm-0123456789abcdef", "rocket-pca-0123", "rocket-pca-../../secrets", ""])
def test_what_is_no_model_id_is_said(zone: LandingZone, name: str) -> None:
    with pytest.raises(UserError, match="is no model id of this version"):
        load(name, zone)


@pytest.mark.parametrize("damage", ["flipped", "truncated", "no safetensors", "empty", "renamed"])
def test_a_damaged_artefact_is_refused(encoder: Encoder, zone: LandingZone, damage: str) -> None:
    name = save(encoder, zone)
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
        load(name, zone)


def test_training_again_mends_a_damaged_artefact(encoder: Encoder, zone: LandingZone) -> None:
    name = save(encoder, zone)
    data = zone.get(f"models/{name}.safetensors") or b""
    zone.put(f"models/{name}.safetensors", data[:-1] + bytes([data[-1] ^ 1]))
    assert save(encoder, zone) == name
    assert model_id(load(name, zone)) == name


def test_an_artefact_for_other_features_is_refused(encoder: Encoder, zone: LandingZone, monkeypatch: pytest.MonkeyPatch) -> None:
    name, digest = save(encoder, zone), schema.digest()
    monkeypatch.setattr(schema, "digest", lambda: "0123456789ab")
    assert model_id(encoder) != name
    with pytest.raises(UserError, match=f"was trained on the features {digest}, and this version computes 0123456789ab"):
        load(name, zone)
