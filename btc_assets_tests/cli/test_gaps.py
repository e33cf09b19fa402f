"""The command `gaps`."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from xml.etree import ElementTree

import pytest

from btc_assets_tests.support.command_line import run_command
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import HOUR, every


@pytest.fixture
def with_gap(store: StoreUnderTest) -> StoreUnderTest:
    """Ninety trades, of which the tenth to the twelfth are lost."""
    trades = every(10, 90)
    store.land(trades.take([n for n in range(90) if not 9 <= n < 12]))
    store.ingest(HOUR)
    return store


def test_missing_ids_are_listed_for_people_and_programs(with_gap: StoreUnderTest) -> None:
    shown = run_command("gaps", "--from", "2024-01-10", "--to", "2024-01-11").output
    assert "1 gap from 2024-01-10T00:00Z to 2024-01-11T00:00Z: 3 trade ids missing." in shown
    rows = list(csv.DictReader(io.StringIO(run_command("gaps", "--format", "csv").output)))
    assert [(row["symbol"], row["first_missing"], row["last_missing"], row["missing"]) for row in rows] == [("BTCUSDT", "10", "12", "3")]
    assert "No trade id is missing from 2024-01-11T00:00Z" in run_command("gaps", "--from", "2024-01-11").output


def test_the_picture_shows_what_is_missing(with_gap: StoreUnderTest, tmp_path: Path) -> None:
    picture = tmp_path / "gaps.svg"
    assert "Saved the volume of BTCUSDT and 1 gap to" in run_command("gaps", "--plot", str(picture)).output.replace("\n", " ")
    drawn = "".join(ElementTree.fromstring(picture.read_text()).itertext())
    assert "285 slices without trades (shaded), 3 trade ids missing before" in drawn and "87 trades" in drawn
    nothing = run_command("gaps", "--from", "2024-02-01", "--to", "2024-02-02", "--plot", str(picture))
    assert nothing.exit_code == 1 and "There are no trades of BTCUSDT from 2024-02-01T00:00Z" in nothing.output


@pytest.mark.parametrize(
    ("command", "wrong", "right"),
    [(["gaps"], "x.png", ".svg"), (["candles", "1m"], "x.svg", ".png"), (["similar"], "x.pdf", ".png"), (["evaluate"], "x", ".png")],
)
def test_an_ending_that_is_not_written_is_refused_before_any_work(command: list[str], wrong: str, right: str) -> None:
    """Before even a store is looked for: the environment of the tests names none."""
    result = run_command(*command, "--plot", wrong)
    assert result.exit_code == 1
    assert f"The picture is written as {right[1:].upper()}, and {wrong} does not end in {right}: name a file that does." in result.output
