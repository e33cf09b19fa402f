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


def read_symbols(connection: psycopg.Connection, *, registry: bool = False) -> list[StoredSymbol]:
    """The symbols of a store, by label.

    Args:
        connection: to the store.
        registry: ask the whole registry, which takes seconds, instead of what the loads recorded.
    """
    with server_errors(), connection.transaction():
        return [StoredSymbol(*row) for row in connection.execute(_REGISTERED if registry else _RECORDED).fetchall()]
