"""The one partitions definition that all 5-minute assets share, that of the history before it, and how many slices one run
of a backfill carries.

The two meet at the first slice: what lies before it belongs to days, what follows to slices, and nothing to both.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import dagster as dg

from btc_assets.domain.errors import UserError
from btc_assets.domain.settings import settings
from btc_assets.domain.slices import DAY, KEY_FORMAT, SLICE, Window, floor_day, parse_time

PARTITION_TAG = "dagster/partition"
RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"

DAY_FORMAT = "%Y-%m-%d"

five_minutes = dg.TimeWindowPartitionsDefinition(start=settings().first_slice, cron_schedule="*/5 * * * *", fmt=KEY_FORMAT, timezone="UTC")

# Days up to the one that the first slice lies in; of that day, only what is before it. None where there is no such day.
history = (
    dg.TimeWindowPartitionsDefinition(
        start=settings().history_start,
        end=floor_day(settings().first_slice - SLICE) + DAY,
        cron_schedule="0 0 * * *",
        fmt=DAY_FORMAT,
        timezone="UTC",
    )
    if settings().history_start < settings().first_slice
    else None
)

# `dagster asset materialize --partition-range` needs a single run; fanning a long backfill out over workers needs many.
# It cannot be both at once, so a process that fans out sets BTC_ASSETS_BACKFILL_SLICES_PER_RUN.
backfill_policy = (
    dg.BackfillPolicy.multi_run(slices_per_run)
    if (slices_per_run := settings().backfill_slices_per_run)
    else dg.BackfillPolicy.single_run()
)


DATABASE_POOL = "database"  # limits the runs that write to the store at once; see dagster.yaml


def last_partition(context: dg.AssetExecutionContext) -> str:
    """The key of the last partition of this run."""
    return context.partition_key_range.end


def run_window(context: dg.AssetExecutionContext) -> Window:
    """The slices of this run, whether it is for one partition or for a range."""
    return own_slices(context.partition_time_window, context.assets_def.partitions_def)


def own_slices(window: tuple[datetime, datetime], partitions: dg.PartitionsDefinition | None) -> Window:
    """The slices of a partition window; of history, those before the first slice."""
    start, end = window
    return Window(start, min(end, settings().first_slice) if partitions == history else end)


def partition_tags(window: Window, step: timedelta = SLICE) -> dict[str, str]:
    """The tags of a run that makes the partitions of a window, each `step` long; the last may be cut by the first slice."""
    key_format = DAY_FORMAT if step == DAY else KEY_FORMAT
    first, last = window.start.strftime(key_format), (window.end - SLICE).strftime(key_format)
    return {PARTITION_TAG: first} if first == last else {RANGE_START_TAG: first, RANGE_END_TAG: last}


def run_slices(tags: Mapping[str, str]) -> Window | None:
    """The slices that a run with these tags makes; None where it has no partitions."""
    first, last = tags.get(RANGE_START_TAG) or tags.get(PARTITION_TAG), tags.get(RANGE_END_TAG) or tags.get(PARTITION_TAG)
    if not first or not last:
        return None
    try:
        start, end = parse_time(first), parse_time(last)
        return Window(start, end + SLICE if "T" in last else min(end + DAY, settings().first_slice))
    except UserError:  # of somebody's assets with other partitions
        return None
