"""What landed, and what is loaded, missing and rejected, by day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import groupby
from operator import attrgetter

import psycopg

from btc_assets.domain.slices import DAY, SLICE, Window
from btc_assets.landing.states import SliceState, Status
from btc_assets.store.errors import server_errors

# An object that covers several slices is one object of the day.
_DAYS = """
WITH objects AS (
    SELECT day, asset, count(*) AS objects, coalesce(sum(size_bytes), 0)::bigint AS size_bytes
    FROM (
        SELECT (bucket_5m AT TIME ZONE 'UTC')::date AS day, asset, uri, max(size_bytes) FILTER (WHERE status = %(registered)s) AS size_bytes
        FROM landing.raw_blobs_5m
        WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s AND status IN (%(registered)s, %(noticed)s)
        GROUP BY 1, 2, 3
    ) AS object
    GROUP BY 1, 2
), days AS (
    SELECT (bucket_5m AT TIME ZONE 'UTC')::date AS day, asset, sum(row_count)::bigint AS row_count, sum(loaded_rows)::bigint AS loaded_rows,
           count(*) FILTER (WHERE objects + noticed_objects > 0) AS slices,
           count(*) FILTER (WHERE state = %(loaded)s OR state = %(rejected)s AND loaded_at IS NOT NULL) AS loaded,
           count(*) FILTER (WHERE state IN (%(pending)s, %(stale)s)) AS waiting,
           count(*) FILTER (WHERE state IN (%(source_gone)s, %(lost)s)) AS gone,
           sum(rejected_objects)::bigint AS rejected_objects, min(bucket_5m) AS first, max(bucket_5m) AS last
    FROM landing.slices
    WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s
    GROUP BY 1, 2
)
SELECT day, asset, coalesce(objects, 0), coalesce(size_bytes, 0), row_count, loaded_rows, slices, loaded, waiting, gone, rejected_objects,
       first, last
FROM days LEFT JOIN objects USING (day, asset) ORDER BY 1, 2
"""

_STATES: dict[str, object] = {
    **{state.name.lower(): state.value for state in SliceState},
    **{status.value: status.value for status in (Status.REGISTERED, Status.NOTICED)},
}

_REJECTED_ROWS = """
SELECT (bucket_5m AT TIME ZONE 'UTC')::date, sum(row_count)::bigint FROM landing.rejected_rows
WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s GROUP BY 1
"""


@dataclass(frozen=True)
class DayStatus:
    """One day of one symbol.

    Attributes:
        day, symbol: the UTC day and the label of the feed.
        objects, bytes: number and size of its objects, each counted once; one that reaches over midnight is an object of both days.
        landed_rows, loaded_rows: rows in the objects, and in the table.
        slices: slices with objects.
        loaded: slices that are loaded.
        waiting: slices with something to load.
        gone: slices that cannot be loaded again, because an object is gone.
        missing: slices without any object between the first and the last slice of the window that has one.
        rejected_objects, rejected_rows: objects that cannot be read, and rows that are not valid.
    """

    day: date
    symbol: str
    objects: int
    bytes: int
    landed_rows: int
    loaded_rows: int
    slices: int
    loaded: int
    waiting: int
    gone: int
    missing: int
    rejected_objects: int
    rejected_rows: int

    def problems(self) -> list[str]:
        """What a person should look into, in words."""
        counts = {
            "waiting": self.waiting, "missing": self.missing, "with a source gone": self.gone,
            "objects rejected": self.rejected_objects, "rows rejected": self.rejected_rows,
        }  # fmt: skip
        return [f"{count:,} {what}" for what, count in counts.items() if count]


def sum_symbols(days: Sequence[DayStatus]) -> list[DayStatus]:
    """One line for each day, with the sums of its symbols."""
    summed = []
    for day, each in groupby(days, attrgetter("day")):
        of_day = list(each)
        counts = {name: sum(getattr(one, name) for one in of_day) for name in _SUMMED}
        rejected_rows = max(one.rejected_rows for one in of_day)  # those of the day, whatever the symbol
        summed.append(DayStatus(day=day, symbol=f"{len(of_day)} symbols", **counts, rejected_rows=rejected_rows))
    return summed


_SUMMED = ("objects", "bytes", "landed_rows", "loaded_rows", "slices", "loaded", "waiting", "gone", "missing", "rejected_objects")


def read_daily_status(connection: psycopg.Connection, window: Window) -> list[DayStatus]:
    """The days of a window on which something landed, by symbol."""
    with server_errors(), connection.transaction():
        rows = connection.execute(_DAYS, _STATES | {"start": window.start, "end": window.end}).fetchall()
        rejected: dict[date, int] = dict(connection.execute(_REJECTED_ROWS, {"start": window.start, "end": window.end}).fetchall())
    first = {row[1]: row[11] for row in reversed(rows)}  # the days come in order
    last = {row[1]: row[12] for row in rows}
    statuses = []
    for day, symbol, objects, size, landed, loaded_rows, slices, loaded, waiting, gone, rejected_objects, *_ in rows:
        midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
        expected = (min(midnight + DAY, last[symbol] + SLICE) - max(midnight, first[symbol])) // SLICE
        statuses.append(
            DayStatus(
                day, symbol, objects, size, landed, loaded_rows, slices, loaded, waiting, gone, expected - slices,
                rejected_objects, rejected.get(day, 0),
            )
        )  # fmt: skip
    return statuses
