"""Dagster's own storage, in the store's PostgreSQL.

`dagster.yaml` names this class instead of an address: every process (webserver, daemon, worker, CLI) then finds the
database as the store itself does, the embedded server is up before Dagster needs it, and no password is written to a
file or handed to a child process in its arguments.
"""

from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import psycopg
from dagster._serdes import ConfigurableClass, ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from psycopg import sql

from btc_assets.database import connect, dsn
from btc_assets.settings import settings

SCHEMA = "dagster"  # its tables stay out of the rooms; dropping it loses the history of runs, and no data


def storage_dsn() -> str:
    """`BTC_ASSETS_DAGSTER_DSN`, or the store's."""
    own = settings().dagster_dsn
    return own.get_secret_value() if own else dsn()


def sqlalchemy_url(conninfo: str) -> str:
    """A PostgreSQL URL as SQLAlchemy wants it, with Dagster's schema in front."""
    parts = urlsplit(conninfo)
    query = urlencode([*parse_qsl(parts.query), ("options", f"-csearch_path={SCHEMA}")], quote_via=quote)
    # SQLAlchemy 2.1 takes psycopg 3 for plain `postgresql`, which dagster-postgres does not speak.
    return urlunsplit(("postgresql+psycopg2", parts.netloc, parts.path, query, ""))


class StoreStorage(DagsterPostgresStorage, ConfigurableClass):
    """`dagster-postgres`, with the address from the settings."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: object) -> "StoreStorage":
        conninfo = storage_dsn()
        with connect(conninfo, autocommit=True) as connection:
            exists = connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (SCHEMA,)).fetchone()
            if not exists:
                with suppress(psycopg.errors.UniqueViolation):  # another process was faster
                    connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(SCHEMA)))
        return cls(postgres_url=sqlalchemy_url(conninfo), inst_data=inst_data)
