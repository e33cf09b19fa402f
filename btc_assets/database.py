"""Connections to the store's PostgreSQL: the embedded server or the user's own, and what kind it is."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from btc_assets.errors import UserError
from btc_assets.settings import Settings, settings

log = logging.getLogger(__name__)

_HERE = Path(__file__).parent
# Beside the package in a checkout and an editable install, inside it in a wheel.
SQL_DIR = _HERE / "sql" if (_HERE / "sql").is_dir() else _HERE.parent / "sql"


def dsn(config: Settings | None = None) -> str:
    """The store's connection string; starts the embedded server where no `BTC_ASSETS_DSN` is set.

    It may hold a password: never log it, `where(dsn)` is for people.
    """
    config = config or settings()
    if config.dsn:
        return config.dsn.get_secret_value()
    from btc_assets.embedded import embedded_dsn

    return embedded_dsn(config.home, config.database)


def where(conninfo: str) -> str:
    """Host, port and database of a connection string, without user or password."""
    parts = conninfo_to_dict(conninfo)
    return f"{parts.get('host') or 'localhost'}:{parts.get('port') or 5432}/{parts.get('dbname') or ''}"


def connect(conninfo: str | None = None, *, autocommit: bool = False, name: str = "btc_assets") -> psycopg.Connection:
    """Open a connection, in UTC, to `conninfo` or the store of this process's settings.

    Raises:
        UserError: the server does not answer or refuses.
    """
    conninfo = conninfo or dsn()
    try:
        return psycopg.connect(
            make_conninfo(conninfo, application_name=name, options="-c timezone=UTC", connect_timeout="10"),
            autocommit=autocommit,
        )
    except psycopg.OperationalError as error:
        raise UserError(_refusal(conninfo, error)) from None


def _refusal(conninfo: str, error: psycopg.OperationalError) -> str:
    place, text = where(conninfo), str(error)
    if "password authentication failed" in text or "no password supplied" in text:
        return f"PostgreSQL at {place} refused the user or password: correct them in BTC_ASSETS_DSN."
    if 'database "' in text and "does not exist" in text:
        return f"PostgreSQL at {place} has no such database: create it with createdb, or correct BTC_ASSETS_DSN."
    return f"PostgreSQL at {place} cannot be reached: start it, or correct BTC_ASSETS_DSN."


@contextmanager
def server_errors() -> Iterator[None]:
    """Turn what a person can mend on the server into one sentence; anything else passes through as it is."""
    try:
        yield
    except psycopg.errors.DiskFull as error:
        raise UserError(f"The database server's disk is full ({_primary(error)}): free space there and run it again.") from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise UserError(f"The database user lacks a right ({_primary(error)}): grant it, or use the owner's DSN.") from error
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName, psycopg.errors.UndefinedFunction) as error:
        raise UserError(f"The database is not set up ({_primary(error)}): run btc-assets db migrate.") from error


def _primary(error: psycopg.Error) -> str:
    return error.diag.message_primary or str(error).splitlines()[0]


def engine(connection: psycopg.Connection) -> str:
    """`postgres`, found from the server; the folder of `sql/` whose files fit it."""
    row = connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'timescaledb'").fetchone()
    if row:
        raise UserError(
            f"The database {where(connection.info.dsn)} has the timescaledb extension, which this version does not drive yet: "
            "use a database without it."
        )
    return "postgres"


def identifier(table: str) -> sql.Identifier:
    """`schema.table` as a quoted SQL identifier."""
    return sql.Identifier(*table.split(".", 1))
