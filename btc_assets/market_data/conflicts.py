"""Conflicts: versions of a trade that differ in what the exchange says of it once and for all. The load finds and records them."""

from __future__ import annotations

import psycopg

from btc_assets.domain.slices import Window
from btc_assets.store.errors import server_errors

# The view leaves out what somebody has acknowledged.
_CONFLICTS = """
SELECT told.problem, conflicts
FROM market_data.conflicting_trades JOIN landing.problems AS told USING (symbol, bucket_5m)
WHERE told.kind = 'conflicting trades' AND bucket_5m >= %s AND bucket_5m < %s
ORDER BY bucket_5m, symbol
"""


def read_conflicts(connection: psycopg.Connection, window: Window) -> list[tuple[str, int]]:
    """A sentence for each slice of a window with contradicting versions of trades, and how many versions."""
    with server_errors(), connection.transaction():
        return connection.execute(_CONFLICTS, (window.start, window.end)).fetchall()
