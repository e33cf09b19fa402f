"""Training on stored slices: reproducible, registered, and refused if there are too few slices."""

from __future__ import annotations

import pytest

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE, Window
from btc_assets.signals.encoders.models import read_models
from btc_assets_tests.support.databases import write_ticks
from btc_assets_tests.support.stored_slices import DAY_START, store_features, train
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import every


def test_the_same_training_gives_the_same_model_and_another_seed_another(filled: StoreUnderTest) -> None:
    model = train(filled)
    assert train(filled) == model
    assert train(filled, seed=1).model_id != model.model_id
    assert len(read_models(filled.connection)) == 2


def test_too_few_slices_to_train_on(store: StoreUnderTest) -> None:
    with pytest.raises(UserError, match=r"^No features of BTCUSDT are stored: load ticks first \(btc-assets load\)\.$"):
        train(store)
    write_ticks(store.connection, every(2.0, 300, start=DAY_START))
    store_features(store, Window(DAY_START, DAY_START + 2 * SLICE))
    with pytest.raises(UserError) as raised:
        train(store)
    assert str(raised.value) == (
        "Only 2 slices of BTCUSDT with 10 ticks or more are stored in 2024-01-10T00:00Z to 2024-01-10T00:10Z, and training takes 50: load more "
        "(btc-assets load), or name another range."
    )
