"""The hand-over from slices to history: it moves, by default once a month, and what was loaded as slices then belongs to days."""

import dagster as dg
import psycopg

from btc_assets.domain.settings import settings
from btc_assets.domain.slices import Window, floor_day
from btc_assets.orchestration.jobs import history_assets
from btc_assets.orchestration.partitions import DAY_FORMAT
from btc_assets.store.database import server_errors

_WHOLE = """
SELECT coalesce(bool_or(loaded_at IS NOT NULL) AND NOT bool_or(state IN ('pending', 'stale')), false)
    AND NOT EXISTS (SELECT 1 FROM ingestion.due_slices WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s)
FROM landing.slices WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s
"""


def show_whole_days(instance: dg.DagsterInstance, connection: psycopg.Connection) -> int:
    """Report the days of history that the registry says are whole, and Dagster does not know of, as materialised; returns how many.

    Their ticks and candles are there already: they were loaded as slices, before these belonged to history.
    """
    with server_errors():
        row = connection.execute("SELECT min(bucket_5m) FROM landing.raw_blobs_5m").fetchone()
    first, end = max(row[0] if row and row[0] else settings().first_slice, settings().history_start), settings().first_slice
    if first >= end:
        return 0
    known = {key: instance.get_materialized_partitions(key) for key in history_assets}
    shown = 0
    for day in Window(floor_day(first), end).days():
        name = day.start.strftime(DAY_FORMAT)
        unknown = [key for key in history_assets if name not in known[key]]
        with server_errors():
            if not unknown or connection.execute(_WHOLE, {"start": day.start, "end": day.end}).fetchone() != (True,):
                continue
        for key in unknown:
            instance.report_runless_asset_event(dg.AssetMaterialization(key, "Loaded as 5-minute slices.", partition=name))
        shown += 1
    return shown
