"""Where Dagster keeps its runs and events, in the store's PostgreSQL, and the output of steps, in S3 or below DAGSTER_HOME.

`dagster.yaml` names these classes instead of addresses. So every process (webserver, daemon, worker, command line) finds the database as
the store itself does, the embedded server is up before Dagster needs it, and no password is written to a file or to the command line of
a child process.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import psycopg
from dagster_aws.s3 import S3ComputeLogManager
from dagster_postgres import DagsterPostgresStorage
from psycopg import sql

from btc_assets.domain.errors import UserError
from btc_assets.domain.settings import load_settings
from btc_assets.orchestration.dagster_private import (
    CapturedLogContext,
    ComputeLogManager,
    ConfigurableClass,
    ConfigurableClassData,
    LocalComputeLogManager,
    compute_logs_directory,
    use_compact_event_log,
)
from btc_assets.orchestration.deployment import DATABASE_POOL
from btc_assets.orchestration.libpq_dialect import libpq_url
from btc_assets.orchestration.storage_address import SCHEMA, StorageAddress, storage_addresses
from btc_assets.store.database import connect, location, only_row, prepare_conninfo
from btc_assets.store.errors import READ_ONLY, server_errors


class StoreStorage(DagsterPostgresStorage, ConfigurableClass):
    """`dagster-postgres`, with the address from the settings and a cheaper event log."""

    def __init__(self, postgres_url: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(postgres_url, inst_data=inst_data)
        use_compact_event_log(self, postgres_url, DATABASE_POOL)

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """No options: the settings have the address."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: object) -> StoreStorage:
        """Open the storage that this process's settings name."""
        address = _prepare_schema(storage_addresses(load_settings()))
        conninfo = prepare_conninfo(address.dsn, "dagster", address.setting)
        return cls(postgres_url=libpq_url(conninfo, SCHEMA), inst_data=inst_data)


_STATE = """
SELECT
    pg_namespace.oid IS NOT NULL AS schema_exists,
    runs.oid IS NOT NULL AS tables_exist,
    CASE
        WHEN runs.oid IS NOT NULL THEN has_schema_privilege(pg_namespace.oid, 'USAGE') AND has_table_privilege(runs.oid, 'INSERT')
        WHEN pg_namespace.oid IS NOT NULL THEN has_schema_privilege(pg_namespace.oid, 'USAGE') AND has_schema_privilege(pg_namespace.oid, 'CREATE')
        ELSE has_database_privilege(current_database(), 'CREATE')
    END AS allowed,
    current_setting('transaction_read_only')::boolean AS read_only
FROM (VALUES (%(schema)s)) AS wanted (name)
LEFT JOIN pg_namespace ON nspname = wanted.name
LEFT JOIN pg_class AS runs ON relnamespace = pg_namespace.oid AND relname = 'runs'
"""


def _prepare_schema(addresses: Sequence[StorageAddress]) -> StorageAddress:
    """The first address whose role may use Dagster's tables, or may create them where there are none; the schema exists then.

    Raises:
        UserError: there is none, or the server takes no writes.
    """
    for address in addresses:
        with connect(address.dsn, setting=address.setting) as connection, server_errors():
            schema_exists, tables_exist, allowed, read_only = only_row(connection.execute(_STATE, {"schema": SCHEMA}))
            if read_only:
                raise UserError(READ_ONLY.format(f"Dagster's storage at {location(address.dsn)}"))
            if not allowed:
                continue
            if not schema_exists:
                with suppress(psycopg.errors.UniqueViolation):  # another process was faster
                    connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(SCHEMA)))
            return address
    raise UserError(
        f"The user of {address.setting} may not {'use' if tables_exist else 'create'} Dagster's tables (schema {SCHEMA}) at "
        f"{location(address.dsn)}: name the owner in BTC_ASSETS_OWNER_DSN, or a database of Dagster's own in BTC_ASSETS_DAGSTER_DSN."
    )


class _UninterruptedMirror(ComputeLogManager):
    """Starts the processes that copy the output of steps to the terminal with SIGINT held back.

    Ctrl-C reaches all processes of a terminal. Those would end with tracebacks of their own, and before the last sentence of the
    command; they end with the process whose output they copy.
    """

    @contextmanager
    def capture_logs(self, log_key: Sequence[str]) -> Iterator[CapturedLogContext]:
        """Capture what a step prints."""
        with ExitStack() as stack:
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # processes inherit it; for this one it only waits
            try:
                captured = stack.enter_context(super().capture_logs(log_key))  # type: ignore[safe-super]  # of the class beside it
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            yield captured


class _LogsInFiles(_UninterruptedMirror, LocalComputeLogManager):
    pass


class _LogsInBucket(_UninterruptedMirror, S3ComputeLogManager):
    pass


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
            return _LogsInFiles(compute_logs_directory(os.environ["DAGSTER_HOME"]), inst_data=inst_data)
        parts = urlsplit(settings.compute_logs_url)
        return _LogsInBucket(
            bucket=parts.netloc,
            prefix=parts.path.strip("/") or "dagster",
            region=settings.s3_region,
            endpoint_url=settings.s3_endpoint,
            skip_empty_files=True,
            inst_data=inst_data,
        )
