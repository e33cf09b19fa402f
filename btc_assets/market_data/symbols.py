"""Which symbols a store holds, and from when to when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import psycopg

from btc_assets.store.errors import server_errors

# From the small tables: what the loads recorded of each slice, and for slices that a former release loaded, the candles of days.
_RECORDED = """
SELECT symbol, min(first), max("end"), sum(slices)::bigint, sum(ticks)::bigint
FROM (
    SELECT symbol, min(bucket_5m) AS first, max(bucket_5m) + interval '5 minutes' AS "end", count(*) AS slices, sum(ticks) AS ticks
    FROM market_data.loaded_slices GROUP BY symbol
    UNION ALL
    SELECT symbol, min(bucket), least(max(bucket) + interval '1 day', now()), 0, 0 FROM market_data.candle_partials_1d AS day
    WHERE NOT EXISTS (
        SELECT FROM market_data.loaded_slices
        WHERE bucket_5m >= day.bucket AND bucket_5m < day.bucket + interval '1 day' AND symbol = day.symbol
    )
    GROUP BY symbol
) AS known
GROUP BY symbol ORDER BY symbol
"""

# The same of the days of a symbol, and of the newest slices, for a store of ten years has a million rows for each of its symbols there.
_REACH = """
SELECT symbol, coalesce((
    SELECT min(bucket_5m) FROM market_data.loaded_slices AS loaded
    WHERE bucket_5m >= known.first AND bucket_5m < known.first + interval '2 days' AND loaded.symbol = known.symbol
), known.first), coalesce((
    SELECT max(bucket_5m) + interval '5 minutes' FROM market_data.loaded_slices AS loaded
    WHERE bucket_5m >= known.last AND loaded.symbol = known.symbol
), least(known.last + interval '1 day', now()))
FROM (
    SELECT symbol, min(first) AS first, max(last) AS last
    FROM (
        SELECT symbol, min(bucket) AS first, max(bucket) AS last FROM market_data.candle_partials_1d GROUP BY symbol
        UNION ALL
        SELECT symbol, min(bucket_5m), max(bucket_5m) FROM market_data.loaded_slices
        WHERE bucket_5m >= (SELECT max(bucket_5m) FROM market_data.loaded_slices) - interval '1 day' GROUP BY symbol
    ) AS told
    GROUP BY symbol
) AS known
ORDER BY symbol
"""

# The whole registry, which may have millions of rows.
_REGISTERED = """
SELECT asset, min(bucket_5m), max(bucket_5m) + interval '5 minutes', count(DISTINCT bucket_5m), sum(loaded_rows)::bigint
FROM landing.raw_blobs_5m WHERE loaded_rows > 0 GROUP BY asset ORDER BY asset
"""


@dataclass(frozen=True)
class StoredSymbol:
    """A symbol that has ticks or candles.

    Attributes:
        symbol: its label.
        first: start of its first slice (of its first day, if a former release loaded it).
        end: end of its last slice.
        slices, ticks: how many were loaded, as far as the loads recorded them.
    """

    symbol: str
    first: datetime
    end: datetime
    slices: int
    ticks: int


def read_reach(connection: psycopg.Connection) -> dict[str, tuple[datetime, datetime]]:
    """The start of the first slice and the end of the last one of each symbol, quickly.

    A symbol is left out if its candles were never made, nor was it loaded within a day before the newest slice of all.
    """
    with server_errors(), connection.transaction():
        return {symbol: (first, end) for symbol, first, end in connection.execute(_REACH).fetchall()}


def read_symbols(connection: psycopg.Connection, *, registry: bool = False) -> list[StoredSymbol]:
    """The symbols of a store, by label.

    Args:
        connection: to the store.
        registry: ask the whole registry, which takes seconds, instead of what the loads recorded.
    """
    with server_errors(), connection.transaction():
        return [StoredSymbol(*row) for row in connection.execute(_REGISTERED if registry else _RECORDED).fetchall()]
