"""Command `gaps`: lists the trade ids that are missing, or draws them with the volume around them."""

from __future__ import annotations

from pathlib import Path

import click

from btc_assets.cli.app import App, example, newest_day, parse_window, pass_app, plot_option, range_options, save_picture
from btc_assets.cli.console import out
from btc_assets.cli.output import Columns, format_option, print_rows
from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import DAY

_COLUMNS: Columns = {"symbol": "text", "first_missing": "integer", "last_missing": "integer", "missing": "integer", "bucket_5m": "time"}


@click.command(
    epilog=example("btc-assets gaps --from 2024-01-01 --to 2024-02-01\n  btc-assets gaps --from 2024-01-10 --to 2024-01-11 --plot gaps.svg")
)
@range_options
@click.option("--symbol", help="Label of the feed; by default all, and needed for a picture if there are several.")
@plot_option("Draw the volume with what is missing instead of listing it", ".svg")
@format_option()
@pass_app
def gaps(app: App, start: str | None, end: str | None, symbol: str | None, plot: Path | None, form: str) -> None:
    """List the trade ids that are missing; without a range, those of the newest day."""
    from btc_assets.landing.generated import holds_generated
    from btc_assets.market_data.continuity import not_judged, read_gaps
    from btc_assets.market_data.pictures import VolumeStrips

    feeds = app.settings.landing_feeds
    asked = [feeds.by_label(symbol).label] if symbol or plot else feeds.labels
    unjudged = feeds.labels_with_gaps
    with app.store.connect() as connection:
        day = newest_day(connection)
        window = parse_window(start, end, day, day + DAY)
        found = [gap for gap in read_gaps(connection, window, unjudged) if gap.symbol in asked]
        if plot:
            strips, generated = VolumeStrips.of_candles(connection, window, asked), holds_generated(connection, asked[0], window)
    if plot:
        if strips.empty:
            raise UserError(f"There are no trades of {asked[0]} from {window}: load that range first (btc-assets load).")
        save_picture(plot, strips.draw(found, unjudged, generated=generated)[asked[0]].encode())
        out.print(f"Saved the volume of {asked[0]} and {_count(len(found), 'gap')} to {plot}.")
        return
    if found or form != "table":
        print_rows(form, _COLUMNS, [(gap.symbol, gap.first_missing, gap.last_missing, gap.missing, gap.after) for gap in found])
    if form == "table":
        missing = sum(gap.missing for gap in found)
        out.print(
            f"{_count(len(found), 'gap')} from {window}: {_count(missing, 'trade id')} missing."
            if found
            else f"No trade id is missing from {window}."
        )
        if skipped := not_judged(unjudged.intersection(asked)):
            out.print(skipped)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
