"""Comparing the table of ticks with what the registry says was loaded."""

from __future__ import annotations

from datetime import datetime

import psycopg

from btc_assets.domain.slices import KEY_FORMAT, Window
from btc_assets.landing.states import SliceState
from btc_assets.store.errors import server_errors

# A slice whose ticks retention has dropped is not unequal. Objects that were noticed and not read yet say nothing about ticks.
_UNEQUAL = """
SELECT bucket_5m, asset, state, coalesce(loaded_rows, 0), coalesce(ticks, 0)
FROM (SELECT * FROM landing.slices WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s) AS registered
FULL JOIN (
    SELECT bucket_5m, symbol AS asset, count(*) AS ticks FROM market_data.btc_ticks
    WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s GROUP BY bucket_5m, symbol
) AS stored USING (bucket_5m, asset)
WHERE coalesce(loaded_rows, 0) <> coalesce(ticks, 0)
        AND NOT (ticks IS NULL AND bucket_5m < ops.drop_horizon('market_data.btc_ticks'))
    OR state IS NULL OR %(unloaded)s AND state IN (%(pending)s, %(stale)s) AND noticed_objects = 0
ORDER BY bucket_5m, asset
"""


def find_unequal_slices(connection: psycopg.Connection, window: Window, *, unloaded: bool = True) -> list[tuple[datetime, str]]:
    """Slices of which the table holds other ticks than the registry says, each with a sentence.

    Args:
        connection: to the store.
        window: the slices to compare.
        unloaded: also report slices that have registered ticks which are not loaded.
    """
    parameters = {
        "start": window.start, "end": window.end, "unloaded": unloaded,
        "pending": SliceState.PENDING, "stale": SliceState.STALE,
    }  # fmt: skip
    with server_errors(), connection.transaction():
        rows = connection.execute(_UNEQUAL, parameters).fetchall()
    return [
        (bucket, f"{asset} {bucket:{KEY_FORMAT}}: {state or 'not registered'}, {loaded} rows by the registry, {ticks} in the table")
        for bucket, asset, state, loaded, ticks in rows
    ]
