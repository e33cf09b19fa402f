"""Command `dev`: the Dagster UI and its daemon on this store."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from btc_assets.cli.app import App, example, pass_app
from btc_assets.cli.operations import move_start_if_due

if TYPE_CHECKING:
    from btc_assets.domain.settings import Settings


@click.command(epilog=example("btc-assets dev --port 3001"))
@click.option("--port", type=click.IntRange(1, 65535), default=3000, show_default=True, help="Port of the UI, on 127.0.0.1.")
@click.option("--read-only", is_flag=True, help="The UI shows everything and changes nothing; sensors and schedules run all the same.")
@pass_app
def dev(app: App, port: int, read_only: bool) -> None:
    """Open the Dagster UI and its daemon on this store."""
    from btc_assets.orchestration.dev_services import serve

    app.set_up_embedded_database()
    move_start_if_due(app)
    app.store.connect().close()  # what is wrong with the connection is one sentence here, and tracebacks of three services later
    home = app.prepare_dagster().absolute()
    live = app.settings.live_seconds is not None
    sys.exit(serve(home, port, dev_environment(app.settings, home), read_only=read_only, live=live))


def dev_environment(settings: Settings, dagster_home: Path) -> dict[str, str]:
    """The environment of the webserver, the daemon and their runs, whatever directory they work in."""
    paths = {"BTC_ASSETS_HOME": str(settings.home), "DAGSTER_HOME": str(dagster_home.absolute())}
    # A week of slices a run: a person who backfills a year sees progress, and can stop and repeat it in parts.
    return {"BTC_ASSETS_BACKFILL_SLICES_PER_RUN": "2016"} | dict(os.environ) | paths
