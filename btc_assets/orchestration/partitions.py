"""The partitions that all sliced assets share: 5-minute slices, and days of history before them.

The two meet at the first slice, without gap or overlap.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import dagster as dg

from btc_assets.domain.errors import UserError
from btc_assets.domain.settings import Settings
from btc_assets.domain.slices import DAY, KEY_FORMAT, SLICE, Window, floor_day, parse_time

PARTITION_TAG = "dagster/partition"
RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"

DAY_FORMAT = "%Y-%m-%d"


@dataclass(frozen=True)
class Partitions:
    """The partitions of one deployment.

    Attributes:
        slices: the one definition that all 5-minute assets share.
        history: days up to the one of the first slice, of which only the part before that slice counts; None if there are no such days.
        first_slice: start of the first slice.
        history_start: where history starts.
        backfill_policy: how many slices one run of a backfill has.
    """

    slices: dg.TimeWindowPartitionsDefinition
    history: dg.TimeWindowPartitionsDefinition | None
    first_slice: datetime
    history_start: datetime
    backfill_policy: dg.BackfillPolicy

    @classmethod
    def of(cls, settings: Settings) -> Partitions:
        """The partitions that the settings ask for."""
        first, start = settings.first_slice, settings.history_start
        history = dg.TimeWindowPartitionsDefinition(
            start=start, end=floor_day(first - SLICE) + DAY, cron_schedule="0 0 * * *", fmt=DAY_FORMAT, timezone="UTC"
        )
        # `dagster asset materialize --partition-range` needs a single run, and a long backfill over several workers needs many.
        # The policy cannot be both, so a process that starts such backfills sets BTC_ASSETS_BACKFILL_SLICES_PER_RUN.
        per_run = settings.backfill_slices_per_run
        return cls(
            slices=dg.TimeWindowPartitionsDefinition(start=first, cron_schedule="*/5 * * * *", fmt=KEY_FORMAT, timezone="UTC"),
            history=history if start < first else None,
            first_slice=first,
            history_start=start,
            backfill_policy=dg.BackfillPolicy.multi_run(per_run) if per_run else dg.BackfillPolicy.single_run(),
        )

    def run_window(self, context: dg.AssetExecutionContext) -> Window:
        """The slices of a run over one partition or a range of them."""
        return self.own_slices(context.partition_time_window, context.assets_def.partitions_def)

    def own_slices(self, window: tuple[datetime, datetime], partitions: dg.PartitionsDefinition | None) -> Window:
        """The slices of a window of partitions; for days of history, only those before the first slice."""
        start, end = window
        return Window(start, min(end, self.first_slice) if partitions == self.history else end)

    def tagged_window(self, tags: Mapping[str, str]) -> Window | None:
        """The slices of a run with these tags; None if it has no partitions, or others than ours."""
        first, last = tags.get(RANGE_START_TAG) or tags.get(PARTITION_TAG), tags.get(RANGE_END_TAG) or tags.get(PARTITION_TAG)
        if not first or not last:
            return None
        try:
            start, end = parse_time(first), parse_time(last)
            return Window(start, end + SLICE if "T" in last else min(end + DAY, self.first_slice))
        except UserError:
            return None


def partition_tags(window: Window, step: timedelta = SLICE) -> dict[str, str]:
    """The tags of a run over the partitions of a window.

    Args:
        window: may end within the last day of history.
        step: length of a partition, a slice or a day.
    """
    key_format = DAY_FORMAT if step == DAY else KEY_FORMAT
    first, last = window.start.strftime(key_format), (window.end - SLICE).strftime(key_format)
    return {PARTITION_TAG: first} if first == last else {RANGE_START_TAG: first, RANGE_END_TAG: last}


def last_partition(context: dg.AssetExecutionContext) -> str:
    """Key of the last partition of a run."""
    return context.partition_key_range.end
