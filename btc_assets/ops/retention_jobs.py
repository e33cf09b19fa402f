"""`ops.retention_jobs`: bringing the declared policies into force, running them, and telling where the server differs.

What the engines do differently lies in the functions of the schema `ops` (`sql/*/0012_policies.sql`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import psycopg
from psycopg.types.json import Jsonb

from btc_assets.domain.errors import UserError
from btc_assets.ops.policies import Compress, Keep, Policy
from btc_assets.store.errors import server_errors

_DECLARE = """
INSERT INTO ops.retention_jobs (job_name, hypertable, policy) VALUES (%s, %s, %s)
ON CONFLICT (job_name) DO UPDATE SET hypertable = excluded.hypertable, policy = excluded.policy
"""


@dataclass(frozen=True)
class InForce:
    """A policy as the server has it; a table may have one of each kind."""

    kind: str
    table: str
    after: timedelta | None
    until: timedelta | None
    segment_by: tuple[str, ...]
    order_by: tuple[str, ...]
    every: timedelta | None
    enabled: bool
    last_run_at: datetime | None
    last_result: str | None
    next_run_at: datetime | None


@dataclass(frozen=True)
class JobStatus:
    """A declared policy, or one that nobody declared, and how it is.

    Attributes:
        job_name: kind and table.
        policy: what is declared; None where nobody declared it.
        state: `declared`, `applied`, `drifted` or `not supported`.
        drift: what differs on the server and what to do; empty where nothing does.
        failure: what went wrong in its last run; empty where it went well or never ran.
    """

    job_name: str
    policy: Policy | None
    state: str
    drift: str = ""
    failure: str = ""
    enabled: bool = True
    last_run_at: datetime | None = None
    last_result: str | None = None
    next_run_at: datetime | None = None


def read_statuses(connection: psycopg.Connection, policies: Sequence[Policy]) -> list[JobStatus]:
    """Compare what is declared with what the server does; changes nothing."""
    with server_errors(), connection.transaction():
        in_force = _in_force(connection)
        recorded: dict[str, tuple[str, str, bool]] = {
            name: (table, state, enabled)
            for name, table, state, enabled in connection.execute("SELECT job_name, hypertable, state, enabled FROM ops.retention_jobs")
        }
    statuses = [
        _status(policy, in_force.pop((policy.kind, policy.table), None), recorded.get(policy.job_name), in_force) for policy in policies
    ]
    names = {policy.job_name for policy in policies}
    for found in in_force.values():
        if f"{found.kind} {found.table}" not in names:
            statuses.append(_undeclared(found))
    gone = [name for name in recorded if name not in names and not any(status.job_name == name for status in statuses)]
    statuses += [JobStatus(name, None, "drifted", "it is not declared any more: run btc-assets ops apply") for name in sorted(gone)]
    return statuses


def apply_policies(connection: psycopg.Connection, policies: Sequence[Policy]) -> list[str]:
    """Bring the declared policies into force, and end those that were declared before; what is in force already is not touched.

    Returns:
        What was changed, a sentence each.
    """
    changes = []
    with server_errors(), connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('ops.retention_jobs'))")
        before = {status.job_name: status for status in read_statuses(connection, policies)}
        for policy in policies:
            connection.execute(_DECLARE, (policy.job_name, policy.table, Jsonb(policy.as_json())))
            status = before[policy.job_name]
            if status.drift and not (isinstance(policy, Keep) and status.state == "drifted"):  # what others set up is theirs to remove
                row = connection.execute("SELECT ops.apply_policy(%s)", (policy.job_name,)).fetchone()
                assert row is not None
                connection.execute("UPDATE ops.retention_jobs SET state = %s WHERE job_name = %s", (row[0], policy.job_name))
                changes.append(f"{policy.job_name}: {row[0]}")
        for (name,) in connection.execute("SELECT job_name FROM ops.retention_jobs ORDER BY job_name").fetchall():
            if name not in {policy.job_name for policy in policies}:
                connection.execute("SELECT ops.remove_policy(%s)", (name,))
                changes.append(f"{name}: removed")
    return changes


def run_due_policies(connection: psycopg.Connection) -> list[str]:
    """Run what is due where the server has no scheduler of its own, or its scheduler failed at it; returns the names of what ran.

    A policy that fails is recorded with its reason, and the others run all the same.
    """
    with server_errors():
        due = [name for (name,) in connection.execute("SELECT ops.due_policies()").fetchall()]
        for name in due:
            try:
                run_policy(connection, name)
            except (psycopg.Error, UserError) as error:
                if connection.closed:
                    raise
                connection.execute(
                    "UPDATE ops.retention_jobs SET last_run_at = clock_timestamp(), last_result = %s WHERE job_name = %s",
                    (f"failed: {str(error).splitlines()[0]}", name),
                )
    return due


def run_policy(connection: psycopg.Connection, job_name: str) -> None:
    """Run one policy now; the connection is in autocommit."""
    with server_errors():
        connection.execute("CALL ops.run_policy(%s)", (job_name,))


def record_statuses(connection: psycopg.Connection, statuses: Sequence[JobStatus]) -> None:
    """Write down in `ops.retention_jobs` how the policies are, for those who look there."""
    with server_errors(), connection.transaction():
        for status in statuses:
            connection.execute(
                "UPDATE ops.retention_jobs SET state = %s, last_run_at = coalesce(%s, last_run_at), last_result = coalesce(%s, last_result) "
                "WHERE job_name = %s",
                (status.state, status.last_run_at, status.last_result, status.job_name),
            )


@dataclass(frozen=True)
class TableSize:
    """Size of a table on disk, in bytes, indexes included; `before` and `after` are of its compressed chunks."""

    table: str
    total: int
    chunks: int
    compressed_chunks: int
    before: int | None
    after: int | None


def read_sizes(connection: psycopg.Connection) -> list[TableSize]:
    """How large ticks and partial candles are."""
    with server_errors(), connection.transaction():
        rows = connection.execute(
            "SELECT relation, total_bytes, chunks, compressed_chunks, bytes_before, bytes_after FROM ops.table_sizes()"
        ).fetchall()
    return [TableSize(*row) for row in rows]


def _in_force(connection: psycopg.Connection) -> dict[tuple[str, str], InForce]:
    rows = connection.execute(
        "SELECT kind, hypertable, after, until, coalesce(segment_by, '{}'), coalesce(order_by, '{}'), every, enabled, "
        "last_run_at, last_result, next_run_at FROM ops.policies_in_force()"
    ).fetchall()
    found = [
        InForce(kind, table, after, until, tuple(segment_by), tuple(order_by), *rest)
        for kind, table, after, until, segment_by, order_by, *rest in rows
    ]
    return {(policy.kind, policy.table): policy for policy in found}


def _status(
    policy: Policy, found: InForce | None, recorded: tuple[str, str, bool] | None, others: dict[tuple[str, str], InForce]
) -> JobStatus:
    name, state = policy.job_name, recorded[1] if recorded else "declared"
    enabled = recorded[2] if recorded else True
    if isinstance(policy, Keep):
        drift = ""
        if recorded is None:
            drift = "it is not applied yet: run btc-assets ops apply"
        if any(others.pop((kind, policy.table), None) for kind in ("drop", "retention")):
            drift = f"{policy.table} is to be kept for ever, but the server has a policy that drops from it: remove that"
        return JobStatus(name, policy, "drifted" if drift and recorded else state, drift)
    if state == "not supported":
        return JobStatus(name, policy, state)
    if found is None:
        drift = "the server does not have it" if recorded else "it is not applied yet"
        return JobStatus(name, policy, "drifted" if recorded else "declared", f"{drift}: run btc-assets ops apply", enabled=enabled)
    differences = _differences(policy, found, enabled)
    failed = found.last_result is not None and not found.last_result.startswith("ok")
    return JobStatus(
        name, policy, "drifted" if differences else "applied",
        f"the server has {', '.join(differences)}: run btc-assets ops apply" if differences else "",
        (found.last_result or "") if failed else "", found.enabled, found.last_run_at, found.last_result, found.next_run_at,
    )  # fmt: skip


def _differences(policy: Policy, found: InForce, enabled: bool) -> list[str]:
    compared: list[tuple[str, object, object]] = [("every", found.every, policy.every), ("enabled", found.enabled, enabled)]
    for name in ("after", "until"):
        if (wanted := getattr(policy, name, None)) is not None:
            compared.append((name, getattr(found, name), wanted))
    if isinstance(policy, Compress):
        compared += [("segment_by", found.segment_by, policy.segment_by), ("order_by", found.order_by, policy.order_by)]
    return [f"{name} {has} instead of {wanted}" for name, has, wanted in compared if has != wanted]


def _undeclared(found: InForce) -> JobStatus:
    drift = "nobody declared it: remove it from the server (see timescaledb_information.jobs)"
    return JobStatus(
        f"{found.kind} {found.table}", None, "drifted", drift, "", found.enabled, found.last_run_at, found.last_result, found.next_run_at
    )  # fmt: skip
