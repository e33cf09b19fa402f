"""The one partitions definition that all 5-minute assets share, and how many slices one run of a backfill carries."""

from __future__ import annotations

import dagster as dg

from btc_assets.settings import settings
from btc_assets.slices import KEY_FORMAT, Window

PARTITION_TAG = "dagster/partition"
RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"

five_minutes = dg.TimeWindowPartitionsDefinition(start=settings().first_slice, cron_schedule="*/5 * * * *", fmt=KEY_FORMAT, timezone="UTC")

# `dagster asset materialize --partition-range` needs a single run; fanning a long backfill out over workers needs many.
# It cannot be both at once, so a process that fans out sets BTC_ASSETS_BACKFILL_SLICES_PER_RUN.
backfill_policy = (
    dg.BackfillPolicy.multi_run(slices_per_run)
    if (slices_per_run := settings().backfill_slices_per_run)
    else dg.BackfillPolicy.single_run()
)


def run_window(context: dg.AssetExecutionContext) -> Window:
    """The slices of this run, whether it is for one partition or for a range."""
    start, end = context.partition_time_window
    return Window(start, end)
