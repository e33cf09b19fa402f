"""Embeddings that know what they cannot know are caught."""

from __future__ import annotations

import numpy as np
import pytest

from btc_assets.signals.evaluation import trial
from btc_assets.signals.evaluation.evaluate_embeddings import evaluate_embeddings
from btc_assets.signals.evaluation.trial import EvaluationOptions
from btc_assets_tests.support.level_market import level_market


def test_an_embedding_with_the_next_slice_is_caught_because_it_knows_that_better_than_the_previous() -> None:
    dataset, _ = level_market()
    own = np.log(dataset.features[:, 0])
    result = evaluate_embeddings(dataset, {"leak": np.roll(own, -1)[:, None], "both": np.stack([own, np.roll(own, -1)], axis=1)})
    for name in ("leak", "both"):
        assert any(alarm.startswith(f"{name}: knows log_realized_variance of the next slice") for alarm in result.alarms)
    assert not any(alarm.startswith("raw features") for alarm in result.alarms)


def test_an_embedding_with_the_next_return_is_caught_by_its_auc() -> None:
    dataset, _ = level_market()
    result = evaluate_embeddings(dataset, {"leak": np.roll(dataset.features[:, 3] / dataset.features[:, 0], -1)[:, None]})
    assert any(alarm.startswith("leak: the AUC") for alarm in result.alarms)


def test_a_model_trained_on_the_queries_is_caught() -> None:
    dataset, level = level_market()
    until = {"late": int(dataset.times[-100]), "in time": int(dataset.times[1000])}
    result = evaluate_embeddings(dataset, {"late": level[:, None], "in time": level[:, None]}, trained_until=until)
    assert "trained on data up to 2024-01-17T15:40Z" in result.alarms[0]
    assert [alarm.split(":")[0] for alarm in result.alarms] == ["late"]


def test_neighbors_that_break_the_rules_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "admissible", lambda times, queries, **_: np.searchsorted(times, queries))
    dataset, level = level_market()
    alarms = evaluate_embeddings(dataset, {"level": level[:, None]}).alarms
    assert any("level" in alarm and "inside the embargo or on the query's own day" in alarm for alarm in alarms)


def test_a_query_that_is_its_own_neighbor_forecasts_shuffled_targets_and_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "admissible", lambda times, queries, **_: np.searchsorted(times, queries, side="right"))
    dataset, level = level_market()
    alarms = evaluate_embeddings(dataset, {"level": level[:, None]}, EvaluationOptions(k=2)).alarms
    assert any(alarm.startswith("level: R2 of shuffled targets") for alarm in alarms)
