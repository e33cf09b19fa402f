"""Roles of a test's own: the server is shared, so each has a name of its own and is dropped."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo


@contextmanager
def role_of_a_test(dsn: str, options: str = "LOGIN") -> Iterator[tuple[str, str]]:
    """A role and its connection string; it is dropped with what it owns in this database.

    Args:
        dsn: of the database, as a superuser.
        options: of CREATE ROLE.
    """
    name = f"btc_assets_test_{uuid.uuid4().hex[:12]}"
    role = sql.Identifier(name)
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE ROLE {} {}").format(role, sql.SQL(options)))
        try:
            yield name, make_conninfo(dsn, user=name)
        finally:
            admin.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(role))
            admin.execute(sql.SQL("DROP ROLE {}").format(role))
