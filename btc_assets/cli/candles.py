"""Command `candles`: prints or plots candles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from btc_assets.cli.app import App, example, parse_window, pass_app, range_options, save_picture
from btc_assets.cli.console import out
from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import DAY, floor_day

if TYPE_CHECKING:
    import psycopg


@click.command(epilog=example("btc-assets candles 5m --from 2020-02-22 --to 2020-02-23 --plot day.png"))
@click.argument("interval", type=click.Choice(["100ms", "1s", "30s", "1m", "5m", "1h", "1d"]))
@range_options
@click.option("--symbol", help="Label of the feed; required if there are several.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Save a picture (PNG) instead of printing rows.")
@pass_app
def candles(app: App, interval: str, start: str | None, end: str | None, symbol: str | None, plot: Path | None) -> None:
    """Print or plot the candles of an INTERVAL; without a range, those of the newest day."""
    from btc_assets.market_data.candles import read_candles

    label = app.settings.landing_feeds.by_label(symbol).label
    with app.store.connect() as connection:
        day = _newest_day(connection)
        window = parse_window(start, end, day, day + DAY)
        rows = read_candles(connection, interval, label, window)
    if not rows:
        raise UserError(f"There are no {interval} candles of {label} from {window}: load that range first (btc-assets load).")
    if plot:
        from btc_assets.market_data.plot import plot_candles

        save_picture(plot, plot_candles(rows, interval, label))
        out.print(f"Saved {len(rows):,} candles to {plot}.")
    else:
        for line in _format_csv(rows, fraction=interval == "100ms"):
            click.echo(line)


def _newest_day(connection: psycopg.Connection) -> datetime:
    """The newest day with ticks, or today."""
    newest = connection.execute("SELECT max(bucket_5m) FROM landing.raw_blobs_5m WHERE loaded_rows > 0").fetchone()
    return floor_day(newest[0] if newest and newest[0] else datetime.now(UTC))


def _format_csv(rows: Sequence[tuple[Any, ...]], *, fraction: bool) -> Iterator[str]:
    from btc_assets.market_data.candles import COLUMNS

    shown = [name for name in COLUMNS if name not in ("bucket_5m", "symbol")]
    indexes = [COLUMNS.index(name) for name in shown]
    yield ",".join(shown)
    for row in rows:
        yield ",".join(_format_cell(row[index], fraction=fraction) for index in indexes)


def _format_cell(value: object, *, fraction: bool) -> str:
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds" if fraction else "seconds").replace("+00:00", "Z")
    return f"{value:f}" if hasattr(value, "as_tuple") else str(value)
