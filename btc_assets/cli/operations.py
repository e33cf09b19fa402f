"""Commands `ops`: the policies on the store's tables, and its backups."""

from __future__ import annotations

import csv
import socket
import sys
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape
from rich.table import Table

from btc_assets.cli.app import App, example, out, pass_app, progress_bar
from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import parse_time

if TYPE_CHECKING:
    from btc_assets.backup.restore_drill import Comparison


@click.group(epilog=example("btc-assets ops status"))
def ops() -> None:
    """Policies on the store's tables: compression, retention, refreshing."""


@ops.command("apply", epilog=example("btc-assets ops apply"))
@pass_app
def ops_apply(app: App) -> None:
    """Bring the declared policies into force; safe to repeat."""
    from btc_assets.ops import retention_jobs
    from btc_assets.ops.policies import declared_policies

    with app.store.connect(owner=True) as connection:
        changes = retention_jobs.apply_policies(connection, declared_policies(app.settings))
    for change in changes:
        out.print(change, highlight=False)
    if not changes:
        out.print("Everything is in force as declared.", highlight=False)


@ops.command("status", epilog=example("btc-assets ops status"))
@pass_app
def ops_status(app: App) -> None:
    """Show every policy, how it last went, and how large the tables are; ends with 1 where something is amiss."""
    from btc_assets.ops.policies import declared_policies
    from btc_assets.ops.policies_in_force import read_policy_statuses
    from btc_assets.ops.table_sizes import read_table_sizes

    with app.store.connect(owner=True) as connection:
        statuses = read_policy_statuses(connection, declared_policies(app.settings))
        sizes = read_table_sizes(connection)
    table = Table("policy", "of", "state", "last run", "next run", "last result")
    for status in statuses:
        kind, _, name = status.job_name.partition(" ")
        if kind == "keep" and not status.drift:
            continue
        state = status.state if status.enabled else f"{status.state}, disabled"
        table.add_row(
            kind,
            _short(name),
            state,
            _moment(status.last_run_at),
            _moment(status.next_run_at),
            status.last_result or "",
        )
    out.print(table)
    kept = [
        _short(status.job_name.removeprefix("keep ")) for status in statuses if status.job_name.startswith("keep ") and not status.drift
    ]
    if kept:
        out.print(f"Kept for ever: {', '.join(kept)}.", highlight=False)
    for status in statuses:
        for problem in filter(None, (status.drift, status.failure)):
            out.print(f"[red]{status.job_name}:[/red] {problem}", highlight=False)
    table = Table("table", "MB", "chunks", "compressed", "MB before", "MB after", "ratio")
    for column in table.columns[1:]:
        column.justify = "right"
    for size in sizes:
        before, after = size.before, size.after
        table.add_row(
            _short(size.table), f"{size.total / 1e6:,.1f}", f"{size.chunks:,}", f"{size.compressed_chunks:,}", f"{before / 1e6:,.1f}" if before else "",
            f"{after / 1e6:,.1f}" if after else "", f"{before / after:.1f}" if before and after else "",
        )  # fmt: skip
    out.print(table)
    if any(status.drift or status.failure for status in statuses):
        sys.exit(1)


def _moment(time: datetime | None) -> str:
    return f"{time:%m-%d %H:%M}" if time else ""


def _short(table: str) -> str:
    """A table's name as it fits into a terminal."""
    return table.removeprefix("market_data.").replace("candle_partials_", "candles_")


