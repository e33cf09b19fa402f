"""From due slices to run requests: what the sensors of all rooms share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice

import dagster as dg

from btc_assets.domain.slices import DAY, SLICE
from btc_assets.ingestion.due import read_due_slices
from btc_assets.ingestion.requests import DueSlice, Request, plan_requests
from btc_assets.orchestration.deployment import Deployment
from btc_assets.orchestration.failures import plain_failures
from btc_assets.orchestration.jobs import AssetJob, SlicedJobs
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
_CANDIDATES = 100  # requests that are compared at a time with those made before


def present() -> datetime:
    """The present, in UTC: the clock of all sensors."""
    return datetime.now(UTC)


class Automation:
    """The runs in progress, and how many more a sensor may request in this tick."""

    def __init__(self, context: dg.SensorEvaluationContext, deployment: Deployment) -> None:
        self._instance, self._sensor = context.instance, context.sensor_name
        self._settings, self._partitions = deployment.settings, deployment.partitions
        self._runs = context.instance.get_runs(filters=dg.RunsFilter(statuses=_IN_PROGRESS))
        self._own = sum(run.tags.get(_SENSOR_TAG) == self._sensor for run in self._runs)
        self._busy = [window for run in self._runs if (window := self._partitions.tagged_window(run.tags)) is not None]

    def requests(self, due: Sequence[DueSlice], jobs: SlicedJobs) -> Iterator[dg.RunRequest]:
        """Requests for runs of due slices, as many as the limit of runs in flight allows.

        Args:
            due: ascending by slice.
            jobs: for slices, and for days before the first slice.
        """
        first, start = self._partitions.first_slice, self._partitions.history_start
        yield from self._requests([one for one in due if one.bucket >= first], jobs.slices, SLICE)
        if jobs.history:
            yield from self._requests([one for one in due if start <= one.bucket < first], jobs.history, DAY)

    def _requests(self, due: Sequence[DueSlice], job: AssetJob, step: timedelta) -> Iterator[dg.RunRequest]:
        free = self._settings.sensor_runs_in_flight - self._own
        if not due or free <= 0:
            return
        planned = plan_requests(due, self._busy, present(), slices_per_run=self._settings.sensor_slices_per_run, step=step)
        for request in islice(self._new(planned), free):
            self._own += 1
            yield dg.RunRequest(run_key=request.key, job_name=job.name, tags=partition_tags(request.window, step))

    def _new(self, planned: Iterator[Request]) -> Iterator[Request]:
        """Requests that were not made before. Dagster would skip the others too, but they must not use up the free runs."""
        while candidates := list(islice(planned, _CANDIDATES)):
            made = self._made(candidates)
            yield from (request for request in candidates if request.key not in made)

    def _made(self, candidates: Sequence[Request]) -> set[str]:
        runs = self._instance.get_runs(
            filters=dg.RunsFilter(tags={_SENSOR_TAG: self._sensor, _KEY_TAG: [request.key for request in candidates]})
        )
        return {run.tags[_KEY_TAG] for run in runs}


def follow_ticks(
    context: dg.SensorEvaluationContext, deployment: Deployment, store: Store, assets: Sequence[str], jobs: SlicedJobs
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """The body of a sensor whose assets follow the ticks: request runs for their due slices.

    Args:
        context: of the tick.
        deployment: of the sensor.
        store: records what is due.
        assets: keys such as `market_data/candles_1m`.
        jobs: that make those assets.
    """
    with plain_failures(), store.connect() as connection:
        automation = Automation(context, deployment)  # before reading what is due: a run that ends in between is not requested again
        slices = read_due_slices(connection, assets)
    requests = [*automation.requests(slices, jobs)]
    yield from requests
    if not requests:
        yield dg.SkipReason(
            f"{len(slices):,} slices are due, and their runs are in progress or were requested before." if slices else "No slice is due."
        )
