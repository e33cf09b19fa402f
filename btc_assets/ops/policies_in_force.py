"""The policies that the server has in force, compared with those that are declared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import psycopg

from btc_assets.ops.policies import Compress, Keep, Policy
from btc_assets.store.errors import server_errors

_APPLY = "run btc-assets ops apply"


@dataclass(frozen=True)
class PolicyInForce:
    """A policy as the server has it. A table has at most one of each kind."""

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
class PolicyStatus:
    """A policy that is declared or in force, and what is wrong with it.

    Attributes:
        job_name: kind and table.
        policy: as it is declared; None if it is not.
        state: `declared`, `applied`, `drifted` or `not supported`.
        drift: what differs on the server and what to do; empty if nothing does.
        failure: what went wrong in its last run; empty if nothing did or it never ran.
        enabled: whether it runs by itself.
        last_run_at, last_result, next_run_at: of its runs, as far as the server knows.
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


@dataclass(frozen=True)
class _Record:
    """What `ops.retention_jobs` records about a policy that was applied before."""

    state: str = "declared"
    enabled: bool = True


_PoliciesInForce = dict[tuple[str, str], PolicyInForce]  # by kind and table


def read_policies_in_force(connection: psycopg.Connection) -> list[PolicyInForce]:
    """The policies that the server has on the store's tables."""
    with server_errors():
        rows = connection.execute(
            "SELECT kind, hypertable, after, until, coalesce(segment_by, '{}'), coalesce(order_by, '{}'), every, enabled, "
            "last_run_at, last_result, next_run_at FROM ops.policies_in_force()"
        ).fetchall()
    return [
        PolicyInForce(kind, table, after, until, tuple(segment_by), tuple(order_by), *rest)
        for kind, table, after, until, segment_by, order_by, *rest in rows
    ]


def read_policy_statuses(connection: psycopg.Connection, policies: Sequence[Policy]) -> list[PolicyStatus]:
    """Compare declared policies with those in force; changes nothing.

    Returns:
        The declared policies in their order, then those that the server has or had without a declaration.
    """
    with server_errors(), connection.transaction():
        in_force = {(found.kind, found.table): found for found in read_policies_in_force(connection)}
        rows = connection.execute("SELECT job_name, state, enabled FROM ops.retention_jobs").fetchall()
    records = {job_name: _Record(*rest) for job_name, *rest in rows}
    statuses = [_declared_status(policy, in_force, records.get(policy.job_name)) for policy in policies]
    declared = {policy.job_name for policy in policies}
    reported = declared | _drops_from_kept_tables(policies)
    undeclared = [status for found in in_force.values() if (status := _undeclared_status(found)).job_name not in reported]
    ended = sorted(records.keys() - declared - {status.job_name for status in undeclared})
    return [*statuses, *undeclared, *(PolicyStatus(name, None, "drifted", f"it is no longer declared: {_APPLY}") for name in ended)]


def _declared_status(policy: Policy, in_force: _PoliciesInForce, record: _Record | None) -> PolicyStatus:
    if isinstance(policy, Keep):
        return _keep_status(policy, in_force, record)
    if record and record.state == "not supported":
        return PolicyStatus(policy.job_name, policy, record.state)
    found = in_force.get((policy.kind, policy.table))
    enabled = record.enabled if record else True
    if found is None:
        state, drift = ("drifted", "the server does not have it") if record else ("declared", "it is not applied yet")
        return PolicyStatus(policy.job_name, policy, state, f"{drift}: {_APPLY}", enabled=enabled)
    differences = _differences(policy, found, enabled)
    failed = found.last_result is not None and not found.last_result.startswith("ok")
    return PolicyStatus(
        policy.job_name,
        policy,
        "drifted" if differences else "applied",
        f"the server has {', '.join(differences)}: {_APPLY}" if differences else "",
        (found.last_result or "") if failed else "",
        found.enabled,
        found.last_run_at,
        found.last_result,
        found.next_run_at,
    )


def _keep_status(policy: Keep, in_force: _PoliciesInForce, record: _Record | None) -> PolicyStatus:
    status = PolicyStatus(policy.job_name, policy, record.state if record else "declared")
    if any((kind, policy.table) in in_force for kind in _DROPPING):
        drift = f"{policy.table} must be kept forever, but the server has a policy that drops from it: remove that policy"
        return replace(status, state="drifted" if record else status.state, drift=drift)
    return status if record else replace(status, drift=f"it is not applied yet: {_APPLY}")


_DROPPING = ("drop", "retention")  # kinds of policies that drop rows: ours, and any other of TimescaleDB


def _drops_from_kept_tables(policies: Sequence[Policy]) -> set[str]:
    """Names of the policies that the status of a `Keep` reports already."""
    return {f"{kind} {policy.table}" for policy in policies if isinstance(policy, Keep) for kind in _DROPPING}


def _differences(policy: Policy, found: PolicyInForce, enabled: bool) -> list[str]:
    compared: list[tuple[str, object, object]] = [("every", found.every, policy.every), ("enabled", found.enabled, enabled)]
    for name in ("after", "until"):
        if (wanted := getattr(policy, name, None)) is not None:
            compared.append((name, getattr(found, name), wanted))
    if isinstance(policy, Compress):
        compared += [("segment_by", found.segment_by, policy.segment_by), ("order_by", found.order_by, policy.order_by)]
    return [f"{name} {has} instead of {wanted}" for name, has, wanted in compared if has != wanted]


def _undeclared_status(found: PolicyInForce) -> PolicyStatus:
    return PolicyStatus(
        f"{found.kind} {found.table}",
        None,
        "drifted",
        "it is not declared: remove it from the server (see timescaledb_information.jobs)",
        enabled=found.enabled,
        last_run_at=found.last_run_at,
        last_result=found.last_result,
        next_run_at=found.next_run_at,
    )
