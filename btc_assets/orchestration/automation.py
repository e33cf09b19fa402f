"""From due slices to run requests, for the sensors of all rooms."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import islice

import dagster as dg
import psycopg

from btc_assets.domain.slices import DAY, SLICE
from btc_assets.ingestion.due import read_due_slices
from btc_assets.ingestion.requests import DueSlice, Request, plan_requests
from btc_assets.orchestration.deployment import Deployment
from btc_assets.orchestration.failures import plain_failures
from btc_assets.orchestration.jobs import AssetJob, SlicedJobs
from btc_assets.orchestration.lost_runs import end_killed_commands
from btc_assets.orchestration.partitions import partition_tags
from btc_assets.store.database import Store

_IN_PROGRESS = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_SENSOR_TAG, _KEY_TAG = "dagster/sensor_name", "dagster/run_key"
_BATCH = 100  # requests that are looked up among the existing runs at once


def utc_now() -> datetime:
    """The clock of all sensors."""
    return datetime.now(UTC)


class Automation:
    """One tick of a sensor: the runs in progress when it began, and how many more it may request.

    Args:
        context: of the tick.
        deployment: of the sensor.
    """

    def __init__(self, context: dg.SensorEvaluationContext, deployment: Deployment) -> None:
        self._instance, self._sensor = context.instance, context.sensor_name
        self._settings, self._partitions = deployment.settings, deployment.partitions
        # A command that was killed must not keep its slices and its place in the pool.
        runs = end_killed_commands(context.instance, context.instance.get_runs(filters=dg.RunsFilter(statuses=_IN_PROGRESS)))
        self._busy = [window for run in runs if (window := self._partitions.tagged_window(run.tags)) is not None]
        own = sum(run.tags.get(_SENSOR_TAG) == self._sensor for run in runs)
        self._free = self._settings.sensor_runs_in_flight - own

    def requests(self, due: Sequence[DueSlice], jobs: SlicedJobs) -> Iterator[dg.RunRequest]:
        """Request runs for due slices, as many as the limit of runs in flight allows.

        Args:
            due: in ascending order.
            jobs: for the slices, and for the days before the first slice.
        """
        first, start = self._partitions.first_slice, self._partitions.history_start
        yield from self._requests([due_slice for due_slice in due if due_slice.bucket >= first], jobs.slices, SLICE)
        if jobs.history:
            yield from self._requests([due_slice for due_slice in due if start <= due_slice.bucket < first], jobs.history, DAY)

    def _requests(self, due: Sequence[DueSlice], job: AssetJob, step: timedelta) -> Iterator[dg.RunRequest]:
        if not due or self._free <= 0:
            return
        planned = plan_requests(due, self._busy, utc_now(), slices_per_run=self._settings.sensor_slices_per_run, step=step)
        for request in islice(self._without_existing(planned), self._free):
            self._free -= 1
            yield dg.RunRequest(run_key=request.key, job_name=job.name, tags=partition_tags(request.window, step))

    def _without_existing(self, planned: Iterator[Request]) -> Iterator[Request]:
        """The requests that have no run yet. Dagster would skip the others as well, but they must not use up the free runs."""
        while batch := list(islice(planned, _BATCH)):
            keys = [request.key for request in batch]
            runs = self._instance.get_runs(filters=dg.RunsFilter(tags={_SENSOR_TAG: self._sensor, _KEY_TAG: keys}))
            existing = {run.tags[_KEY_TAG] for run in runs}
            yield from (request for request in batch if request.key not in existing)


@dataclass(frozen=True)
class Obstacles:
    """What keeps assets from being made in this process until somebody does something.

    Attributes:
        reasons: a sentence for each thing that is in the way.
        barred: the assets of which nothing can be made, so that runs for them would be in vain.
    """

    reasons: Sequence[str] = ()
    barred: Sequence[str] = ()


def follow_ticks(
    context: dg.SensorEvaluationContext,
    deployment: Deployment,
    store: Store,
    assets: Sequence[str],
    jobs: SlicedJobs,
    find_obstacles: Callable[[psycopg.Connection], Obstacles] = lambda connection: Obstacles(),
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Evaluate a sensor whose assets are rebuilt after their ticks changed: request runs for their due slices.

    Args:
        context: of the tick.
        deployment: of the sensor.
        store: has the due slices.
        assets: keys such as `market_data/candles_1m`.
        jobs: rebuild those assets.
        find_obstacles: reads what keeps some of them from being made in this process.
    """
    with plain_failures(), store.connect() as connection:
        automation = Automation(context, deployment)  # before the due slices are read: a run that ends in between is not requested again
        obstacles = find_obstacles(connection)
        slices = read_due_slices(connection, [asset for asset in assets if asset not in obstacles.barred])
    if obstacles.reasons:
        # What was requested in vain is requested once more when there is nothing in the way any longer.
        slices = [replace(due, digest=f"{due.digest} {' '.join(obstacles.reasons)}") for due in slices]
    requests = [*automation.requests(slices, jobs)]
    yield from requests
    if not requests:
        waiting = f"{len(slices):,} slices are due, and their runs are in progress or were requested before."
        yield dg.SkipReason(" ".join([waiting if slices else "No slice is due.", *obstacles.reasons]))
