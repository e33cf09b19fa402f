"""Fixtures: a database of each engine.

`timescale` is a database on the server that `BTC_ASSETS_TEST_DSN` names, where that is a TimescaleDB. Elsewhere it is a
TimescaleDB in WebAssembly (wasm/), which takes one connection at a time and has no scheduler: tests that are to run on
both hold one connection, and run policies themselves.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from btc_assets.domain.slices import SLICE, Window, floor_slice
from btc_assets.domain.ticks import TABLE
from btc_assets.market_data import candles
from btc_assets.store.cut import ArrowReplacements
from btc_assets.store.embedded import embedded_dsn
from btc_assets.store.engines import engine
from btc_assets.store.migrations import migrate
from btc_assets.store.sql_files import SQL_DIR
from btc_assets.store.tables import Target
from btc_assets.store.writers import replace_all
from btc_assets_tests.support.waiting import PATIENCE_SECONDS

WASM = Path(__file__).parent / "wasm"


class WasmServer:
    """A TimescaleDB in WebAssembly, in a process of its own.

    Args:
        dump: file to start from; an empty database without.
        settings: of its command line, such as `timescaledb.license=apache`.
    """

    def __init__(self, dump: Path | None = None, settings: tuple[str, ...] = ()) -> None:
        arguments = [part for setting in ("timezone=UTC", *settings) for part in ("-c", setting)]
        self._process = subprocess.Popen(
            ["node", str(WASM / "server.mjs"), *arguments, "0", *([str(dump)] if dump else [])],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    @property
    def dsn(self) -> str:
        """Connection string; waits until the server listens the first time it is asked."""
        if not hasattr(self, "_port"):
            self._port = self._answer("listening")
        return f"postgresql://postgres@127.0.0.1:{self._port}/postgres"

    def dump(self, path: Path) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"dump {path}\n")
        self._process.stdin.flush()
        self._answer("dumped")

    def stop(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()  # it ends with it
        self._process.wait(PATIENCE_SECONDS)
        self._process.stdout.close()

    def _answer(self, word: str) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith(word), f"TimescaleDB in WebAssembly did not start: {line!r}"
        return line.removeprefix(word).strip()


@pytest.fixture(scope="session")
def wasm() -> None:
    """Skips a test of TimescaleDB in WebAssembly if there is no Node; in continuous integration it fails instead."""
    missing = "Node 20 or later" if shutil.which("node") is None else "its npm package (make test installs it)"
    if shutil.which("node") is None or not (WASM / "node_modules").is_dir():
        message = f"TimescaleDB in WebAssembly needs {missing}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture(scope="session")
def wasm_servers(wasm: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Iterator[WasmServer]]:
    """Migrated servers, one after the other; the next one starts while one is being used."""
    dump = tmp_path_factory.mktemp("wasm") / "migrated.tar"
    first = WasmServer()
    with psycopg.connect(first.dsn, autocommit=True) as connection:
        migrate(connection)
    first.dump(dump)
    first.stop()

    def servers() -> Generator[WasmServer, None, None]:
        spare = WasmServer(dump)
        try:
            while True:
                server, spare = spare, WasmServer(dump)
                try:
                    yield server
                finally:
                    server.stop()
        finally:
            spare.stop()

    made = servers()
    yield made
    made.close()


@pytest.fixture(scope="session")
def server_engine(server_dsn: str) -> str:
    """Engine that a new database on the server would get."""
    with psycopg.connect(server_dsn) as connection:
        return engine(connection)


@pytest.fixture
def timescale(request: pytest.FixtureRequest, server_engine: str) -> str:
    """DSN of a migrated database on TimescaleDB, whose scheduler does nothing: the tests say when a policy runs."""
    if server_engine == "timescale":
        dsn: str = request.getfixturevalue("database")
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("SELECT _timescaledb_functions.stop_background_workers()")
        return dsn
    return next(request.getfixturevalue("wasm_servers")).dsn


@pytest.fixture(scope="session")
def plain_server(server_engine: str, server_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Connection string of a server without TimescaleDB."""
    return server_dsn if server_engine == "postgres" else embedded_dsn(tmp_path_factory.mktemp("plain"), "postgres")


