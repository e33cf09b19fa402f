"""The side-by-side comparison: it tells a correct table from a wrong one, and never accepts a way of loading that failed."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from btc_assets_tests.support.paths import PROJECT


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(PROJECT / "benchmarks")
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    return importlib.import_module("bench_compare")


@pytest.fixture
def day(compare: ModuleType, empty_database: str, tmp_path: Path) -> Any:
    """2,000 trades in 10 objects, and an empty table."""
    bench = compare.Bench(tmp_path, empty_database, compare.Day(2_000, 10), embedded=False, commit_rows=1_000)
    comparison = compare.Comparison(bench, tmp_path / "kept")
    comparison.fresh()
    yield comparison
    bench.connection.close()


def test_missing_extra_and_wrong_rows_are_counted(day: Any) -> None:
    assert str(day.difference()) == "2,000 rows missing"
    assert day.run("project", day.bench.small).error is None
    assert str(day.difference()) == "exact"

    execute = day.bench.connection.execute
    execute("UPDATE market_data.btc_ticks SET price = price + 0.00000001 WHERE trade_id = 1000000001")
    execute("UPDATE market_data.btc_ticks SET buyer_order_id = 1 WHERE trade_id = 1000000002")
    execute("DELETE FROM market_data.btc_ticks WHERE trade_id = 1000000003")
    execute("UPDATE market_data.btc_ticks SET trade_id = 7 WHERE trade_id = 1000000004")

    assert vars(day.difference()) == {"missing": 2, "extra": 1, "wrong": 2}


def test_the_table_follows_a_corrected_object_only_once_it_is_loaded_again(compare: ModuleType, day: Any) -> None:
    day.run("project", day.bench.small)
    path = sorted(day.bench.small.rglob("*.parquet"))[4]
    compare.correct(day, path)
    compare.take_out(day, path)
    difference = day.difference()
    assert (difference.missing, difference.extra) == (0, 1)
    assert difference.wrong > 50

    assert day.run("project", day.bench.small).error is None
    assert str(day.difference()) == "exact"


def test_a_way_that_loads_less_than_the_day_ends_the_comparison(compare: ModuleType, day: Any) -> None:
    min(day.bench.small.rglob("*.parquet")).unlink()

    with pytest.raises(SystemExit, match=r"btc_assets: registered and loaded: \d+ rows missing"):
        compare.rates(day, day.bench.small, ("project",), 1, lambda text: None)


def test_only_what_is_between_the_marks_of_a_page_is_replaced(compare: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{compare.BEGIN}\nold\n{compare.END}\nafter\n")
    compare.replace_measured(page, "new")
    assert page.read_text() == f"before\n{compare.BEGIN}\nnew\n{compare.END}\nafter\n"

    page.write_text("no marks")
    with pytest.raises(SystemExit, match="has no place for the table"):
        compare.replace_measured(page, "new")
