"""Command `candles`: prints or plots candles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from btc_assets.cli.app import App, example, newest_day, parse_window, pass_app, plot_option, range_options, save_picture
from btc_assets.cli.console import out
from btc_assets.cli.output import format_option, print_batches
from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import DAY

if TYPE_CHECKING:
    import pyarrow as pa


@click.command(epilog=example("btc-assets candles 15m --from 2020-02-22 --to 2020-02-23 --plot day.png"))
@click.argument("interval")
@range_options
@click.option("--symbol", help="Label of the feed; required if there are several.")
@plot_option("Save a picture instead of printing rows")
@format_option("csv")
@pass_app
def candles(app: App, interval: str, start: str | None, end: str | None, symbol: str | None, plot: Path | None, form: str) -> None:
    """Print or plot the candles of an INTERVAL; without a range, those of the newest day.

    An INTERVAL is any multiple of one that the store keeps, such as 30s, 15m, 4h or 7d; or day, week, month, quarter or year.
    """
    from btc_assets.client.intervals import parse_interval
    from btc_assets.client.store import connect
    from btc_assets.landing.generated import holds_generated

    label = app.settings.landing_feeds.by_label(symbol).label
    width = parse_interval(interval).width
    with app.store.connect() as connection:
        day = newest_day(connection)
        window = parse_window(start, end, day, day + DAY)
        generated = plot is not None and holds_generated(connection, label, window)
    with connect(settings=app.settings, decimals="float" if plot else "exact") as store:
        rows = store.candles(label, interval, window).arrow().drop_columns(_NOT_SHOWN)
    if not len(rows):
        raise UserError(f"There are no {interval} candles of {label} from {window}: load that range first (btc-assets load).")
    if plot:
        from btc_assets.market_data.plot import plot_candles

        save_picture(plot, plot_candles(rows, width, f"{label}, {interval} candles", generated=generated))
        out.print(f"Saved {len(rows):,} candles to {plot}.")
    else:
        print_batches(form, _with_short_times(rows, fraction=width is not None and width.microseconds > 0).to_reader())


_NOT_SHOWN = ["symbol", "available_at"]  # what all of them share, and what is for joining


def _with_short_times(rows: pa.Table, *, fraction: bool) -> pa.Table:
    """The candles with times that show no fraction of a second unless they have one."""
    import pyarrow as pa

    place = rows.schema.get_field_index("bucket")
    return rows.set_column(place, "bucket", rows["bucket"].cast(pa.timestamp("ms" if fraction else "s", "UTC")))
