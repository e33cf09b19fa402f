"""Where the 5-minute partitions start: recorded when a store is first used, and moved only on purpose.

Every process of a deployment must count from the same start. Dagster cancels backfills whose partitions no longer exist, and a run that was
requested under another start is refused. So the start is a setting, or it is recorded in `BTC_ASSETS_HOME`; it never follows the calendar.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime

import dagster as dg

from btc_assets.domain.errors import UserError
from btc_assets.domain.settings import PREFIX, START_FILE, Settings
from btc_assets.domain.slices import KEY_FORMAT
from btc_assets.orchestration.partitions import PARTITION_TAG, RANGE_START_TAG

_VARIABLE = PREFIX + "PARTITIONS_START"
_UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_ACTIVE_BACKFILLS = "REQUESTED", "CANCELING", "FAILING"


def record_start(settings: Settings) -> None:
    """Record the start of the partitions in `BTC_ASSETS_HOME`, unless it is recorded or a setting.

    Where the directory cannot be written, as in a container, nothing is recorded: set `BTC_ASSETS_PARTITIONS_START` there.
    """
    if settings.partitions_start is None:
        with suppress(OSError):
            _write(settings, settings.first_slice, "x")


def share_start(settings: Settings) -> None:
    """Hand this process's start to its children: a code location's runs use the start under which they were offered."""
    os.environ[_VARIABLE] = f"{settings.first_slice:{KEY_FORMAT}}"


def move_start(settings: Settings, instance: dg.DagsterInstance, start: datetime) -> None:
    """Record another start of the partitions.

    Args:
        settings: of this process.
        instance: Dagster's.
        start: the start of a slice.

    Raises:
        UserError: a variable sets the start, or runs or backfills are under way, which the move would end.
    """
    if busy := _under_way(instance):
        raise UserError(
            f"{' and '.join(busy)} under way, which the move would end: wait until they are done or cancel them; stop the daemon, so that no "
            "others begin."
        )
    if os.environ.get(_VARIABLE):
        raise UserError(
            f"{_VARIABLE} sets the start of the partitions, and nothing is under way: set it to {start:{KEY_FORMAT}} for every process, and "
            "start them again."
        )
    _write(settings, start, "w")


def _under_way(instance: dg.DagsterInstance) -> Sequence[str]:
    runs = instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED))
    sliced = sum(PARTITION_TAG in run.tags or RANGE_START_TAG in run.tags for run in runs)
    backfills = sum(backfill.status.value in _ACTIVE_BACKFILLS for backfill in instance.get_backfills())
    return [f"{count} {what}(s)" for count, what in ((sliced, "run"), (backfills, "backfill")) if count]


def _write(settings: Settings, start: datetime, mode: str) -> None:
    settings.home.mkdir(parents=True, exist_ok=True)
    with (settings.home / START_FILE).open(mode) as file:
        file.write(f"{start:{KEY_FORMAT}}\n")
