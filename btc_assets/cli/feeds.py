"""Commands `feeds`: what lands where, and the end of a feed."""

from __future__ import annotations

import os
from pathlib import Path

import click

from btc_assets.cli.app import App, example, new_table, pass_app
from btc_assets.cli.console import out
from btc_assets.cli.output import Columns, format_option, print_rows
from btc_assets.domain.errors import UserError
from btc_assets.domain.feeds import Feeds

_VARIABLE = "BTC_ASSETS_LANDING_FEEDS"


@click.group(invoke_without_command=True, epilog=example("btc-assets feeds"))
@format_option()
@click.pass_context
@pass_app
def feeds(app: App, context: click.Context, form: str) -> None:
    """List the feeds and what is stored of each; retire one."""
    if context.invoked_subcommand is None:
        _list_feeds(app, form)


_COLUMNS: Columns = {
    "label": "text", "prefix": "text", "symbol": "text", "objects": "integer", "slices": "integer", "ticks": "integer",
}  # fmt: skip


def _list_feeds(app: App, form: str) -> None:
    from btc_assets.ops.forget import read_extent, read_symbols

    own = {feed.label: feed for feed in app.settings.landing_feeds}
    rows: list[tuple[str, str | None, str | None, int, int, int]] = []
    with app.store.connect() as connection:
        for label in dict.fromkeys([*own, *read_symbols(connection)]):
            extent, feed = read_extent(connection, symbol=label), own.get(label)
            names = (feed.prefix, feed.symbol) if feed else (None, None)
            rows.append((label, *names, extent.objects, extent.slices, extent.ticks))
    if form != "table":
        print_rows(form, _COLUMNS, rows)
        return
    table = new_table(*_COLUMNS, numbers=slice(3, None))
    for label, prefix, symbol, *counts in rows:
        table.add_row(label, prefix or "retired", symbol or "", *(f"{count:,}" for count in counts))
    out.print(table)


@feeds.command(epilog=example("btc-assets feeds retire ETHUSDT"))
@click.argument("label")
@pass_app
def retire(app: App, label: str) -> None:
    """End the feed LABEL: it leaves the settings, and what is stored of it stays as it is.

    Takes it out of `.env` if that file names the feeds, and says what to set elsewhere. Its open problems are acknowledged. Nothing that
    landed for it is loaded any more, and nothing of it holds up other feeds. `btc-assets db forget --symbol` removes it from the store.
    """
    from btc_assets.landing.problems import acknowledge, read_problems
    from btc_assets.ops.forget import read_extent

    settings = app.settings
    with app.store.connect() as connection:
        extent = read_extent(connection, symbol=label)
        if label not in settings.landing_feeds.labels and not extent.objects:
            raise UserError(f"There is no feed {label}: btc-assets feeds lists them.")
        rest = [feed for feed in settings.landing_feeds if feed.label != label]
        if not rest:
            raise UserError(f"{label} is the only feed, and a store has at least one: name another one in {_VARIABLE} first.")
        problems = [problem.what for problem in read_problems(connection, [label], limit=10_000).shown]
        if problems:
            acknowledge(connection, problems, "the feed was retired")
    if label in settings.landing_feeds.labels:
        _leave_settings(str(Feeds(rest)))
    out.print(
        f"{extent.ticks:,} ticks of {label} in {extent.slices:,} slices stay; {len(problems):,} problem(s) acknowledged. "
        f"btc-assets db forget --symbol {label} removes all of it."
    )


def _leave_settings(value: str) -> None:
    from dotenv import dotenv_values, set_key

    file = Path(".env")
    named = dotenv_values(file).get(_VARIABLE)
    if named and os.environ.get(_VARIABLE) == named:  # the environment has it from there
        set_key(file, _VARIABLE, value)
        out.print(f"{file.absolute()} now has {_VARIABLE}={value}. Restart the processes that use it.")
    else:
        out.print(f"Next: set {_VARIABLE}={value} for every process, and restart them.")
