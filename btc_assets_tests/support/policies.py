"""What tests of policies ask a store."""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg

from btc_assets.domain.settings import Settings
from btc_assets.domain.slices import floor_day
from btc_assets.ops.policies import Policy, declared_policies
from btc_assets.ops.policies_in_force import PolicyStatus, read_policy_statuses

DECLARED = declared_policies(Settings())
TODAY = floor_day(datetime.now(UTC))  # policies go by the server's clock


def statuses_by_name(connection: psycopg.Connection, policies: tuple[Policy, ...] = DECLARED) -> dict[str, PolicyStatus]:
    return {status.job_name: status for status in read_policy_statuses(connection, policies)}


def read_drift(connection: psycopg.Connection, policies: tuple[Policy, ...] = DECLARED) -> dict[str, str]:
    """The drift of each policy that has drifted, by name."""
    return {name: status.drift for name, status in statuses_by_name(connection, policies).items() if status.drift}


def read_days_of_ticks(connection: psycopg.Connection) -> list[datetime]:
    """The days that have ticks."""
    return [
        day for (day,) in connection.execute("SELECT DISTINCT date_trunc('day', bucket_5m, 'UTC') FROM market_data.btc_ticks ORDER BY 1")
    ]
