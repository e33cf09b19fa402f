"""Commands `db`: set up the store's database, inspect it, stop the embedded server, copy the store."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from btc_assets.cli.app import App, example, new_table, pass_app, progress_bar
from btc_assets.cli.console import out, styled
from btc_assets.cli.output import Columns, format_option, print_rows
from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import KEY_FORMAT, SLICE

if TYPE_CHECKING:
    from btc_assets.ops.forget import Extent, Forgotten
    from btc_assets.store.migrations import MigrationState


@click.group(epilog=example("btc-assets db migrate"))
def db() -> None:
    """The store's database: set it up, inspect it, copy it, stop the embedded server."""


@db.command(epilog=example("BTC_ASSETS_OWNER_DSN=postgresql://owner@db:5432/btc btc-assets db migrate"))
@pass_app
def migrate(app: App) -> None:
    """Apply new migrations, and the files of views and functions that changed."""
    from btc_assets.market_data.candles import create_optional_candles
    from btc_assets.store.database import location
    from btc_assets.store.engines import read_facts
    from btc_assets.store.migrations import migrate as apply
    from btc_assets.store.migrations import migration_status

    with app.store.connect(owner=True) as connection:
        names = apply(connection)
        if app.settings.candles_100ms:
            create_optional_candles(connection)
        newer = [state.name for state in migration_status(connection) if state.newer]
        state = f"applied {len(names)} migration(s)" if names else "up to date"
        if newer:
            state = f"a later release migrated it, up to {newer[-1]}; this release runs on it, and nothing was applied"
        out.print(f"{location(connection.info.dsn)}: {state}.")
        wrong_results = read_facts(connection).wrong_results
    if wrong_results:
        out.print(styled("warning", "yellow"), wrong_results)
    for name in names:
        out.print(f"  {name}")
    if names:
        out.print("Next: btc-assets ops apply (compression, retention), and btc-assets doctor.")


@db.command(epilog=example("btc-assets db grant --loader btc_loader --reader btc_reader"))
@click.option("--loader", "loaders", multiple=True, help="A role that may write rows, but not create or drop tables; repeatable.")
@click.option("--reader", "readers", multiple=True, help="A role that may read; repeatable.")
@pass_app
def grant(app: App, loaders: tuple[str, ...], readers: tuple[str, ...]) -> None:
    """Let existing roles load into the store or read it; run it as the owner. Safe to repeat."""
    from btc_assets.ops.roles import grant_rights

    if not (loaders or readers):
        raise click.UsageError("Name at least one role with --loader or --reader.")
    with app.store.connect(owner=True) as connection:
        statements = grant_rights(connection, loaders=loaders, readers=readers)
    for role in loaders:
        out.print(f"{role} may load.")
    for role in readers:
        out.print(f"{role} may read.")
    if statements:
        out.print(
            "A transaction that a reader leaves open keeps old days from being dropped. An administrator of the server limits that with:"
        )
    for statement in statements:
        out.print(f"  {statement};")


@db.command("status", epilog=example("btc-assets db status"))
@format_option()
@pass_app
def db_status(app: App, form: str) -> None:
    """Show every SQL file of the database, and whether it is applied."""
    from btc_assets.store.database import location
    from btc_assets.store.engines import engine
    from btc_assets.store.migrations import migration_status

    with app.store.connect() as connection:
        states = migration_status(connection)
        version = connection.info.server_version // 10000
        server = f"{location(connection.info.dsn)}: engine {engine(connection)}, PostgreSQL {version}"
    if form == "table":
        out.print(server)
        _print_states(states)
    else:
        print_rows(form, _STATE_COLUMNS, ([getattr(state, name) for name in _STATE_COLUMNS] for state in states))
    if any(state.problem for state in states):
        sys.exit(1)


_STATE_COLUMNS: Columns = {"name": "text", "applied_at": "time", "pending": "flag", "problem": "text", "newer": "flag"}


def _print_states(states: Sequence[MigrationState]) -> None:
    table = Table("migration", "applied", "problem")
    for state in states:
        applied = f"{state.applied_at:%Y-%m-%d %H:%M:%S}" if state.applied_at else "not yet"
        note = ", to be applied again" if state.applied_at and state.pending else ", by a later release" if state.newer else ""
        table.add_row(state.name, f"{applied}{note}", state.problem)
    out.print(table)


@db.command(epilog=example("psql $(btc-assets db dsn)"))
@pass_app
def dsn(app: App) -> None:
    """Print the store's connection string for psql and other clients.

    It contains the password if BTC_ASSETS_DSN does. The embedded server runs only while a command needs it; this command
    leaves it running until `btc-assets db stop`.
    """
    from btc_assets.store.embedded import keep_running

    text = app.store.dsn
    if app.settings.dsn is None:
        keep_running(app.settings.home)
    click.echo(text)


