"""Commands `ops backup-status` and `ops restore-drill`: what can be restored, and proof that it can."""

from __future__ import annotations

import csv
import platform
import shlex
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from btc_assets.cli.app import App, example, new_table, pass_app, progress_bar
from btc_assets.cli.console import out, styled
from btc_assets.cli.output import Columns, format_option, part_option, print_rows
from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import KEY_FORMAT, parse_time

if TYPE_CHECKING:
    import psycopg

    from btc_assets.backup.restore_drill import Comparison
    from btc_assets.backup.restored_copy import RestoredCopy
    from btc_assets.backup.status import BackupStatus

_SHOWN = 50  # ranges of slices that differ, and contradictions


@click.command(epilog=example("btc-assets ops backup-status --metrics btc-assets"))
@click.option("--metrics", metavar="NAMESPACE", help="Also put the figures into CloudWatch, for alarms.")
@click.option("--host", help="Value of the metrics' dimension Host; by default this machine's name.")
@format_option()
@part_option("backups", "archive", "problems")
@pass_app
def backup_status(app: App, metrics: str | None, host: str | None, form: str, part: str | None) -> None:
    """Show which backups there are and whether WAL is archived; exits with 1 if there is a problem."""
    from btc_assets.backup.metrics import put_metrics
    from btc_assets.backup.status import read_backup_status

    with app.store.connect() as connection:
        status = read_backup_status(connection, app.settings)
    if form == "table" and part is None:
        _print_status(status)
    else:
        _print_part(form, part or "backups", status)
    if metrics:
        put_metrics(status, metrics, host or platform.node())
    if status.problems:
        sys.exit(1)


_BACKUP_COLUMNS: Columns = {
    "label": "text", "kind": "text", "started": "time", "stopped": "time", "size": "integer", "stored": "integer", "damaged": "flag",
    "first_wal": "text",
}  # fmt: skip
_ARCHIVE_COLUMNS: Columns = {
    "at": "time", "restorable_from": "time", "restorable_to": "time", "wal_waiting": "integer", "wal_age_seconds": "number",
    "disk_used_percent": "number",
}  # fmt: skip


def _print_part(form: str, part: str, status: BackupStatus) -> None:
    match part:
        case "backups":
            print_rows(form, _BACKUP_COLUMNS, ([getattr(backup, name) for name in _BACKUP_COLUMNS] for backup in status.backups))
        case "archive":
            age = None if status.wal_age is None else status.wal_age.total_seconds()
            row = status.at, status.restorable_from, status.restorable_to, status.wal_waiting, age, status.disk_used
            print_rows(form, _ARCHIVE_COLUMNS, [row])
        case _:
            print_rows(form, {"problem": "text"}, ((problem,) for problem in status.problems))


def _print_status(status: BackupStatus) -> None:
    from btc_assets.domain.durations import format_age

    table = new_table("backup", "kind", "finished", "seconds", "MB", "MB stored", numbers=slice(3, None))
    for backup in status.backups:
        seconds = (backup.stopped - backup.started).total_seconds()
        sizes = f"{backup.size / 1e6:,.1f}", f"{backup.stored / 1e6:,.1f}"
        table.add_row(backup.label, backup.kind, f"{backup.stopped:%Y-%m-%d %H:%M:%S}", f"{seconds:,.0f}", *sizes)
    out.print(table)
    if status.restorable_from and status.restorable_to:
        end = f"{status.restorable_to:%Y-%m-%d %H:%M:%S}, {format_age(status.restorable_to, status.at)} ago"
        out.print(f"It can be restored to any moment from {status.restorable_from:%Y-%m-%d %H:%M:%S} to {end}.")
    disk = f"; the disk is {status.disk_used:.0f} % full" if status.disk_used is not None else ""
    out.print(f"{status.wal_waiting:,} WAL files wait to be archived{disk}.")
    for problem in status.problems:
        out.print(styled("problem", "red"), problem)


