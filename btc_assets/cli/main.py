"""The command line `btc-assets`, assembled from its commands and groups."""

from __future__ import annotations

import sys

import click

from btc_assets.cli.app import App, PlainErrorsGroup, example
from btc_assets.cli.candles import candles
from btc_assets.cli.console import leave_closed_pipe
from btc_assets.cli.coverage import coverage
from btc_assets.cli.database import db
from btc_assets.cli.demo import demo
from btc_assets.cli.dev import dev
from btc_assets.cli.doctor import doctor
from btc_assets.cli.export import export
from btc_assets.cli.feeds import feeds
from btc_assets.cli.gaps import gaps
from btc_assets.cli.interrupts import GRACE_SECONDS, UPLOAD_GRACE_SECONDS, end_soon_after_interrupt
from btc_assets.cli.landing import land
from btc_assets.cli.live import live
from btc_assets.cli.loading import load
from btc_assets.cli.operations import ops
from btc_assets.cli.problems import acknowledge
from btc_assets.cli.signals import evaluate, models, similar, train
from btc_assets.cli.status import status
from btc_assets.cli.worker import worker


@click.group(cls=PlainErrorsGroup, context_settings={"help_option_names": ["-h", "--help"]}, epilog=example("btc-assets demo"))
@click.version_option(package_name="btc-assets")
@click.pass_context
def main(context: click.Context) -> None:
    """The Bitcoin tick store: landing zone to ticks to candles."""
    context.obj = App()


for command in (
    db,
    doctor,
    ops,
    land,
    load,
    live,
    status,
    acknowledge,
    feeds,
    coverage,
    gaps,
    candles,
    export,
    train,
    models,
    similar,
    evaluate,
    demo,
    dev,
    worker,
):
    main.add_command(command)


_END_IN_THEIR_OWN_WAY = ["dev"], ["worker"], ["live"], ["ops", "restore-drill"]  # they end what they started first, which may take longer


def run() -> None:
    """Run the command that the process was started with."""
    if not any(sys.argv[1 : 1 + len(words)] == words for words in _END_IN_THEIR_OWN_WAY):
        end_soon_after_interrupt(UPLOAD_GRACE_SECONDS if sys.argv[1:2] == ["export"] else GRACE_SECONDS)
    try:
        main()
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            leave_closed_pipe()
