"""Commands `ops`: the policies on the store's tables, and runs that were lost; the commands for backups are in `backups`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import click
from rich.table import Table

from btc_assets.cli.app import App, example, new_table, pass_app
from btc_assets.cli.backups import backup_status, restore_drill
from btc_assets.cli.console import out, styled
from btc_assets.domain.errors import UserError

if TYPE_CHECKING:
    from btc_assets.ops.policies_in_force import PolicyStatus
    from btc_assets.ops.table_sizes import TableSize


@click.group(epilog=example("btc-assets ops status"))
def ops() -> None:
    """Policies on the store's tables (compression, retention, refreshing), backups, and lost runs."""


@ops.command(epilog=example("btc-assets ops apply"))
@pass_app
def apply(app: App) -> None:
    """Bring the declared policies into force; safe to repeat."""
    from btc_assets.ops.policies import declared_policies
    from btc_assets.ops.retention_jobs import apply_policies

    with app.store.connect(owner=True) as connection:
        changes = apply_policies(connection, declared_policies(app.settings))
    for change in changes:
        out.print(change)
    if not changes:
        out.print("Everything is in force as declared.")


@ops.command(epilog=example("btc-assets ops status"))
@pass_app
def status(app: App) -> None:
    """Show every policy, its last result, and the sizes of the tables; exits with 1 if there is a problem."""
    from btc_assets.ops.policies import declared_policies
    from btc_assets.ops.policies_in_force import read_policy_statuses
    from btc_assets.ops.table_sizes import read_table_sizes

    with app.store.connect(owner=True) as connection:
        statuses = read_policy_statuses(connection, declared_policies(app.settings))
        sizes = read_table_sizes(connection)
    _print_policies(statuses)
    _print_sizes(sizes)
    if any(status.drift or status.failure for status in statuses):
        sys.exit(1)


def _print_policies(statuses: Sequence[PolicyStatus]) -> None:
    table = Table("policy", "of", "state", "last run", "next run", "last result")
    kept = []
    for status in statuses:
        kind, _, name = status.job_name.partition(" ")
        if kind == "keep" and not status.drift:
            kept.append(_short_name(name))
            continue
        state = status.state if status.enabled else f"{status.state}, disabled"
        times = _format_time(status.last_run_at), _format_time(status.next_run_at)
        table.add_row(kind, _short_name(name), state, *times, status.last_result or "")
    out.print(table)
    if kept:
        out.print(f"Kept for ever: {', '.join(kept)}.")
    for status in statuses:
        for problem in filter(None, (status.drift, status.failure)):
            out.print(styled(f"{status.job_name}:", "red"), problem)


def _print_sizes(sizes: Sequence[TableSize]) -> None:
    table = new_table("table", "MB", "chunks", "compressed", "MB before", "MB after", "ratio", numbers=slice(1, None))
    for size in sizes:
        before, after = size.before, size.after
        table.add_row(
            _short_name(size.table),
            f"{size.total / 1e6:,.1f}",
            f"{size.chunks:,}",
            f"{size.compressed_chunks:,}",
            f"{before / 1e6:,.1f}" if before else "",
            f"{after / 1e6:,.1f}" if after else "",
            f"{before / after:.1f}" if before and after else "",
        )
    out.print(table)


def _format_time(time: datetime | None) -> str:
    return f"{time:%m-%d %H:%M}" if time else ""


def _short_name(table: str) -> str:
    """A table's name, short enough for a terminal."""
    return table.removeprefix("market_data.").replace("candle_partials_", "candles_")


@ops.command(epilog=example('btc-assets ops run "compress market_data.btc_ticks"'))
@click.argument("policy")
@pass_app
def run(app: App, policy: str) -> None:
    """Run a POLICY now, by its name in ops status."""
    from btc_assets.ops.policies import declared_policies
    from btc_assets.ops.policies_in_force import read_policy_statuses
    from btc_assets.ops.retention_jobs import run_policy

    declared = declared_policies(app.settings)
    with app.store.connect(owner=True) as connection:
        statuses = {status.job_name: status for status in read_policy_statuses(connection, declared)}
        if policy not in statuses:
            raise UserError(f"There is no policy {policy!r}: name one of {', '.join(statuses)}.")
        state, drift = statuses[policy].state, statuses[policy].drift
        if state == "not supported" or policy.startswith("keep"):
            raise UserError(f"There is nothing to run for {policy!r} on this server: its state is {state}.")
        if state != "applied":
            raise UserError(f"{policy!r} is not in force: {drift}.")
        run_policy(connection, policy)
        (result,) = (status.last_result for status in read_policy_statuses(connection, declared) if status.job_name == policy)
    out.print(f"{policy}: {result}")


@ops.command(epilog=example("btc-assets ops end-lost-runs"))
@pass_app
def end_lost_runs(app: App) -> None:
    """Mark runs of Dagster that no process executes any more as failed, so that they are started again.

    Only while the code location is down: the unit btc-dagster-code calls it before it starts, as after a power cut.
    """
    import dagster as dg

    from btc_assets.orchestration.lost_runs import end_lost_runs as end_runs

    app.prepare_dagster()
    with dg.DagsterInstance.get() as instance:
        for run_id in end_runs(instance):
            out.print(f"Run {run_id} was lost.")


ops.add_command(backup_status)
ops.add_command(restore_drill)
