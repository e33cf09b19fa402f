"""The command line, as a person types it."""

from __future__ import annotations

import gzip
from pathlib import Path

import click
import psycopg
import pytest
from click.testing import CliRunner, Result

from btc_assets.cli.main import main
from btc_assets.store.migrations import migration_status
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import every


def cli(*arguments: str) -> Result:
    """Run a command; its tables are 200 columns wide."""
    return CliRunner().invoke(main, list(arguments), env={"COLUMNS": "200"})


@pytest.fixture
def trades_file(tmp_path: Path) -> Path:
    """Ten minutes of trades as a gzipped CSV without event times."""
    lines = ["trade_time,symbol,trade_id,price,quantity,is_market_maker"]
    for row in every(1, 600).to_pylist():
        ms = int(row["trade_time"].timestamp() * 1000)
        lines.append(f"{ms},BTCUSDT,{row['trade_id']},{row['price']},{row['quantity']},{str(row['is_market_maker']).lower()}")
    path = tmp_path / "trades.csv.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path


def commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The paths of a group, its commands and its subgroups."""
    found = [path]
    for name, command in group.commands.items():
        found += commands(command, (*path, name)) if isinstance(command, click.Group) else [(*path, name)]
    return found


@pytest.mark.parametrize("command", commands(main), ids=lambda path: " ".join(path) or "btc-assets")
def test_every_command_has_help_with_an_example(command: tuple[str, ...]) -> None:
    result = cli(*command, "--help")
    assert result.exit_code == 0
    assert "Example:" in result.output and "btc-assets" in result.output.split("Example:")[1]


def test_a_file_is_landed_loaded_shown_and_plotted(store: StoreUnderTest, trades_file: Path, tmp_path: Path) -> None:
    assert "Landed 40 objects with 600 ticks" in cli("land", str(trades_file)).output
    loaded = cli("load", "--from", "2024-01-10T12:00Z", "--to", "2024-01-10T12:10Z")
    assert loaded.exit_code == 0, loaded.output
    assert "All 13 asset checks passed." in loaded.output
    status = cli("status").output
    assert "2024-01-10" in status and "600" in status
    printed = cli("candles", "5m").output.splitlines()
    assert printed[0].startswith("bucket,open,high,low,close,volume")
    assert [line.split(",")[0] for line in printed[1:]] == ["2024-01-10T12:00:00Z", "2024-01-10T12:05:00Z"]
    picture = tmp_path / "day.png"
    assert cli("candles", "1m", "--from", "2024-01-10", "--to", "2024-01-11", "--plot", str(picture)).exit_code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    nowhere = cli("candles", "1m", "--from", "2024-01-10", "--to", "2024-01-11", "--plot", str(tmp_path / "no" / "day.png"))
    assert nowhere.exit_code == 1 and "cannot be written (No such file or directory)" in nowhere.output


def test_migrations_are_applied_and_shown(store: StoreUnderTest, empty_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTC_ASSETS_DSN", empty_database)
    assert "not yet" in cli("db", "status").output
    with psycopg.connect(empty_database) as connection:
        count = len(migration_status(connection))
    assert f"applied {count} migration(s)" in cli("db", "migrate").output
    assert "up to date" in cli("db", "migrate").output
    assert "not yet" not in cli("db", "status").output


def test_policies_are_applied_shown_and_run(store: StoreUnderTest) -> None:
    before = cli("ops", "status")
    assert before.exit_code == 1 and "it is not applied yet: run btc-assets ops apply" in before.output.replace("\n", " ")
    assert "refresh market_data.candle_partials_1m: applied" in cli("ops", "apply").output
    assert "Everything is in force as declared." in cli("ops", "apply").output
    assert "drop market_data.btc_ticks: ok, dropped 0 day(s)" in cli("ops", "run", "drop market_data.btc_ticks").output
    after = cli("ops", "status")
    assert after.exit_code == 0 and "Kept for ever: candles_1s, candles_30s" in after.output
    nothing = cli("ops", "run", "keep market_data.candle_partials_1m")
    assert nothing.exit_code == 1 and "Nothing is to be done for 'keep market_data.candle_partials_1m'" in nothing.output
    unknown = cli("ops", "run", "compress everything")
    assert (
        unknown.exit_code == 1 and "There is no policy 'compress everything': name one of compress market_data.btc_ticks" in unknown.output
    )


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
    result = cli(*arguments)
    assert result.exit_code == 1
    assert sentence in result.output
    assert "Traceback" not in result.output


def test_rows_of_a_file_that_are_not_trades_are_reported_and_the_others_landed(store: StoreUnderTest, tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("trade_id,trade_time,price,quantity,is_market_maker\n1,1704888001000,5,1,true\n2,1704888002000,-5,1,true\n")
    result = cli("land", str(file))
    assert result.exit_code == 1
    assert "row 2: price -5 is not above zero" in result.output
    assert len(store.uris()) == 1


def test_loading_with_failed_checks_reports_them_and_exits_with_2(store: StoreUnderTest) -> None:
    store.land(every(1, 60))
    store.put("2024/01/10/12/00/batch-x.parquet", b"")
    result = cli("load", "--from", "2024-01-10T12:00Z", "--to", "2024-01-10T12:05Z")
    assert result.exit_code == 2
    assert "check failed landing/raw_blobs_5m no_rejected_object" in result.output
