"""Sensors of the landing zone: what landed is noticed, and loaded once its slice is closed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta

import dagster as dg

from btc_assets.domain.settings import settings
from btc_assets.landing.arrivals import look, next_close, waiting
from btc_assets.landing.events import receive
from btc_assets.orchestration import automation
from btc_assets.orchestration.failures import plain_failures
from btc_assets.orchestration.jobs import ingest, ingest_history
from btc_assets.orchestration.partitions import history
from btc_assets.orchestration.resources import EventsQueue, Landing, Store

_INTERVAL_SECONDS = 10


def _at_close(grace: timedelta) -> datetime:
    """The present; a tick that begins shortly before a slice closes waits for that, rather than leave it to the next tick."""
    now = automation.present()
    wait = next_close(now, grace) - now
    if wait > timedelta(seconds=_INTERVAL_SECONDS):
        return now
    time.sleep(wait.total_seconds())
    return now + wait


@dg.sensor(
    jobs=[ingest, ingest_history] if history else [ingest],
    minimum_interval_seconds=_INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Lists what may be new in the landing zone (every 30 s, and when a slice closes), writes it into the registry, and asks for "
        "runs of `ingest` for closed slices of which the landing zone holds something else than the table. Contiguous slices share a run."
    ),
)
def landing_sensor(context: dg.SensorEvaluationContext, store: Store, landing: Landing) -> Iterator[dg.RunRequest | dg.SkipReason]:
    config = settings()
    now = _at_close(config.landing_grace)
    with plain_failures(), store.connect() as connection:
        connection.autocommit = True
        arrivals = look(connection, landing.zone(), config.landing_feeds, now, lookback=config.landing_lookback, grace=config.landing_grace)
        under_way = automation.Automation(context)  # before what is due: of a run that ends in between, nothing is asked for again
        found = waiting(connection, now, grace=config.landing_grace)
    requests = [*under_way.requests(found.due, ingest, ingest_history)]
    yield from requests
    if arrivals and arrivals.noticed:
        context.log.info(f"Listed {arrivals.listed:,} objects, {arrivals.noticed:,} of them new.")
    if not requests:
        listed = f"{arrivals.noticed:,} of {arrivals.listed:,} listed objects are new" if arrivals else "Not listed again yet"
        yield dg.SkipReason(
            f"{listed}; slices with something to load: {found.open} not closed yet, {found.restless} with objects still landing, "
            f"{len(found.due)} due (under way, or asked for before)."
        )


@dg.sensor(
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING if settings().landing_events_queue else dg.DefaultSensorStatus.STOPPED,
    description=(
        "Reads S3 events from the queue in BTC_ASSETS_LANDING_EVENTS_QUEUE and writes the objects that they name into the registry, "
        "wherever their folders lie; landing_sensor asks for the runs."
    ),
)
def landing_events(context: dg.SensorEvaluationContext, store: Store, landing: Landing, events_queue: EventsQueue) -> dg.SkipReason:
    url = settings().landing_events_queue
    if url is None:
        return dg.SkipReason("No queue is set: name one in BTC_ASSETS_LANDING_EVENTS_QUEUE.")
    with plain_failures(), store.connect() as connection:
        connection.autocommit = True
        received = receive(connection, landing.zone(), settings().landing_feeds, events_queue.client(), url)
    for message in received.left:
        context.log.warning(f"left in the queue: {message}")
    return dg.SkipReason(
        f"{received.messages:,} messages: {received.noticed:,} objects noticed, {received.foreign:,} foreign, {len(received.left):,} unreadable."
    )


landing_sensors = [landing_sensor, landing_events]
