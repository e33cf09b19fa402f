"""What commands print is data, never markup: brackets stay, control characters are shown, and there is no other way to print."""

from __future__ import annotations

import ast
import io
import shutil
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from btc_assets.cli.console import PlainConsole, lines, out, styled
from btc_assets_tests.support.cases import case
from btc_assets_tests.support.command_line import run_command
from btc_assets_tests.support.paths import PROJECT
from btc_assets_tests.support.stores import StoreUnderTest

COMMANDS = sorted((PROJECT / "btc_assets" / "cli").glob("*.py"))
HOSTILE = "a [usdt] [/b] [red]x[/red] :smile: [link=http://evil]y[/link] 2024"


@pytest.fixture
def printed() -> tuple[PlainConsole, io.StringIO]:
    """A console with colors, and what it prints."""
    console, file = PlainConsole(), io.StringIO()
    console.file, console.width = file, 300
    return console, file


def test_brackets_are_printed_as_they_are(printed: tuple[PlainConsole, io.StringIO]) -> None:
    console, file = printed
    console.print(HOSTILE)
    console.print(styled(HOSTILE, "red"), HOSTILE, markup=True, emoji=True, highlight=True)
    assert file.getvalue().splitlines() == [HOSTILE, f"{HOSTILE} {HOSTILE}"]


def test_brackets_in_tables_are_printed_as_they_are(printed: tuple[PlainConsole, io.StringIO]) -> None:
    console, file = printed
    table = Table(HOSTILE, title=HOSTILE)
    table.add_row(HOSTILE)
    console.print(table)
    assert file.getvalue().count(HOSTILE) == 3


def test_a_line_of_data_is_one_line_however_long(printed: tuple[PlainConsole, io.StringIO]) -> None:
    console, file = printed
    console.width = 20
    console.print(f"{'long ' * 30}\nforged \x1b[31m")
    assert file.getvalue() == f"{'long ' * 30}\\nforged \\x1b[31m\n"
    console.print(lines("of ours\nhas two"))
    assert file.getvalue().endswith("of ours\nhas two\n")
    assert isinstance(styled("x\n", "red"), Text) and str(styled("x\n", "red")) == "x\\n"


def test_no_command_prints_in_another_way() -> None:
    """`click.echo` is for output that a program reads: the connection string."""
    for path in COMMANDS:
        text = path.read_text()
        tree = ast.parse(text)
        names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} | {
            node.id for node in ast.walk(tree) if isinstance(node, ast.Name)
        }
        echoes = {"database.py"}
        if path.name != "console.py":
            assert not names & {"Console", "from_markup", "render_markup", "rprint", "secho"}, path
            assert "rich.console" not in text and "rich.markup" not in text, path
        assert "print" not in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}, path
        assert "echo" not in names or path.name in echoes, path


def test_error_messages_show_brackets_and_no_control_characters(store: StoreUnderTest) -> None:
    result = run_command("land", "no [such]\x1b[31m file\n.csv")
    assert result.exit_code == 1 and "no [such]\\x1b[31m file\\n.csv" in result.output, result.output


def land(store: StoreUnderTest, source: Path, path: str) -> str:
    target = store.landing / "Binance/BTCUSDT/2026/11/20" / path
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
    return path.rsplit("/", 1)[-1]


def test_a_row_with_brackets_fails_its_check_by_its_sentence(store: StoreUnderTest) -> None:
    land(store, case("21-brackets") / "price [usdt].csv", "21/00/price [usdt].csv")
    result = run_command("load", "--from", "2026-11-20T21:00Z", "--to", "2026-11-20T21:05Z")
    assert result.exit_code == 2, result.output
    assert "price%20[usdt].csv, row 6: " in result.output or "price [usdt].csv, row 6: " in result.output
    assert "91250[/b]" in result.output
    assert store.rows("SELECT count(*) FROM market_data.btc_ticks") == [(119,)]


def test_names_with_brackets_are_reported_as_they_are(store: StoreUnderTest) -> None:
    land(store, case("21-brackets") / "header.csv", "22/00/a [old].csv")
    result = run_command("load", "--from", "2026-11-20T22:00Z", "--to", "2026-11-20T22:05Z")
    assert result.exit_code == 2, result.output
    assert "a [old].csv" in result.output or "a%20[old].csv" in result.output
    assert "price [/usdt]" in result.output and "quantity [btc]" in result.output
    status = run_command("status").output
    assert "rejected object since " in status and "price [/usdt]" in status and "btc-assets acknowledge 'file:///" in status


def test_the_console_of_the_commands_is_a_plain_one() -> None:
    assert isinstance(out, PlainConsole)
