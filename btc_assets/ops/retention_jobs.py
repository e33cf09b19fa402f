"""Bringing the declared policies into force, and running those that are due; `ops.retention_jobs` records them.

What differs between the engines is in the functions of the schema `ops` (sql/*/repeatable/ops.*.sql).
"""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
from psycopg.types.json import Jsonb

from btc_assets.domain.errors import UserError
from btc_assets.ops.policies import Keep, Policy
from btc_assets.ops.policies_in_force import PolicyStatus, read_policy_statuses
from btc_assets.store.database import only_row
from btc_assets.store.errors import server_errors

_DECLARE = """
INSERT INTO ops.retention_jobs (job_name, hypertable, policy) VALUES (%s, %s, %s)
ON CONFLICT (job_name) DO UPDATE SET hypertable = excluded.hypertable, policy = excluded.policy
"""


def apply_policies(connection: psycopg.Connection, policies: Sequence[Policy]) -> list[str]:
    """Bring the declared policies into force, and end those that are no longer declared; what is in force stays untouched.

    Returns:
        What was changed, a sentence each.
    """
    changes = []
    with server_errors(), connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('ops.retention_jobs'))")
        before = {status.job_name: status for status in read_policy_statuses(connection, policies)}
        for policy in policies:
            connection.execute(_DECLARE, (policy.job_name, policy.table, Jsonb(policy.as_json())))
            if _needs_applying(policy, before[policy.job_name]):
                (state,) = only_row(connection.execute("SELECT ops.apply_policy(%s)", (policy.job_name,)))
                connection.execute("UPDATE ops.retention_jobs SET state = %s WHERE job_name = %s", (state, policy.job_name))
                changes.append(f"{policy.job_name}: {state}")
        declared = {policy.job_name for policy in policies}
        for (name,) in connection.execute("SELECT job_name FROM ops.retention_jobs ORDER BY job_name").fetchall():
            if name not in declared:
                connection.execute("SELECT ops.remove_policy(%s)", (name,))
                changes.append(f"{name}: removed")
    return changes


def _needs_applying(policy: Policy, status: PolicyStatus) -> bool:
    foreign = isinstance(policy, Keep) and status.state == "drifted"  # a policy that somebody else set up is theirs to remove
    return bool(status.drift) and not foreign


def run_due_policies(connection: psycopg.Connection) -> list[str]:
    """Run the policies that are due: all of them on a server without a scheduler, else those that its scheduler failed to run.

    The failure of a policy is recorded with its reason, and the others still run.

    Returns:
        The names of the policies that ran.
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
    """Run a policy now, on a connection in autocommit mode."""
    with server_errors():
        connection.execute("CALL ops.run_policy(%s)", (job_name,))


def record_statuses(connection: psycopg.Connection, statuses: Sequence[PolicyStatus]) -> None:
    """Record the state and the last run of each policy in `ops.retention_jobs`."""
    with server_errors(), connection.transaction():
        for status in statuses:
            connection.execute(
                "UPDATE ops.retention_jobs SET state = %s, last_run_at = coalesce(%s, last_run_at), last_result = coalesce(%s, last_result) "
                "WHERE job_name = %s",
                (status.state, status.last_run_at, status.last_result, status.job_name),
            )
