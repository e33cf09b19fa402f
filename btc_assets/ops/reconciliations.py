"""The record of reconciliations, in `ops.reconciliations`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg.types.json import Jsonb

from btc_assets.domain.slices import Window
from btc_assets.ops.differences import Differences
from btc_assets.store.errors import server_errors


@dataclass(frozen=True)
class Reconciliation:
    """A reconciliation that was recorded.

    Attributes:
        at: when it was made.
        start, end: the slices that it compared; `start` is None if it compared everything.
        problems: number of differences of each kind.
        sentences: one for each of the first differences.
        healed: how many differences it handed to the sensors.
    """

    at: datetime
    start: datetime | None
    end: datetime
    problems: dict[str, int]
    sentences: list[str]
    healed: int


def record_reconciliation(connection: psycopg.Connection, window: Window | None, now: datetime, found: Differences) -> None:
    """Record what was found in a window, or in everything."""
    with server_errors():
        connection.execute(
            "INSERT INTO ops.reconciliations (reconciled_at, range_start, range_end, problems, sentences, healed) "
            "VALUES (%s, %s, %s, %s, %s, %s)",
            (now, window and window.start, window.end if window else now, Jsonb(found.counts), found.sentences, found.healed),
        )


def read_last_reconciliations(connection: psycopg.Connection) -> list[Reconciliation]:
    """The newest reconciliation; before it, the newest one of everything, if that left differences that it could not heal."""
    with server_errors():
        rows = connection.execute(
            "SELECT DISTINCT ON (range_start IS NULL) reconciled_at, range_start, range_end, problems, sentences, healed "
            "FROM ops.reconciliations ORDER BY range_start IS NULL, reconciled_at DESC"
        ).fetchall()
    found = sorted((Reconciliation(*row) for row in rows), key=lambda each: each.at)
    return [each for each in found if each is found[-1] or (each.start is None and each.healed < sum(each.problems.values()))]
