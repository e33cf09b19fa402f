"""The command line: `btc-assets`."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from btc_assets.cli.signals import commands as signals_commands
from btc_assets.cli.terminal import bar, example, from_to, out, save_picture, window_of
from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import DAY, SLICE, Window, floor_day, floor_slice, parse_time

if TYPE_CHECKING:
    import psycopg

    from btc_assets.backup.restore_drill import Comparison
    from btc_assets.ops.health import Health
    from btc_assets.orchestration.ingest import IngestReport
    from btc_assets.simulation.live import Playing
    from btc_assets.simulation.replay import Landed

# Commands import what they need themselves: `--help` and `db` must not wait for Dagster, nor `status` for matplotlib.


class _Group(click.Group):
    """Prints a `UserError` as one line."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise click.ClickException(str(error)) from None


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]}, epilog=example("btc-assets demo"))
@click.version_option(package_name="btc-assets")
def main() -> None:
    """The Bitcoin tick store: landing zone to ticks to candles."""


# ---- db


@main.group(epilog=example("btc-assets db migrate"))
def db() -> None:
    """The store's database: set it up, look at it, stop the embedded one."""


@db.command(epilog=example("BTC_ASSETS_OWNER_DSN=postgresql://owner@db:5432/btc btc-assets db migrate"))
def migrate() -> None:
    """Apply the SQL files that are new, and those of views and functions that changed."""
    from btc_assets.store.database import connect, where
    from btc_assets.store.migrations import migrate as apply

    with connect(owner=True, autocommit=True) as connection:
        names = apply(connection)
        _create_optional_candles(connection)
        state = f"applied {len(names)} migration(s)" if names else "up to date"
        out.print(f"{where(connection.info.dsn)}: {state}.", highlight=False, soft_wrap=True)
    for name in names:
        out.print(f"  {name}", highlight=False)
    if names:
        out.print("Next: btc-assets ops apply (compression, retention), and btc-assets doctor.", highlight=False)


@db.command(epilog=example("btc-assets db grant --loader btc_loader --reader btc_reader"))
@click.option("--loader", "loaders", multiple=True, help="A role that writes rows, and neither creates nor drops a table; repeatable.")
@click.option("--reader", "readers", multiple=True, help="A role that reads; repeatable.")
def grant(loaders: tuple[str, ...], readers: tuple[str, ...]) -> None:
    """Let roles that exist load into the store or read it; run it as the owner, safe to repeat."""
    from btc_assets.ops.roles import grant as give
    from btc_assets.store.database import connect

    if not (loaders or readers):
        raise click.UsageError("Name at least one role with --loader or --reader.")
    with connect(owner=True, autocommit=True) as connection:
        give(connection, loaders=loaders, readers=readers)
    for role in loaders:
        out.print(f"{role} may load.", highlight=False, markup=False)
    for role in readers:
        out.print(f"{role} may read.", highlight=False, markup=False)


def _create_optional_candles(connection: psycopg.Connection) -> None:
    from btc_assets.domain.settings import settings
    from btc_assets.market_data.candles import create_optional

    if settings().candles_100ms:
        create_optional(connection)


@db.command("status", epilog=example("btc-assets db status"))
def db_status() -> None:
    """Show every SQL file of the database, and whether it is applied."""
    from btc_assets.store.database import connect, where
    from btc_assets.store.engines import engine
    from btc_assets.store.migrations import migration_status

    with connect(autocommit=True) as connection:
        states = migration_status(connection)
        version = connection.info.server_version // 10000
        out.print(f"{where(connection.info.dsn)}: engine {engine(connection)}, PostgreSQL {version}", highlight=False)
    table = Table("migration", "applied", "problem")
    for state in states:
        applied = f"{state.applied_at:%Y-%m-%d %H:%M:%S}" if state.applied_at else "not yet"
        table.add_row(state.name, f"{applied}, to be applied again" if state.applied_at and state.pending else applied, state.problem)
    out.print(table)
    if any(state.problem for state in states):
        sys.exit(1)


@db.command(epilog=example("psql $(btc-assets db dsn)"))
def dsn() -> None:
    """Print the store's connection string for psql and other clients.

    It holds the password where BTC_ASSETS_DSN does. The embedded server runs only while a command needs it; this one
    leaves it running, `btc-assets db stop` ends it.
    """
    from btc_assets.domain.settings import settings
    from btc_assets.store.database import dsn as store_dsn
    from btc_assets.store.embedded import keep_running

    text = store_dsn()
    if settings().dsn is None:
        keep_running(settings().home)
    click.echo(text)