@click.command(epilog=example("sudo -iu postgres btc-assets ops restore-drill --to 2026-01-10T12:00Z"))
@click.option("--to", "moment", help="Moment to restore to, UTC; by default now.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory for the copy, empty or new; by default beside the live data.",
)
@click.option("--keep", is_flag=True, help="Keep the copy running until Ctrl-C, to look at it or to fetch rows from it.")
@click.option("--report", type=click.Path(path_type=Path, dir_okay=False), help="Write each slice that differs to this CSV file.")
@pass_app
def restore_drill(app: App, moment: str | None, directory: Path | None, keep: bool, report: Path | None) -> None:
    """Restore the whole cluster beside the live one, compare the two, and remove the copy.

    Shows which slices of ticks differ now. Exits with 1 if the copy contradicts its own registry, or differs from the live store
    although nothing was loaded or dropped since. Run it as the user that owns the cluster, with a superuser's DSN.
    """
    from btc_assets.backup.child_process import exit_on_signals
    from btc_assets.backup.restored_copy import restored_copy

    settings, target = app.settings, parse_time(moment) if moment else None
    if settings.dsn is None:
        raise UserError("The embedded server has no backups: name the server in BTC_ASSETS_DSN, as a superuser.")
    with exit_on_signals(), app.store.connect() as live, restored_copy(live, settings, target, directory) as copy:
        out.print(
            f"Restored {copy.target:%Y-%m-%d %H:%M:%S} UTC from {copy.backup.label}, {copy.bytes / 1e6:,.0f} MB: {copy.restore_seconds:.1f} s to "
            f"restore, {copy.recovery_seconds:.1f} s to recover, up to the commit of {copy.last_commit or copy.backup.stopped:%H:%M:%S.%f}."
        )  # fmt: skip
        found = _compare(live, copy)
        if report:
            _write_differences(found, report)
        if keep:
            out.print(f"The copy runs until Ctrl-C: psql {shlex.quote(copy.dsn)}")
            with suppress(SystemExit):
                signal.pause()
    if found.contradictions or found.damaged:
        sys.exit(1)


def _compare(live: psycopg.Connection, copy: RestoredCopy) -> Comparison:
    from btc_assets.backup.restore_drill import compare_copy
    from btc_assets.store.database import connect

    started = time.perf_counter()
    with connect(copy.dsn) as restored, progress_bar("comparing") as advance:
        found = compare_copy(restored, live, lambda done, total: advance("days", done, total))
    out.print(
        f"Compared {found.rows:,} ticks in {found.slices:,} slices, and {len(found.tables)} other tables, "
        f"in {time.perf_counter() - started:.1f} s.",
    )
    _print_differences(found)
    _print_verdict(found)
    return found


def _print_differences(found: Comparison) -> None:
    from btc_assets.backup.restore_drill import DAMAGED, merge_differences

    ranges = list(merge_differences(found.differences))
    if ranges:
        table = new_table("slices", "symbol", "ticks then", "ticks now", "why", numbers=slice(2, 4), title="A restore would bring back")
        for window, symbol, why, then, now in ranges[:_SHOWN]:
            table.add_row(str(window), symbol, f"{then:,}", f"{now:,}", styled(why, "red") if why == DAMAGED else why)
        out.print(table)
    if len(ranges) > _SHOWN:
        out.print(f"… and {len(ranges) - _SHOWN:,} more ranges: see --report.")
    if changed := [each for each in found.tables if not each.equal]:
        table = new_table("table", "rows then", "rows now", numbers=slice(1, None), title="Other tables that are not the same now")
        for each in changed:
            table.add_row(each.table, f"{each.then:,}", f"{each.now:,}")
        out.print(table)


def _print_verdict(found: Comparison) -> None:
    for sentence in found.contradictions[:_SHOWN]:
        out.print(styled("contradiction in the copy", "red"), sentence)
    if found.damaged:
        out.print(styled(f"{len(found.damaged):,} slices changed for no reason that the store knows of.", "red"))
    if not (found.contradictions or found.damaged):
        out.print("The copy agrees with its registry, and with the live store wherever nothing was loaded or dropped since.")


def _write_differences(found: Comparison, path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["bucket_5m", "symbol", "ticks_then", "ticks_now", "why"])
        writer.writerows((f"{each.bucket_5m:{KEY_FORMAT}}", each.symbol, each.then, each.now, each.why) for each in found.differences)
