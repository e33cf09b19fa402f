"""The command line as a whole: help, errors, and the time to start."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import UTC, datetime

import click
import pytest

from btc_assets.cli.main import main
from btc_assets.ingestion.offsets import Listed, record_listings
from btc_assets_tests.support.command_line import run_command
from btc_assets_tests.support.paths import PROJECT
from btc_assets_tests.support.stores import FEED, StoreUnderTest
from btc_assets_tests.support.trades import HOUR, NOON, every


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
        (
            ("candles", "1m", "--from", "2024-01-10", "--to", "2024-01-11"),
            "There is no symbol 'BTCUSDT' in this store: load ticks first (btc-assets load).",
        ),
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


SLOW = {"dagster", "torch", "matplotlib", "pyarrow", "numpy", "boto3", "obstore", "sqlalchemy"}
SLOW_OR_OF_THE_DATABASE = SLOW | {"psycopg", "pydantic"}


def imported_by(*arguments: str) -> set[str]:
    """The packages that a command has imported when it ends, in a process of its own."""
    script = f"""
import atexit, sys
atexit.register(lambda: print(*sorted({{name.split(".")[0] for name in sys.modules}}), file=sys.stderr))
sys.argv[1:] = {list(arguments)!r}
from btc_assets.cli.main import run
run()
"""
    done = subprocess.run([sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": str(PROJECT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Nothing is registered" not in done.stdout
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("arguments", ["--help", "db --help", "ops status --help", "train --help"])
def test_help_waits_for_no_slow_import(arguments: str) -> None:
    assert imported_by(*arguments.split()) & SLOW_OR_OF_THE_DATABASE == set()


@pytest.mark.parametrize("arguments", ["status", "feeds", "db status", "models", "acknowledge --list"])
def test_a_command_that_reads_some_rows_waits_for_no_slow_import(store: StoreUnderTest, arguments: str) -> None:
    store.land(every(10, 30), seconds=60)
    store.ingest(HOUR)
    record_listings(store.connection, [Listed(FEED.prefix, None, NOON, datetime.now(UTC))])  # else status looks for a daemon
    assert imported_by(*arguments.split()) & SLOW == set()


def test_status_looks_for_a_daemon_without_importing_dagster(store: StoreUnderTest) -> None:
    store.land(every(10, 30), seconds=60)
    store.ingest(HOUR)
    assert imported_by("status") & SLOW == set()


@pytest.mark.parametrize("command", ["load", "train", "evaluate"])
def test_a_range_in_the_future_is_refused_before_anything_is_imported(store: StoreUnderTest, command: str) -> None:
    done = run_command(command, "--from", "2900-01-01", "--to", "2900-01-02")
    assert done.exit_code == 1 and re.search("(not over yet|in the future)", done.output)
    script = f"""
import sys
from click.testing import CliRunner
from btc_assets.cli.main import main
assert CliRunner().invoke(main, [{command!r}, "--from", "2900-01-01", "--to", "2900-01-02"]).exit_code == 1
assert {SLOW_OR_OF_THE_DATABASE!r}.isdisjoint(sys.modules), sorted(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": str(PROJECT)}, check=True)
