"""Command `demo`: a day of trades, from a file to candles, in a store of its own."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from btc_assets.cli.app import App, example, progress_bar, save_picture
from btc_assets.cli.console import out, styled
from btc_assets.cli.landing import land_file
from btc_assets.cli.loading import count_candles, count_landed, print_failed_checks, print_report, run_ingest
from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import DAY, KEY_FORMAT, SLICE, Window, floor_day

if TYPE_CHECKING:
    import pyarrow as pa

    from btc_assets.domain.feeds import Feed
    from btc_assets.domain.settings import Settings
    from btc_assets.simulation.batches import BatchLimits
    from btc_assets.simulation.replay import Landed


_SPOT_AND_PERPETUAL = "Binance/BTCUSDT=BTCUSDT,Binance/UM/BTCUSDT=BTCUSDT:BTCUSDT.P;market=um;ids=contiguous"
_PERPETUAL_SECONDS = 60.0  # in fewer objects than the spot market's, because objects are what a demo's seconds go to


@click.command(epilog=example("btc-assets demo --trades my_trades.csv.gz"))
@click.option("--trades", type=click.Path(path_type=Path), help="Use the trades in this file instead of a generated day.")
@click.option("--ticks", type=click.IntRange(min=1), default=500_000, show_default=True, help="Size of the generated day.")
@click.option("--perpetual", is_flag=True, help="Generate a second symbol as well, BTCUSDT.P, whose prices follow the spot market's.")
def demo(trades: Path | None, ticks: int, perpetual: bool) -> None:
    """Land a day of trades, load it end to end and show the result. Can be repeated.

    It has a store of its own below BTC_ASSETS_HOME, whatever the other settings name, and touches no other.
    The generated day is the one before yesterday, so that trades played live on top of it (btc-assets land --live-from) are later.
    """
    from btc_assets.domain.settings import read_home

    started = time.perf_counter()
    day = floor_day(datetime.now(UTC)) - 2 * DAY
    source = trades.resolve() if trades else None
    home = read_home()
    if source and perpetual:
        raise UserError("A file's trades are those of one symbol: leave out --perpetual, or --trades for a generated day.")
    store = DemoStore.of_file(home, source) if source else DemoStore.of_day(home, day, ticks, perpetual=perpetual)
    app = App(store.use())
    app.set_up_embedded_database()  # what it cannot do is said before anything is landed
    landed = _land_file(app, source) if source else _land_generated(app, day, ticks)
    if landed.first_event_time is None or landed.last_event_time is None:
        raise UserError(f"{source} holds no valid trade: give a file with at least one.")
    window = Window.covering(landed.first_event_time, landed.last_event_time + timedelta(microseconds=1))
    app = App(store.use(partitions_start=window.start))
    app.set_up_embedded_database()
    report = run_ingest(app, window)
    print_report(report, count_landed(app, report.window).objects, count_candles(app, report.window))
    print_failed_checks(app, report)
    _draw_candles(app, store.picture, window)
    out.print(f"Candles: {store.picture}")
    out.print(
        f"Took {time.perf_counter() - started:.0f} s in all. Next: make explore (in the browser), make dev (the Dagster UI), or btc-assets status."
    )
    if not report.checks_passed or landed.rejected_rows:
        sys.exit(2)


@dataclass(frozen=True)
class DemoStore:
    """An embedded database and a landing directory of a demo's own, so that demos keep apart and nothing of the user's is touched.

    Attributes:
        home: `BTC_ASSETS_HOME`.
        name: of the database and of the directory.
        picture: the file for the candles.
        feeds: as in `BTC_ASSETS_LANDING_FEEDS`; the default if empty.
    """

    home: Path
    name: str
    picture: Path
    feeds: str = ""

    @classmethod
    def of_file(cls, home: Path, source: Path) -> DemoStore:
        """The store for the trades of a file."""
        name = f"demo_{hashlib.sha256(str(source).encode()).hexdigest()[:8]}"
        return cls(home, name, home / f"{name}.png")

    @classmethod
    def of_day(cls, home: Path, day: datetime, ticks: int, *, perpetual: bool = False) -> DemoStore:
        """The store for a generated day. Another day or number of trades would have other trades with the same ids."""
        name = f"demo_{day:%Y%m%d}_{ticks}"
        if perpetual:
            return cls(home, f"{name}_perpetual", home / "demo.png", _SPOT_AND_PERPETUAL)
        return cls(home, name, home / "demo.png")

    def use(self, *, partitions_start: datetime | None = None) -> Settings:
        """Point this process at the store, and with `partitions_start` every later process as well, unless its settings name another.

        No setting of the user's counts, wherever it comes from. The variables are set in the environment because Dagster's storage and
        child processes read them there.
        """
        from btc_assets.domain.settings import DEMO_ENV, PREFIX, leave_settings_out, load_settings
        from btc_assets.store.embedded import require_writable

        require_writable(self.home)
        landing = self.home / f"landing_{self.name}"
        landing.mkdir(parents=True, exist_ok=True)
        variables = {
            "DAGSTER_HOME": str(self.home / "dagster_demo"),
            f"{PREFIX}DATABASE": self.name,
            f"{PREFIX}LANDING_URL": landing.as_uri(),
            f"{PREFIX}TICKS_DROP_AFTER_DAYS": "never",  # the trades of a file may be old
        }
        if self.feeds:
            variables[f"{PREFIX}LANDING_FEEDS"] = self.feeds
        if partitions_start is not None:
            variables[f"{PREFIX}PARTITIONS_START"] = partitions_start.strftime(KEY_FORMAT)
            lines = ["# Written by the last `btc-assets demo`; used if there is no .env and no variable names a store"]
            lines += [f"{name}={_quoted(value)}" for name, value in variables.items()]
            (self.home / DEMO_ENV).write_text("\n".join(lines) + "\n")
        leave_settings_out()
        os.environ.update(variables | {f"{PREFIX}HOME": str(self.home)})
        return load_settings()


def _quoted(value: str) -> str:
    """A value as a file of variables has it, literally: a path may hold spaces, quotes, `#` and `$`."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _land_file(app: App, source: Path) -> Landed:
    landed = land_file(app, source, None)
    if landed.rejected_rows:
        rejected = styled(f"{landed.rejected_rows:,} rows are not valid trades and were not landed,", "red")
        out.print(rejected, f"such as {landed.rejected[0]}")
    return landed


