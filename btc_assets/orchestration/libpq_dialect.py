"""SQLAlchemy over a connection string of libpq's, opened as the store opens its own sessions.

SQLAlchemy's own URLs know neither services nor `key=value`, and would send our settings as startup options, which poolers drop. Here the
whole connection string is the password of the URL, because that is what SQLAlchemy never shows.
"""

from __future__ import annotations

import os
import select
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event, exc
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2

from btc_assets.domain.errors import TransientError
from btc_assets.store.database import location
from btc_assets.store.refusals import refusal
from btc_assets.store.sessions import opening_statement

_NAME = "btc_assets"
_RENEWED_SECONDS = 60  # an older connection is opened anew before it is used: firewalls forget those that are silent for minutes


def libpq_url(conninfo: str, search_path: str) -> str:
    """URL for SQLAlchemy of sessions in a schema.

    Args:
        conninfo: connection string for libpq.
        search_path: of every session.
    """
    url = URL.create(f"postgresql+{_NAME}", username="libpq", password=conninfo, query={"search_path": search_path})
    return url.render_as_string(hide_password=False)


def one_connection(url: str) -> Engine:
    """An engine that keeps one connection open between its uses; a second one at the same time is closed again.

    Dagster opens one for every event and every query, 350 in a run of all assets, each a process of the server's.
    """
    engine = create_engine(
        url, isolation_level="AUTOCOMMIT", pool_size=1, max_overflow=-1, pool_pre_ping=True, pool_recycle=_RENEWED_SECONDS
    )

    @event.listens_for(engine, "connect")
    def remember_process(_: Any, record: Any) -> None:
        record.info["process"] = os.getpid()

    @event.listens_for(engine, "checkout")
    def refuse_inherited(_: Any, record: Any, proxy: Any) -> None:
        if record.info["process"] != os.getpid():  # a fork: the connection is its parent's
            record.dbapi_connection = proxy.dbapi_connection = None
            raise exc.DisconnectionError("opened by another process")

    return engine


class LibpqDialect(PGDialect_psycopg2):
    """`psycopg2`, whose connections are opened by the connection string in the URL's password."""

    driver = _NAME
    supports_statement_cache = True

    def __init__(self, **options: Any) -> None:
        # Dagster has no hstore, and looking for one is a round trip a connection.
        super().__init__(**options, use_native_hstore=False)  # type: ignore[no-untyped-call]  # SQLAlchemy does not type it

    def create_connect_args(self, url: URL) -> Any:
        """The connection string and the search path."""
        return [url.password], {"search_path": url.query["search_path"]}

    def connect(self, conninfo: str, *, search_path: str, **others: Any) -> Any:
        """Open a session.

        Raises:
            UserError: the server refuses it. (What may pass is psycopg2's own error: Dagster tries again then.)
        """
        try:
            connection: Any = super().connect(conninfo, **others)
            try:
                if connection.encoding != "UTF8":
                    connection.set_client_encoding("UTF8")
                connection.autocommit = True
                with connection.cursor() as cursor:
                    # A commit that is lost with a server that crashes is that of events, the newest ones first, and of no data.
                    cursor.execute(opening_statement(conninfo, search_path=search_path, synchronous_commit="off"))
                connection.autocommit = False
            except BaseException:
                connection.close()
                raise
        except self.loaded_dbapi.Error as error:
            refused = refusal(conninfo, location(conninfo), str(error), "BTC_ASSETS_DAGSTER_DSN")
            if isinstance(refused, TransientError):
                raise
            raise refused from None
        return connection

    def do_ping(self, dbapi_connection: Any) -> bool:
        """Whether a connection is still open: the server has said nothing since, not even that it ends; else ask it."""
        silent = not select.select([dbapi_connection], [], [], 0)[0]
        return silent or bool(super().do_ping(dbapi_connection))  # type: ignore[no-untyped-call]  # SQLAlchemy does not type it


registry.register(f"postgresql.{_NAME}", __name__, LibpqDialect.__name__)
