"""The views, functions and procedures of a store, as the server has them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import psycopg

from btc_assets.store.tables import ROOMS

_ROUTINES = """
SELECT format('%%s.%%s', nspname, proname), pg_get_functiondef(pg_proc.oid), proacl::text,
       ARRAY[obj_description(pg_proc.oid, 'pg_proc')]
FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace WHERE nspname = ANY (%s) ORDER BY 1
"""

_VIEWS = """
SELECT format('%%s.%%s', nspname, relname), pg_get_viewdef(pg_class.oid), relacl::text,
       obj_description(pg_class.oid, 'pg_class') || ARRAY(
           SELECT format('%%s: %%s', attname, col_description(attrelid, attnum)) FROM pg_attribute
           WHERE attrelid = pg_class.oid AND attnum > 0 ORDER BY attnum
       )
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE nspname = ANY (%s) AND relkind = 'v' ORDER BY 1
"""


@dataclass(frozen=True)
class Definition:
    """A view, function or procedure.

    Attributes:
        text: as the server prints it; of a routine, with SECURITY DEFINER and its settings.
        grants: its access control list; None if nothing was granted or revoked.
        comments: its own, then those of its columns.
    """

    text: str
    grants: str | None
    comments: list[str | None]

    def without_grants(self) -> Definition:
        return replace(self, grants=None)


def read_definitions(connection: psycopg.Connection) -> dict[str, Definition]:
    """All of the store's, by name."""
    return {name: Definition(*row) for query in (_ROUTINES, _VIEWS) for name, *row in connection.execute(query, (list(ROOMS),)).fetchall()}
