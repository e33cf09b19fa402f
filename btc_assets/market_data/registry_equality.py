"""Comparing the table of ticks with what the registry says was loaded, and with what the load recorded."""

from __future__ import annotations

from datetime import datetime

import psycopg

from btc_assets.domain.slices import KEY_FORMAT, SLICE, Window
from btc_assets.landing.states import SliceState
from btc_assets.market_data.slice_records import read_record_differences, read_unrecorded
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


# The same by what the loads recorded, without a look at the ticks.
_UNEQUAL_RECORDS = """
SELECT bucket_5m, asset, coalesce(loaded_rows, 0), ticks
FROM (SELECT * FROM landing.slices WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s) AS registered
FULL JOIN (
    SELECT bucket_5m, symbol AS asset, ticks FROM market_data.loaded_slices WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s
) AS recorded USING (bucket_5m, asset)
WHERE coalesce(loaded_rows, 0) <> coalesce(ticks, 0) OR state IS NULL OR state IN (%(pending)s, %(stale)s) AND noticed_objects = 0
"""


def find_unequal_slices(connection: psycopg.Connection, window: Window, *, unloaded: bool = True) -> list[tuple[datetime, str]]:
    """Slices of which the table holds other ticks than the registry says, each with a sentence; what was recorded is not looked at.

    Args:
        connection: to the store.
        window: the slices to compare.
        unloaded: also report slices that have registered ticks which are not loaded.
    """
    return [(bucket, sentence) for bucket, _, sentence in _find_unequal(connection, window, unloaded=unloaded)]


def _find_unequal(connection: psycopg.Connection, window: Window, *, unloaded: bool) -> list[tuple[datetime, str, str]]:
    with server_errors(), connection.transaction():
        rows = connection.execute(_UNEQUAL, _parameters(window) | {"unloaded": unloaded}).fetchall()
    return [
        (bucket, asset, f"{asset} {bucket:{KEY_FORMAT}}: {state or 'not registered'}, {loaded} rows by the registry, {ticks} in the table")
        for bucket, asset, state, loaded, ticks in rows
    ]


def _parameters(window: Window) -> dict[str, object]:
    return {"start": window.start, "end": window.end, "pending": SliceState.PENDING, "stale": SliceState.STALE}


def find_changed_slices(connection: psycopg.Connection, window: Window) -> list[str]:
    """A sentence for each slice of which table, registry and record of the load disagree; also for those that are not loaded.

    One pass over the ticks compares table and record: number, ids, market trades, volume and value by side. The registry is compared
    with the record. Where either says that something may be wrong, or nothing is recorded, registry and table are compared themselves.
    """
    changed = read_record_differences(connection, window)
    with server_errors(), connection.transaction():
        unequal = connection.execute(_UNEQUAL_RECORDS, _parameters(window)).fetchall()
    doubtful = [row[0] for row in [*changed, *unequal]]
    if not doubtful:
        return []
    around = Window(min(doubtful), max(doubtful) + SLICE)
    unrecorded = set(read_unrecorded(connection, around))
    found = [
        *((bucket, asset, f"{asset} {bucket:{KEY_FORMAT}}: {loaded} rows by the registry, {ticks} by the record of the load")
          for bucket, asset, loaded, ticks in unequal if loaded and ticks and loaded != ticks),
        *changed,
    ]  # fmt: skip
    sentences = {(bucket, asset): sentence for bucket, asset, sentence in found if bucket not in unrecorded}
    sentences |= {(bucket, asset): sentence for bucket, asset, sentence in _find_unequal(connection, around, unloaded=True)}
    return [sentences[key] for key in sorted(sentences)]
