"""Where Dagster keeps its runs and events, in the store's PostgreSQL, and the output of steps, in S3 or below DAGSTER_HOME.

`dagster.yaml` names these classes instead of addresses. So every process (webserver, daemon, worker, command line) finds the database as
the store itself does, the embedded server is up before Dagster needs it, and no password is written to a file or to the command line of
a child process.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import psycopg
from dagster_aws.s3 import S3ComputeLogManager
from dagster_postgres import DagsterPostgresStorage
from psycopg import sql

from btc_assets.domain.settings import Settings, load_settings
from btc_assets.orchestration.dagster_private import (
    ComputeLogManager,
    ConfigurableClass,
    ConfigurableClassData,
    LocalComputeLogManager,
    compute_logs_directory,
    use_compact_event_log,
)
from btc_assets.store.database import Store, connect

SCHEMA = "dagster"  # apart from the rooms' schemas: dropping it loses the history of runs, and no data


def storage_dsn(settings: Settings) -> str:
    """Connection string of Dagster's storage: `BTC_ASSETS_DAGSTER_DSN`, or the store's own."""
    return settings.dagster_dsn.get_secret_value() if settings.dagster_dsn else Store.of(settings).dsn


def sqlalchemy_url(dsn: str) -> str:
    """A PostgreSQL URL in the form of SQLAlchemy, with Dagster's schema as the search path."""
    parts = urlsplit(dsn)
    query = urlencode([*parse_qsl(parts.query), ("options", f"-csearch_path={SCHEMA}")], quote_via=quote)
    # SQLAlchemy 2.1 takes psycopg 3 for plain `postgresql`, which dagster-postgres does not support.
    return urlunsplit(("postgresql+psycopg2", parts.netloc, parts.path, query, ""))


class StoreStorage(DagsterPostgresStorage, ConfigurableClass):
    """`dagster-postgres`, with the address from the settings and a cheaper event log."""

    def __init__(self, postgres_url: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(postgres_url, inst_data=inst_data)
        use_compact_event_log(self, postgres_url)

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """No options: the settings have the address."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: object) -> StoreStorage:
        """Open the storage that this process's settings name."""
        dsn = storage_dsn(load_settings())
        _create_schema(dsn)
        return cls(postgres_url=sqlalchemy_url(dsn), inst_data=inst_data)


def _create_schema(dsn: str) -> None:
    with connect(dsn) as connection:
        # Looked up first, because a loader may not create schemas.
        if connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (SCHEMA,)).fetchone() is None:
            with suppress(psycopg.errors.UniqueViolation):  # another process was faster
                connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(SCHEMA)))


class StoreComputeLogs(ComputeLogManager, ConfigurableClass):
    """Chooses where the output of steps goes: to the bucket that `BTC_ASSETS_COMPUTE_LOGS_URL` names, else into files in DAGSTER_HOME."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """No options: the settings have the address."""
        return {}

    @classmethod
    def from_config_value(  # type: ignore[override]  # it chooses a manager, and returns none of its own class
        cls, inst_data: ConfigurableClassData | None, config_value: object
    ) -> ComputeLogManager:
        """Make the manager that this process's settings ask for."""
        settings = load_settings()
        if settings.compute_logs_url is None:
            return LocalComputeLogManager(compute_logs_directory(os.environ["DAGSTER_HOME"]), inst_data=inst_data)
        parts = urlsplit(settings.compute_logs_url)
        return S3ComputeLogManager(
            bucket=parts.netloc,
            prefix=parts.path.strip("/") or "dagster",
            region=settings.s3_region,
            endpoint_url=settings.s3_endpoint,
            skip_empty_files=True,
            inst_data=inst_data,
        )
