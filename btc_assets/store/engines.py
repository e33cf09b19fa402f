"""Which engine a database runs on, as its server tells: `timescale` or `postgres`, or one sentence why neither.

The name of an engine is that of its folder under `sql/`. A database keeps the engine of its first migration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import psycopg

from btc_assets.domain.errors import UserError
from btc_assets.store.database import location
from btc_assets.store.errors import server_errors

Engine = Literal["postgres", "timescale"]

OLDEST_POSTGRES = 15
OLDEST_TIMESCALE = (2, 19)
OLDEST_VECTOR = (0, 8)
FIRST_TIMESCALE_WITHOUT_POSTGRES_15 = (2, 29)


class WrongResults(NamedTuple):
    """Versions of TimescaleDB that give wrong results without a word, from the first to the last, and what is wrong."""

    first: tuple[int, int, int]
    last: tuple[int, int, int]
    sentence: str


# Only those that an issue of TimescaleDB's names, and that reach what the store does.
WRONG_RESULTS = (
    WrongResults(
        (2, 28, 0),
        (2, 28, 2),
        "a refresh of candles can leave out the slice before the end of what was made so far (timescaledb#10221), and so can two refreshes "
        "at the same time (timescaledb#10219)",
    ),
)

_FACTS = """
SELECT
    current_setting('server_version_num')::int / 10000,
    (SELECT default_version FROM pg_available_extensions WHERE name = 'timescaledb'),
    (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'),
    EXISTS (SELECT 1 FROM pg_settings WHERE name = 'timescaledb.disable_load'),
    current_setting('timescaledb.license', true),
    (SELECT default_version FROM pg_available_extensions WHERE name = 'vector'),
    (SELECT extversion FROM pg_extension WHERE extname = 'vector'),
    -- A hypertable looks like a plain table.
    (SELECT CASE relkind WHEN 'p' THEN 'postgres' ELSE 'timescale' END FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
     WHERE nspname = 'market_data' AND relname = 'btc_ticks'),
    current_setting('server_encoding')
"""


@dataclass(frozen=True)
class ServerFacts:
    """What a server and one of its databases report about themselves.

    Attributes:
        place: host, port and database, for messages.
        postgres: major version.
        timescale_available: version that the server could install; None if it has no such package.
        timescale_installed: version of the extension in this database.
        timescale_loaded: whether the server preloads it.
        license: `timescale` (Community) or `apache`; known only in a database that has the extension.
        vector_available: version of pgvector that the server could install.
        vector_installed: version of pgvector in this database.
        ticks: engine for which the tables of this database were created.
        encoding: of text in this database.
    """

    place: str
    postgres: int
    timescale_available: str | None = None
    timescale_installed: str | None = None
    timescale_loaded: bool = False
    license: str | None = None
    vector_available: str | None = None
    vector_installed: str | None = None
    ticks: Engine | None = None
    encoding: str = "UTF8"

    @property
    def engine(self) -> Engine:
        """The engine to use.

        Raises:
            UserError: PostgreSQL is too old, or the server has a TimescaleDB that cannot be used.
        """
        if self.postgres < OLDEST_POSTGRES:
            raise UserError(f"The server at {self.place} is PostgreSQL {self.postgres}: move to {OLDEST_POSTGRES} or later.")
        version = self.timescale_installed or self.timescale_available
        if self.ticks == "postgres" or version is None:
            return "postgres"
        self._require_timescale(version)
        return "timescale"

    def _require_timescale(self, version: str) -> None:
        if not self.timescale_loaded:
            raise UserError(
                f"The server at {self.place} has TimescaleDB but does not load it: add timescaledb to shared_preload_libraries in "
                "postgresql.conf and restart it (or remove the package, to run on plain PostgreSQL)."
            )
        number = _numbers(version)
        if self.postgres == 15 and number >= FIRST_TIMESCALE_WITHOUT_POSTGRES_15:
            raise UserError(
                f"TimescaleDB {version} at {self.place} no longer supports PostgreSQL 15: install TimescaleDB 2.28, "
                "or move to PostgreSQL 16, 17 or 18."
            )
        if number < OLDEST_TIMESCALE:
            newer = self.timescale_available and _numbers(self.timescale_available) >= OLDEST_TIMESCALE
            remedy = "run ALTER EXTENSION timescaledb UPDATE in a new session" if newer else "install a newer one there"
            raise UserError(f"TimescaleDB {version} at {self.place} is older than {OLDEST_TIMESCALE[0]}.{OLDEST_TIMESCALE[1]}: {remedy}.")
        if self.license not in (None, "timescale"):
            raise UserError(
                f"TimescaleDB at {self.place} is the Apache edition, which has no continuous aggregates, compression or policies: install "
                "the Community edition (package timescaledb-2-postgresql-…, and timescaledb.license = 'timescale' in postgresql.conf)."
            )

    @property
    def wrong_results(self) -> str | None:
        """A sentence if the TimescaleDB in use is known to give wrong results."""
        version = self.timescale_installed or self.timescale_available
        if self.engine == "postgres" or version is None:
            return None
        number = tuple(int(part) for part in version.split("-")[0].split("."))
        for wrong in WRONG_RESULTS:
            if wrong.first <= number <= wrong.last:
                return (
                    f"TimescaleDB {version} at {self.place} gives wrong results: {wrong.sentence}. Install a later version, run ALTER EXTENSION "
                    "timescaledb UPDATE in a new session, and make the candles again (btc-assets candles)."
                )
        return None

    def require_vector(self) -> None:
        """Require pgvector.

        Raises:
            UserError: the server has no pgvector, or one without iterative index scans.
        """
        if not (self.vector_available or self.vector_installed):
            raise UserError(
                f"The server at {self.place} has no pgvector: install it there (Debian and Ubuntu: "
                f"apt-get install postgresql-{self.postgres}-pgvector) and run btc-assets db migrate again."
            )
        version = self.vector_installed or self.vector_available
        assert version is not None
        if _numbers(version) < OLDEST_VECTOR:
            newer = self.vector_available and _numbers(self.vector_available) >= OLDEST_VECTOR
            remedy = "run ALTER EXTENSION vector UPDATE there" if newer else "install a newer one there"
            raise UserError(f"pgvector {version} at {self.place} is older than {OLDEST_VECTOR[0]}.{OLDEST_VECTOR[1]}: {remedy}.")

    def require_encoding(self) -> None:
        """Require that text may hold any character.

        Raises:
            UserError: it may not, so that names of objects and reasons of rejected rows could not be written.
        """
        if self.encoding != "UTF8":
            raise UserError(
                f"The database at {self.place} is in {self.encoding}, which cannot hold every character: create one in UTF-8 "
                "(createdb --encoding=UTF8 --locale=C.UTF-8 --template=template0) and name that."
            )


def read_facts(connection: psycopg.Connection) -> ServerFacts:
    """Read the facts from the server; changes nothing."""
    with server_errors():
        row = connection.execute(_FACTS).fetchone()
    assert row is not None
    return ServerFacts(location(connection.info.dsn), *row)


def engine(connection: psycopg.Connection) -> Engine:
    """The engine of the database to which `connection` leads.

    Raises:
        UserError: as `ServerFacts.engine`.
    """
    return read_facts(connection).engine


def _numbers(version: str) -> tuple[int, ...]:
    """The first two numbers of a version such as `2.28.3` or `2.30.0-dev`, to compare."""
    return tuple(int(part) for part in version.split("-")[0].split(".")[:2])