@db.command(epilog=example("btc-assets db stop"))
@pass_app
def stop(app: App) -> None:
    """Stop the embedded server."""
    from btc_assets.store.embedded import stop as stop_server

    out.print("Stopped." if stop_server(app.settings.home) else "The embedded server is not running.")


@db.command(epilog=example("btc-assets db forget --symbol ETHUSDT\n  btc-assets db forget --demo"))
@click.option("--symbol", help="Label of a feed: its ticks, candles, features, vectors, models, offsets and everything in the registry.")
@click.option(
    "--objects", "url", metavar="URL", help="Objects below this URL, such as another landing zone; their slices are to be loaded again."
)
@click.option("--demo", is_flag=True, help="The objects of demos that were loaded into this store.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_app
def forget(app: App, symbol: str | None, url: str | None, demo: bool, yes: bool) -> None:
    """Remove a symbol from the store, or objects that should never have been loaded. Asks first; objects in the landing zone stay.

    Can be repeated: what was interrupted is continued.
    """
    from btc_assets.ops.forget import find_demo_zones, forget_objects, forget_symbol, read_extent

    if sum(map(bool, (symbol, url, demo))) != 1:
        raise click.UsageError("Name what to forget: --symbol LABEL, --objects URL, or --demo.")
    landing = app.settings.landing.rstrip("/")
    if url and f"{landing}/".startswith(f"{url.rstrip('/')}/"):
        raise UserError(f"{url} holds the landing zone of this store ({landing}): name the URL of objects that lie elsewhere.")
    with app.store.connect(owner=True) as connection:
        urls = find_demo_zones(connection, landing) if demo else [url] if url else []
        if demo and not urls:
            out.print("No demo was loaded into this store.")
        for each in urls:
            if _agreed(read_extent(connection, url=each), f"of {each}", yes):
                with progress_bar("forgetting") as advance:
                    forgotten = forget_objects(connection, each, lambda done, total: advance("days", done, total))
                _print_forgotten(forgotten, f"of {each}")
        if symbol and _agreed(read_extent(connection, symbol=symbol), f"of {symbol}, and all that was made of them", yes):
            with progress_bar("forgetting") as advance:
                forgotten = forget_symbol(connection, symbol, lambda done, total: advance("days", done, total))
            _print_forgotten(forgotten, f"of {symbol}")
            if symbol in app.settings.landing_feeds.labels:
                out.print(f"{symbol} is still a feed: take it out of BTC_ASSETS_LANDING_FEEDS, or its objects are loaded again.")


def _agreed(extent: Extent, what: str, yes: bool) -> bool:
    """Whether a person wants to forget so much."""
    out.print(f"{extent.ticks:,} ticks in {extent.slices:,} slices, from {extent.objects:,} objects {what}.")
    return yes or click.confirm("Remove them from the store?", default=False)


def _print_forgotten(forgotten: Forgotten, what: str) -> None:
    counts = ", ".join(f"{rows:,} of {table}" for table, rows in sorted(forgotten.rows.items()) if rows)
    out.print(f"Forgot rows {what}: {counts or 'none'}.")
    if forgotten.models:
        out.print(f"Removed the models {', '.join(forgotten.models)}; their artifacts stay.")
    if forgotten.kept:
        out.print(
            f"{len(forgotten.kept):,} slices from {min(forgotten.kept):{KEY_FORMAT}} on were left as they are, because another object that "
            "they were loaded from is gone: restore it and repeat this, or load them with btc-assets load --force first."
        )
    if forgotten.reload:
        first, last = min(forgotten.reload), max(forgotten.reload) + SLICE
        out.print(
            f"{len(forgotten.reload):,} slices are to be loaded again from what is left. The sensor does it, or: "
            f"btc-assets load --from {first:{KEY_FORMAT}} --to {last:{KEY_FORMAT}}"
        )


@db.command(epilog=example("btc-assets db copy --to postgresql://owner@db.internal/btc --report copied.csv"))
@click.option(
    "--to", "target", required=True, help="Connection string of the other database; a password may come from PGPASSWORD or ~/.pgpass."
)
@click.option("--report", type=click.Path(path_type=Path, dir_okay=False), help="Write rows and checksum of each day to this CSV file.")
@pass_app
def copy(app: App, target: str, report: Path | None) -> None:
    """Copy this store to another database, such as from the embedded server to TimescaleDB, and prove that both are equal.

    Compares the number of rows and a checksum for each day of each table. Can be repeated: days that are equal are not copied again.
    """
    from btc_assets.backup.db_copy import copy_database
    from btc_assets.store.database import connect, location

    with app.store.connect() as source, connect(target, setting="--to") as destination, progress_bar("copying") as advance:
        parts = list(copy_database(source, destination, lambda done, total: advance("days", done, total)))
        place = location(destination.info.dsn)
    title = f"Equal at {place}, by count and checksum of each day"
    table = new_table("table", "days", "rows", "written now", numbers=slice(1, None), title=title)
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
    out.print("Next: set BTC_ASSETS_DSN to that database, then btc-assets ops apply and btc-assets doctor.")
