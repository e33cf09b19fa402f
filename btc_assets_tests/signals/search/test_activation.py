"""Activation: a model answers once its slices are embedded, and not before."""

from __future__ import annotations

import numpy as np
import pytest

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE
from btc_assets.signals.encoders.artifacts import load_encoder
from btc_assets.signals.encoders.models import read_models
from btc_assets.signals.features.table import TABLE, read_features
from btc_assets.signals.search.similar import find_similar_slices
from btc_assets_tests.support.stored_slices import DAY_START, FULL_DAY, activate, train
from btc_assets_tests.support.stores import StoreUnderTest


def test_a_model_is_trained_registered_activated_and_answers_searches(filled: StoreUnderTest) -> None:
    model = train(filled)
    assert (model.symbol, model.dim, model.kept_up, model.active) == ("BTCUSDT", 16, False, False)
    assert (model.trained_from, model.trained_to, model.metrics["slices"]) == (FULL_DAY.start, FULL_DAY.end, 288)
    assert (filled.landing / "models" / f"{model.model_id}.safetensors").exists()
    assert "288 vectors are compared one by one" in str(activate(filled, model))
    stored = read_features(filled.database, "BTCUSDT", FULL_DAY)
    vectors = load_encoder(model.model_id, filled.zone()).embed(stored.bars, stored.features)
    query = DAY_START + 100 * SLICE
    closeness = vectors @ vectors[100]
    assert [one.bucket_5m for one in find_similar_slices(filled.connection, query, 5)] == [
        DAY_START + int(i) * SLICE for i in np.argsort(-closeness)[1:6]
    ]


def test_the_active_model_changes_only_when_the_new_one_is_ready(filled: StoreUnderTest) -> None:
    first, second = train(filled), train(filled, seed=1)
    activate(filled, first)
    artifact = filled.landing / "models" / f"{second.model_id}.safetensors"
    data = artifact.read_bytes()
    artifact.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(UserError, match="is damaged"):
        activate(filled, second)
    assert [model.model_id for model in read_models(filled.connection) if model.active or model.kept_up] == [first.model_id]
    artifact.write_bytes(data)
    done = activate(filled, second)
    assert done.before == first.model_id and done.written == 288
    assert [(m.model_id, m.kept_up) for m in read_models(filled.connection) if m.active or m.kept_up] == [(second.model_id, True)]


def test_without_slices_to_embed_nothing_changes(filled: StoreUnderTest) -> None:
    model = train(filled)
    filled.connection.execute(f"DELETE FROM {TABLE}")
    with pytest.raises(UserError, match=r"^There is no slice of BTCUSDT with 10 ticks or more to embed: load ticks first"):
        activate(filled, model)
    assert not any(one.active or one.kept_up for one in read_models(filled.connection))
