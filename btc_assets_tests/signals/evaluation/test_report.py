"""The result of an evaluation as a table and as a picture."""

from __future__ import annotations

from dataclasses import replace

import pytest

from btc_assets.signals.evaluation.evaluate_embeddings import evaluate_embeddings
from btc_assets.signals.evaluation.report import Evaluation
from btc_assets.signals.evaluation.robustness import Rates, Robustness
from btc_assets_tests.support.level_market import level_market, noise


@pytest.fixture(scope="module")
def fair() -> Evaluation:
    dataset, level = level_market()
    return evaluate_embeddings(dataset, {"level": level[:, None], "noise": noise()})


def test_the_table_has_a_row_for_each_method_and_reports_no_leakage(fair: Evaluation) -> None:
    lines = fair.to_markdown().splitlines()
    assert sum(line.startswith("| ") for line in lines) == 2 + len(fair.rows)
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1
    assert lines[-1] == "No sign of leakage."
    marked = replace(fair, alarms=["x: y."], robustness={"level": Robustness({"clock 1 s slow": Rates(0.5, 0.75)})}).to_markdown()
    assert "| level | 0.500 / 0.750 |" in marked
    assert marked.splitlines()[-1] == "* **Alarm:** x: y."


def test_the_picture_is_a_png(fair: Evaluation) -> None:
    assert fair.plot().startswith(b"\x89PNG")
