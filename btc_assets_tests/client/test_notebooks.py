"""Every notebook runs from top to bottom on a store, and says what it needs on one that lacks it."""

from __future__ import annotations

import runpy
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

from btc_assets_tests.support.docs_store import GAP, TWO_DAYS
from btc_assets_tests.support.paths import PROJECT
from btc_assets_tests.support.stores import StoreUnderTest

pytest.importorskip("marimo", reason="notebooks need marimo: make test installs it")

NOTEBOOKS = sorted(path.name for path in PROJECT.glob("notebooks/*.py"))
pytestmark = pytest.mark.xdist_group("docs_store")


@pytest.fixture(autouse=True)
def no_windows(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are drawn into memory, and marimo keeps nothing in the user's home."""
    mpl.use("agg")
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))


def run(name: str, **definitions: object) -> Mapping[str, Any]:
    """Run a notebook as a script does; returns what its cells define. A cell that fails raises.

    Args:
        name: of the file.
        definitions: in place of the cells that define them.
    """
    app = runpy.run_path(str(PROJECT / "notebooks" / name))["app"]
    _, defined = app.run(defs=definitions)
    return defined


def test_the_first_look_shows_candles_what_is_missing_and_slices_that_looked_alike(docs_store: StoreUnderTest) -> None:
    found = run("first_look.py")
    assert found["candles"].height == 96
    assert found["gaps"].height == 1
    assert found["similar"].height == 6 and GAP not in found["similar"]["bucket_5m"].to_list()


def test_the_first_look_follows_what_a_person_picks(docs_store: StoreUnderTest) -> None:
    choice = {"symbol": "BTCUSDT.P", "day": TWO_DAYS.start.date(), "interval": "1h"}
    found = run("first_look.py", **{name: Picked(value) for name, value in choice.items()})
    assert (found["candles"].height, found["gaps"].height) == (24, 0)
    assert set(found["candles"]["symbol"]) == {"BTCUSDT.P"}


def test_bars_of_other_clocks_are_about_as_many_as_asked_for(docs_store: StoreUnderTest) -> None:
    found = run("bars_and_order_flow.py")
    assert set(found["bars"]) == {"time", "tick", "volume", "dollar"}
    assert all(0.6 * 288 < len(bars) < 1.3 * 288 for bars in found["bars"].values())
    assert 0 < found["correlation"] <= 1  # who buys more pays more, also in generated markets
    assert found["table"].height == 4


def test_what_followed_similar_slices_is_shown_for_each_of_them(docs_store: StoreUnderTest) -> None:
    found = run("when_before.py")
    assert found["found"].height == 12 == len(found["paths"]) - 1
    assert all(abs(time - found["time"]) >= timedelta(minutes=60) for time in found["found"]["bucket_5m"])
    assert len(found["picture"].axes[0].lines) >= 13


def test_the_basis_is_that_of_the_generated_perpetual(docs_store: StoreUnderTest) -> None:
    found = run("basis.py")
    assert found["basis"].height > 1_300
    assert found["basis"]["basis_points"].is_between(0.9, 7.2).all()
    assert found["half_life"] > 10


def test_a_training_run_learns_something_and_a_column_of_the_future_raises_the_alarm(docs_store: StoreUnderTest) -> None:
    found = run("training_run.py", symbol=Picked("BTCUSDT"), tested=Picked(30), epochs=Picked(3))
    assert found["counts"]["train"]["purged"] > 0
    assert found["losses"][-1] < found["losses"][0]
    assert found["scores"]["R2 on the test"][1] > 0
    assert found["honest"] == []
    assert any("from_the_future" in alarm for alarm in found["alarms"])


def test_a_store_with_one_symbol_has_no_basis_and_says_what_would_make_one(store: StoreUnderTest) -> None:
    outputs, defined = runpy.run_path(str(PROJECT / "notebooks" / "basis.py"))["app"].run()
    assert "basis" not in defined
    assert any("btc-assets demo --perpetual" in str(getattr(output, "text", "")) for output in outputs)


@pytest.mark.parametrize("name", [name for name in NOTEBOOKS if name != "basis.py"])
def test_a_notebook_on_an_empty_store_says_what_it_needs(name: str, store: StoreUnderTest) -> None:
    outputs, _ = runpy.run_path(str(PROJECT / "notebooks" / name))["app"].run()
    assert any("make " in str(getattr(output, "text", "")) for output in outputs)


class Picked:
    """What a person has picked in an element of the user interface."""

    def __init__(self, value: object) -> None:
        self.value = value


def test_every_notebook_is_told_of_in_the_pages() -> None:
    page = (PROJECT / "docs" / "notebooks.md").read_text()
    assert [name for name in NOTEBOOKS if f"notebooks/{name}" not in page] == []
    assert Path(PROJECT / "notebooks" / "first_look.py").exists()
