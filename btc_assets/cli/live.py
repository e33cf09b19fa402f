"""Command `live`: loads the open slice every few seconds."""

from __future__ import annotations

import logging
import signal
import sys
from threading import Event

import click

from btc_assets.cli.app import App, example, pass_app
from btc_assets.domain.errors import UserError


@click.command(epilog=example("btc-assets live --every 5"))
@click.option("--every", type=click.IntRange(1, 300), help="Seconds from one pass to the next; by default BTC_ASSETS_LIVE_SECONDS.")
@pass_app
def live(app: App, every: int | None) -> None:
    """Load what lands for the slice that is still open, every few seconds, until SIGTERM or Ctrl-C.

    The sensors load each slice once more when it is closed. `btc-assets dev` starts this by itself if BTC_ASSETS_LIVE_SECONDS is set.
    """
    from btc_assets.market_data.candles import enabled_intervals
    from btc_assets.market_data.keys import candles_key
    from btc_assets.market_data.live import LiveLoader, follow
    from btc_assets.signals.keys import FOLLOWERS

    settings = app.settings
    seconds = every or settings.live_seconds
    if seconds is None:
        raise UserError("How often is not set: name the seconds with --every, or set BTC_ASSETS_LIVE_SECONDS.")
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S")
    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    followers = [*map(candles_key, enabled_intervals(settings)), *FOLLOWERS]
    follow(app.store, LiveLoader(app.store, app.landing, settings, followers), seconds, stop)
