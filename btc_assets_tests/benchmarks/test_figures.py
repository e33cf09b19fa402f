"""What benchmarks record: figures come back from the history as they went in, and only comparable ones are called worse."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg
import pytest

from btc_assets_tests.support.paths import PROJECT


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(PROJECT / "benchmarks")
    return importlib.import_module("figures")


def test_figures_come_back_from_the_history_as_they_were_recorded(figures: ModuleType, tmp_path: Path, empty_database: str) -> None:
    file = tmp_path / "history.csv"
    found = [
        figures.Figure.of("rate, of the ceiling", [0.5, 0.25, 0.75], goal=1.0, better="more"),
        figures.Figure("rate, of the ceiling", 1.5, better="more", who="Polars"),
    ]
    with psycopg.connect(empty_database) as connection:
        of = figures.conditions("chain", "10 trades", "quiet", figures.server(connection))
    figures.append(file, of, found[:1])
    figures.append(file, of, found[1:])

    lines = figures.read(file)
    assert [line.figure for line in lines] == found
    assert {line.conditions for line in lines} == {of}
    assert (found[0].value, found[0].low, found[0].high, found[0].met) == (0.5, 0.25, 0.75, False)
    assert of.engine == "plain"
    assert of.versions.startswith("PostgreSQL ")


@pytest.fixture
def page(figures: ModuleType) -> ModuleType:
    return importlib.import_module("bench")


def lines(figures: ModuleType, *values: float, load: str = "quiet", **figure: Any) -> list[Any]:
    """A line for each value of a figure, measured at commits 0, 1, 2, ..."""
    return [
        figures.Line(
            figures.Conditions("chain", "10 trades", "plain", load, "2 cores", str(commit), "2026-01-01T00:00Z", "Python"),
            figures.Figure(**{"name": "checks", "value": value, **figure}),
        )
        for commit, value in enumerate(values)
    ]


def test_the_page_tells_the_goal_the_newest_value_and_the_first(figures: ModuleType, page: ModuleType) -> None:
    measured = page.render(
        lines(figures, 2.5, 0.4, 0.05, goal=0.1) + lines(figures, 0.02, who="ceiling") + lines(figures, 7.0, who="Polars")
    )
    assert "| | goal | PostgreSQL | ceiling | peers |\n" in measured
    assert "| checks | at most 0.10 | **0.05** (was 2.50) | 0.02 | Polars 7.00 |\n" in measured


def test_the_page_marks_what_got_worse_than_the_last_comparable_run(figures: ModuleType, page: ModuleType) -> None:
    assert page.ours(lines(figures, 0.5, 0.2, 0.3, goal=0.1)) == "0.30 ▼ worse than 0.20 (was 0.50)"
    assert page.ours(lines(figures, 0.2) + lines(figures, 0.3, load="shared")) == "0.30°"


def test_a_page_without_marks_is_left_alone(page: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    file.write_text("no marks")
    with pytest.raises(SystemExit, match="has no place for the figures"):
        page.write_page(file, "new")
    file.write_text(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n")
    page.write_page(file, "new")
    assert file.read_text() == f"before\n{page.BEGIN}\nnew\n{page.END}\nafter\n"


@pytest.mark.parametrize(
    ("better", "last", "new", "expected"),
    [
        ("less", [10.0], [10.4], False),  # within 5 %
        ("less", [10.0], [10.6], True),
        ("less", [9.0, 10.0, 11.0], [11.5], False),  # within what the last run varied by
        ("less", [9.0, 10.0, 11.0], [12.5], True),
        ("less", [10.0], [7.0], False),  # better
        ("more", [10.0], [7.0], True),
        ("more", [10.0], [12.0], False),
    ],
)
def test_a_figure_is_worse_by_more_than_its_runs_vary(
    figures: ModuleType, better: str, last: list[float], new: list[float], expected: bool
) -> None:
    of = [figures.Figure.of("seconds", values, "s", better=better) for values in (new, last)]
    assert figures.worse(*of) is expected
