"""The command `coverage`: a calendar of days, in the terminal and as a picture."""

from __future__ import annotations

import io
import json
from datetime import date, timedelta
from pathlib import Path

import pytest

from btc_assets.cli.console import PlainConsole
from btc_assets.cli.coverage import _calendar_lines
from btc_assets.client.calendar import Calendar
from btc_assets_tests.support.command_line import run_command
from btc_assets_tests.support.stores import StoreUnderTest

YEAR = Calendar("BTCUSDT", date(2024, 1, 1), date(2024, 12, 31), {date(2024, 1, 1) + timedelta(i): "complete" for i in range(366)})


def test_a_calendar_shows_each_day_in_its_week(docs_store: StoreUnderTest) -> None:
    lines = run_command("coverage", "--from", "2024-01-09", "--to", "2024-01-13").output.splitlines()
    spot = lines[lines.index("Coverage of BTCUSDT, 2024-01-09 to 2024-01-12 (UTC)") :]
    week = {line[:3]: line[4:5] for line in spot[2:9]}
    assert week == {"Mon": " ", "Tue": " ", "Wed": ".", "Thu": "G", "Fri": " ", "Sat": " ", "Sun": " "}
    assert spot[1].split() == ["Jan"]
    assert "complete: 1 day" in spot[10] and "gaps: 1 day" in spot[10] and "nothing: 2 days" in spot[10]
    assert spot[11].strip() == "2024-01-11  gaps (288 of 288 slices loaded), 5 missing trades"
    assert "Coverage of BTCUSDT.P, 2024-01-09 to 2024-01-12 (UTC)" in lines


def test_days_around_the_store_are_left_out_unless_they_are_named(docs_store: StoreUnderTest) -> None:
    output = run_command("coverage", "--to", "2024-02-01", "--symbol", "BTCUSDT.P").output
    assert "Coverage of BTCUSDT.P, 2024-01-10 to 2024-01-31 (UTC)" in output and "BTCUSDT," not in output


def test_the_days_are_rows_for_programs(docs_store: StoreUnderTest) -> None:
    rows = json.loads(run_command("coverage", "--from", "2024-01-10", "--to", "2024-01-12", "--format", "json").stdout)
    assert [(row["day"], row["symbol"], row["state"], row["missing_trades"]) for row in rows] == [
        ("2024-01-10", "BTCUSDT", "complete", 0), ("2024-01-10", "BTCUSDT.P", "complete", 0),
        ("2024-01-11", "BTCUSDT", "gaps", 5), ("2024-01-11", "BTCUSDT.P", "complete", 0),
    ]  # fmt: skip


def test_a_picture_is_saved_and_with_a_format_only_rows_are_on_standard_output(docs_store: StoreUnderTest) -> None:
    result = run_command("coverage", "--from", "2024-01-10", "--to", "2024-01-12", "--plot", "days.png", "--format", "csv")
    assert Path("days.png").read_bytes().startswith(b"\x89PNG")
    assert len(result.stdout.splitlines()) == 5 and "Saved the calendar to days.png." in result.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--from", "2024-02-01", "--to", "2024-02-02"), "Nothing of that range is stored"),
        (("--symbol", "ETHUSDT"), "ETHUSDT"),
        (("--from", "2024-01-12", "--to", "2024-01-10"), "reversed"),
        (("--from", "2900-01-01"), "in the future"),
    ],
)
def test_what_cannot_be_shown_is_one_sentence(docs_store: StoreUnderTest, arguments: tuple[str, ...], sentence: str) -> None:
    result = run_command("coverage", *arguments)
    assert result.exit_code == 1 and sentence in result.output and "Traceback" not in result.output, result.output


@pytest.mark.parametrize("width", [20, 80, 200])
def test_a_calendar_fits_into_its_terminal_and_loses_no_day(width: int) -> None:
    lines = [line.plain for line in _calendar_lines(YEAR, width)]
    assert max(map(len, lines)) <= width
    days = [line[4:] for line in lines if line[:3] in ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")]
    assert sum(line.count(".") for line in days) == 366
    assert {"Jan", "Mar", "Jul"} <= {name for line in lines for name in line.split()}


@pytest.mark.parametrize("colors", [True, False])
def test_letters_tell_what_colors_tell(monkeypatch: pytest.MonkeyPatch, colors: bool) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    if not colors:
        monkeypatch.setenv("NO_COLOR", "1")
    console = PlainConsole()
    console.file = io.StringIO()
    console._force_terminal, console._color_system = True, None if not colors else console._color_system or 1  # type: ignore[assignment]
    for line in _calendar_lines(Calendar("X", date(2024, 1, 1), date(2024, 1, 2), {date(2024, 1, 2): "gaps"}), 80):
        console.print(line)
    shown = console.file.getvalue()
    assert "G " in shown and ("\x1b[" in shown) is colors
