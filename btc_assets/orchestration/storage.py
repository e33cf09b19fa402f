"""Dagster's own storage: runs and events in the store's PostgreSQL, what steps print in S3, and how long events are kept.

`dagster.yaml` names these classes instead of addresses: every process (webserver, daemon, worker, CLI) then finds the
database as the store itself does, the embedded server is up before Dagster needs it, and no password is written to a
file or handed to a child process in its arguments.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import psycopg
import sqlalchemy
from dagster import DagsterEventType, DagsterInstance, EventLogEntry
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationPlanned
from dagster._core.instance.ref import compute_logs_directory
from dagster._core.storage.compute_log_manager import ComputeLogManager
from dagster._core.storage.event_log import SqlEventLogStorageTable
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._serdes import ConfigurableClass, ConfigurableClassData
from dagster_aws.s3 import S3ComputeLogManager
from dagster_postgres import DagsterPostgresStorage, PostgresEventLogStorage
from dagster_shared.record import replace
from psycopg import sql

from btc_assets.domain.settings import settings
from btc_assets.store.database import connect, dsn

_EVENTS = SqlEventLogStorageTable
SCHEMA = "dagster"  # its tables stay out of the rooms; dropping it loses the history of runs, and no data


def storage_dsn() -> str:
    """`BTC_ASSETS_DAGSTER_DSN`, or the store's."""
    own = settings().dagster_dsn
    return own.get_secret_value() if own else dsn()


def sqlalchemy_url(conninfo: str) -> str:
    """A PostgreSQL URL as SQLAlchemy wants it, with Dagster's schema in front."""
    parts = urlsplit(conninfo)
    query = urlencode([*parse_qsl(parts.query), ("options", f"-csearch_path={SCHEMA}")], quote_via=quote)
    # SQLAlchemy 2.1 takes psycopg 3 for plain `postgresql`, which dagster-postgres does not speak.
    return urlunsplit(("postgresql+psycopg2", parts.netloc, parts.path, query, ""))


class StoreEvents(PostgresEventLogStorage):
    """The event log of `dagster-postgres`, cheaper in runs over many partitions.

    For a run over a range, Dagster writes a planned check down once for every partition, each time with the whole event, also where
    the check knows no partitions and is then evaluated once for all of them. With our 13 checks of slices that was two fifths
    of Dagster's time, a third of its tables, and rows that stay planned for ever. Here it is one row. And a batch of materialisations
    is one prepared statement with many rows, not a statement with a thousand rows in its text, whose making took a sixth of the rest.
    """

    def store_asset_check_event(self, event: EventLogEntry, event_id: int | None) -> None:
        planned = event.dagster_event.event_specific_data if event.dagster_event else None
        if event.dagster_event and isinstance(planned, AssetCheckEvaluationPlanned) and planned.partitions_subset is not None:
            of_all = event.dagster_event._replace(event_specific_data=replace(planned, partitions_subset=None))
            event = event._replace(dagster_event=of_all)
        super().store_asset_check_event(event, event_id)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        if any(event.dagster_event_type != DagsterEventType.ASSET_MATERIALIZATION for event in events):
            return super().store_event_batch(events)
        insert = _EVENTS.insert().returning(_EVENTS.c.id, sort_by_parameter_order=True)
        with self._connect() as connection:
            ids = connection.execute(insert, [self._event_to_row(event) for event in events]).scalars().all()
        with self.index_transaction() as connection:
            self._store_asset_event_tags(connection, events, ids)
            self._store_asset_event(connection, events[-1], ids[-1])


class StoreStorage(DagsterPostgresStorage, ConfigurableClass):
    """`dagster-postgres`, with the address from the settings and the event log above."""

    def __init__(self, postgres_url: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(postgres_url, inst_data=inst_data)
        self._event_log_storage = StoreEvents(postgres_url, should_autocreate_tables=False)  # it has them from its parent's

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: object) -> "StoreStorage":
        conninfo = storage_dsn()
        with connect(conninfo, autocommit=True) as connection:
            exists = connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (SCHEMA,)).fetchone()
            if not exists:
                with suppress(psycopg.errors.UniqueViolation):  # another process was faster
                    connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(SCHEMA)))
        return cls(postgres_url=sqlalchemy_url(conninfo), inst_data=inst_data)


class StoreComputeLogs(ComputeLogManager, ConfigurableClass):
    """`dagster-aws` where `BTC_ASSETS_COMPUTE_LOGS_URL` names a bucket, else files in DAGSTER_HOME."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config_value(  # type: ignore[override]  # it chooses a manager, so it makes none of its own class
        cls, inst_data: ConfigurableClassData | None, config_value: object
    ) -> ComputeLogManager:
        config = settings()
        if config.compute_logs_url is None:
            return LocalComputeLogManager(compute_logs_directory(os.environ["DAGSTER_HOME"]), inst_data=inst_data)
        parts = urlsplit(config.compute_logs_url)
        return S3ComputeLogManager(
            bucket=parts.netloc,
            prefix=parts.path.strip("/") or "dagster",
            region=config.s3_region,
            endpoint_url=config.s3_endpoint,
            skip_empty_files=True,
            inst_data=inst_data,
        )


_OF_ASSETS = "ASSET_", "FRESHNESS_"
_OF_STEPS = [None, *(kind.value for kind in DagsterEventType if not kind.value.startswith(_OF_ASSETS))]  # None: what was logged
_BATCH = 20_000


def forget_events(instance: DagsterInstance, before: datetime) -> int:
    """Delete the events of steps that are older than `before`; what is known of assets, their checks and their freshness stays.

    Without its steps, the page of a run shows no more than that it was, when, and how it ended.

    Returns:
        How many were deleted.
    """
    forgotten = 0
    with instance.event_log_storage.index_connection() as connection:  # type: ignore[attr-defined]  # of storages in SQL
        # By type and id, as the index has them. Ids ascend with time, so that of each type only what is too old is looked at.
        for kind in _OF_STEPS:
            oldest = sqlalchemy.select(_EVENTS.c.id).where(_EVENTS.c.dagster_event_type.is_not_distinct_from(kind)).order_by(_EVENTS.c.id)
            while True:
                batch = oldest.limit(_BATCH).subquery()
                gone = connection.execute(
                    sqlalchemy.delete(_EVENTS).where(
                        _EVENTS.c.id.in_(sqlalchemy.select(batch.c.id)), _EVENTS.c.timestamp < before.astimezone(UTC).replace(tzinfo=None)
                    )
                ).rowcount
                forgotten += gone
                if gone < _BATCH:
                    break
    return forgotten