@db.command(epilog=example("btc-assets db stop"))
def stop() -> None:
    """Stop the embedded server."""
    from btc_assets.domain.settings import settings
    from btc_assets.store.embedded import stop as stop_server

    click.echo("Stopped." if stop_server(settings().home) else "It does not run.")


@db.command(epilog=example("btc-assets db copy --to postgresql://owner@db.internal/btc --report copied.csv"))
@click.option(
    "--to", "target", required=True, help="Connection string of the other database; a password may come from PGPASSWORD or ~/.pgpass."
)
@click.option("--report", type=click.Path(path_type=Path, dir_okay=False), help="Write rows and checksum of each day to this CSV file.")
def copy(target: str, report: Path | None) -> None:
    """Copy this store to another database, as from the embedded server to TimescaleDB, and prove that both are equal.

    Compares the number of rows and a checksum for each day of each table. Can be repeated: what is equal is left alone.
    """
    import csv

    from btc_assets.backup.db_copy import copy_database
    from btc_assets.store.database import connect, where

    with connect(autocommit=True) as source, connect(target, autocommit=True) as destination, bar("copying", None) as advance:
        parts = list(copy_database(source, destination, lambda done, total: advance("days", done, total)))
        place = where(destination.info.dsn)
    table = Table("table", "days", "rows", "written now", title=f"Equal at {place}, by count and checksum of each day")
    for column in table.columns[1:]:
        column.justify = "right"
    for name in dict.fromkeys(part.table for part in parts):
        own = [part for part in parts if part.table == name]
        days = sum(part.day is not None for part in own)
        table.add_row(name, f"{days:,}", f"{sum(part.rows for part in own):,}", f"{sum(part.rows for part in own if part.copied):,}")
    out.print(table)
    if report:
        with report.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["table", "day", "rows", "checksum"])
            writer.writerows((part.table, part.day or "", part.rows, f"{part.checksum:x}") for part in parts)
    out.print("Next: set BTC_ASSETS_DSN to it, then btc-assets ops apply and btc-assets doctor.", highlight=False)


# ---- ops


@main.command(epilog=example("btc-assets doctor"))
def doctor() -> None:
    """Check everything that the store needs, and say what to do where something is missing."""
    from btc_assets.domain.settings import settings
    from btc_assets.ops.doctor import examine

    marks = {"ok": "[green]ok[/green]     ", "warning": "[yellow]warning[/yellow]", "problem": "[red]problem[/red]"}
    problems = 0
    for finding in examine(settings()):
        out.print(f"{marks[finding.state]} [bold]{finding.subject}[/bold]: ", end="", highlight=False)
        out.print(finding.text, highlight=False, markup=False, soft_wrap=True)
        problems += finding.state == "problem"
    if problems:
        sys.exit(1)


@main.group(epilog=example("btc-assets ops status"))
def ops() -> None:
    """Policies on the store's tables: compression, retention, refreshing."""


@ops.command("apply", epilog=example("btc-assets ops apply"))
def ops_apply() -> None:
    """Bring the declared policies into force; safe to repeat."""
    from btc_assets.domain.settings import settings
    from btc_assets.ops import retention_jobs
    from btc_assets.ops.policies import declared
    from btc_assets.store.database import connect

    with connect(owner=True, autocommit=True) as connection:
        changes = retention_jobs.apply(connection, declared(settings()))
    for change in changes:
        out.print(change, highlight=False)
    if not changes:
        out.print("Everything is in force as declared.", highlight=False)


