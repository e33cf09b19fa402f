"""`--format`: rows for programs on standard output, and nothing else there."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import click
import pyarrow.parquet as pq
import pytest

from btc_assets.cli.main import main
from btc_assets.cli.output import FORMATS, print_rows
from btc_assets_tests.cli.test_main import commands
from btc_assets_tests.support.command_line import run_command
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import HOUR, every
from btc_assets_tests.support.waiting import PATIENCE_SECONDS

PRINTING = [
    "candles 5m", "status", "status --part symbols", "status --part reasons", "status --part problems", "feeds", "models", "db status",
    "acknowledge --list", "ops status", "ops status --part tables", "ops backup-status", "ops backup-status --part archive",
    "ops backup-status --part problems", "doctor", "gaps",
    "coverage --from 2024-01-10 --to 2024-01-11",
]  # fmt: skip


@pytest.fixture
def loaded(store: StoreUnderTest) -> StoreUnderTest:
    store.land(every(10, 90), seconds=60)
    store.ingest(HOUR)
    return store


@pytest.mark.parametrize("arguments", PRINTING)
def test_every_format_of_a_command_holds_the_same_rows(loaded: StoreUnderTest, arguments: str) -> None:
    found = {form: run_command(*arguments.split(), "--format", form) for form in FORMATS}
    assert {result.exit_code for result in found.values()} <= {0, 1}, found["json"].output  # 1: there is a problem to tell
    rows = json.loads(found["json"].stdout)
    table = pq.read_table(io.BytesIO(found["parquet"].stdout_bytes))
    header, *lines = found["csv"].stdout.splitlines()
    assert header.split(",") == table.column_names
    assert len(lines) == table.num_rows == len(rows)
    assert all(list(row) == table.column_names for row in rows)


def test_every_command_that_prints_rows_has_the_option() -> None:
    having = {path for path in commands(main) if any(option.name == "form" for option in command(path).params)}
    asked = {tuple(word for word in arguments.split() if word.isalpha() or "-" in word[1:]) for arguments in PRINTING}
    assert {path[: 2 if path[0] in ("ops", "db") else 1] for path in asked if path} <= having
    assert {("similar",), ("evaluate",)} <= having


def command(path: tuple[str, ...]) -> click.Command:
    found: click.Command = main
    for name in path:
        assert isinstance(found, click.Group)
        found = found.commands[name]
    return found


def test_what_a_person_reads_stays_the_default(loaded: StoreUnderTest) -> None:
    assert run_command("feeds").output == run_command("feeds", "--format", "table").output
    assert "│ BTCUSDT" in run_command("feeds").output
    assert run_command("candles", "5m").output == run_command("candles", "5m", "--format", "csv").output


def test_a_table_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    at = datetime(2024, 1, 10, 12, tzinfo=UTC)
    print_rows("table", {"at": "time", "count": "integer"}, [(at, 1), (None, 1_000)])
    lines = [line.strip("│┃ ") for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == "at                          ┃ count" and lines[3:5] == ["2024-01-10T12:00:00.000000Z │     1", "1000"]


def test_decimals_are_strings_in_json_and_exact_in_parquet(loaded: StoreUnderTest) -> None:
    first = json.loads(run_command("candles", "5m", "--format", "json").stdout)[0]
    assert first["bucket"] == "2024-01-10T12:00:00Z" and first["open"] == "42000.00000000" and first["trade_count"] == 30
    table = pq.read_table(io.BytesIO(run_command("candles", "5m", "--format", "parquet").stdout_bytes))
    assert table["open"][0].as_py() == loaded.rows("SELECT open FROM market_data.candles_5m ORDER BY bucket LIMIT 1")[0][0]
    assert table["bucket"][0].as_py() == datetime(2024, 1, 10, 12, tzinfo=UTC)


def test_text_is_data_and_no_markup(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    name = 'a [red]x[/red], "b"\n\x1b[31m'
    print_rows("csv", {"what": "text", "count": "integer"}, [(name, 1), (None, None)])
    assert capsysbinary.readouterr().out == b'what,count\n"a [red]x[/red], ""b""\n\x1b[31m",1\n,\n'
    print_rows("json", {"what": "text"}, [(name,), ("not \udcff UTF-8",)])
    assert [row["what"] for row in json.loads(capsysbinary.readouterr().out)] == [name, "not \\udcff UTF-8"]
    print_rows("table", {"what": "text"}, [(name,)])
    assert b'a [red]x[/red], "b"\\n\\x1b[31m' in capsysbinary.readouterr().out


def btc_assets(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "btc_assets.cli", *arguments]


def test_bytes_go_into_a_file_and_not_onto_a_terminal(loaded: StoreUnderTest, tmp_path: Path) -> None:
    with (tmp_path / "rows.parquet").open("wb") as file:
        subprocess.run(btc_assets("feeds", "--format", "parquet"), stdout=file, check=True)
    assert pq.read_table(tmp_path / "rows.parquet")["label"].to_pylist() == ["BTCUSDT"]
    terminal, its_end = pty.openpty()
    refused = subprocess.run(btc_assets("feeds", "--format", "parquet"), stdout=its_end, stderr=subprocess.PIPE, text=True)
    os.close(its_end)
    os.close(terminal)
    assert refused.returncode == 1 and "standard output is a terminal: redirect it (> FILE)" in refused.stderr


def test_a_terminal_is_sent_no_control_characters() -> None:
    terminal, its_end = pty.openpty()
    script = "from btc_assets.cli.output import print_rows; print_rows('csv', {'what': 'text'}, [('\\x1b[31m \\x9b2J',)])"
    subprocess.run([sys.executable, "-c", script], stdout=its_end, check=True)
    os.close(its_end)
    shown = os.read(terminal, 1000)
    os.close(terminal)
    assert shown.splitlines() == [b"what", b"\\x1b[31m \\x9b2J"]


@pytest.mark.parametrize("arguments", ["candles 1s --format csv", "candles 1s --format json", "candles 1s --format table", "db status"])
def test_a_reader_that_goes_away_ends_the_command_without_a_word(loaded: StoreUnderTest, arguments: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)  # before the first byte is written, so that it does not depend on how much a pipe holds
    ended = subprocess.run(
        btc_assets(*arguments.split()), stdout=writing, stderr=subprocess.PIPE, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, "")
