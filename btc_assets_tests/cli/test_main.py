"""The command line as a whole: help, errors, and the time to start."""

from __future__ import annotations

import os
import subprocess
import sys

import click
import pytest

from btc_assets.cli.main import main
from btc_assets_tests.support.command_line import run_command
from btc_assets_tests.support.paths import PROJECT
from btc_assets_tests.support.stores import StoreUnderTest


def commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The paths of a group, its commands and its subgroups."""
    found = [path]
    for name, command in group.commands.items():
        found += commands(command, (*path, name)) if isinstance(command, click.Group) else [(*path, name)]
    return found


@pytest.mark.parametrize("command", commands(main), ids=lambda path: " ".join(path) or "btc-assets")
def test_every_command_has_help_with_an_example(command: tuple[str, ...]) -> None:
    result = run_command(*command, "--help")
    assert result.exit_code == 0
    assert "Example:" in result.output and "btc-assets" in result.output.split("Example:")[1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("load", "--from", "2024-01-10"), "Name the range with --from and --to, such as --from 2020-02-22 --to 2020-02-23."),
        (("load", "--from", "2024-01-10", "--to", "2024-01-09"), "is empty: its end must lie after its start."),
        (("load", "--from", "2015-01-01", "--to", "2015-01-02"), "set BTC_ASSETS_HISTORY_START=2015-01-01 or earlier."),
        (("land", "nothing.csv"), "The trades file nothing.csv does not exist: give the path of a CSV, JSON lines, Parquet or zip file."),
        (("candles", "1m", "--from", "2024-01-10", "--to", "2024-01-11"), "load that range first (btc-assets load)."),
        (("candles", "1m", "--from", "noon"), "'noon' is not a date or time"),
    ],
)
def test_an_error_is_one_sentence(store: StoreUnderTest, arguments: tuple[str, ...], sentence: str) -> None:
    result = run_command(*arguments)
    assert result.exit_code == 1
    assert sentence in result.output
    assert "Traceback" not in result.output


def test_a_setting_that_does_not_exist_is_one_sentence(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTC_ASSETS_LANDING_URI", "s3://landing")
    result = run_command("status")
    assert result.exit_code == 1
    assert result.output == "Error: BTC_ASSETS_LANDING_URI is not a setting: did you mean BTC_ASSETS_LANDING_URL?\n"


@pytest.mark.parametrize("arguments", ["--help", "db --help", "ops status --help", "train --help"])
def test_help_waits_for_no_slow_import(arguments: str) -> None:
    script = f"""
import sys
from click.testing import CliRunner
from btc_assets.cli.main import main
assert CliRunner().invoke(main, {arguments.split()!r}).exit_code == 0
print(*sorted({{name.split(".")[0] for name in sys.modules}}))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": str(PROJECT)}, capture_output=True, text=True, check=True
    )
    slow = {"dagster", "torch", "matplotlib", "pyarrow", "numpy", "psycopg", "pydantic", "boto3", "obstore", "sqlalchemy"}
    assert slow & set(done.stdout.split()) == set()
