"""Connections to the store's PostgreSQL: the embedded server or the user's own, and what can go wrong on it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from btc_assets.domain.errors import TransientError, UserError
from btc_assets.domain.settings import Settings, settings

log = logging.getLogger(__name__)

TICKS_DROPPED = "BTC01"  # SQLSTATE that market_data.refresh_candles raises
FOR_PEOPLE = "BTC02"  # SQLSTATE of functions whose message is a sentence for a person

_HERE = Path(__file__).parents[1]
# Beside the package in a checkout and an editable install, inside it in a wheel.
SQL_DIR = _HERE / "sql" if (_HERE / "sql").is_dir() else _HERE.parent / "sql"


def dsn(config: Settings | None = None, *, owner: bool = False) -> str:
    """The store's connection string; starts the embedded server where no `BTC_ASSETS_DSN` is set.

    It may hold a password: never log it, `where(dsn)` is for people.

    Args:
        owner: that of the role which owns the tables, where `BTC_ASSETS_OWNER_DSN` names another than the one that writes rows.
    """
    config = config or settings()
    if owner and config.owner_dsn:
        return config.owner_dsn.get_secret_value()
    if config.dsn:
        return config.dsn.get_secret_value()
    from btc_assets.store.embedded import embedded_dsn

    return embedded_dsn(config.home, config.database)


def where(conninfo: str) -> str:
    """Host, port and database of a connection string, without user or password."""
    parts = conninfo_to_dict(conninfo)
    return f"{parts.get('host') or 'localhost'}:{parts.get('port') or 5432}/{parts.get('dbname') or ''}"


def connect(conninfo: str | None = None, *, owner: bool = False, autocommit: bool = False, name: str = "btc_assets") -> psycopg.Connection:
    """Open a connection, in UTC, to `conninfo` or the store of this process's settings, there as its owner where asked to.

    Raises:
        UserError: the server does not answer or refuses.
    """
    conninfo = conninfo or dsn(owner=owner)
    try:
        return psycopg.connect(
            make_conninfo(conninfo, application_name=name, options="-c timezone=UTC", connect_timeout="10"),
            autocommit=autocommit,
        )
    except psycopg.OperationalError as error:
        raise _refusal(conninfo, error) from None


_REFUSED = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry|role \".*\" does not exist|not permitted to log in|permission denied"
)


def _refusal(conninfo: str, error: psycopg.OperationalError) -> UserError:
    place, text = where(conninfo), str(error)
    if _REFUSED.search(text):
        return UserError(f"PostgreSQL at {place} refused the user or password: correct them in BTC_ASSETS_DSN.")
    if 'database "' in text and "does not exist" in text:
        return UserError(f"PostgreSQL at {place} has no such database: create it with createdb, or correct BTC_ASSETS_DSN.")
    return TransientError(f"PostgreSQL at {place} cannot be reached: start it, or correct BTC_ASSETS_DSN.")


@contextmanager
def server_errors() -> Iterator[None]:
    """Turn what a person can mend on the server into one sentence; anything else passes through as it is."""
    try:
        yield
    except psycopg.Error as error:
        if isinstance(error, _GONE) or (isinstance(error, psycopg.OperationalError) and error.sqlstate is None):
            raise TransientError(f"The database server ended the connection ({_primary(error)}): run it again once it is up.") from error
        sentence = _sentence(error)
        if sentence is None:
            raise
        raise UserError(sentence) from error


_GONE = psycopg.errors.AdminShutdown, psycopg.errors.CrashShutdown, psycopg.errors.CannotConnectNow


def _primary(error: psycopg.Error) -> str:
    return error.diag.message_primary or str(error).splitlines()[0]


def _sentence(error: psycopg.Error) -> str | None:
    """What to tell a person, or None where it is not for one."""
    primary = _primary(error)
    match error:
        case psycopg.errors.DiskFull():
            return f"The database server's disk is full ({primary}): free space there and run it again."
        case psycopg.errors.InsufficientPrivilege():
            return f"The database user lacks a right ({primary}): have the owner run btc-assets db grant, or name the owner in BTC_ASSETS_OWNER_DSN."
        case psycopg.errors.UndefinedTable() | psycopg.errors.InvalidSchemaName() | psycopg.errors.UndefinedFunction():
            return f"The database is not set up ({primary}): run btc-assets db migrate."
    if error.sqlstate == FOR_PEOPLE:
        return primary
    if error.sqlstate == TICKS_DROPPED:
        return f"Candles cannot be made again there: {primary}. Leave that range out, or load its ticks again first (btc-assets load)."
    return None


def identifier(table: str) -> sql.Identifier:
    """`schema.table` as a quoted SQL identifier."""
    return sql.Identifier(*table.split(".", 1))