@ops.command("run", epilog=example('btc-assets ops run "compress market_data.btc_ticks"'))
@click.argument("policy")
@pass_app
def ops_run(app: App, policy: str) -> None:
    """Run a POLICY now, by its name in ops status."""
    from btc_assets.ops import retention_jobs
    from btc_assets.ops.policies import declared_policies
    from btc_assets.ops.policies_in_force import read_policy_statuses

    with app.store.connect(owner=True) as connection:
        statuses = {status.job_name: status for status in read_policy_statuses(connection, declared_policies(app.settings))}
        if policy not in statuses:
            raise UserError(f"There is no policy {policy!r}: name one of {', '.join(statuses)}.")
        if statuses[policy].state == "not supported" or policy.startswith("keep"):
            raise UserError(f"Nothing is to be done for {policy!r} on this server: its state is {statuses[policy].state}.")
        if statuses[policy].state != "applied":
            raise UserError(f"{policy!r} is not in force: {statuses[policy].drift}.")
        retention_jobs.run_policy(connection, policy)
        status = next(s for s in read_policy_statuses(connection, declared_policies(app.settings)) if s.job_name == policy)
    out.print(f"{policy}: {status.last_result}", highlight=False)


@ops.command("backup-status", epilog=example("btc-assets ops backup-status --metrics btc-assets"))
@click.option("--metrics", metavar="NAMESPACE", help="Also put them into CloudWatch, for alarms.")
@click.option("--host", help="Value of the metrics' dimension Host; by default this machine's name.")
@pass_app
def ops_backup_status(app: App, metrics: str | None, host: str | None) -> None:
    """Show what there is to restore from, and whether WAL is archived; ends with 1 where something is amiss."""

    from btc_assets.backup.metrics import put_metrics
    from btc_assets.backup.status import read_backup_status
    from btc_assets.domain.durations import format_age

    with app.store.connect() as connection:
        status = read_backup_status(connection, app.settings)
    table = Table("backup", "kind", "finished", "seconds", "MB", "MB stored")
    for column in table.columns[3:]:
        column.justify = "right"
    for backup in status.backups:
        seconds = (backup.stopped - backup.started).total_seconds()
        sizes = f"{backup.size / 1e6:,.1f}", f"{backup.stored / 1e6:,.1f}"
        table.add_row(backup.label, backup.kind, f"{backup.stopped:%Y-%m-%d %H:%M:%S}", f"{seconds:,.0f}", *sizes)
    out.print(table)
    if status.restorable_from and status.restorable_to:
        since = f"{status.restorable_to:%Y-%m-%d %H:%M:%S}, {format_age(status.restorable_to, status.at)} ago"
        out.print(
            f"It can be restored to any moment from {status.restorable_from:%Y-%m-%d %H:%M:%S} to {since}.", highlight=False, soft_wrap=True
        )
    disk = f"; the disk is {status.disk_used:.0f} % full" if status.disk_used is not None else ""
    out.print(f"{status.wal_waiting:,} WAL files wait to be archived{disk}.", highlight=False)
    for problem in status.problems:
        out.print(f"[red]problem[/red] {escape(problem)}", highlight=False, soft_wrap=True)
    if metrics:
        put_metrics(status, metrics, host or socket.gethostname())
    if status.problems:
        sys.exit(1)


