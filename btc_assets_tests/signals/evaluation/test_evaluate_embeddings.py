"""The evaluation distinguishes skill from none, and answers for every query."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE_US
from btc_assets.domain.ticks import tick_order
from btc_assets.signals.evaluation.dataset import Dataset
from btc_assets.signals.evaluation.evaluate_embeddings import evaluate_embeddings
from btc_assets.signals.evaluation.report import LEVELS, Evaluation
from btc_assets.signals.evaluation.trial import EvaluationOptions
from btc_assets.signals.features.formulas import FEATURES, compute_features
from btc_assets.signals.features.tick_arrays import TickArrays
from btc_assets.simulation.generate_market import generate_market
from btc_assets.simulation.replay import Landed, read_trades
from btc_assets_tests.support.level_market import NAMES, START, level_market, noise
from btc_assets_tests.support.stores import FEED, real_data

DAY = datetime(2024, 1, 10, tzinfo=UTC)


@pytest.fixture(scope="module")
def fair() -> Evaluation:
    dataset, level = level_market()
    return evaluate_embeddings(dataset, {"level": level[:, None], "noise": noise()})


def test_neighbors_by_level_forecast_and_those_by_noise_or_chance_do_not(fair: Evaluation) -> None:
    for target in LEVELS:
        assert fair.row("level").r2[target].value > fair.row("persistence").r2[target].value
        for name in ("noise", "random neighbors"):
            assert -0.3 < fair.row(name).r2[target].value < 0.05
    assert fair.row("level").qlike.value < fair.row("persistence").qlike.value < fair.row("noise").qlike.value


def test_neighbors_add_to_har_what_the_past_does_not_show(fair: Evaluation) -> None:
    assert fair.row("level").gain.exceeds(0.01, 3)
    assert abs(fair.row("noise").gain.value) < 0.01
    assert abs(fair.row("random neighbors").gain.value) < 0.01


def test_neighbors_share_the_regime_as_far_as_the_embedding_knows_it(fair: Evaluation) -> None:
    assert fair.row("level").precision.value == pytest.approx(0.5, abs=0.05)  # the level is known, the coin is not
    for name in ("noise", "random neighbors"):
        assert fair.row(name).precision.value == pytest.approx(0.25, abs=0.05)


def test_what_cannot_look_ahead_raises_no_alarm_and_every_query_is_answered(fair: Evaluation) -> None:
    assert not fair.alarms
    assert [row.name for row in fair.rows] == ["persistence", "time of day", "HAR", "random neighbors", "raw features", "level", "noise"]
    assert {row.forecasts for row in fair.rows} == {691}
    assert fair.notes[0].startswith(
        "691 queries from 2024-01-15T14:25Z to 2024-01-17T23:55Z; 1,440 slices are admissible for the first and 2,016 "
    )
    assert "A small sample: 691 queries reveal large differences only." in fair.notes
    for row in fair.rows:
        assert abs(row.auc.value - 0.5) < 0.1


def test_with_one_day_same_day_neighbors_are_admitted_with_a_note() -> None:
    dataset, level = level_market(288)
    result = evaluate_embeddings(dataset, {"level": level[:, None]})
    assert "One day only: same-day neighbors admitted, embargo 1 h." in result.notes
    assert not any("own day" in note for note in result.notes)
    assert result.row("level").forecasts == 86
    assert result.row("time of day").forecasts == 0
    assert result.row("time of day").r2["log_volume"].value == 0  # as the training mean


def test_with_too_few_days_same_day_neighbors_are_admitted_too() -> None:
    dataset, _ = level_market(350)
    assert "2 days only: same-day neighbors admitted, embargo 1 h." in evaluate_embeddings(dataset, {}).notes


def test_a_market_without_moves_or_trades_has_nothing_to_forecast_and_breaks_nothing() -> None:
    times = START + np.arange(1000) * SLICE_US
    result = evaluate_embeddings(Dataset(times, np.zeros((1000, 4)), NAMES), {"nothing": np.zeros((1000, 2))})
    assert all(str(row.auc) == "-" for row in result.rows)
    assert result.row("raw features").qlike.value == pytest.approx(0)
    assert result.plot().startswith(b"\x89PNG")


def test_gaps_and_missing_vectors_are_not_counted_as_bad_forecasts() -> None:
    dataset, level = level_market()
    kept = np.ones(len(level), bool)
    kept[-50] = False
    cut = Dataset(dataset.times[kept], dataset.features[kept], NAMES)
    vectors = level[kept, None].copy()
    vectors[-20:] = np.nan
    result = evaluate_embeddings(cut, {"level": vectors})
    assert "2 of the queries have no next slice and are not judged." in result.notes
    assert result.row("raw features").forecasts - result.row("level").forecasts == 20
    assert str(result.row("level").precision) == "-"


def test_the_embargo_and_k_are_options() -> None:
    dataset, _ = level_market(288)
    result = evaluate_embeddings(dataset, {}, EvaluationOptions(k=3, embargo=timedelta(hours=2)))
    assert "3 neighbors, embargo 2 h." in result.notes[0]
    assert "regime precision@3" in result.to_markdown()


def test_an_embedding_of_other_slices_or_too_few_slices_are_errors() -> None:
    dataset, level = level_market(288)
    with pytest.raises(UserError, match="'short' has the shape"):
        evaluate_embeddings(dataset, {"short": level[:-1, None]})
    with pytest.raises(UserError, match="longer range"):
        evaluate_embeddings(level_market(40)[0], {})
    with pytest.raises(UserError, match="no such embedding"):
        evaluate_embeddings(dataset, {}, trained_until={"late": START})
    with pytest.raises(UserError, match="admissible for the first"):
        evaluate_embeddings(dataset, {}, EvaluationOptions(embargo=timedelta(days=2)))


def test_in_a_generated_market_raw_features_find_the_regime_far_more_often_than_chance() -> None:
    tables, regimes = zip(*generate_market(DAY, 4, slice_ticks=150), strict=True)
    ticks = TickArrays.of(pa.concat_tables(tables), np.arange(4 * 288) * SLICE_US + START)
    result = evaluate_embeddings(
        Dataset(ticks.starts, compute_features(ticks), [feature.name for feature in FEATURES], np.concatenate(regimes)), {}
    )
    assert result.row("raw features").precision.value > 3 * result.row("random neighbors").precision.value
    assert not result.alarms


def test_the_real_day_is_evaluated_with_a_note_on_its_small_sample() -> None:
    trades = pa.concat_tables(read_trades(real_data("um_BTCUSDT_2020-02-22_fullday_trades.csv.gz"), FEED, Landed()))
    ticks = TickArrays.of(trades.take(tick_order(trades)))
    result = evaluate_embeddings(Dataset(ticks.starts, compute_features(ticks), [feature.name for feature in FEATURES]), {})
    assert {"One day only: same-day neighbors admitted, embargo 1 h.", "A small sample: 86 queries reveal large differences only."} < set(
        result.notes
    )
    assert result.row("HAR").r2["log_realized_variance"].value > result.row("random neighbors").r2["log_realized_variance"].value
    assert not result.alarms