@ops.command("status", epilog=example("btc-assets ops status"))
def ops_status() -> None:
    """Show every policy, how it last went, and how large the tables are; ends with 1 where something is amiss."""
    from btc_assets.domain.settings import settings
    from btc_assets.ops import retention_jobs
    from btc_assets.ops.policies import declared
    from btc_assets.store.database import connect

    with connect(owner=True, autocommit=True) as connection:
        statuses = retention_jobs.read(connection, declared(settings()))
        sizes = retention_jobs.read_sizes(connection)
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
def ops_run(policy: str) -> None:
    """Run a POLICY now, by its name in ops status."""
    from btc_assets.domain.settings import settings
    from btc_assets.ops import retention_jobs
    from btc_assets.ops.policies import declared
    from btc_assets.store.database import connect

    with connect(owner=True, autocommit=True) as connection:
        statuses = {status.job_name: status for status in retention_jobs.read(connection, declared(settings()))}
        if policy not in statuses:
            raise UserError(f"There is no policy {policy!r}: name one of {', '.join(statuses)}.")
        if statuses[policy].state == "not supported" or policy.startswith("keep"):
            raise UserError(f"Nothing is to be done for {policy!r} on this server: its state is {statuses[policy].state}.")
        if statuses[policy].state != "applied":
            raise UserError(f"{policy!r} is not in force: {statuses[policy].drift}.")
        retention_jobs.run(connection, policy)
        status = next(s for s in retention_jobs.read(connection, declared(settings())) if s.job_name == policy)
    out.print(f"{policy}: {status.last_result}", highlight=False)


@ops.command("backup-status", epilog=example("btc-assets ops backup-status --metrics btc-assets"))
@click.option("--metrics", metavar="NAMESPACE", help="Also put them into CloudWatch, for alarms.")
@click.option("--host", help="Value of the metrics' dimension Host; by default this machine's name.")
def ops_backup_status(metrics: str | None, host: str | None) -> None:
    """Show what there is to restore from, and whether WAL is archived; ends with 1 where something is amiss."""
    import socket

    from btc_assets.backup.backups import backup_status, put_metrics
    from btc_assets.domain.settings import settings
    from btc_assets.ops.health import age
    from btc_assets.store.database import connect

    with connect(autocommit=True) as connection:
        status = backup_status(connection, settings())
    table = Table("backup", "kind", "finished", "seconds", "MB", "MB stored")
    for column in table.columns[3:]:
        column.justify = "right"
    for backup in status.backups:
        seconds = (backup.stopped - backup.started).total_seconds()
        sizes = f"{backup.size / 1e6:,.1f}", f"{backup.stored / 1e6:,.1f}"
        table.add_row(backup.label, backup.kind, f"{backup.stopped:%Y-%m-%d %H:%M:%S}", f"{seconds:,.0f}", *sizes)
    out.print(table)
    if status.restorable_from and status.restorable_to:
        since = f"{status.restorable_to:%Y-%m-%d %H:%M:%S}, {age(status.restorable_to, status.at)} ago"
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
def ops_restore_drill(moment: str | None, directory: Path | None, keep: bool, report: Path | None) -> None:
    """Restore the whole cluster beside the live one, prove what came back, and remove it again.

    Shows which slices of ticks are others now. Ends with 1 where the copy contradicts its own registry, or differs from the live
    store though nothing was loaded or dropped since. Run it as the user that the cluster belongs to, with a superuser's DSN.
    """
    import signal

    from btc_assets.backup.restore_drill import compare
    from btc_assets.backup.restored_copy import ended_by_signals, restored_copy
    from btc_assets.domain.settings import settings
    from btc_assets.store.database import connect

    config, target = settings(), parse_time(moment) if moment else None
    if config.dsn is None:
        raise UserError("The embedded server has no backups: name the server in BTC_ASSETS_DSN, as a superuser.")
    with ended_by_signals(), connect(autocommit=True) as live, restored_copy(live, config, target, directory) as copy:
        out.print(
            f"Restored {copy.target:%Y-%m-%d %H:%M:%S} UTC from {copy.backup.label}, {copy.bytes / 1e6:,.0f} MB: {copy.restore_seconds:.1f} s to "
            f"restore, {copy.recovery_seconds:.1f} s to recover, up to the commit of {copy.last_commit or copy.backup.stopped:%H:%M:%S.%f}.",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
        started = time.perf_counter()
        with connect(copy.dsn, autocommit=True) as restored, bar("comparing", None) as advance:
            found = compare(restored, live, lambda done, total: advance("days", done, total))
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
def ops_end_lost_runs() -> None:
    """Mark Dagster's runs as failed that nobody carries any more, so that they are started again.

    Only while the code location is down: btc-dagster-code calls it before it starts, as after the host was switched off.
    """
    import dagster as dg

    from btc_assets.orchestration.home import prepare_dagster_home
    from btc_assets.orchestration.lost_runs import end_lost_runs

    prepare_dagster_home()
    with dg.DagsterInstance.get() as instance:
        for run in end_lost_runs(instance):
            click.echo(f"Run {run} was lost.")


def _print_comparison(found: Comparison, seconds: float) -> None:
    from btc_assets.backup.restore_drill import DAMAGED, ranges

    out.print(
        f"Compared {found.rows:,} ticks in {found.slices:,} slices, and {len(found.tables)} other tables, in {seconds:.1f} s.",
        highlight=False,
    )
    shown = list(ranges(found.differences))
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
    import csv

    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["bucket_5m", "symbol", "ticks_then", "ticks_now", "why"])
        writer.writerows((f"{each.bucket_5m:%Y-%m-%dT%H:%MZ}", each.symbol, each.then, each.now, each.why) for each in found.differences)


