"""Sensors of the landing zone: they notice new objects, and request runs for slices that are closed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta

import dagster as dg

from btc_assets.domain.printable import printable
from btc_assets.landing.arrivals import ArrivalTiming, next_close, notice_arrivals, read_waiting_slices
from btc_assets.landing.events import receive
from btc_assets.landing.resources import EventsQueue, Landing
from btc_assets.orchestration import automation
from btc_assets.orchestration.deployment import Deployment
from btc_assets.orchestration.failures import plain_failures
from btc_assets.orchestration.jobs import SlicedJobs
from btc_assets.store.database import Store

_INTERVAL_SECONDS = 10
_LONGEST_PERIOD = timedelta(seconds=20)  # from one tick to the next: Dagster looks every 5 s, later on a busy machine, which tick is due


def landing_sensors(deployment: Deployment, ingest: SlicedJobs) -> list[dg.SensorDefinition]:
    """The sensors of this room; `ingest` are the jobs that load slices."""
    return [_landing_sensor(deployment, ingest), _landing_events(deployment)]


def _landing_sensor(deployment: Deployment, ingest: SlicedJobs) -> dg.SensorDefinition:
    settings = deployment.settings

    @dg.sensor(
        jobs=[*ingest],
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Lists what may be new in the landing zone (every 30 s, and when a slice closes), writes it into the registry, and requests "
            "runs of `ingest` for closed slices whose objects differ from what is loaded. Contiguous slices share a run."
        ),
    )
    def landing_sensor(
        context: dg.SensorEvaluationContext, store: dg.ResourceParam[Store], landing: dg.ResourceParam[Landing]
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        grace = settings.landing_grace
        timing = ArrivalTiming(settings.landing_lookback, grace)
        now = _wait_for_close(grace)
        with plain_failures(), store.connect() as connection:
            arrivals = notice_arrivals(connection, landing.zone(), settings.landing_feeds, now, timing)
            # Before reading what is due: a run that ends in between is not requested again.
            runs = automation.Automation(context, deployment)
            waiting = read_waiting_slices(
                connection, now, grace=grace, history_start=settings.history_start, symbols=settings.landing_feeds.labels
            )
        requests = [*runs.requests(waiting.due, ingest)]
        yield from requests
        if arrivals and arrivals.noticed:
            context.log.info(f"Listed {arrivals.listed:,} objects, {arrivals.noticed:,} of them new.")
        if not requests:
            listed = f"{arrivals.noticed:,} of {arrivals.listed:,} listed objects are new" if arrivals else "Not listed again yet"
            yield dg.SkipReason(
                f"{listed}; slices with something to load: {waiting.open} not closed yet, {waiting.still_receiving} still receiving objects, "
                f"{len(waiting.due)} due (in progress, or requested before)."
            )

    return landing_sensor


def _wait_for_close(grace: timedelta) -> datetime:
    """The present; a tick shortly before a slice closes waits for the close instead of leaving it to the next tick."""
    now = automation.utc_now()
    wait = next_close(now, grace) - now
    if wait > _LONGEST_PERIOD:
        return now
    time.sleep(wait.total_seconds())
    return now + wait


def _landing_events(deployment: Deployment) -> dg.SensorDefinition:
    settings = deployment.settings
    url = settings.landing_events_queue

    @dg.sensor(
        minimum_interval_seconds=10,
        default_status=dg.DefaultSensorStatus.RUNNING if url else dg.DefaultSensorStatus.STOPPED,
        description=(
            "Reads S3 events from the queue in BTC_ASSETS_LANDING_EVENTS_QUEUE and writes the objects that they name into the registry, "
            "whatever their folders are; landing_sensor requests the runs."
        ),
    )
    def landing_events(
        context: dg.SensorEvaluationContext,
        store: dg.ResourceParam[Store],
        landing: dg.ResourceParam[Landing],
        events_queue: dg.ResourceParam[EventsQueue],
    ) -> dg.SkipReason:
        if url is None:
            return dg.SkipReason("No queue is set: name one in BTC_ASSETS_LANDING_EVENTS_QUEUE.")
        with plain_failures(), store.connect() as connection:
            received = receive(connection, landing.zone(), settings.landing_feeds, events_queue.client(), url)
        for message in received.left:
            context.log.warning(f"left in the queue: {printable(str(message))}")
        return dg.SkipReason(
            f"{received.messages:,} messages: {received.noticed:,} objects noticed, {received.foreign:,} foreign, {len(received.left):,} unreadable."
        )

    return landing_events