@pytest.fixture
def plain(request: pytest.FixtureRequest, server_engine: str, plain_server: str) -> Iterator[str]:
    """DSN of a migrated database on plain PostgreSQL."""
    from btc_assets_tests.support.stores import temporary_database

    if server_engine == "postgres":
        yield request.getfixturevalue("database")
        return
    with temporary_database(plain_server) as dsn:
        with psycopg.connect(dsn, autocommit=True) as connection:
            migrate(connection)
        yield dsn


@pytest.fixture
def empty_plain(plain_server: str) -> Iterator[str]:
    """DSN of an empty database on plain PostgreSQL."""
    from btc_assets_tests.support.stores import temporary_database

    with temporary_database(plain_server) as dsn:
        yield dsn


@pytest.fixture
def empty_timescale(request: pytest.FixtureRequest, server_engine: str, server_dsn: str) -> Iterator[str]:
    """DSN of an empty database on TimescaleDB."""
    from btc_assets_tests.support.stores import temporary_database

    if server_engine == "timescale":
        with temporary_database(server_dsn) as dsn:
            yield dsn
    else:
        request.getfixturevalue("wasm")
        server = WasmServer()
        yield server.dsn
        server.stop()


@pytest.fixture
def on_timescale(timescale: str) -> Iterator[psycopg.Connection]:
    """The one connection to a migrated database on TimescaleDB."""
    with psycopg.connect(timescale, autocommit=True, options="-c timezone=UTC") as connection:
        yield connection


@pytest.fixture
def on_postgres(plain: str) -> Iterator[psycopg.Connection]:
    """A connection to a migrated database on plain PostgreSQL."""
    with psycopg.connect(plain, autocommit=True, options="-c timezone=UTC") as connection:
        yield connection


@pytest.fixture(params=["postgres", "timescale"])
def on_each_engine(request: pytest.FixtureRequest) -> psycopg.Connection:
    """A connection to a migrated database, once on each engine."""
    return request.getfixturevalue(f"on_{request.param}")


def numbered_files(last: int, folder: Path) -> Path:
    """A copy of the SQL files with a number up to `last`: those of an older release; returns `folder`."""
    for path in SQL_DIR.glob("*/[0-9]*.sql"):
        if int(path.name[:4]) <= last:
            (folder / path.parent.name).mkdir(exist_ok=True)
            shutil.copy(path, folder / path.parent.name)
    return folder


def write_ticks(connection: psycopg.Connection, ticks: pa.Table, window: Window | None = None, *, commit_rows: int = 100_000) -> Window:
    """Replace the ticks of a window (by default, of their own slices) as the IO manager does, and register them as loaded.

    Returns:
        The window.
    """
    if window is None:
        times = ticks["bucket_5m"].to_pylist()
        window = Window(min(times), max(times) + SLICE)
    for day in window.days():
        connection.execute("SELECT market_data.ensure_tick_partitions(%s, %s)", (day.start, day.end))
    replace_all(connection, Target.of(connection, TABLE), ArrowReplacements(ticks, window, "bucket_5m", commit_rows))
    connection.execute("DELETE FROM landing.raw_blobs_5m WHERE bucket_5m >= %s AND bucket_5m < %s", (window.start, window.end))
    connection.execute(
        "INSERT INTO landing.raw_blobs_5m (bucket_5m, asset, uri, etag, size_bytes, row_count, status, last_modified, loaded_at, loaded_rows) "
        "SELECT bucket_5m, symbol, 'file:///made/by/a/test', 'etag', 1, count(*), 'registered', now(), now(), count(*) "
        "FROM market_data.btc_ticks WHERE bucket_5m >= %s AND bucket_5m < %s GROUP BY bucket_5m, symbol",
        (window.start, window.end),
    )
    return window


def write_candles(connection: psycopg.Connection, window: Window) -> None:
    """Make the candles of a window again, every interval."""
    for interval in candles.INTERVALS:
        candles.refresh_candles(connection, interval, window)


def read_candles(connection: psycopg.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """All candles, by interval."""
    return {
        interval: connection.execute(f"SELECT * FROM market_data.candles_{interval} ORDER BY symbol, bucket").fetchall()
        for interval in candles.INTERVALS
    }


def one_slice(ticks: pa.Table) -> Window:
    """The slice of a table's first tick."""
    return Window.of_slice(floor_slice(ticks["event_time"][0].as_py()))
