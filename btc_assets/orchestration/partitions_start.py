"""Where the 5-minute partitions start: recorded when a store is first used, and moved once a month or on purpose.

Every process of a deployment must count from the same start. Dagster cancels backfills whose partitions no longer exist, and a run that was
requested under another start is refused if its partitions do not exist. So the start is a setting, or it is recorded in `BTC_ASSETS_HOME`.
There it moves once a month, before the code location starts: the pages of an asset become slow with its number of partitions.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime

import dagster as dg

from btc_assets.domain.errors import UserError
from btc_assets.domain.settings import PREFIX, START_FILE, Settings, default_start
from btc_assets.domain.slices import KEY_FORMAT, parse_time
from btc_assets.orchestration.partitions import PARTITION_TAG, RANGE_END_TAG, RANGE_START_TAG

_KEPT_FILE = "partitions_start_kept"  # beside the record; a person has chosen the start, and it never moves by itself
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


def is_due(settings: Settings, now: datetime) -> bool:
    """Whether the recorded start should move: a month has passed, and neither a variable nor a person has chosen it."""
    kept = os.environ.get(_VARIABLE) or (settings.home / _KEPT_FILE).exists()
    return not kept and settings.first_slice < default_start(now)


def move_start(settings: Settings, instance: dg.DagsterInstance, start: datetime, *, keep: bool = True) -> None:
    """Record another start of the partitions. It counts for processes that start from now on.

    Runs whose partitions exist under both starts, as those of live slices do, are not in the way.

    Args:
        settings: of this process.
        instance: Dagster's.
        start: the start of a slice.
        keep: a person has chosen it, so that it never moves by itself.

    Raises:
        UserError: a variable sets the start, or runs or backfills are under way, which the move would end.
    """
    if busy := _ended_by_move(instance, start):
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
    if keep:
        (settings.home / _KEPT_FILE).touch()
    else:
        (settings.home / _KEPT_FILE).unlink(missing_ok=True)


def _ended_by_move(instance: dg.DagsterInstance, start: datetime) -> Sequence[str]:
    runs = instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED))
    sliced = sum(not _has_partitions(run.tags, start) for run in runs)
    backfills = sum(backfill.status.value in _ACTIVE_BACKFILLS for backfill in instance.get_backfills())
    return [f"{count} {what}(s)" for count, what in ((sliced, "run"), (backfills, "backfill")) if count]


def _has_partitions(tags: Mapping[str, str], start: datetime) -> bool:
    """Whether the partitions of a run exist if slices start there: its slices from then on, or its days of history before."""
    first, last = tags.get(RANGE_START_TAG) or tags.get(PARTITION_TAG), tags.get(RANGE_END_TAG) or tags.get(PARTITION_TAG)
    if not first or not last:
        return True  # it has no partitions
    try:
        return parse_time(first) >= start if "T" in first else parse_time(last) < start
    except UserError:
        return True  # partitions of another kind


def _write(settings: Settings, start: datetime, mode: str) -> None:
    settings.home.mkdir(parents=True, exist_ok=True)
    with (settings.home / START_FILE).open(mode) as file:
        file.write(f"{start:{KEY_FORMAT}}\n")
