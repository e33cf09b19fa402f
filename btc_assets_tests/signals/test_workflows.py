"""Evaluations from end to end: on a generated market, on stored slices, with models and without."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner

from btc_assets.cli.main import main
from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import DAY, SLICE, Window
from btc_assets.signals import workflows
from btc_assets.signals.evaluation.report import Evaluation
from btc_assets.signals.features import table as slice_features
from btc_assets.simulation.generate_market import generate_market
from btc_assets.simulation.replay import Landed, read_trades
from btc_assets.store.tables import Target
from btc_assets.store.writers import replace_all
from btc_assets_tests.support.daemon import QUIETLY
from btc_assets_tests.support.databases import write_ticks
from btc_assets_tests.support.stores import FEED, StoreUnderTest, real_data

START = datetime(2024, 1, 10, tzinfo=UTC)


def fill(store: StoreUnderTest, ticks: pa.Table) -> Window:
    window = write_ticks(store.connection, ticks)
    made = slice_features.SliceFeatures(store.database, window, ["BTCUSDT"])
    replace_all(store.connection, Target.of(store.connection, slice_features.TABLE), made)
    return window


def stored_evaluation(store: StoreUnderTest, window: Window, **options: object) -> Evaluation:
    return workflows.evaluate_stored(store.database, store.zone(), "BTCUSDT", window, **options)  # type: ignore[arg-type]


def test_neighbours_by_the_default_encoder_share_the_regime_more_often_than_by_raw_features_or_chance() -> None:
    result = workflows.evaluate_generated(days=5)
    encoder, raw, chance = (result.row(name).precision.value for name in ("rocket-pca", "raw features", "random neighbours"))
    assert encoder > raw + 0.03 > 3 * chance
    assert not result.alarms
    assert result.retrieval["rocket-pca"].rates["10 % of trades missing"].at_10 > 0.9


def test_stored_slices_are_judged_by_an_encoder_that_has_not_seen_the_questions(store: StoreUnderTest) -> None:
    window = fill(store, next(generate_market(START, 1, slice_ticks=40))[0])
    result = stored_evaluation(store, window)
    assert [row.name for row in result.rows][-3:] == ["raw features", "rocket-pca", "untrained"]
    assert not result.alarms and "Robustness is that of the newest 288 slices among themselves." in result.notes

    model = workflows.train(store.database, store.zone(), store.home / "training", workflows.TrainingPlan("BTCUSDT", dim=16))
    seen = stored_evaluation(store, window, trained=[model])  # it was trained on the questions, too
    assert any(alarm.startswith(f"{model.model_id}: it was trained on data up to 2024-01-11T00:00Z") for alarm in seen.alarms)

    store.connection.execute("DELETE FROM market_data.btc_ticks WHERE bucket_5m >= %s", (window.end - 2 * SLICE,))
    assert "The ticks of the newest slices are not there any more, so robustness is not measured." in stored_evaluation(store, window).notes


def test_the_evaluation_is_shown_in_dagster_and_on_the_command_line(store: StoreUnderTest, tmp_path: Path) -> None:
    fill(store, next(generate_market(START, 1, slice_ticks=40))[0])
    result = store.definitions.resolve_job_def("evaluate").execute_in_process(run_config=QUIETLY)
    (event,) = [event for event in result.all_events if event.is_step_materialization]
    metadata = event.step_materialization_data.materialization.metadata
    assert "| HAR |" in str(metadata["evaluation"].value) and "data:image/png;base64," in str(metadata["R2 out of sample"].value)
    picture = tmp_path / "evaluation.png"
    shown = CliRunner().invoke(main, ["evaluate", "--from", "2024-01-10", "--to", "2024-01-11", "--plot", str(picture)])
    assert shown.exit_code == 0 and "| rocket-pca |" in shown.output and picture.read_bytes().startswith(b"\x89PNG")


def test_the_real_day_is_evaluated_with_its_small_sample_size_said(store: StoreUnderTest) -> None:
    trades = read_trades(real_data("um_BTCUSDT_2020-02-22_fullday_trades.csv.gz"), FEED, Landed())
    window = fill(store, pa.concat_tables(list(trades)))
    result = stored_evaluation(store, window)
    assert "One day only: same-day neighbours admitted, embargo 1 h." in result.notes
    assert any(note.startswith("A small sample: 86 queries") for note in result.notes)
    assert not result.alarms


@pytest.mark.parametrize("slices", [1, 20])
def test_too_few_slices_to_evaluate(store: StoreUnderTest, slices: int) -> None:
    ticks = next(generate_market(START, 1, slice_ticks=30))[0]
    window = Window(START, START + slices * SLICE)
    fill(store, ticks.filter(pa.compute.less(ticks["bucket_5m"], window.end)))
    with pytest.raises(UserError, match=r": give a longer range\.$"):
        stored_evaluation(store, Window(START, START + DAY))
    with pytest.raises(UserError, match=r"^No features of BTCUSDT are stored in 2024-01-11T00:00Z"):
        stored_evaluation(store, Window(START + DAY, START + DAY + timedelta(hours=1)))
