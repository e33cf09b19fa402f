"""Which days can be trusted: one line for each day and symbol, from what landed, what is loaded, and the trade ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from operator import itemgetter

import psycopg

from btc_assets.domain.slices import SLICE, Window
from btc_assets.market_data.continuity import Span, Spans, read_gaps, read_spans
from btc_assets.market_data.symbols import read_reach
from btc_assets.ops.status import DayStatus, read_daily_status
from btc_assets.store.errors import server_errors

# One lookup in the primary key for each day and symbol, within the partition of the day.
_DROPPED = """
SELECT day, symbol FROM unnest(%(days)s::timestamptz[], %(symbols)s::text[]) AS asked (day, symbol)
LEFT JOIN LATERAL (
    SELECT true AS there FROM market_data.btc_ticks AS tick
    WHERE tick.bucket_5m >= day AND tick.bucket_5m < day + interval '1 day' AND tick.symbol = asked.symbol LIMIT 1
) AS stored ON true
WHERE there IS NULL
"""


class DayState(StrEnum):
    """How far a day can be trusted; the first one that holds, in this order."""

    NOTHING = "nothing"  # nothing of the day landed
    REJECTED = "rejected"  # an object or a row was unreadable
    PENDING = "pending"  # something that landed is not loaded
    GAPS = "gaps"  # trades are missing by their ids, or slices where the exchange itself skips ids
    PARTIAL = "partial"  # the symbol begins or ends within the day
    DROPPED = "dropped"  # it was complete, and only candles and features are left
    COMPLETE = "complete"


@dataclass(frozen=True)
class DayCoverage:
    """One day of one symbol, as far as it lies in the window and is over.

    Attributes:
        day, symbol: the UTC day and the label.
        state: how far it can be trusted.
        slices: how many it has.
        loaded: slices that are loaded; one without trades may have none.
        pending: slices with something to load.
        missing: slices without any object, as far as the symbol reaches.
        gaps, missing_trades: places where trade ids are missing, and how many; None of `unjudged` symbols.
        rejected_objects, rejected_rows: what was unreadable.
        dropped: the ticks are gone; candles and features stay.
        ticks: rows that were loaded.
    """

    day: date
    symbol: str
    state: DayState
    slices: int
    loaded: int
    pending: int
    missing: int
    gaps: int | None
    missing_trades: int | None
    rejected_objects: int
    rejected_rows: int
    dropped: bool
    ticks: int


def read_coverage(
    connection: psycopg.Connection, window: Window, *, now: datetime, unjudged: Collection[str] = (), symbols: Collection[str] = ()
) -> Iterator[DayCoverage]:
    """Each day of a window by day and symbol, up to the last slice that is over.

    Args:
        connection: to the store, in autocommit mode.
        window: the slices; of a month at most, for what is read of each slice is held in memory.
        now: the present less what loading takes.
        unjudged: labels whose ids do not tell what is missing.
        symbols: some of them; all of the store if empty.
    """
    past = window.until(now)
    known = {symbol: reach for symbol, reach in read_reach(connection).items() if not symbols or symbol in symbols}
    if past is None or not known:
        return
    statuses = {(status.day, status.symbol): status for status in read_daily_status(connection, past)}
    spans = read_spans(connection, past)
    dropped = _read_dropped(connection, statuses)
    gaps, trades = Counter[tuple[date, str]](), Counter[tuple[date, str]]()
    for symbol, after, missing in [
        *((gap.symbol, gap.after, gap.missing) for gap in read_gaps(connection, past, unjudged, spans)),
        *(one for one in _recorded_gaps(spans) if (one[1].date(), one[0]) in dropped),
    ]:
        gaps[after.date(), symbol] += 1
        trades[after.date(), symbol] += missing
    for day in past.days():
        for symbol, reach in known.items():
            key = day.start.date(), symbol
            judged = symbol not in unjudged
            yield _cover(day, symbol, statuses.get(key), reach, (gaps[key], trades[key]) if judged else None, dropped=key in dropped)


def _recorded_gaps(spans: Spans) -> Iterator[tuple[str, datetime, int]]:
    """Symbol, slice and number of missing ids of gaps within and before slices, as far as what was recorded of them tells.

    Of trades that are reported late, ids lie between those of the next slice: slices whose ids overlap are counted together.
    """
    for symbol, own in spans.items():
        groups: list[Span] = []
        for bucket, low, high, ticks in sorted(own, key=itemgetter(1)):
            if groups and low <= groups[-1][2]:
                _, first, last, count = groups[-1]
                groups[-1] = bucket, first, max(last, high), count + ticks
            else:
                groups.append((bucket, low, high, ticks))
        newest: int | None = None
        for bucket, low, high, ticks in groups:
            if newest is not None and low > newest + 1:
                yield symbol, bucket, low - newest - 1
            if high - low + 1 > ticks:
                yield symbol, bucket, high - low + 1 - ticks
            newest = high


def _read_dropped(connection: psycopg.Connection, statuses: Mapping[tuple[date, str], DayStatus]) -> set[tuple[date, str]]:
    """Days of which ticks were loaded, and none is there."""
    asked = [key for key, status in statuses.items() if status.loaded_rows]
    days = [datetime(day.year, day.month, day.day, tzinfo=UTC) for day, _ in asked]
    with server_errors(), connection.transaction():
        rows = connection.execute(_DROPPED, {"days": days, "symbols": [symbol for _, symbol in asked]}).fetchall()
    return {(day.date(), symbol) for day, symbol in rows}


def _cover(
    day: Window, symbol: str, status: DayStatus | None, reach: tuple[datetime, datetime], gaps: tuple[int, int] | None, *, dropped: bool
) -> DayCoverage:
    """One line, from what was read of the day; `gaps` is None where the ids say nothing."""
    inside = max(min(day.end, reach[1]) - max(day.start, reach[0]), timedelta(0)) // SLICE
    missing = max(inside - (status.slices if status else 0), 0)
    state = _state(status, gaps, partial=inside < len(day), missing=missing, dropped=dropped)
    return DayCoverage(
        day.start.date(), symbol, state, len(day), status.loaded if status else 0, status.waiting if status else 0, missing,
        gaps[0] if gaps else None, gaps[1] if gaps else None, status.rejected_objects if status else 0,
        status.rejected_rows if status else 0, dropped, status.loaded_rows if status else 0,
    )  # fmt: skip


def _state(status: DayStatus | None, gaps: tuple[int, int] | None, *, partial: bool, missing: int, dropped: bool) -> DayState:
    if status is None:
        return DayState.NOTHING
    if status.rejected_objects or status.rejected_rows:
        return DayState.REJECTED
    if status.waiting:
        return DayState.PENDING
    # Where ids follow each other over a slice without objects, nobody traded in it.
    if gaps[0] if gaps is not None else missing:
        return DayState.GAPS
    if partial:
        return DayState.PARTIAL
    return DayState.DROPPED if dropped else DayState.COMPLETE
