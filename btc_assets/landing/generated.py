"""Whether trades are those of a demo's generated day: its landing zone has a name of its own."""

from __future__ import annotations

import psycopg

from btc_assets.domain.slices import Window
from btc_assets.store.errors import server_errors

# The zone of a generated day ends in its date and its number of trades, that of a file in letters and digits.
_FIRST_OBJECT = """
SELECT uri ~ '^file://.*/landing_demo_[0-9]{8}_[0-9]+(_perpetual)?/' FROM landing.raw_blobs_5m
WHERE asset = %s AND bucket_5m >= %s AND bucket_5m < %s AND loaded_rows > 0 ORDER BY bucket_5m LIMIT 1
"""


def holds_generated(connection: psycopg.Connection, symbol: str, window: Window) -> bool:
    """Whether the first trades of a symbol in a window come from a generated day; a demo's store has no others.

    Generated trades that were played into a landing zone of another name cannot be told from real ones.
    """
    with server_errors(), connection.transaction():
        row = connection.execute(_FIRST_OBJECT, (symbol, window.start, window.end)).fetchone()
    return bool(row and row[0])