# ---- land, load


@main.command(epilog=example("btc-assets land trades.csv.gz --symbol BTCUSDT\n  btc-assets land --live-from generated --speed 60"))
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--symbol", help="Label of the feed that the trades belong to; needed where there are several.")
@click.option(
    "--batch-seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=15.0,
    show_default=True,
    help="Event time a batch spans at most.",
)
@click.option("--batch-rows", type=click.IntRange(min=1), default=5000, show_default=True, help="Trades a batch holds at most.")
@click.option(
    "--live-from",
    "live",
    metavar="FILE",
    help="Play this file (or `generated`, a generated day) as if its trades were made now; with --speed, on the way to now.",
)
@click.option("--speed", type=click.FloatRange(min=1), default=1.0, show_default=True, help="How much faster than real time to play.")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="End the play after so many minutes.")
@click.option("--log", type=click.Path(path_type=Path, dir_okay=False), help="Write a JSON line for each slice that was played.")
def land(
    file: Path | None, symbol: str | None, batch_seconds: float, batch_rows: int, live: str | None, speed: float, minutes: float | None,
    log: Path | None,
) -> None:  # fmt: skip
    """Land a trades FILE (CSV, JSON lines, Parquet; plain, gzipped or zipped) as collector-style Parquet batches.

    The columns may be the collector's, the exchange's messages or its dumps. Landing a file twice changes nothing.

    With --live-from, the file's trades get new times, which begin where the store ends or as long ago as it takes to reach
    the present, and land when a collector would have landed them. Their ids follow on from the store's.
    """
    if (file is None) == (live is None):
        raise UserError("Name one file of trades: FILE to land it at once, or --live-from FILE to play it.")
    if live is not None:
        landed = _play(live, symbol, batch_seconds, batch_rows, speed, minutes, log)
    elif speed != 1 or minutes or log:
        raise UserError("--speed, --minutes and --log are for a play: name its file with --live-from.")
    else:
        assert file is not None
        landed = _land_file(file, symbol, batch_seconds, batch_rows)
    out.print(
        f"Landed {landed.objects:,} objects with {landed.ticks:,} ticks, {landed.first_event_time} to {landed.last_event_time}."
        if landed.objects
        else "Nothing was landed.",
        highlight=False,
        soft_wrap=True,
    )
    if landed.rejected_rows:
        for reason in landed.rejected:
            click.echo(f"  {reason}", err=True)
        raise UserError(
            f"{landed.rejected_rows} rows of {file or live} were not landed because they are no valid trades "
            "(the first are listed above): correct the file."
        )


def _play(
    source: str, symbol: str | None, batch_seconds: float, batch_rows: int, speed: float, minutes: float | None, log: Path | None
) -> Landed:
    from btc_assets.domain.settings import settings
    from btc_assets.orchestration.resources import Landing
    from btc_assets.simulation.live import SliceLog, WallClock, play
    from btc_assets.simulation.live_plan import prepare, record
    from btc_assets.simulation.replay import feed_named
    from btc_assets.store.database import connect

    feed, zone = feed_named(settings().landing_feeds, symbol), Landing().zone()
    with out.status("reading the trades"):
        recording = record(source, feed)
    _migrated()
    with ExitStack() as stack:
        connection = stack.enter_context(connect(autocommit=True))
        slices = stack.enter_context(SliceLog(log)) if log else None
        clock = stack.enter_context(WallClock())
        plan = prepare(connection, zone, feed, recording, clock.now(), speed, not_before=settings().first_slice)
        out.print(plan.describe(f"{zone.url}/{feed.prefix}", minutes), highlight=False, soft_wrap=True)
        landed = play(
            zone, feed, plan, clock, batch_seconds=batch_seconds, batch_rows=batch_rows, minutes=minutes, log=slices,
            tell=stack.enter_context(_live_line()),
        )  # fmt: skip
    landed.rejected, landed.rejected_rows = recording.rejected, recording.rejected_rows
    return landed


