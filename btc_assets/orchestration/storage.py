"""Dagster's own storage: runs and events in the store's PostgreSQL, what steps print in S3, and how long events are kept.

`dagster.yaml` names these classes instead of addresses: every process (webserver, daemon, worker, CLI) then finds the
database as the store itself does, the embedded server is up before Dagster needs it, and no password is written to a
file or handed to a child process in its arguments.
"""

import os
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import psycopg
import sqlalchemy
from dagster import DagsterEventType, DagsterInstance
from dagster_aws.s3 import S3ComputeLogManager
from dagster_postgres import DagsterPostgresStorage
from psycopg import sql

from btc_assets.domain.settings import Settings, load_settings
from btc_assets.orchestration.dagster_private import (
    EVENTS_TABLE,
    ComputeLogManager,
    ConfigurableClass,
    ConfigurableClassData,
    LocalComputeLogManager,
    compute_logs_directory,
    use_compact_event_log,
)
from btc_assets.store.database import Store, connect

SCHEMA = "dagster"  # its tables stay out of the rooms; dropping it loses the history of runs, and no data


def storage_dsn(settings: Settings) -> str:
    """`BTC_ASSETS_DAGSTER_DSN`, or the store's own connection string."""
    return settings.dagster_dsn.get_secret_value() if settings.dagster_dsn else Store.of(settings).dsn


def sqlalchemy_url(conninfo: str) -> str:
    """A PostgreSQL URL as SQLAlchemy wants it, with Dagster's schema in front."""
    parts = urlsplit(conninfo)
    query = urlencode([*parse_qsl(parts.query), ("options", f"-csearch_path={SCHEMA}")], quote_via=quote)
    # SQLAlchemy 2.1 takes psycopg 3 for plain `postgresql`, which dagster-postgres does not speak.
    return urlunsplit(("postgresql+psycopg2", parts.netloc, parts.path, query, ""))


class StoreStorage(DagsterPostgresStorage, ConfigurableClass):
    """`dagster-postgres`, with the address from the settings and a cheaper event log."""

    def __init__(self, postgres_url: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(postgres_url, inst_data=inst_data)
        use_compact_event_log(self, postgres_url)

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: object) -> "StoreStorage":
        conninfo = storage_dsn(load_settings())
        with connect(conninfo) as connection:
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
        config = load_settings()
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


def delete_old_events(instance: DagsterInstance, before: datetime) -> int:
    """Delete the events of steps that are older than `before`; what is known of assets, their checks and their freshness stays.

    Without its steps, the page of a run shows no more than that it was, when, and how it ended.

    Returns:
        How many were deleted.
    """
    forgotten = 0
    with instance.event_log_storage.index_connection() as connection:  # type: ignore[attr-defined]  # of storages in SQL
        # By type and id, as the index has them. Ids ascend with time, so that of each type only what is too old is looked at.
        for kind in _OF_STEPS:
            oldest = (
                sqlalchemy.select(EVENTS_TABLE.c.id)
                .where(EVENTS_TABLE.c.dagster_event_type.is_not_distinct_from(kind))
                .order_by(EVENTS_TABLE.c.id)
            )
            while True:
                batch = oldest.limit(_BATCH).subquery()
                gone = connection.execute(
                    sqlalchemy.delete(EVENTS_TABLE).where(
                        EVENTS_TABLE.c.id.in_(sqlalchemy.select(batch.c.id)),
                        EVENTS_TABLE.c.timestamp < before.astimezone(UTC).replace(tzinfo=None),
                    )
                ).rowcount
                forgotten += gone
                if gone < _BATCH:
                    break
    return forgotten