@ops.command("restore-drill", epilog=example("sudo -iu postgres btc-assets ops restore-drill --to 2026-01-10T12:00Z"))
@click.option("--to", "moment", help="Moment to restore to, UTC; by default now.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to put the copy, empty or not there yet; by default beside the live data.",
)
@click.option("--keep", is_flag=True, help="Keep the copy running until Ctrl-C, to look at it or to fetch rows from it.")
@click.option("--report", type=click.Path(path_type=Path, dir_okay=False), help="Write each slice that differs to this CSV file.")
@pass_app
def ops_restore_drill(app: App, moment: str | None, directory: Path | None, keep: bool, report: Path | None) -> None:
    """Restore the whole cluster beside the live one, prove what came back, and remove it again.

    Shows which slices of ticks are others now. Ends with 1 where the copy contradicts its own registry, or differs from the live
    store though nothing was loaded or dropped since. Run it as the user that the cluster belongs to, with a superuser's DSN.
    """
    import signal

    from btc_assets.backup.child_process import exit_on_signals
    from btc_assets.backup.restore_drill import compare_copy
    from btc_assets.backup.restored_copy import restored_copy
    from btc_assets.store.database import connect

    config, target = app.settings, parse_time(moment) if moment else None
    if config.dsn is None:
        raise UserError("The embedded server has no backups: name the server in BTC_ASSETS_DSN, as a superuser.")
    with exit_on_signals(), app.store.connect() as live, restored_copy(live, config, target, directory) as copy:
        out.print(
            f"Restored {copy.target:%Y-%m-%d %H:%M:%S} UTC from {copy.backup.label}, {copy.bytes / 1e6:,.0f} MB: {copy.restore_seconds:.1f} s to "
            f"restore, {copy.recovery_seconds:.1f} s to recover, up to the commit of {copy.last_commit or copy.backup.stopped:%H:%M:%S.%f}.",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
        started = time.perf_counter()
        with connect(copy.dsn) as restored, progress_bar("comparing") as advance:
            found = compare_copy(restored, live, lambda done, total: advance("days", done, total))
        seconds = time.perf_counter() - started
        _print_comparison(found, seconds)
        if report:
            _write_differences(found, report)
        if keep:
            click.echo(f"The copy runs until Ctrl-C: psql '{copy.dsn}'")
            with suppress(SystemExit):
                signal.pause()
    if found.contradictions or found.damaged:
        sys.exit(1)


@ops.command("end-lost-runs", epilog=example("btc-assets ops end-lost-runs"))
@pass_app
def ops_end_lost_runs(app: App) -> None:
    """Mark Dagster's runs as failed that nobody carries any more, so that they are started again.

    Only while the code location is down: btc-dagster-code calls it before it starts, as after the host was switched off.
    """
    import dagster as dg

    from btc_assets.orchestration.lost_runs import end_lost_runs

    app.prepare_dagster()
    with dg.DagsterInstance.get() as instance:
        for run in end_lost_runs(instance):
            click.echo(f"Run {run} was lost.")


def _print_comparison(found: Comparison, seconds: float) -> None:
    from btc_assets.backup.restore_drill import DAMAGED, merge_differences

    out.print(
        f"Compared {found.rows:,} ticks in {found.slices:,} slices, and {len(found.tables)} other tables, in {seconds:.1f} s.",
        highlight=False,
    )
    shown = list(merge_differences(found.differences))
    if shown:
        table = Table("slices", "symbol", "ticks then", "ticks now", "why", title="A restore would bring back")
        for column in table.columns[2:4]:
            column.justify = "right"
        for window, symbol, why, then, now in shown[:50]:
            table.add_row(str(window), symbol, f"{then:,}", f"{now:,}", f"[red]{why}[/red]" if why == DAMAGED else why)
        out.print(table)
    if len(shown) > 50:
        out.print(f"… and {len(shown) - 50:,} more ranges: see --report.", highlight=False)
    changed = [table for table in found.tables if not table.equal]
    if changed:
        table = Table("table", "rows then", "rows now", title="Other tables that are not the same now")
        for column in table.columns[1:]:
            column.justify = "right"
        for each in changed:
            table.add_row(each.table, f"{each.then:,}", f"{each.now:,}")
        out.print(table)
    for sentence in found.contradictions[:50]:
        out.print(f"[red]contradiction in the copy[/red] {escape(sentence)}", highlight=False, soft_wrap=True)
    if found.damaged:
        out.print(f"[red]{len(found.damaged):,} slices changed for no reason that the store knows of.[/red]", highlight=False)
    if not (found.contradictions or found.damaged):
        out.print(
            "The copy agrees with its registry, and with the live store wherever nothing was loaded or dropped since.", highlight=False
        )


def _write_differences(found: Comparison, path: Path) -> None:

    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["bucket_5m", "symbol", "ticks_then", "ticks_now", "why"])
        writer.writerows((f"{each.bucket_5m:%Y-%m-%dT%H:%MZ}", each.symbol, each.then, each.now, each.why) for each in found.differences)