def _land_file(file: Path, symbol: str | None, batch_seconds: float, batch_rows: int) -> Landed:
    from btc_assets.domain.settings import settings
    from btc_assets.orchestration.resources import Landing
    from btc_assets.simulation.replay import Landed, feed_named, land, read_trades

    feed = feed_named(settings().landing_feeds, symbol)
    landed = Landed()
    with bar("landing", None) as advance:
        return land(
            Landing().zone(), feed, read_trades(file, feed, landed), landed,
            batch_seconds=batch_seconds, batch_rows=batch_rows, progress=lambda objects: advance("objects", objects, 0),
        )  # fmt: skip


@main.command(epilog=example("btc-assets load --from 2020-02-22 --to 2020-02-23"))
@from_to
@click.option("--force", is_flag=True, help="Also replace slices of which an object has disappeared since they were loaded.")
@click.option("--reread", is_flag=True, help="Read objects again that are registered already, as after a change of the feeds.")
def load(start: str | None, end: str | None, force: bool, reread: bool) -> None:
    """Load a range of slices: register what landed, load ticks, make candles, run the checks."""
    from btc_assets.orchestration.ingest import ingest

    if not start or not end:
        raise UserError("Name the range with --from and --to, such as --from 2020-02-22 --to 2020-02-23.")
    _migrated()
    window = Window.covering(parse_time(start), parse_time(end))
    with bar("loading", window):
        report = ingest(window, force=force, reread=reread)
    _print_report(report)
    if not report.checks_passed:
        sys.exit(2)


def _print_report(report: IngestReport) -> None:
    table = Table("objects", "slices", "ticks", "candles", "seconds", "ticks/s", title=f"Loaded {report.window}")
    for column in table.columns:
        column.justify = "right"
    table.add_row(
        f"{report.objects:,}", f"{report.slices:,}", f"{report.ticks:,}", f"{report.candles:,}", f"{report.seconds:.1f}",
        f"{report.ticks / report.seconds:,.0f}",
    )  # fmt: skip
    out.print(table)
    for name, metadata in report.failed_checks.items():
        out.print(f"[red]check failed[/red] {name}: {metadata}", highlight=False)
    if report.checks_passed:
        out.print(f"All {report.checks} asset checks passed.", highlight=False)


def _migrated() -> None:
    """The embedded database is set up by whoever uses it first; on a server of the user's that is a decision."""
    from btc_assets.domain.settings import settings
    from btc_assets.ops import retention_jobs
    from btc_assets.ops.policies import declared
    from btc_assets.store.database import connect
    from btc_assets.store.migrations import migrate as apply

    if settings().dsn is None:
        with connect(autocommit=True) as connection:
            apply(connection)
            _create_optional_candles(connection)
            retention_jobs.apply(connection, declared(settings()))


# ---- status, candles


@main.command(epilog=example("btc-assets status --from 2020-02-01"))
@from_to
def status(start: str | None, end: str | None) -> None:
    """Show how far behind the store is and why, and what is landed and loaded by day."""
    from btc_assets.domain.settings import settings
    from btc_assets.ops.health import read_health
    from btc_assets.ops.status import read_status
    from btc_assets.store.database import connect

    now, config = datetime.now(UTC), settings()
    with connect(autocommit=True) as connection:
        rows = read_status(connection, window_of(start, end, parse_time("2009-01-03"), floor_slice(now) + SLICE))
        health = read_health(connection, config.landing_feeds, now, grace=config.landing_grace)
    if not rows:
        out.print("Nothing is registered in that range: land objects, then run btc-assets load.", highlight=False)
    else:
        table = Table("day", "symbol", "objects", "MB", "ticks", "slices", "problems")
        for column in table.columns[2:6]:
            column.justify = "right"
        for row in rows:
            counts = f"{row.objects:,}", f"{row.bytes / 1e6:,.1f}", f"{row.loaded_rows:,}", f"{row.loaded:,} of {row.slices:,}"
            table.add_row(str(row.day), row.symbol, *counts, f"[red]{', '.join(row.problems())}[/red]" if row.problems() else "")
        out.print(table)
    _print_health(health, now)


