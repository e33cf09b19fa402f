"""From what is due to run requests: what the sensors of all rooms share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition as AssetJob

from btc_assets.domain.settings import settings
from btc_assets.domain.slices import DAY, SLICE
from btc_assets.ingestion import due
from btc_assets.ingestion.requests import DueSlice, Request, plan
from btc_assets.orchestration.failures import plain_failures
from btc_assets.orchestration.partitions import partition_tags, run_slices
from btc_assets.orchestration.resources import Store

_UNDER_WAY = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_SENSOR_TAG, _KEY_TAG = "dagster/sensor_name", "dagster/run_key"
_LOOK_AT = 100  # candidates at a time; those that were asked for before are passed over


def present() -> datetime:
    """The present, in UTC: the clock of all sensors."""
    return datetime.now(UTC)


class Automation:
    """The runs that are under way, and what a sensor may still ask for in this tick."""

    def __init__(self, context: dg.SensorEvaluationContext) -> None:
        self._instance, self._sensor = context.instance, context.sensor_name
        self._runs = context.instance.get_runs(filters=dg.RunsFilter(statuses=_UNDER_WAY))
        self._own = sum(run.tags.get(_SENSOR_TAG) == self._sensor for run in self._runs)
        self._busy = [window for run in self._runs if (window := run_slices(run.tags)) is not None]

    def requests(self, due: Sequence[DueSlice], job: AssetJob, history_job: AssetJob) -> Iterator[dg.RunRequest]:
        """Runs for what is due, as many as may be under way beside those that are.

        Args:
            due: ascending by slice.
            job: makes slices.
            history_job: makes the days before the first slice.
        """
        first, start = settings().first_slice, settings().history_start
        yield from self._requests([one for one in due if one.bucket >= first], job, SLICE)
        yield from self._requests([one for one in due if start <= one.bucket < first], history_job, DAY)

    def _requests(self, due: Sequence[DueSlice], job: AssetJob, step: timedelta) -> Iterator[dg.RunRequest]:
        free = settings().sensor_runs_in_flight - self._own
        if not due or free <= 0:
            return
        planned = plan(due, self._busy, present(), slices_per_run=settings().sensor_slices_per_run, step=step)
        for request in islice(self._not_asked(planned), free):
            self._own += 1
            yield dg.RunRequest(run_key=request.key, job_name=job.name, tags=partition_tags(request.window, step))

    def _not_asked(self, planned: Iterator[Request]) -> Iterator[Request]:
        """Those that were not asked for before. Dagster would skip the others as well, but however many they are, these have their turn."""
        while candidates := list(islice(planned, _LOOK_AT)):
            asked = self._asked(candidates)
            yield from (request for request in candidates if request.key not in asked)

    def _asked(self, candidates: Sequence[Request]) -> set[str]:
        runs = self._instance.get_runs(
            filters=dg.RunsFilter(tags={_SENSOR_TAG: self._sensor, _KEY_TAG: [request.key for request in candidates]})
        )
        return {run.tags[_KEY_TAG] for run in runs}


def follow(
    context: dg.SensorEvaluationContext, store: Store, assets: Sequence[str], job: AssetJob, history_job: AssetJob, idle: str
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """What a sensor does whose assets follow the ticks: ask for runs of their slices that are due.

    Args:
        context: of the tick.
        store: where it is noted what is due.
        assets: keys, such as `market_data/candles_1m`.
        job, history_job: as `Automation.requests` takes them.
        idle: what to say where nothing is due.
    """
    with plain_failures(), store.connect() as connection:
        connection.autocommit = True
        under_way = Automation(context)  # before what is due: of a run that ends in between, nothing is asked for again
        slices = due.read(connection, assets)
    requests = [*under_way.requests(slices, job, history_job)]
    yield from requests
    if not requests:
        yield dg.SkipReason(f"{len(slices):,} slices are due (under way, or asked for before)." if slices else idle)
