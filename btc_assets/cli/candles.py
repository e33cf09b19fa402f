"""Command `candles`: prints or plots candles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from btc_assets.cli.app import App, example, newest_day, parse_window, pass_app, plot_option, range_options, save_picture
from btc_assets.cli.console import out
from btc_assets.cli.output import format_option, print_batches
from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import DAY

if TYPE_CHECKING:
    import pyarrow as pa


@click.command(epilog=example("btc-assets candles 5m --from 2020-02-22 --to 2020-02-23 --plot day.png"))
@click.argument("interval", type=click.Choice(["100ms", "1s", "30s", "1m", "5m", "1h", "1d"]))
@range_options
@click.option("--symbol", help="Label of the feed; required if there are several.")
@plot_option("Save a picture instead of printing rows")
@format_option("csv")
@pass_app
def candles(app: App, interval: str, start: str | None, end: str | None, symbol: str | None, plot: Path | None, form: str) -> None:
    """Print or plot the candles of an INTERVAL; without a range, those of the newest day."""
    from btc_assets.landing.generated import holds_generated
    from btc_assets.market_data.candles import read_candles

    label = app.settings.landing_feeds.by_label(symbol).label
    with app.store.connect() as connection:
        day = newest_day(connection)
        window = parse_window(start, end, day, day + DAY)
        rows = read_candles(connection, interval, label, window)
        generated = plot is not None and holds_generated(connection, label, window)
    if not rows:
        raise UserError(f"There are no {interval} candles of {label} from {window}: load that range first (btc-assets load).")
    if plot:
        from btc_assets.market_data.plot import plot_candles

        save_picture(plot, plot_candles(rows, interval, label, generated=generated))
        out.print(f"Saved {len(rows):,} candles to {plot}.")
    else:
        print_batches(form, _batches(rows, fraction=interval == "100ms"))


def _batches(rows: Sequence[tuple[Any, ...]], *, fraction: bool) -> pa.RecordBatchReader:
    """The candles without what all of them share."""
    import pyarrow as pa

    from btc_assets.market_data.candles import COLUMNS

    columns = {name: pa.array(values) for name, values in zip(COLUMNS, zip(*rows, strict=True), strict=True) if name not in _SHARED}
    columns["bucket"] = columns["bucket"].cast(pa.timestamp("ms" if fraction else "s", "UTC"))
    batch = pa.RecordBatch.from_pydict(columns)
    return pa.RecordBatchReader.from_batches(batch.schema, [batch])


_SHARED = ("bucket_5m", "symbol")
