"""Advisory locks, which decide who may write which slices of a table at the same time.

A transaction takes the lock of the table first, then the locks of its slices in ascending order, and keeps them until it ends.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

import psycopg

from btc_assets.domain.slices import Window, slice_number

LOCK_WAIT = "10s"  # of what locks whole tables: whoever reads or writes them queues behind it
MAX_LOCKED_SLICES = 288  # one lock per slice: a day fits the lock table of a server with default settings


def lock_table(cursor: psycopg.Cursor, table: str, *, exclusive: bool) -> None:
    """Lock a table before anything in it is touched.

    Loaders share the lock. Whatever decompresses, compresses or drops chunks needs it exclusively: it locks whole chunks, and
    two transactions that had read the same chunk before would deadlock.
    """
    cursor.execute(
        "SELECT pg_advisory_xact_lock(hashtext(%s))" if exclusive else "SELECT pg_advisory_xact_lock_shared(hashtext(%s))",
        (table,),
    )


def lock_slices(cursor: psycopg.Cursor, table: str, window: Window, others: Collection[datetime] = ()) -> None:
    """Lock each slice of a window of a table, and other slices, in ascending order, so that no two transactions deadlock."""
    first, last = slice_number(window.start), slice_number(window.end) - 1
    if not others:
        cursor.execute(
            "SELECT count(pg_advisory_xact_lock(hashtext(%s), number)) FROM generate_series(%s::int, %s::int) AS number",
            (table, first, last),
        )
        return
    cursor.execute(
        "SELECT count(pg_advisory_xact_lock(hashtext(%s), number)) "
        "FROM (SELECT number FROM unnest(%s::int[]) AS number ORDER BY number) AS ascending",
        (table, sorted({*range(first, last + 1), *map(slice_number, others)})),
    )


def bound_lock_waits(connection: psycopg.Connection) -> None:
    """Let the transaction give up (LockNotAvailable) instead of waiting long for a table that somebody keeps in use."""
    connection.execute("SELECT set_config('lock_timeout', %s, true)", (LOCK_WAIT,))


# Read only once the wait is over, because then the transaction that waited is gone. Without functions of ours: they may not exist yet.
_USERS_OF_TABLES = """
SELECT pid, coalesce(usename, '?'), coalesce(nullif(application_name, ''), '?'), to_char(xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')
FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND pid IN (
    SELECT pid FROM pg_locks JOIN pg_class ON pg_class.oid = relation
    WHERE granted AND locktype = 'relation' AND relnamespace::regnamespace::text = ANY (%s)
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
)
ORDER BY xact_start LIMIT 1
"""


def describe_users_of_tables(connection: psycopg.Connection, schemas: Collection[str]) -> str:
    """The session that has used tables of some schemas for longest, in words."""
    for pid, user, application, since in connection.execute(_USERS_OF_TABLES, (list(schemas),)).fetchall():
        return f"session {pid} (user {user}, application {application}, in a transaction since {since or 'an unknown time'} UTC)"
    return "a session that has ended"
