"""Days that change hands: the first slice moves, by default once a month, and days that were loaded as slices become history."""

from collections.abc import Sequence

import dagster as dg
import psycopg

from btc_assets.domain.slices import Window, floor_day
from btc_assets.orchestration.partitions import DAY_FORMAT, Partitions
from btc_assets.store.database import only_row
from btc_assets.store.errors import server_errors

_IS_COMPLETE = """
SELECT coalesce(bool_or(loaded_at IS NOT NULL) AND NOT bool_or(state IN ('pending', 'stale')), false)
    AND NOT EXISTS (SELECT 1 FROM ingestion.due_slices WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s)
FROM landing.slices WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s
"""


def report_complete_days(
    instance: dg.DagsterInstance, connection: psycopg.Connection, partitions: Partitions, assets: Sequence[dg.AssetKey]
) -> int:
    """Report days of history as materialized that are completely loaded, and that Dagster does not know of.

    Their ticks and candles were loaded as slices, before those slices became history.

    Args:
        instance: Dagster's.
        connection: to the store.
        partitions: of the deployment.
        assets: the assets with daily partitions.

    Returns:
        Number of days that were reported.
    """
    with server_errors():
        (oldest,) = only_row(connection.execute("SELECT min(bucket_5m) FROM landing.raw_blobs_5m"))
    first, end = max(oldest or partitions.first_slice, partitions.history_start), partitions.first_slice
    if first >= end:
        return 0
    known = {key: instance.get_materialized_partitions(key) for key in assets}
    reported = 0
    for day in Window(floor_day(first), end).days():
        name = day.start.strftime(DAY_FORMAT)
        unknown = [key for key in assets if name not in known[key]]
        with server_errors():
            if not unknown or only_row(connection.execute(_IS_COMPLETE, {"start": day.start, "end": day.end})) != (True,):
                continue
        for key in unknown:
            instance.report_runless_asset_event(dg.AssetMaterialization(key, "Loaded as 5-minute slices.", partition=name))
        reported += 1
    return reported