def _print_health(health: Health, now: datetime) -> None:
    from btc_assets.ops.health import age

    for symbol in health.symbols:
        newest = f"ticks up to {symbol.newest:%Y-%m-%d %H:%M:%S}, {age(symbol.newest, now)} ago" if symbol.newest else "no ticks yet"
        out.print(f"[bold]{symbol.label}[/bold]: {newest}.", highlight=False)
    waiting = health.waiting
    out.print(
        f"Slices with something to load: {len(waiting.due):,} due, {waiting.restless:,} with objects still landing, {waiting.open:,} not closed yet; "
        f"candles to make: {health.candles_due:,}, features and embeddings: {health.signals_due:,}.",
        highlight=False,
    )
    for reason in health.reasons:
        out.print(f"[yellow]{reason}[/yellow]", highlight=False)
    if health.stuck:
        from btc_assets.orchestration.ingest import last_failure

        if failure := last_failure():
            out.print(f"Last failed run: {failure}", highlight=False, markup=False)


@main.command(epilog=example("btc-assets candles 5m --from 2020-02-22 --to 2020-02-23 --plot day.png"))
@click.argument("interval", type=click.Choice(["100ms", "1s", "30s", "1m", "5m", "1h", "1d"]))
@from_to
@click.option("--symbol", help="Label of the feed; needed where there are several.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Save a picture (PNG) instead of printing rows.")
def candles(interval: str, start: str | None, end: str | None, symbol: str | None, plot: Path | None) -> None:
    """Print or plot the candles of an INTERVAL; without a range, the newest day."""
    from btc_assets.domain.settings import settings
    from btc_assets.market_data.candles import COLUMNS, read
    from btc_assets.simulation.replay import feed_named
    from btc_assets.store.database import connect

    label = feed_named(settings().landing_feeds, symbol).label
    with connect(autocommit=True) as connection:
        newest = connection.execute("SELECT max(bucket_5m) FROM landing.raw_blobs_5m WHERE loaded_rows > 0").fetchone()
        day = floor_day(newest[0] if newest and newest[0] else datetime.now(UTC))
        window = window_of(start, end, day, day + 288 * SLICE)
        rows = read(connection, interval, label, window)
    if not rows:
        raise UserError(f"There are no {interval} candles of {label} from {window}: load that range first (btc-assets load).")
    if plot:
        from btc_assets.market_data.plot import plot_candles

        save_picture(plot, plot_candles(rows, interval, label))
        out.print(f"Saved {len(rows):,} candles to {plot}.", highlight=False)
        return
    shown = [name for name in COLUMNS if name not in ("bucket_5m", "symbol")]
    click.echo(",".join(shown))
    keep = [COLUMNS.index(name) for name in shown]
    for row in rows:
        click.echo(",".join(_cell(row[i], fraction=interval == "100ms") for i in keep))


def _cell(value: object, *, fraction: bool) -> str:
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds" if fraction else "seconds").replace("+00:00", "Z")
    return f"{value:f}" if hasattr(value, "as_tuple") else str(value)


# ---- signals

for command in signals_commands:
    main.add_command(command)


# ---- demo, dev


