"""Command `worker`: executes Dagster's runs on this machine."""

from __future__ import annotations

import click

from btc_assets.cli.app import App, example, pass_app
from btc_assets.domain.errors import UserError


@click.command(epilog=example("BTC_ASSETS_WORKERS_BROKER=redis://broker:6379/0 btc-assets worker --runs 2"))
@click.option(
    "--runs", type=click.IntRange(min=1), default=1, show_default=True, help="Runs that it executes at once, each in a process of its own."
)
@click.option("--name", default="worker", show_default=True, help="Distinguishes several workers on one machine.")
@pass_app
def worker(app: App, runs: int, name: str) -> None:
    """Execute Dagster's runs on this machine, as one worker of several; Ctrl-C lets the runs in progress finish."""
    app.prepare_dagster()
    try:
        from btc_assets.orchestration.workers import work
    except ModuleNotFoundError as error:
        raise UserError(f"Workers need {error.name}: pip install 'btc-assets[workers]'.") from None
    work(app.settings, name, runs)
