"""Continuity: the trade ids of most feeds increase by one, so that a larger step is lost data.

All ids count, also those of trades that are no market trades and of rows that were left out because nothing was traded: they are ids of
the exchange's sequence. Where the exchange itself skips ids, as on its futures, no step says anything, and nothing is claimed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise

import psycopg

from btc_assets.domain.slices import KEY_FORMAT, Window
from btc_assets.landing.states import Status
from btc_assets.market_data.slice_records import read_unrecorded
from btc_assets.store.errors import server_errors


@dataclass(frozen=True)
class Gap:
    """Trade ids that are missing between two consecutive ticks; `after` is the slice of the second one."""

    symbol: str
    first_missing: int
    last_missing: int
    after: datetime

    @property
    def missing(self) -> int:
        return self.last_missing - self.first_missing + 1

    def __str__(self) -> str:
        return f"{self.symbol} {self.first_missing} to {self.last_missing} ({self.missing} trades) before {self.after:{KEY_FORMAT}}"


@dataclass(frozen=True)
class Repeat:
    """One trade id that occurs in several slices."""

    symbol: str
    trade_id: int
    buckets: tuple[datetime, ...]

    def __str__(self) -> str:
        return f"{self.symbol} {self.trade_id} in {', '.join(f'{bucket:{KEY_FORMAT}}' for bucket in self.buckets)}"


# The ids in each slice of a window, as they were loaded. Slices without a record are counted in the table.
_RECORDED_SPANS = """
SELECT symbol, bucket_5m, first_trade_id, last_trade_id, ticks FROM market_data.loaded_slices
WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s AND bucket_5m <> ALL(%(unrecorded)s)
"""

_COUNTED_SPANS = """
SELECT symbol, bucket_5m, min(trade_id), max(trade_id), count(*) FROM market_data.btc_ticks
WHERE bucket_5m >= %(first)s AND bucket_5m <= %(last)s AND bucket_5m = ANY(%(unrecorded)s) GROUP BY symbol, bucket_5m
"""

# The last id before the window, so that the step into it is checked too.
_SPANS_BEFORE = """
SELECT asset, before.bucket_5m, trade_id, trade_id, 1 FROM (
    SELECT asset, max(bucket_5m) AS bucket_5m FROM landing.raw_blobs_5m
    WHERE bucket_5m < %(start)s AND bucket_5m >= %(start)s - interval '1 day' AND loaded_rows > 0 GROUP BY asset
) AS before, LATERAL (
    SELECT trade_id FROM market_data.btc_ticks AS tick
    WHERE tick.bucket_5m = before.bucket_5m AND symbol = asset AND tick.bucket_5m < %(start)s AND tick.bucket_5m >= %(start)s - interval '1 day'
    ORDER BY trade_id DESC LIMIT 1
) AS newest
"""

_STEPS = """
SELECT trade_id - step + 1, trade_id - 1, bucket_5m FROM (
    SELECT trade_id, bucket_5m, trade_id - lag(trade_id) OVER (ORDER BY trade_id, bucket_5m) AS step
    FROM market_data.btc_ticks
    WHERE symbol = %s AND bucket_5m >= %s AND bucket_5m < %s AND trade_id >= %s AND trade_id <= %s
) AS stepped
WHERE step > 1 ORDER BY trade_id
"""

# Under the slices of the window, and of the time around it in which an object may lie that holds rows of it.
_LEFT_OUT = """
SELECT asset, jsonb_array_elements_text(metadata -> 'left_out_ids')::bigint FROM landing.raw_blobs_5m
WHERE bucket_5m >= %(start)s - interval '1 day' AND bucket_5m < %(end)s + interval '1 day' AND metadata ? 'left_out_ids'
  AND status = %(registered)s
