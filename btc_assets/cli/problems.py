"""Command `acknowledge`: accepts problems as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from btc_assets.cli.app import App, example, pass_app
from btc_assets.cli.console import out
from btc_assets.cli.output import Columns, format_option, print_rows

if TYPE_CHECKING:
    from btc_assets.landing.problems import Acknowledgement


@click.command(epilog=example("btc-assets acknowledge s3://bucket/.../batch-x.parquet --note 'the collector crashed'"))
@click.argument("uris", metavar="URI...", nargs=-1)
@click.option("--note", default="", help="Why it is accepted.")
@click.option("--undo", is_flag=True, help="Forget that it was accepted: it is a problem again.")
@click.option("--list", "listed", is_flag=True, help="Show what was accepted, by whom and why.")
@format_option(what="with --list, what a person reads")
@pass_app
def acknowledge(app: App, uris: tuple[str, ...], note: str, undo: bool, listed: bool, form: str) -> None:
    """Accept the problems of objects as they are, so that no check fails because of them any more.

    URI is that of an object as `btc-assets status` shows it. Another version of the object is another problem.
    """
    from btc_assets.landing import problems

    if listed == bool(uris):
        raise click.UsageError("Name the URI of an object that is a problem (btc-assets status shows them), or give --list.")
    with app.store.connect() as connection:
        if uris and undo:
            for what in problems.withdraw_acknowledgements(connection, uris):
                out.print(f"{what} is a problem again, unless it was mended.")
        elif uris:
            for what in problems.acknowledge(connection, uris, note):
                out.print(f"Acknowledged {what}.")
        elif form == "table":
            _print_acknowledgements(problems.read_acknowledgements(connection))
        else:
            print_rows(form, _COLUMNS, problems.read_acknowledgements(connection))


_COLUMNS: Columns = {"kind": "text", "what": "text", "version": "text", "note": "text", "by": "text", "at": "time"}


def _print_acknowledgements(accepted: list[Acknowledgement]) -> None:
    if not accepted:
        out.print("Nothing was acknowledged.")
    for each in accepted:
        out.print(f"{each.at:%Y-%m-%d %H:%M} by {each.by}: {each.kind} {each.what}{each.note and f' ({each.note})'}")