def _land_generated(app: App, day: datetime, ticks: int) -> Landed:
    """Land a day of the first feed; a second one is the perpetual."""
    from btc_assets.simulation.batches import BATCH_LIMITS, BatchLimits
    from btc_assets.simulation.generate_day import generate_day
    from btc_assets.simulation.perpetual import follow_spot
    from btc_assets.simulation.replay import Landed, land_trades
    from btc_assets.simulation.trade_table import FirstTrade

    landed, (feed, *others) = Landed(), app.settings.landing_feeds
    with progress_bar("landing") as advance:

        def land(feed: Feed, trades: Iterator[pa.Table], limits: BatchLimits) -> None:
            land_trades(app.landing.zone(), feed, trades, landed, limits=limits, progress=lambda objects: advance("objects", objects, 0))

        first = FirstTrade(feed.label)
        land(feed, generate_day(day, ticks, first=first), BATCH_LIMITS)
        for other in others:
            land(other, follow_spot(generate_day(day, ticks, first=first), other.label), BatchLimits(_PERPETUAL_SECONDS))
    return landed


def _draw_candles(app: App, path: Path, window: Window) -> None:
    from btc_assets.client.intervals import parse_interval
    from btc_assets.client.store import connect
    from btc_assets.landing.generated import holds_generated
    from btc_assets.market_data.plot import plot_candles

    label = app.settings.landing_feeds[0].label
    interval = "1m" if len(window) <= 36 else "5m" if len(window) <= 600 else "1h"
    with app.store.connect() as connection:
        generated = holds_generated(connection, label, window)
    with connect(settings=app.settings, decimals="float") as store:
        # Candles go by trade time, so the first may begin just before the first slice.
        rows = store.candles(label, interval, window.widened(SLICE)).arrow()
    save_picture(path, plot_candles(rows, parse_interval(interval).width, f"{label}, {interval} candles", generated=generated))
