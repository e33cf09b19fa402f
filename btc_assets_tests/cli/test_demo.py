"""The command `demo`: a store of its own for each day and file."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from btc_assets.cli.app import App
from btc_assets.cli.demo import DemoStore, _land_generated
from btc_assets.domain.settings import Settings, load_settings, read_home
from btc_assets.store.embedded import stop
from btc_assets_tests.support.cases import case
from btc_assets_tests.support.command_line import run_command
from btc_assets_tests.support.paths import PROJECT

DAY = datetime(2024, 1, 10, tzinfo=UTC)


@pytest.fixture
def own_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The environment is as it was after the test, whatever a demo sets."""
    before = dict(os.environ)
    yield monkeypatch
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def home(own_environment: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home whose name no shell and no file of variables may take apart; the environment names nothing else."""
    for name in [name for name in os.environ if name.startswith(("BTC_ASSETS_", "DAGSTER_"))]:
        del os.environ[name]
    home = tmp_path / 'my $HOME ${HOME} #1 isn\'t \\ 50% "it"'
    os.environ["BTC_ASSETS_HOME"] = str(home)
    own_environment.chdir(tmp_path)
    return home


def test_another_day_number_of_trades_or_file_has_another_store(tmp_path: Path) -> None:
    stores = [DemoStore.of_day(tmp_path, DAY, 500), DemoStore.of_day(tmp_path, DAY, 600), DemoStore.of_file(tmp_path, Path("/a.csv"))]
    assert len({store.name for store in [*stores, DemoStore.of_day(tmp_path, DAY, 500, perpetual=True)]}) == 4
    assert DemoStore.of_file(tmp_path, Path("/a.csv")) == stores[2] != DemoStore.of_file(tmp_path, Path("/b.csv"))


USERS = {
    "DSN": "postgresql://users.own/btc",
    "OWNER_DSN": "postgresql://owner@users.own/btc",
    "DAGSTER_DSN": "postgresql://users.own/dagster",
    "LANDING_FEEDS": "Kraken/XBT",
    "S3_ENDPOINT": "http://users.own",
    "MODELS_URL": "s3://users/models",
    "WORKERS_BROKER": "redis://users.own:6379/0",
    "LANDING_EVENTS_QUEUE": "https://sqs.users.own/1/queue",
    "COMPUTE_LOGS_URL": "s3://users/logs",
    "BACKUP_STANZA": "users",
    "FETCH_CONCURRENCY": "wrong",
    "MISSPELLED": "1",
}


@pytest.mark.parametrize("where", ["environment", ".env", "demo.env"])
def test_a_demo_touches_nothing_of_the_users(own_environment: pytest.MonkeyPatch, tmp_path: Path, where: str) -> None:
    home = tmp_path / "demo's home"
    own_environment.chdir(tmp_path)
    own_environment.setitem(os.environ, "BTC_ASSETS_HOME", str(home))
    own_environment.setitem(os.environ, "DAGSTER_HOME", str(tmp_path / "users_dagster"))
    users = {f"BTC_ASSETS_{name}": value for name, value in USERS.items()}
    if where == "environment":
        os.environ.update(users)
    else:
        home.mkdir()
        file = tmp_path / ".env" if where == ".env" else home / "demo.env"
        file.write_text("".join(f"{name}={value}\n" for name, value in users.items()))
    settings = DemoStore.of_day(read_home(), DAY, 500).use()
    defaults = Settings(home=home)
    own = {"database", "landing_url", "ticks_drop_after_days"}
    assert settings.model_dump(exclude=own) == defaults.model_dump(exclude=own)
    assert (settings.database, settings.landing) == ("demo_20240110_500", (home / "landing_demo_20240110_500").as_uri())
    assert load_settings() == settings  # as Dagster's storage reads them
    assert os.environ["DAGSTER_HOME"] == str(home / "dagster_demo")
    child = subprocess.run([sys.executable, "-c", SHOW_SETTINGS], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert child.stdout == f"{settings!r}\n"


SHOW_SETTINGS = "from btc_assets.domain.settings import load_settings; print(repr(load_settings()))"


def test_later_processes_find_the_demo_once_its_partitions_are_known(own_environment: pytest.MonkeyPatch, home: Path) -> None:
    before = dict(os.environ)
    DemoStore.of_day(home, DAY, 500).use()
    assert not (home / "demo.env").exists()
    made = DemoStore.of_day(home, DAY, 500).use(partitions_start=DAY)
    assert made.first_slice == DAY
    # A later process has none of the variables that the demo set.
    os.environ.clear()
    os.environ.update(before)
    assert load_settings() == made
    assert os.environ["DAGSTER_HOME"] == str(home / "dagster_demo")


@pytest.mark.parametrize(
    "name", ["DSN", "OWNER_DSN", "DAGSTER_DSN", "LANDING_URL", "LANDING_FEEDS", "DATABASE", "S3_ENDPOINT", "MODELS_URL"]
)
def test_the_last_demo_is_not_mixed_with_a_store_that_a_variable_names(
    own_environment: pytest.MonkeyPatch, home: Path, tmp_path: Path, name: str
) -> None:
    value = {"LANDING_URL": "s3://users/zone", "DATABASE": "users"}.get(name) or USERS[name]
    before = dict(os.environ)
    DemoStore.of_day(home, DAY, 500).use(partitions_start=DAY)
    os.environ.clear()
    os.environ.update(before | {f"BTC_ASSETS_{name}": value})
    settings = load_settings()
    assert settings == Settings(home=home)
    assert "landing_demo" not in settings.landing and not settings.database.startswith("demo")
    assert settings.partitions_start is None


@pytest.mark.slow
def test_a_demo_runs_in_an_odd_home_beside_a_store_of_the_users_and_tells_of_wrong_rows(tmp_path_factory: pytest.TempPathFactory) -> None:
    tmp_path = tmp_path_factory.mktemp("d")
    home = tmp_path / "a b's 50% [1]"
    source = case("21-brackets") / "price [usdt].csv"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("BTC_ASSETS_", "DAGSTER_"))}
    clean |= {"BTC_ASSETS_HOME": str(home), "PYTHONPATH": str(PROJECT), "COLUMNS": "200"}

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "btc_assets.cli", *arguments]
        return subprocess.run(command, env=clean | variables, cwd=tmp_path, capture_output=True, text=True, check=False)

    (tmp_path / ".env").write_text("BTC_ASSETS_DSN=postgresql://127.0.0.1:1/users\nBTC_ASSETS_COMPUTE_LOGS_URL=s3://users/logs\n")
    try:
        demo = run("demo", "--trades", str(source), BTC_ASSETS_OWNER_DSN="postgresql://127.0.0.1:1/users")
        assert demo.returncode == 2, demo.stdout + demo.stderr
        assert "1 rows are not valid trades and were not landed, such as " in demo.stdout and "91250[/b]" in demo.stdout
        assert f"Candles: {home}" in demo.stdout and "Traceback" not in demo.stdout + demo.stderr
        assert run("status").stderr.startswith("Error: ")  # of the user's own server, which is not there
        (tmp_path / ".env").unlink()
        status = run("status")
        assert "2026-11-20" in status.stdout and "119" in status.stdout, status.stdout + status.stderr
        assert "check the collector" not in status.stdout
    finally:
        stop(home)


def test_a_demo_with_a_perpetual_lands_two_symbols_with_trades_at_the_same_times(own_environment: pytest.MonkeyPatch, home: Path) -> None:
    app = App(DemoStore.of_day(home, DAY, 500, perpetual=True).use())
    assert _land_generated(app, DAY, 500).ticks == 1_000
    assert [feed.label for feed in app.settings.landing_feeds] == ["BTCUSDT", "BTCUSDT.P"]
    landing = home / "landing_demo_20240110_500_perpetual" / "Binance"
    spot, perpetual = (
        [time for file in folder.rglob("*.parquet") for time in pq.read_table(file)["trade_time"].to_pylist()]
        for folder in (landing / "BTCUSDT", landing / "UM")
    )
    assert len(spot) == 500 and sorted(spot) == sorted(perpetual)


def test_a_perpetual_is_not_made_of_a_file(home: Path) -> None:
    result = run_command("demo", "--perpetual", "--trades", "trades.csv")
    assert result.exit_code == 1 and "A file's trades are those of one symbol: leave out --perpetual" in result.output


def test_a_demo_in_a_home_that_cannot_be_written_lands_nothing(own_environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.environ["BTC_ASSETS_HOME"] = str(tmp_path / "file" / "home")
    result = run_command("demo", "--ticks", "10")
    assert result.exit_code == 1 and "cannot be written (Not a directory): set BTC_ASSETS_HOME to a writable directory." in result.output


def test_a_demo_in_a_home_that_is_too_long_lands_nothing(own_environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = tmp_path / ("x" * (95 - len(str(tmp_path))) if len(str(tmp_path)) < 90 else "x")
    os.environ["BTC_ASSETS_HOME"] = str(home)
    result = run_command("demo", "--ticks", "10")
    assert result.exit_code == 1 and "is too long a path for the embedded server's socket" in result.output
    assert not list(home.rglob("batch-*"))
