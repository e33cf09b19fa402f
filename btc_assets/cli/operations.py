"""Commands `ops`: the policies on the store's tables, and runs that were lost; the commands for backups are in `backups`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
from rich.table import Table

from btc_assets.cli.app import App, example, new_table, pass_app, progress_bar
from btc_assets.cli.backups import backup_status, restore_drill
from btc_assets.cli.console import err, out, styled
from btc_assets.cli.output import Columns, format_option, part_option, print_rows
from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import KEY_FORMAT, floor_slice, parse_time

if TYPE_CHECKING:
    from btc_assets.landing.zone import LandingZone
    from btc_assets.ops.policies_in_force import PolicyStatus
    from btc_assets.ops.table_sizes import TableSize


@click.group(epilog=example("btc-assets ops status"))
def ops() -> None:
    """Policies on the store's tables (compression, retention, refreshing), backups, lost runs, and a landing zone that moves."""


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
@format_option()
@part_option("policies", "tables")
@pass_app
def status(app: App, form: str, part: str | None) -> None:
    """Show every policy, its last result, and the sizes of the tables; exits with 1 if there is a problem."""
    from btc_assets.ops.policies import declared_policies
    from btc_assets.ops.policies_in_force import read_policy_statuses
    from btc_assets.ops.table_sizes import read_table_sizes

    with app.store.connect(owner=True) as connection:
        statuses = read_policy_statuses(connection, declared_policies(app.settings))
        sizes = read_table_sizes(connection)
    if form == "table" and part is None:
        _print_policies(statuses)
        _print_sizes(sizes)
    elif part != "tables":
        print_rows(form, _POLICY_COLUMNS, ([getattr(status, name) for name in _POLICY_COLUMNS] for status in statuses))
    else:
        print_rows(
            form, _SIZE_COLUMNS, ([size.table, size.total, size.chunks, size.compressed_chunks, size.before, size.after] for size in sizes)
        )
    if any(status.drift or status.failure for status in statuses):
        sys.exit(1)


_POLICY_COLUMNS: Columns = {
    "job_name": "text", "state": "text", "enabled": "flag", "drift": "text", "failure": "text", "last_run_at": "time", "last_result": "text",
    "next_run_at": "time",
}  # fmt: skip
_SIZE_COLUMNS: Columns = {
    "table": "text", "bytes": "integer", "chunks": "integer", "compressed_chunks": "integer", "bytes_before": "integer",
    "bytes_after": "integer",
}  # fmt: skip


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


@ops.command(epilog=example("btc-assets ops move-start\n  btc-assets ops move-start 2026-01-01"))
@click.argument("start", required=False)
@click.option(
    "--if-due", is_flag=True, help="Only if that is later than now, and nobody has chosen a START; nothing is done while runs forbid it."
)
@pass_app
def move_start(app: App, start: str | None, if_due: bool) -> None:
    """Let the 5-minute partitions start at START (by default the first day of the previous month, and of a later one as months pass).

    Days before it become history, in daily partitions; those that were loaded completely count as loaded. Refused while a backfill is under
    way, or a run over partitions that would not exist any more. It counts for what starts afterwards: restart the code location.
    """
    time = parse_time(start) if start else None
    if time is not None and time != floor_slice(time):
        raise UserError(f"{start} is not the start of a 5-minute slice: name one, such as 2024-01-01 or 2024-01-01T00:05Z.")
    if if_due:
        move_start_if_due(app)
    else:
        out.print(f"{_move_start(app, time)} Start the code location again (btc-assets dev, or the host's unit btc-dagster-code).")


def move_start_if_due(app: App) -> None:
    """Move the recorded start of the partitions before the code location starts, once a month; says why if it cannot."""
    from btc_assets.orchestration.partitions_start import is_due

    if is_due(app.settings, datetime.now(UTC)):
        try:
            out.print(_move_start(app, None))
        except UserError as error:  # the next start of the code location tries again
            err.print(f"The start of the 5-minute partitions did not move: {error}")


def _move_start(app: App, start: datetime | None) -> str:
    import dagster as dg

    from btc_assets.assembly import HISTORY_ASSETS
    from btc_assets.domain.settings import default_start, load_settings
    from btc_assets.orchestration.handover import report_complete_days
    from btc_assets.orchestration.partitions import Partitions
    from btc_assets.orchestration.partitions_start import move_start as move

    first = start or default_start(datetime.now(UTC))
    app.prepare_dagster()
    with dg.DagsterInstance.get() as instance, app.store.connect() as connection:
        move(app.settings, instance, first, keep=start is not None)
        history = [*map(dg.AssetKey.from_user_string, HISTORY_ASSETS)]
        days = report_complete_days(instance, connection, Partitions.of(load_settings()), history)
    return f"The 5-minute partitions start at {first:{KEY_FORMAT}}; {days} loaded day(s) before it are reported as history."


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


@ops.command(epilog=example("btc-assets ops move-landing s3://old/prefix s3://new/prefix"))
@click.argument("old")
@click.argument("new")
@click.option("--dry-run", is_flag=True, help="Only compare; change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_app
def move_landing(app: App, old: str, new: str, dry_run: bool, yes: bool) -> None:
    """Have the registry follow objects that you moved from OLD to NEW, both URLs, so that nothing is loaded again.

    Looks every object up in NEW first, and refuses if one is missing or not the same. Nothing is copied or deleted.
    """
    from btc_assets.ops.move_landing import LandingMove

    place = app.landing.at(new)
    with app.store.connect(owner=True) as connection:
        move = LandingMove(connection, old, place, _open_if_there(app, old), etag_is_md5=app.settings.landing_etag == "md5")
        total = move.count()
        if not total:
            raise UserError(f"The registry has no object below {old}: name the URL as it stands in landing.raw_blobs_5m.uri.")
        with progress_bar("comparing") as advance:
            found = move.verify(lambda done: advance("objects", done, total))
        for reason in found.reasons:
            err.print(f"  {reason}")
        if found.refused:
            raise UserError(
                f"{found.refused:,} versions of objects are not the same in {place.url} (the first are listed above): nothing moved."
            )
        out.print(f"{found.objects:,} objects are the same in {place.url}; the bytes of {found.compared:,} were compared.")
        if dry_run or not (yes or click.confirm("Have the registry name them there?", default=False)):
            return
        with progress_bar("moving") as advance:
            move.apply(lambda done: advance("objects", done, total))
    out.print(f"Moved. Next: set BTC_ASSETS_LANDING_URL={place.url} for every process, and restart them.")


def _open_if_there(app: App, url: str) -> LandingZone | None:
    try:
        return app.landing.at(url)
    except UserError:
        return None


ops.add_command(backup_status)
ops.add_command(restore_drill)