@main.command(epilog=example("btc-assets demo --trades my_trades.csv.gz"))
@click.option("--trades", type=click.Path(path_type=Path), help="Use the trades in this file instead of a generated day.")
@click.option("--ticks", type=click.IntRange(min=1), default=500_000, show_default=True, help="Size of the generated day.")
def demo(trades: Path | None, ticks: int) -> None:
    """Land a day of trades, load it end to end and show what came out. Can be repeated.

    The generated day is the one before yesterday, so that what is played live on top (btc-assets land --live-from) is later.
    """
    from btc_assets.cli.demo_store import prepare

    started = time.perf_counter()
    source = trades.resolve() if trades else None
    day = floor_day(datetime.now(UTC)) - 2 * DAY
    # Another day, or another number of trades, has other trade ids at the same times: it gets a store of its own.
    name = f"demo_{hashlib.sha256(str(source).encode()).hexdigest()[:8]}" if source else f"demo_{day:%Y%m%d}_{ticks}"
    config = prepare(name)
    if source:
        landed = _land_file(source, None, 15.0, 5000)
        if landed.rejected_rows:
            out.print(
                f"[red]{landed.rejected_rows:,} rows are no valid trades and were not landed[/red], such as {landed.rejected[0]}",
                highlight=False,
            )
    else:
        landed = _land_generated(day, ticks)
    if landed.first_event_time is None or landed.last_event_time is None:
        raise UserError(f"{source} holds no valid trade: give a file with at least one.")
    window = Window.covering(landed.first_event_time, landed.last_event_time + timedelta(microseconds=1))
    config = prepare(name, window.start)
    _migrated()
    from btc_assets.orchestration.ingest import ingest

    with bar("loading", window):
        report = ingest(window)
    _print_report(report)
    picture = config.home / (f"{name}.png" if source else "demo.png")
    _picture(picture, config.landing_feeds[0].label, window)
    out.print(f"Candles: {picture}", highlight=False)
    out.print(f"Took {time.perf_counter() - started:.0f} s in all. Next: make dev (the Dagster UI), or btc-assets status.", highlight=False)
    if not report.checks_passed:
        sys.exit(2)


def _land_generated(day: datetime, ticks: int) -> Landed:
    from btc_assets.domain.settings import settings
    from btc_assets.orchestration.resources import Landing
    from btc_assets.simulation.generate import generate_day
    from btc_assets.simulation.replay import Landed, land

    feed = settings().landing_feeds[0]
    with bar("landing", None) as advance:
        return land(
            Landing().zone(), feed, generate_day(day, ticks, symbol=feed.label), Landed(),
            progress=lambda objects: advance("objects", objects, 0),
        )  # fmt: skip


def _picture(path: Path, label: str, window: Window) -> None:
    from btc_assets.market_data.candles import read
    from btc_assets.market_data.plot import plot_candles
    from btc_assets.store.database import connect

    interval = "1m" if len(window) <= 36 else "5m" if len(window) <= 600 else "1h"
    with connect(autocommit=True) as connection:
        # Candles go by trade time, so the first may begin just before the first slice.
        rows = read(connection, interval, label, window.widened(SLICE))
    save_picture(path, plot_candles(rows, interval, label))


@main.command(epilog=example("btc-assets dev --port 3001"))
@click.option("--port", type=click.IntRange(1, 65535), default=3000, show_default=True, help="Where the UI listens, on 127.0.0.1.")
def dev(port: int) -> None:
    """Open the Dagster UI and its daemon on this store."""
    from btc_assets.cli.demo_store import run_dev
    from btc_assets.orchestration.home import prepare_dagster_home

    _migrated()
    prepare_dagster_home()
    sys.exit(run_dev(port))


@main.command(epilog=example("BTC_ASSETS_WORKERS_BROKER=redis://broker:6379/0 btc-assets worker --runs 2"))
@click.option("--runs", type=click.IntRange(min=1), default=1, show_default=True, help="Runs that it carries at once, each in a process.")
@click.option("--name", default="worker", show_default=True, help="Tells several workers on one machine apart.")
def worker(runs: int, name: str) -> None:
    """Carry Dagster's runs on this machine, as one of many; Ctrl-C lets those under way come to their end."""
    from btc_assets.orchestration.home import prepare_dagster_home

    prepare_dagster_home()
    try:
        from btc_assets.orchestration.workers import work
    except ModuleNotFoundError as error:
        raise UserError(f"Workers need {error.name}: pip install 'btc-assets[workers]'.") from None
    work(name, runs)


# ---- progress


@contextmanager
def _live_line() -> Iterator[Callable[[Playing], None]]:
    """One line that says how a play goes; where the output is no terminal, a line every ten seconds."""
    told = float("-inf")
    with Live(console=out, auto_refresh=False) if out.is_terminal else nullcontext() as line:

        def tell(playing: Playing) -> None:
            nonlocal told
            if (now := time.monotonic()) - told >= (0.25 if line else 10):
                told = now
                if line:
                    line.update(Text(str(playing), no_wrap=True, overflow="ellipsis"), refresh=True)
                else:
                    click.echo(str(playing))

        yield tell
