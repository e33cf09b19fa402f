"""The commands of the signals: train, models, similar, evaluate."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from btc_assets.cli.main import main
from btc_assets.cli.signals import _print_evaluation
from btc_assets.signals.encoders.models import read_models
from btc_assets.signals.evaluation.metrics import UNKNOWN, Estimate
from btc_assets.signals.evaluation.report import Evaluation, Row
from btc_assets.signals.evaluation.robustness import Rates, Robustness
from btc_assets.signals.search.similar import find_similar_slices
from btc_assets_tests.support.stored_slices import activate, train
from btc_assets_tests.support.stores import StoreUnderTest


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def run(*command: str) -> str:
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    return result.output


def rows_of(*command: str) -> list[dict[str, Any]]:
    return json.loads(run(*command, "--format", "json"))


def test_train_activate_find_and_draw(filled: StoreUnderTest, tmp_path: Path) -> None:
    trained = run("train", "--dim", "16", "--activate")
    assert "on 288 slices of BTCUSDT" in trained and "is active (288 slices embedded" in trained
    assert read_models(filled.connection)[0].model_id in run("models")
    picture = tmp_path / "similar.png"
    output = run("similar", "2024-01-10T13:35Z", "-k", "3", "--before-only", "--apart", "60", "--plot", str(picture))
    found = find_similar_slices(filled.connection, datetime(2024, 1, 10, 13, 35, tzinfo=UTC), 3, before_only=True, apart=timedelta(hours=1))
    assert all(f"{one.bucket_5m:%Y-%m-%dT%H:%MZ}" in output for one in found)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert [
        (row["bucket_5m"], row["next_return"])
        for row in rows_of("similar", "2024-01-10T13:35Z", "-k", "3", "--before-only", "--apart", "60")
    ] == [(f"{one.bucket_5m:%Y-%m-%dT%H:%M:%S.%fZ}", one.label_snapshot["next_return"]) for one in found if one.label_snapshot]
    assert [(row["dim"], row["vectors"], row["active"]) for row in rows_of("models")] == [(16, 288, True)]
    assert "Like 2024-01-10T23:55Z:" in run("similar", "-k", "1")  # the newest slice
    refused = CliRunner().invoke(main, ["similar", "2024-03-01"])
    assert refused.exit_code == 1 and "The slice 2024-03-01T00:00Z was never loaded: load it first (btc-assets load)." in refused.output


def test_a_model_is_removed_and_its_artifact_stays(filled: StoreUnderTest) -> None:
    first, second = train(filled), train(filled, seed=1)
    activate(filled, second)
    assert f"Removed {first.model_id} and its vectors; its artifact is still at {first.uri}." in run("models", "remove", first.model_id)
    refused = CliRunner().invoke(main, ["models", "remove", second.model_id])
    assert refused.exit_code == 1 and f"The model {second.model_id} answers the searches of BTCUSDT" in refused.output
    assert [model.model_id for model in read_models(filled.connection)] == [second.model_id]
    assert "maintained" not in run("models") and "active" in run("models")


@pytest.mark.parametrize(
    ("part", "rows"),
    [
        (
            "methods",
            [{"method": "har", "log_volume": 0.5, "log_volume_error": 0.1, "qlike": None, "precision_error": None, "forecasts": 9}],
        ),
        ("robustness", [{"method": "tcn", "disturbance": "one in ten lost", "at_1": 0.5, "at_10": 0.75}]),
        ("notes", [{"note": "Of ten days.", "alarm": False}, {"note": "It knows the future.", "alarm": True}]),
    ],
)
def test_the_parts_of_an_evaluation_are_rows(capsys: pytest.CaptureFixture[str], part: str, rows: list[dict[str, Any]]) -> None:
    row = Row("har", {"log_volume": Estimate(0.5, 0.1)}, UNKNOWN, UNKNOWN, 9)
    robustness = {"tcn": Robustness({"one in ten lost": Rates(0.5, 0.75)})}
    _print_evaluation("json", part, Evaluation([row], 10, ["Of ten days."], ["It knows the future."], robustness))
    found = json.loads(capsys.readouterr().out)
    assert [{name: each[name] for name in wanted} for each, wanted in zip(found, rows, strict=True)] == rows


def test_models_tell_which_slices_have_changed_since_they_were_trained(filled: StoreUnderTest) -> None:
    model = train(filled)
    assert model.data_version and model.data_version.startswith("records1:")
    assert "changed since" not in run("models")
    filled.connection.execute("UPDATE market_data.btc_ticks SET price = price + 1 WHERE bucket_5m = '2024-01-10 13:35Z'")
    assert f"{model.model_id} was trained on 1 slice that has changed since: 2024-01-10T13:35Z." in run("models")
    filled.connection.execute("DELETE FROM market_data.btc_ticks WHERE bucket_5m BETWEEN '2024-01-10 02:00Z' AND '2024-01-10 02:15Z'")
    assert (
        f"{model.model_id} was trained on 5 slices that have changed since: 2024-01-10T02:00Z, 2024-01-10T02:05Z, 2024-01-10T02:10Z and 2 more."
    ) in run("models")
    assert [row["changed_slices"] for row in json.loads(run("models", "--format", "json"))] == [5]
    filled.connection.execute("UPDATE signals.models SET data_version = NULL, data_digests = NULL")
    assert f"{model.model_id} was trained by a release that did not record its data" in run("models")
    assert train(filled).data_version != model.data_version  # the same model again, of what is there now


@pytest.mark.slow
def test_an_evaluation_is_printed_and_drawn(filled: StoreUnderTest, tmp_path: Path) -> None:
    picture = tmp_path / "evaluation.png"
    shown = run("evaluate", "--from", "2024-01-10", "--to", "2024-01-11", "--plot", str(picture))
    assert "| rocket-pca |" in shown and picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_without_pytorch_the_commands_say_what_to_install(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setattr("btc_assets.signals.encoders.torch_extra.find_spec", lambda name: None)
    assert "pip install 'btc-assets[torch]'" in CliRunner().invoke(main, [command]).output