"""

_REPEATS = """
SELECT trade_id, array_agg(bucket_5m ORDER BY bucket_5m) FROM market_data.btc_ticks
WHERE symbol = %s AND bucket_5m >= %s AND bucket_5m < %s
GROUP BY trade_id HAVING count(*) > 1 ORDER BY trade_id
"""


def read_gaps(connection: psycopg.Connection, window: Window, unjudged: Collection[str] = (), spans: Spans | None = None) -> list[Gap]:
    """All gaps in a window, inside and between its slices, and between the window and the ticks loaded before it.

    For most windows, the numbers of ids that the loads recorded prove that none is missing; the single steps of the table are compared
    only if they do not.

    Args:
        connection: to the store.
        window: the slices.
        unjudged: labels of the feeds in which the exchange itself skips ids.
        spans: of the window, if they were read.
    """
    found: list[Gap] = []
    for symbol, own in (read_spans(connection, window) if spans is None else spans).items():
        if symbol in unjudged:
            continue
        first, last = min(low for _, low, _, _ in own), max(high for _, _, high, _ in own)
        if sum(count for _, _, _, count in own) == last - first + 1 and not _overlap(own):
            continue
        with server_errors(), connection.transaction():
            rows = connection.execute(_STEPS, (symbol, own[0][0], window.end, first, last)).fetchall()
        found += [Gap(symbol, *row) for row in rows]
    return list(_without_left_out(connection, window, found)) if found else []


def _without_left_out(connection: psycopg.Connection, window: Window, gaps: Sequence[Gap]) -> Iterator[Gap]:
    """The gaps without the ids of rows in which nothing was traded."""
    with server_errors(), connection.transaction():
        left_out = connection.execute(_LEFT_OUT, {"start": window.start, "end": window.end, "registered": Status.REGISTERED}).fetchall()
    for gap in gaps:
        first = gap.first_missing
        for trade_id in sorted({number for symbol, number in left_out if symbol == gap.symbol and first <= number <= gap.last_missing}):
            if first < trade_id:
                yield replace(gap, first_missing=first, last_missing=trade_id - 1)
            first = trade_id + 1
        if first <= gap.last_missing:
            yield replace(gap, first_missing=first)


def not_judged(labels: Collection[str]) -> str:
    """A sentence about the feeds whose trade ids say nothing about what is missing; empty if there is none."""
    return f"The ids of {', '.join(sorted(labels))} are not judged: the exchange skips ids there." if labels else ""


def read_repeats(connection: psycopg.Connection, window: Window, spans: Spans | None = None) -> list[Repeat]:
    """Trades that occur in more than one slice of a window, or in the window and the slice before it.

    The table is read only where ids of slices overlap by what the loads recorded (`spans`, if they were read).
    """
    found: list[Repeat] = []
    for symbol, own in (read_spans(connection, window) if spans is None else spans).items():
        if _overlap(own):
            with server_errors(), connection.transaction():
                rows = connection.execute(_REPEATS, (symbol, own[0][0], window.end)).fetchall()
            found += [Repeat(symbol, trade_id, tuple(buckets)) for trade_id, buckets in rows]
    return found


Span = tuple[datetime, int, int, int]  # slice, lowest id, highest id, ticks
Spans = dict[str, list[Span]]  # by symbol, ascending


def read_spans(connection: psycopg.Connection, window: Window) -> Spans:
    """The ids of each slice in a window, and the last one before it."""
    unrecorded = read_unrecorded(connection, window)
    parameters: dict[str, object] = {"start": window.start, "end": window.end, "unrecorded": unrecorded}
    with server_errors(), connection.transaction():
        rows = connection.execute(_RECORDED_SPANS, parameters).fetchall()
        if unrecorded:
            rows += connection.execute(_COUNTED_SPANS, parameters | {"first": unrecorded[0], "last": unrecorded[-1]}).fetchall()
        rows += connection.execute(_SPANS_BEFORE, parameters).fetchall()
    spans: Spans = {}
    for symbol, *span in sorted(rows):
        spans.setdefault(symbol, []).append(tuple(span))
    return spans


def _overlap(spans: Sequence[Span]) -> bool:
    ordered = sorted((low, high) for _, low, high, _ in spans)
    return any(later[0] <= earlier[1] for earlier, later in pairwise(ordered))
