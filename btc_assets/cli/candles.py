"""Command `candles`: prints or plots candles."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from btc_assets.cli.app import App, example, parse_window, pass_app, range_options, save_picture
from btc_assets.cli.console import out
from btc_assets.cli.output import format_option, print_batches
from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import DAY, floor_day

if TYPE_CHECKING:
    import psycopg
    import pyarrow as pa


@click.command(epilog=example("btc-assets candles 5m --from 2020-02-22 --to 2020-02-23 --plot day.png"))
@click.argument("interval", type=click.Choice(["100ms", "1s", "30s", "1m", "5m", "1h", "1d"]))
@range_options
@click.option("--symbol", help="Label of the feed; required if there are several.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Save a picture (PNG) instead of printing rows.")
@format_option("csv")
@pass_app
def candles(app: App, interval: str, start: str | None, end: str | None, symbol: str | None, plot: Path | None, form: str) -> None:
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
        print_batches(form, _batches(rows, fraction=interval == "100ms"))


def _newest_day(connection: psycopg.Connection) -> datetime:
    """The newest day with ticks, or today."""
    newest = connection.execute("SELECT max(bucket_5m) FROM landing.raw_blobs_5m WHERE loaded_rows > 0").fetchone()
    return floor_day(newest[0] if newest and newest[0] else datetime.now(UTC))


def _batches(rows: Sequence[tuple[Any, ...]], *, fraction: bool) -> pa.RecordBatchReader:
    """The candles without what all of them share."""
    import pyarrow as pa

    from btc_assets.market_data.candles import COLUMNS

    columns = {name: pa.array(values) for name, values in zip(COLUMNS, zip(*rows, strict=True), strict=True) if name not in _SHARED}
    columns["bucket"] = columns["bucket"].cast(pa.timestamp("ms" if fraction else "s", "UTC"))
    batch = pa.RecordBatch.from_pydict(columns)
    return pa.RecordBatchReader.from_batches(batch.schema, [batch])


_SHARED = ("bucket_5m", "symbol")
