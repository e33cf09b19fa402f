"""The result of an evaluation as a table and as a picture."""

from __future__ import annotations

from dataclasses import replace

import pytest
from matplotlib.patches import Rectangle

from btc_assets.signals.evaluation.evaluate_embeddings import evaluate_embeddings
from btc_assets.signals.evaluation.metrics import Estimate
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


def test_bars_lie_inside_the_frame_and_the_title_says_whose_questions_they_answer(fair: Evaluation) -> None:
    values = dict(zip(("persistence", "HAR", "level"), (-0.3, -7.0, 0.6), strict=False))
    rows = [replace(row, r2={name: Estimate(values.get(row.name, -0.001), 0.02) for name in row.r2}) for row in fair.rows]
    figure = replace(fair, rows=rows, market="BTCUSDT").figure()
    for axes in figure.axes:
        left, right = axes.get_xlim()
        bars = [patch.get_bbox() for patch in axes.patches if isinstance(patch, Rectangle)]
        assert len(bars) == len(rows)
        assert all(left < bar.xmin <= bar.xmax < right for bar in bars)
        assert min(bar.xmin for bar in bars) == -0.5  # cut, and labeled with the value
        assert "-7.000" in [text.get_text() for text in axes.texts]
    title = figure.get_suptitle()
    assert title.startswith("BTCUSDT, ") and fair.questions in title and " questions, 20" in title
