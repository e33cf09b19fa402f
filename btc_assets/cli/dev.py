"""Command `dev`: the Dagster UI and its daemon on this store."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from btc_assets.cli.app import App, example, pass_app
from btc_assets.domain.errors import UserError

if TYPE_CHECKING:
    from btc_assets.domain.settings import Settings

_PROJECT = Path(__file__).parents[2]


@click.command(epilog=example("btc-assets dev --port 3001"))
@click.option("--port", type=click.IntRange(1, 65535), default=3000, show_default=True, help="Port of the UI, on 127.0.0.1.")
@pass_app
def dev(app: App, port: int) -> None:
    """Open the Dagster UI and its daemon on this store."""
    if not (_PROJECT / "pyproject.toml").exists():  # it tells `dg` what to serve
        raise UserError("The development UI runs from a checkout: clone the project, or start dagster-webserver and dagster-daemon.")
    app.set_up_embedded_database()
    home = app.prepare_dagster()
    sys.exit(_serve(port, dev_environment(app.settings, home)))


def dev_environment(settings: Settings, dagster_home: Path) -> dict[str, str]:
    """The environment of the webserver, the daemon and their runs, which work in another directory than this process."""
    paths = {"BTC_ASSETS_HOME": str(settings.home), "DAGSTER_HOME": str(dagster_home.absolute())}
    # A week of slices a run: a person who backfills a year sees progress, and can stop and repeat it in parts.
    # VIRTUAL_ENV, because dg warns if it runs from another environment than the activated one.
    return {"BTC_ASSETS_BACKFILL_SLICES_PER_RUN": "2016"} | dict(os.environ) | paths | {"VIRTUAL_ENV": sys.prefix}


def _serve(port: int, environment: dict[str, str]) -> int:
    """Run the webserver and the daemon with `dg dev` until they are stopped; returns the exit status."""
    import subprocess

    command = [str(Path(sys.executable).with_name("dg")), "dev", "--host", "127.0.0.1", "--port", str(port)]
    # A shell that starts a command in the background makes it, and all its children, ignore SIGINT; but dg ends by that signal.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, cwd=_PROJECT, env=environment)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # dg received it, too, and shuts down by itself
            continue
