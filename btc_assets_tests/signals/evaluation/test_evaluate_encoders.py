"""Evaluations from end to end: on a generated market, on stored slices, with models and without."""

from __future__ import annotations

from datetime import timedelta

import pyarrow as pa
import pytest

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE, Window
from btc_assets.signals.encoders.models import Model
from btc_assets.signals.evaluation.evaluate_encoders import EvaluationPlan, evaluate_generated, evaluate_stored, read_newest_window
from btc_assets.signals.evaluation.report import Evaluation
from btc_assets.simulation.replay import Landed, read_trades
from btc_assets_tests.support.databases import write_ticks
from btc_assets_tests.support.stored_slices import DAY_START, FULL_DAY, NEXT_DAY, store_features, train
from btc_assets_tests.support.stores import FEED, StoreUnderTest, real_data


def evaluate_window(store: StoreUnderTest, window: Window, *models: Model) -> Evaluation:
    return evaluate_stored(store.database, store.zone(), EvaluationPlan("BTCUSDT", window, models))


@pytest.mark.slow
def test_neighbors_by_the_default_encoder_share_the_regime_more_often_than_by_raw_features_or_chance() -> None:
    result = evaluate_generated(days=5)
    encoder, raw, chance = (result.row(name).precision.value for name in ("rocket-pca", "raw features", "random neighbors"))
    assert encoder > raw + 0.03 > 3 * chance
    assert not result.alarms
    assert result.robustness["rocket-pca"].rates["10 % of trades missing"].at_10 > 0.9


@pytest.mark.slow
def test_an_encoder_that_has_not_seen_the_queries_is_evaluated_on_stored_slices(filled: StoreUnderTest) -> None:
    result = evaluate_window(filled, FULL_DAY)
    assert [row.name for row in result.rows][-3:] == ["raw features", "rocket-pca", "untrained"]
    assert not result.alarms and "Robustness is measured on the newest 288 slices among themselves." in result.notes

    model = train(filled)
    seen = evaluate_window(filled, FULL_DAY, model)  # it was trained on the queries too
    assert any(alarm.startswith(f"{model.model_id}: it was trained on data up to 2024-01-11T00:00Z") for alarm in seen.alarms)

    filled.connection.execute("DELETE FROM market_data.btc_ticks WHERE bucket_5m >= %s", (NEXT_DAY - 2 * SLICE,))
    notes = evaluate_window(filled, FULL_DAY).notes
    assert "The ticks of the newest slices are no longer stored, so robustness is not measured." in notes


def test_the_newest_90_days_are_evaluated_by_default(filled: StoreUnderTest) -> None:
    assert read_newest_window(filled.connection, "BTCUSDT", None, None) == FULL_DAY
    start = DAY_START - timedelta(days=200)
    assert read_newest_window(filled.connection, "BTCUSDT", start, None) == Window(start, NEXT_DAY)
    filled.connection.execute("UPDATE signals.slice_features SET bucket_5m = %s WHERE bucket_5m = %s", (start, DAY_START))
    assert read_newest_window(filled.connection, "BTCUSDT", None, None) == Window(NEXT_DAY - timedelta(days=90), NEXT_DAY)


@pytest.mark.slow
def test_the_real_day_is_evaluated_with_a_note_on_its_small_sample(store: StoreUnderTest) -> None:
    trades = read_trades(real_data("um_BTCUSDT_2020-02-22_fullday_trades.csv.gz"), FEED, Landed())
    window = write_ticks(store.connection, pa.concat_tables(list(trades)))
    store_features(store, window)
    result = evaluate_window(store, window)
    assert "One day only: same-day neighbors admitted, embargo 1 h." in result.notes
    assert any(note.startswith("A small sample: 86 queries") for note in result.notes)
    assert not result.alarms


@pytest.mark.parametrize("slices", [1, 20])
def test_too_few_slices_to_evaluate(store: StoreUnderTest, market_day: pa.Table, slices: int) -> None:
    window = Window(DAY_START, DAY_START + slices * SLICE)
    write_ticks(store.connection, market_day.filter(pa.compute.less(market_day["bucket_5m"], window.end)))
    store_features(store, window)
    with pytest.raises(UserError, match=r": give a longer range\.$"):
        evaluate_window(store, FULL_DAY)
    with pytest.raises(UserError, match=r"^No features of BTCUSDT are stored in 2024-01-11T00:00Z"):
        evaluate_window(store, Window(NEXT_DAY, NEXT_DAY + timedelta(hours=1)))
