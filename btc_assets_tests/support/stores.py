"""A store of a test's own: a real PostgreSQL, a database of its own for each test, and a landing zone in a directory.

The server is the embedded one, or the one that `BTC_ASSETS_TEST_DSN` names; there every test still has a throw-away
database of its own, so that user needs the right to create databases.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import dagster as dg
import psycopg
import pyarrow as pa
import pytest
from psycopg import sql

from btc_assets.assembly import build_definitions
from btc_assets.domain.feeds import Feed, Feeds
from btc_assets.domain.settings import Settings, load_settings
from btc_assets.domain.slices import Window
from btc_assets.domain.ticks import TABLE
from btc_assets.landing.registration import RegisterOptions, Registration, register_window
from btc_assets.landing.zone import LandingZone
from btc_assets.market_data import candles
from btc_assets.market_data.derived import Derivation
from btc_assets.market_data.loading import LoadOptions, LoadResult, TickLoad
from btc_assets.simulation.batches import BatchLimits
from btc_assets.simulation.replay import Landed, land_trades
from btc_assets.store.database import Store
from btc_assets.store.embedded import embedded_dsn
from btc_assets.store.migrations import migrate
from btc_assets.store.tables import Target
from btc_assets.store.writers import replace_all
from btc_assets_tests.support.paths import SHARED

SHARED_DATA = SHARED / "data"
FEED = Feed("Binance/BTCUSDT", "BTCUSDT", "BTCUSDT")
FEEDS = Feeds([FEED])


def real_data(name: str) -> Path:
    """A file of real exchange data, or a skip that says so."""
    path = SHARED_DATA / name
    if not path.exists():
        pytest.skip(f"real trades are absent: {path} does not exist")
    return path


@pytest.fixture(scope="session")
def server_dsn(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Connection string of a server on which databases may be created."""
    return os.environ.get("BTC_ASSETS_TEST_DSN") or embedded_dsn(tmp_path_factory.mktemp("server"), "postgres")


@pytest.fixture(scope="session")
def template(server_dsn: str) -> Iterator[str]:
    """Name of a migrated database that each test's own is copied from."""
    with _database(server_dsn) as name:
        with psycopg.connect(_with_database(server_dsn, name), autocommit=True) as connection:
            migrate(connection)
        with psycopg.connect(server_dsn, autocommit=True) as connection:
            # Nobody may look in while it is copied; TimescaleDB's launcher does, in every database that allows it.
            connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(sql.Identifier(name)))
            connection.execute("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s", (name,))
        yield name


@pytest.fixture
def empty_database(server_dsn: str) -> Iterator[str]:
    """DSN of a database without anything in it."""
    with temporary_database(server_dsn) as dsn:
        yield dsn


@pytest.fixture
def database(server_dsn: str, template: str) -> Iterator[str]:
    """DSN of a migrated database without rows."""
    with temporary_copy(server_dsn, template) as dsn:
        yield dsn


@dataclass
class StoreUnderTest:
    """A store of a test's own: its database, its landing zone, and the settings that point at them."""

    dsn: str
    home: Path
    landing: Path
    connection: psycopg.Connection
    followers: tuple[str, ...] = field(default=(), kw_only=True)  # assets that are due after a load
    derivations: tuple[Derivation, ...] = field(default=(), kw_only=True)  # what a load makes itself

    @property
    def settings(self) -> Settings:
        """Those of this process's environment, which point at this store."""
        return load_settings()

    @property
    def database(self) -> Store:
        """How the project connects to it."""
        return Store(self.dsn)

    @cached_property
    def definitions(self) -> dg.Definitions:
        """Everything that Dagster sees of it; failures are not retried."""
        return build_definitions(self.settings, patient=False)

    def zone(self) -> LandingZone:
        return LandingZone(self.landing.as_uri())

    def connect(self) -> psycopg.Connection:
        return psycopg.connect(self.dsn, autocommit=True, options="-c timezone=UTC")

    def put(self, path: str, data: bytes) -> str:
        """Land one object below the feed's prefix; returns its URI."""
        return self.zone().put(f"{FEED.prefix}/{path}", data)

    def delete(self, *uris: str) -> None:
        for uri in uris:
            (self.landing / self.zone().path(uri)).unlink()

    def land(self, *tables: pa.Table, seconds: float = 15.0) -> list[str]:
        """Land ticks as the collector does; returns the URIs."""
        before = set(self.uris())
        land_trades(self.zone(), FEED, iter(tables), Landed(), limits=BatchLimits(seconds))
        return sorted(set(self.uris()) - before)

    def uris(self) -> list[str]:
        return sorted(obj.uri for obj in self.zone().list_all(FEED.prefix))

    def register(self, window: Window, *, feeds: Feeds = FEEDS, reread: bool = False) -> Registration:
        with self.connect() as connection:
            return register_window(connection, self.zone(), feeds, window, RegisterOptions(timedelta(minutes=5), reread))

    def load(
        self, window: Window, *, feeds: Feeds = FEEDS, force: bool = False, commit_rows: int = 100_000, writers: int = 2
    ) -> LoadResult:
        load = TickLoad(self.database, self.zone(), feeds, window, LoadOptions(commit_rows, self.followers, force, None, self.derivations))
        with self.connect() as connection:
            replace_all(connection, Target.of(connection, TABLE), load, writers=writers, store=self.database)
        return load.result

    def refresh(self, window: Window) -> None:
        with self.connect() as connection:
            for interval in candles.INTERVALS:
                candles.refresh_candles(connection, interval, window)

    def ingest(self, window: Window) -> LoadResult:
        self.register(window)
        result = self.load(window)
        self.refresh(window)
        return result

    def rows(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        return self.connection.execute(statement, parameters or None).fetchall()


@pytest.fixture
def store(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StoreUnderTest]:
    """A migrated store with an empty landing directory; the process's settings point at it."""
    landing = tmp_path / "landing"
    landing.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BTC_ASSETS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BTC_ASSETS_DSN", database)
    monkeypatch.setenv("BTC_ASSETS_LANDING_URL", landing.as_uri())
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    with psycopg.connect(database, autocommit=True, options="-c timezone=UTC") as connection:
        yield StoreUnderTest(database, tmp_path / "home", landing, connection)


@contextmanager
def temporary_database(server: str, *, tablespace: str = "pg_default") -> Iterator[str]:
    """DSN of an empty database on a server, dropped at the end."""
    with _database(server, tablespace=tablespace) as name:
        yield _with_database(server, name)


@contextmanager
def temporary_copy(server: str, template: str) -> Iterator[str]:
    """DSN of a copy of a template on a server, dropped at the end."""
    with _database(server, template) as name:
        yield _with_database(server, name)


class _database:
    """A database that is dropped again, whoever is still connected."""

    def __init__(self, server_dsn: str, template: str = "template0", tablespace: str = "pg_default") -> None:
        self._server_dsn, self._template, self._tablespace = server_dsn, template, tablespace
        self._name = f"btc_assets_test_{uuid.uuid4().hex[:12]}"

    def __enter__(self) -> str:
        names = map(sql.Identifier, (self._name, self._template, self._tablespace))
        self._execute(sql.SQL("CREATE DATABASE {} TEMPLATE {} TABLESPACE {}").format(*names))
        return self._name

    def __exit__(self, *_: object) -> None:
        self._execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(self._name)))

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(self._server_dsn, autocommit=True) as connection:
            connection.execute(statement)


def _with_database(dsn: str, name: str) -> str:
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))
