"""Commands `status` and `candles`: what the store holds, and how far behind it is."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from btc_assets.cli.app import App, example, out, parse_window, pass_app, range_options, save_picture
from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE, floor_day, floor_slice, parse_time

if TYPE_CHECKING:
    from btc_assets.ops.health import Health


@click.command(epilog=example("btc-assets status --from 2020-02-01"))
@range_options
@pass_app
def status(app: App, start: str | None, end: str | None) -> None:
    """Show how far behind the store is and why, and what is landed and loaded by day."""
    from btc_assets.ops.health import read_health
    from btc_assets.ops.status import read_daily_status

    now, config = datetime.now(UTC), app.settings
    with app.store.connect() as connection:
        rows = read_daily_status(connection, parse_window(start, end, parse_time("2009-01-03"), floor_slice(now) + SLICE))
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
    _print_health(app, health, now)


def _print_health(app: App, health: Health, now: datetime) -> None:
    from btc_assets.domain.durations import format_age

    for symbol in health.symbols:
        newest = f"ticks up to {symbol.newest:%Y-%m-%d %H:%M:%S}, {format_age(symbol.newest, now)} ago" if symbol.newest else "no ticks yet"
        out.print(f"[bold]{symbol.label}[/bold]: {newest}.", highlight=False)
    waiting = health.waiting
    out.print(
        f"Slices with something to load: {len(waiting.due):,} due, {waiting.still_receiving:,} still receiving objects, {waiting.open:,} not closed yet; "
        f"candles to make: {health.candles_due:,}, features and embeddings: {health.signals_due:,}.",
        highlight=False,
    )
    for reason in health.reasons:
        out.print(f"[yellow]{reason}[/yellow]", highlight=False)
    if health.stuck:
        from btc_assets.orchestration.ingest import last_failure

        app.prepare_dagster()
        if failure := last_failure():
            out.print(f"Last failed run: {failure}", highlight=False, markup=False)


@click.command(epilog=example("btc-assets candles 5m --from 2020-02-22 --to 2020-02-23 --plot day.png"))
@click.argument("interval", type=click.Choice(["100ms", "1s", "30s", "1m", "5m", "1h", "1d"]))
@range_options
@click.option("--symbol", help="Label of the feed; needed where there are several.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Save a picture (PNG) instead of printing rows.")
@pass_app
def candles(app: App, interval: str, start: str | None, end: str | None, symbol: str | None, plot: Path | None) -> None:
    """Print or plot the candles of an INTERVAL; without a range, the newest day."""
    from btc_assets.market_data.candles import COLUMNS, read_candles

    label = app.settings.landing_feeds.by_label(symbol).label
    with app.store.connect() as connection:
        newest = connection.execute("SELECT max(bucket_5m) FROM landing.raw_blobs_5m WHERE loaded_rows > 0").fetchone()
        day = floor_day(newest[0] if newest and newest[0] else datetime.now(UTC))
        window = parse_window(start, end, day, day + 288 * SLICE)
        rows = read_candles(connection, interval, label, window)
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
