"""What benchmarks record: figures come back from the history as they went in, and only comparable ones are called worse."""

import importlib
from pathlib import Path
from types import ModuleType

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
