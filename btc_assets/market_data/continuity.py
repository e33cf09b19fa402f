"""Continuity: the trade ids of a symbol increase by one, so a larger step is lost data and no step is a repeat."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

import psycopg

from btc_assets.domain.slices import KEY_FORMAT, Window
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


# The ids in each slice of a window and the last id before it, so that the step into the window is checked too.
_SPANS = """
SELECT symbol, bucket_5m, min(trade_id), max(trade_id), count(*) FROM market_data.btc_ticks
WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s GROUP BY symbol, bucket_5m
UNION ALL
SELECT asset, before.bucket_5m, trade_id, trade_id, 1 FROM (
    SELECT asset, max(bucket_5m) AS bucket_5m FROM landing.raw_blobs_5m
    WHERE bucket_5m < %(start)s AND bucket_5m >= %(start)s - interval '1 day' AND loaded_rows > 0 GROUP BY asset
) AS before, LATERAL (
    SELECT trade_id FROM market_data.btc_ticks AS tick
    WHERE tick.bucket_5m = before.bucket_5m AND symbol = asset AND tick.bucket_5m < %(start)s AND tick.bucket_5m >= %(start)s - interval '1 day'
    ORDER BY trade_id DESC LIMIT 1
) AS newest
ORDER BY 1, 2
"""

_STEPS = """
SELECT trade_id - step + 1, trade_id - 1, bucket_5m FROM (
    SELECT trade_id, bucket_5m, trade_id - lag(trade_id) OVER (ORDER BY trade_id, bucket_5m) AS step
    FROM market_data.btc_ticks
    WHERE symbol = %s AND bucket_5m >= %s AND bucket_5m < %s AND trade_id >= %s AND trade_id <= %s
) AS stepped
WHERE step > 1 ORDER BY trade_id
"""

_REPEATS = """
SELECT trade_id, array_agg(bucket_5m ORDER BY bucket_5m) FROM market_data.btc_ticks
WHERE symbol = %s AND bucket_5m >= %s AND bucket_5m < %s
GROUP BY trade_id HAVING count(*) > 1 ORDER BY trade_id
"""


def read_gaps(connection: psycopg.Connection, window: Window) -> list[Gap]:
    """All gaps in a window, inside and between its slices, and between the window and the ticks loaded before it.

    For most windows, counting the ids of each slice in one pass over the primary key proves that none is missing; single steps are
    compared only if it does not.
    """
    found: list[Gap] = []
    for symbol, spans in _spans(connection, window).items():
        first, last = min(low for _, low, _, _ in spans), max(high for _, _, high, _ in spans)
        if sum(count for _, _, _, count in spans) == last - first + 1 and not _overlap(spans):
            continue
        with server_errors(), connection.transaction():
            rows = connection.execute(_STEPS, (symbol, spans[0][0], window.end, first, last)).fetchall()
        found += [Gap(symbol, *row) for row in rows]
    return found


def read_repeats(connection: psycopg.Connection, window: Window) -> list[Repeat]:
    """Trades that occur in more than one slice of a window, or in the window and the slice before it."""
    found: list[Repeat] = []
    for symbol, spans in _spans(connection, window).items():
        if _overlap(spans):
            with server_errors(), connection.transaction():
                rows = connection.execute(_REPEATS, (symbol, spans[0][0], window.end)).fetchall()
            found += [Repeat(symbol, trade_id, tuple(buckets)) for trade_id, buckets in rows]
    return found


Span = tuple[datetime, int, int, int]  # slice, lowest id, highest id, ticks


def _spans(connection: psycopg.Connection, window: Window) -> dict[str, list[Span]]:
    with server_errors(), connection.transaction():
        rows = connection.execute(_SPANS, {"start": window.start, "end": window.end}).fetchall()
    spans: dict[str, list[Span]] = {}
    for symbol, *span in rows:
        spans.setdefault(symbol, []).append(tuple(span))
    return spans


def _overlap(spans: list[Span]) -> bool:
    ordered = sorted((low, high) for _, low, high, _ in spans)
    return any(later[0] <= earlier[1] for earlier, later in pairwise(ordered))
