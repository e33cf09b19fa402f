"""How to connect to the store's PostgreSQL, and as whom."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import pq, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from btc_assets.domain.dsn import find_fault
from btc_assets.domain.errors import UserError
from btc_assets.domain.settings import Settings
from btc_assets.store.embedded import embedded_dsn
from btc_assets.store.refusals import refusal
from btc_assets.store.sessions import opening_statement, require_own_session

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
        read_only: the server refuses what its sessions would write.
    """

    def __init__(
        self,
        dsn: str | Callable[[], str],
        owner_dsn: str | None = None,
        *,
        application_name: str = APPLICATION_NAME,
        read_only: bool = False,
    ) -> None:
        self._dsn, self._owner_dsn, self._application_name = dsn, owner_dsn, application_name
        self.read_only = read_only

    @classmethod
    def of(cls, settings: Settings, *, read_only: bool = False) -> Store:
        """The store that the settings name: a server, or the embedded one if `BTC_ASSETS_DSN` is not set."""
        owner = settings.owner_dsn.get_secret_value() if settings.owner_dsn else None
        if settings.dsn:
            return cls(settings.dsn.get_secret_value(), owner, read_only=read_only)
        return cls(lambda: embedded_dsn(settings.home, settings.database), owner, read_only=read_only)

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
        if owner and self._owner_dsn:
            return connect(
                self._owner_dsn, application_name=self._application_name, setting="BTC_ASSETS_OWNER_DSN", read_only=self.read_only
            )
        return connect(self.dsn, application_name=self._application_name, read_only=self.read_only)

    def __repr__(self) -> str:
        return f"Store({location(self._dsn) if isinstance(self._dsn, str) else 'embedded'})"


def connect(
    dsn: str, *, application_name: str = APPLICATION_NAME, setting: str = "BTC_ASSETS_DSN", read_only: bool = False
) -> psycopg.Connection:
    """Open a connection to any server in autocommit mode, as `sessions` makes all of ours; raises like `Store.connect`.

    Args:
        dsn: connection string.
        application_name: as in `Store`.
        setting: that holds the connection string, for messages.
        read_only: as in `Store`.
    """
    conninfo = prepare_conninfo(dsn, application_name, setting)
    try:
        connection = psycopg.connect(conninfo, autocommit=True)
        try:
            process, _ = only_row(
                connection.execute(opening_statement(conninfo, unless_pooled=connection.info.backend_pid, read_only=read_only))
            )
            if process != connection.info.backend_pid:
                require_own_session(connection, conninfo, location(dsn), process)
                connection.execute(opening_statement(conninfo, read_only=read_only))
        except BaseException:
            connection.close()
            raise
    except psycopg.Error as error:
        raise refusal(conninfo, location(dsn), str(error), setting) from None
    return connection


def prepare_conninfo(dsn: str, application_name: str = APPLICATION_NAME, setting: str = "BTC_ASSETS_DSN") -> str:
    """A connection string for libpq, with the name of the application, an encoding, and a limit on the time to connect.

    Raises:
        UserError: libpq does not understand it; the message repeats nothing of it.
    """
    if fault := find_fault(dsn):
        raise UserError(f"{setting} is wrong: {fault}.")
    try:
        seconds = conninfo_to_dict(dsn).get("connect_timeout") or os.environ.get("PGCONNECT_TIMEOUT") or _CONNECT_SECONDS
        return make_conninfo(dsn, application_name=application_name, client_encoding="UTF8", connect_timeout=seconds)
    except psycopg.Error:
        raise UserError(
            f"{setting} is wrong: PostgreSQL does not understand it; write postgresql://user@host:5432/database, or option='value' pairs "
            "with \\ before a quote."
        ) from None


def location(dsn: str) -> str:
    """Host, port and database of a connection string, without user and password."""
    unreadable = "an unreadable connection string"
    if find_fault(dsn):
        return unreadable
    try:
        parts = conninfo_to_dict(dsn)
    except psycopg.Error:
        return unreadable
    if "service" in parts and "host" not in parts:
        return f"service {parts['service']}"
    defaults = {option.keyword.decode(): option.val.decode() for option in pq.Conninfo.get_defaults() if option.val}
    host, port, name = (
        parts.get(key) or defaults.get(key) or other for key, other in (("host", "localhost"), ("port", 5432), ("dbname", ""))
    )
    return f"{host}:{port}/{name}"


def identifier(table: str) -> sql.Identifier:
    """`schema.table` as a quoted SQL identifier."""
    return sql.Identifier(*table.split(".", 1))


def only_row(cursor: psycopg.Cursor[Any]) -> tuple[Any, ...]:
    """The row of a query that always returns one."""
    row = cursor.fetchone()
    assert row is not None
    return row
