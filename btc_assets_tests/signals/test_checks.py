"""The asset checks of the signals: they pass after a run, and name what is wrong."""

from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg

from btc_assets.domain.slices import SLICE, Window
from btc_assets.signals.checks import FEATURES_CHECK, embeddings_check, recall_at_10
from btc_assets.signals.encoders.kinds import Kinds
from btc_assets.signals.encoders.models import set_maintained
from btc_assets.signals.search.index_maintenance import maintain_index
from btc_assets.signals.search.indexes import FEWEST_ROWS
from btc_assets_tests.support.databases import write_ticks
from btc_assets_tests.support.stored_slices import DAY_START, FULL_DAY, activate, train
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import every
from btc_assets_tests.support.vectors import market_like, registered_model, write_vectors

FIRST = Window.of_slice(DAY_START)


def test_features_that_disagree_with_their_ticks_are_named(filled: StoreUnderTest) -> None:
    assert FEATURES_CHECK.find(filled.connection, FULL_DAY).found == []
    write_ticks(filled.connection, every(5.0, 60, start=DAY_START), FIRST)
    (difference,) = FEATURES_CHECK.find(filled.connection, FULL_DAY).found
    assert str(difference).startswith("BTCUSDT 2024-01-10T00:00Z: 60 ticks of volume 15")


def test_slices_that_a_maintained_model_has_not_embedded_are_named(filled: StoreUnderTest) -> None:
    model = train(filled)
    assert embeddings_check(Kinds()).find(filled.connection, FULL_DAY).numbers == {"models": 0}
    activate(filled, model)
    assert embeddings_check(Kinds()).find(filled.connection, FULL_DAY).found == []
    set_maintained(filled.connection, train(filled, seed=1), True)
    problems = embeddings_check(Kinds()).find(filled.connection, Window(DAY_START, DAY_START + 2 * SLICE))
    assert problems.numbers == {"models": 2}
    assert [str(problem).partition(" (")[0] for problem in problems.found] == [
        "BTCUSDT 2024-01-10T00:00Z is not embedded",
        "BTCUSDT 2024-01-10T00:05Z is not embedded",
    ]


def test_an_index_that_finds_too_little_is_named(store: StoreUnderTest) -> None:
    def check() -> dg.AssetCheckResult:
        result = recall_at_10(store.database)
        assert isinstance(result, dg.AssetCheckResult)
        return result

    model = registered_model(store.connection, dim=16)
    set_maintained(store.connection, model, True)
    write_vectors(store.connection, model, market_like(FEWEST_ROWS, 16), datetime(2024, 1, 10, tzinfo=UTC))
    assert check().passed  # without an index, nothing is missed
    maintain_index(store.connection, model)
    assert check().passed
    store.connection.execute("UPDATE signals.embedding_indexes SET effort = 1")
    failed = check()
    assert not failed.passed and "materialize signals/embedding_indexes" in str(failed.metadata["examples"].value)
