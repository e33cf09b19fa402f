"""Advisory locks, which decide who may write which slices of a table at the same time.

A transaction takes the lock of the table first, then the locks of its slices in ascending order, and keeps them until it ends.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

import psycopg

from btc_assets.domain.slices import Window, slice_number

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
