"""Commands `demo` and `dev`: a day of trades end to end, and the Dagster UI."""

from __future__ import annotations

import hashlib
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from btc_assets.cli.app import App, example, out, pass_app, progress_bar, save_picture
from btc_assets.cli.landing import land_file
from btc_assets.cli.loading import count_candles, print_report, run_ingest
from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import DAY, SLICE, Window, floor_day

if TYPE_CHECKING:
    from btc_assets.simulation.replay import Landed


@click.command(epilog=example("btc-assets demo --trades my_trades.csv.gz"))
@click.option("--trades", type=click.Path(path_type=Path), help="Use the trades in this file instead of a generated day.")
@click.option("--ticks", type=click.IntRange(min=1), default=500_000, show_default=True, help="Size of the generated day.")
@pass_app
def demo(app: App, trades: Path | None, ticks: int) -> None:
    """Land a day of trades, load it end to end and show what came out. Can be repeated.

    The generated day is the one before yesterday, so that what is played live on top (btc-assets land --live-from) is later.
    """
    from btc_assets.cli.demo_store import use_demo

    started = time.perf_counter()
    source = trades.resolve() if trades else None
    day = floor_day(datetime.now(UTC)) - 2 * DAY
    # Another day, or another number of trades, has other trade ids at the same times: it gets a store of its own.
    name = f"demo_{hashlib.sha256(str(source).encode()).hexdigest()[:8]}" if source else f"demo_{day:%Y%m%d}_{ticks}"
    home = app.settings.home
    app = App(use_demo(home, name))
    if source:
        landed = land_file(app, source, None)
        if landed.rejected_rows:
            out.print(
                f"[red]{landed.rejected_rows:,} rows are no valid trades and were not landed[/red], such as {landed.rejected[0]}",
                highlight=False,
            )
    else:
        landed = _land_generated(app, day, ticks)
    if landed.first_event_time is None or landed.last_event_time is None:
        raise UserError(f"{source} holds no valid trade: give a file with at least one.")
    window = Window.covering(landed.first_event_time, landed.last_event_time + timedelta(microseconds=1))
    app = App(use_demo(home, name, window.start))
    app.set_up_embedded_database()
    report = run_ingest(app, window)
    print_report(report, count_candles(app, report.window))
    picture = home / (f"{name}.png" if source else "demo.png")
    _picture(app, picture, app.settings.landing_feeds[0].label, window)
    out.print(f"Candles: {picture}", highlight=False)
    out.print(f"Took {time.perf_counter() - started:.0f} s in all. Next: make dev (the Dagster UI), or btc-assets status.", highlight=False)
    if not report.checks_passed:
        sys.exit(2)


def _land_generated(app: App, day: datetime, ticks: int) -> Landed:
    from btc_assets.simulation.generate_day import generate_day
    from btc_assets.simulation.replay import Landed, land_trades
    from btc_assets.simulation.trade_table import FirstTrade

    feed = app.settings.landing_feeds[0]
    with progress_bar("landing") as advance:
        return land_trades(
            app.landing.zone(), feed, generate_day(day, ticks, first=FirstTrade(feed.label)), Landed(),
            progress=lambda objects: advance("objects", objects, 0),
        )  # fmt: skip


def _picture(app: App, path: Path, label: str, window: Window) -> None:
    from btc_assets.market_data.candles import read_candles
    from btc_assets.market_data.plot import plot_candles

    interval = "1m" if len(window) <= 36 else "5m" if len(window) <= 600 else "1h"
    with app.store.connect() as connection:
        # Candles go by trade time, so the first may begin just before the first slice.
        rows = read_candles(connection, interval, label, window.widened(SLICE))
    save_picture(path, plot_candles(rows, interval, label))


@click.command(epilog=example("btc-assets dev --port 3001"))
@click.option("--port", type=click.IntRange(1, 65535), default=3000, show_default=True, help="Where the UI listens, on 127.0.0.1.")
@pass_app
def dev(app: App, port: int) -> None:
    """Open the Dagster UI and its daemon on this store."""
    from btc_assets.cli.demo_store import run_dev

    app.set_up_embedded_database()
    app.prepare_dagster()
    sys.exit(run_dev(app.settings, port))


@click.command(epilog=example("BTC_ASSETS_WORKERS_BROKER=redis://broker:6379/0 btc-assets worker --runs 2"))
@click.option("--runs", type=click.IntRange(min=1), default=1, show_default=True, help="Runs that it carries at once, each in a process.")
@click.option("--name", default="worker", show_default=True, help="Tells several workers on one machine apart.")
@pass_app
def worker(app: App, runs: int, name: str) -> None:
    """Carry Dagster's runs on this machine, as one of many; Ctrl-C lets those under way come to their end."""

    app.prepare_dagster()
    try:
        from btc_assets.orchestration.workers import work
    except ModuleNotFoundError as error:
        raise UserError(f"Workers need {error.name}: pip install 'btc-assets[workers]'.") from None
    work(name, runs)
