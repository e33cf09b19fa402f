"""How to connect to the store's PostgreSQL, and as whom."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from btc_assets.domain.errors import TransientError, UserError
from btc_assets.domain.settings import Settings
from btc_assets.store.embedded import embedded_dsn

APPLICATION_NAME = "btc_assets"
_CONNECT_SECONDS = 10


class Store:
    """A store: where its PostgreSQL is, which role writes rows, and which role owns the tables.

    The embedded server starts with the first connection. A store holds no connection, so threads may share it.

    Args:
        dsn: connection string of the role that writes rows, or a function that returns it. It may hold a password: never
            log it, `location(dsn)` is for people.
        owner_dsn: connection string of the role that owns the tables; by default, the same role.
        application_name: shown for its sessions in `pg_stat_activity`.
    """

    def __init__(self, dsn: str | Callable[[], str], owner_dsn: str | None = None, *, application_name: str = APPLICATION_NAME) -> None:
        self._dsn, self._owner_dsn, self._application_name = dsn, owner_dsn, application_name

    @classmethod
    def of(cls, settings: Settings) -> Store:
        """The store that the settings name: a server, or the embedded one if `BTC_ASSETS_DSN` is not set."""
        owner = settings.owner_dsn.get_secret_value() if settings.owner_dsn else None
        if settings.dsn:
            return cls(settings.dsn.get_secret_value(), owner)
        return cls(lambda: embedded_dsn(settings.home, settings.database), owner)

    @property
    def dsn(self) -> str:
        """Connection string of the role that writes rows."""
        return self._dsn if isinstance(self._dsn, str) else self._dsn()

    def connect(self, *, owner: bool = False) -> psycopg.Connection:
        """Open a connection in autocommit mode, with UTC as its time zone.

        Args:
            owner: connect as the role that owns the tables, which alone may refresh candles, build indexes and run policies.

        Raises:
            UserError: the server refuses the user or has no such database.
            TransientError: the server does not answer.
        """
        return connect(self._owner_dsn if owner and self._owner_dsn else self.dsn, application_name=self._application_name)

    def __repr__(self) -> str:
        return f"Store({location(self._dsn) if isinstance(self._dsn, str) else 'embedded'})"


def connect(dsn: str, *, application_name: str = APPLICATION_NAME) -> psycopg.Connection:
    """Open a connection to any server in autocommit mode, with UTC as its time zone; raises like `Store.connect`."""
    # Appended to the options of the connection string, so that a role or a schema that it sets stays set.
    options = f"{conninfo_to_dict(dsn).get('options') or ''} -c timezone=UTC".strip()
    try:
        return psycopg.connect(
            make_conninfo(dsn, application_name=application_name, options=options, connect_timeout=_CONNECT_SECONDS), autocommit=True
        )
    except psycopg.OperationalError as error:
        raise _refusal(dsn, error) from None


def location(dsn: str) -> str:
    """Host, port and database of a connection string, without user and password."""
    parts = conninfo_to_dict(dsn)
    return f"{parts.get('host') or 'localhost'}:{parts.get('port') or 5432}/{parts.get('dbname') or ''}"


_REFUSED = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry|role \".*\" does not exist|not permitted to log in|permission denied"
)


def _refusal(dsn: str, error: psycopg.OperationalError) -> UserError:
    place, text = location(dsn), str(error)
    if _REFUSED.search(text):
        return UserError(f"PostgreSQL at {place} refused the user or password: correct them in BTC_ASSETS_DSN.")
    if 'database "' in text and "does not exist" in text:
        return UserError(f"PostgreSQL at {place} has no such database: create it with createdb, or correct BTC_ASSETS_DSN.")
    return TransientError(f"PostgreSQL at {place} cannot be reached: start it, or correct BTC_ASSETS_DSN.")


def identifier(table: str) -> sql.Identifier:
    """`schema.table` as a quoted SQL identifier."""
    return sql.Identifier(*table.split(".", 1))


def only_row(cursor: psycopg.Cursor[Any]) -> tuple[Any, ...]:
    """The row of a query that always returns one."""
    row = cursor.fetchone()
    assert row is not None
    return row
