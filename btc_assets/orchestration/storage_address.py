"""Where Dagster's tables are, and what can be read there without importing Dagster, which takes seconds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from btc_assets.domain.settings import Settings
from btc_assets.store.database import Store, connect, only_row
from btc_assets.store.errors import server_errors

SCHEMA = "dagster"  # apart from the rooms' schemas: dropping it loses the history of runs, and no data


@dataclass(frozen=True)
class StorageAddress:
    """A connection string of Dagster's storage, and the setting that holds it."""

    dsn: str
    setting: str


def storage_addresses(settings: Settings) -> list[StorageAddress]:
    """Where Dagster's storage may be, the first that may use its tables: `BTC_ASSETS_DAGSTER_DSN`, or else the store's own database.

    In the store, its tables belong to the owner. Before this was so, they belonged to the role that loads, where that might create them.
    """
    if settings.dagster_dsn:
        return [StorageAddress(settings.dagster_dsn.get_secret_value(), "BTC_ASSETS_DAGSTER_DSN")]
    loader = StorageAddress(Store.of(settings).dsn, "BTC_ASSETS_DSN")
    if settings.owner_dsn:
        return [StorageAddress(settings.owner_dsn.get_secret_value(), "BTC_ASSETS_OWNER_DSN"), loader]
    return [loader]


_HEARTBEAT_OVERDUE = timedelta(seconds=30 + 1800)  # Dagster's own interval and tolerance

_LAST_HEARTBEAT = """
SELECT max(timestamp) AT TIME ZONE 'UTC' FROM dagster.daemon_heartbeats
"""
_MAY_READ = """
SELECT coalesce(has_schema_privilege(pg_namespace.oid, 'USAGE') AND has_table_privilege(pg_class.oid, 'SELECT'), false)
FROM (VALUES (1)) AS one LEFT JOIN pg_namespace ON nspname = %s LEFT JOIN pg_class ON relnamespace = pg_namespace.oid AND relname = 'daemon_heartbeats'
"""


def daemon_runs(settings: Settings, now: datetime) -> bool:
    """Whether a daemon of Dagster has given a sign of life of late, as `DagsterInstance.get_daemon_statuses` tells.

    Raises:
        UserError: the server does not answer.
    """
    for address in storage_addresses(settings):
        with connect(address.dsn, setting=address.setting) as connection, server_errors():
            if only_row(connection.execute(_MAY_READ, (SCHEMA,))) == (True,):
                (last,) = only_row(connection.execute(_LAST_HEARTBEAT))
                return last is not None and now - last <= _HEARTBEAT_OVERDUE
    return False
