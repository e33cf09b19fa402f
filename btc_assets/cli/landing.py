"""Command `land`: lands the trades of a file, at once or played live."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from btc_assets.cli.app import App, example, pass_app, progress_bar
from btc_assets.cli.console import err, out
from btc_assets.domain.errors import UserError

if TYPE_CHECKING:
    from btc_assets.simulation.batches import BatchLimits
    from btc_assets.simulation.play import PlayProgress
    from btc_assets.simulation.play_plan import PlayOptions
    from btc_assets.simulation.replay import Landed


@click.command(epilog=example("btc-assets land trades.csv.gz --symbol BTCUSDT\n  btc-assets land --live-from generated --speed 60"))
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--symbol", help="Label of the feed that the trades belong to; required if there are several.")
@click.option(
    "--batch-seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=15.0,
    show_default=True,
    help="Event time that a batch spans at most.",
)
@click.option("--batch-rows", type=click.IntRange(min=1), default=5000, show_default=True, help="Trades that a batch holds at most.")
@click.option(
    "--live-from",
    "live",
    metavar="FILE",
    help="Play this file (or `generated`, a generated day) as if its trades happened now; with --speed, until they reach the present.",
)
@click.option("--speed", type=click.FloatRange(min=1), default=1.0, show_default=True, help="How many times faster than real time to play.")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="End the play after this many minutes.")
@click.option("--log", type=click.Path(path_type=Path, dir_okay=False), help="Write a JSON line for each slice that was played.")
@pass_app
def land(
    app: App,
    file: Path | None, symbol: str | None, batch_seconds: float, batch_rows: int, live: str | None, speed: float, minutes: float | None,
    log: Path | None,
) -> None:  # fmt: skip
    """Land a trades FILE (CSV, JSON lines, Parquet; plain, gzipped or zipped) as collector-style Parquet batches.

    The columns may be the collector's, the exchange's messages or its dumps. Landing a file twice changes nothing.

    With --live-from, the trades get new times, which start where the store ends, or as long ago as it takes to reach the
    present, and they land when a collector would have landed them. Their ids continue those of the store.
    """
    from btc_assets.simulation.batches import BatchLimits
    from btc_assets.simulation.play_plan import PlayOptions

    if (file is None) == (live is None):
        raise UserError("Name one file of trades: FILE to land it at once, or --live-from FILE to play it.")
    limits = BatchLimits(batch_seconds, batch_rows)
    if live is not None:
        landed = _play(app, live, symbol, PlayOptions(speed, minutes, limits, app.settings.first_slice), log)
    elif speed != 1 or minutes or log:
        raise UserError("--speed, --minutes and --log belong to a play: name its file with --live-from.")
    else:
        assert file is not None
        landed = land_file(app, file, symbol, limits)
    _print_landed(landed, file or live)


def _print_landed(landed: Landed, source: Path | str | None) -> None:
    out.print(
        f"Landed {landed.objects:,} objects with {landed.ticks:,} ticks, {landed.first_event_time} to {landed.last_event_time}."
        if landed.objects
        else "Nothing was landed."
    )
    if empty := landed.notes.get("empty_members"):
        err.print(f"  These members of {source} are empty: {', '.join(empty[:20])}")
    if landed.rejected_rows:
        for reason in landed.rejected:
            err.print(f"  {reason}")
        raise UserError(
            f"{landed.rejected_rows} rows of {source} were not landed because they are not valid trades "
            "(the first are listed above): correct the file."
        )


def _play(app: App, source: str, symbol: str | None, options: PlayOptions, log: Path | None) -> Landed:
    from btc_assets.simulation.clocks import WallClock
    from btc_assets.simulation.play import play
    from btc_assets.simulation.play_plan import prepare_play
    from btc_assets.simulation.recordings import read_recording
    from btc_assets.simulation.slice_log import SliceLog

    feed, zone = app.settings.landing_feeds.by_label(symbol), app.landing.zone()
    with out.status("reading the trades"):
        recording = read_recording(source, feed)
    app.set_up_embedded_database()
    with ExitStack() as stack:
        connection = stack.enter_context(app.store.connect())
        slices = stack.enter_context(SliceLog(log)) if log else None
        clock = stack.enter_context(WallClock())
        plan = prepare_play(connection, zone, feed, recording, clock.now(), options)
        out.print(plan.describe(f"{zone.url}/{feed.prefix}"))
        landed = play(zone, feed, plan, clock, report=stack.enter_context(_progress_line()), log=slices)
    landed.rejected, landed.rejected_rows = recording.rejected, recording.rejected_rows
    return landed


def land_file(app: App, file: Path, symbol: str | None, limits: BatchLimits | None = None) -> Landed:
    """Land a file, with a progress bar; by default in batches like those of the collector."""
    from btc_assets.simulation.batches import BATCH_LIMITS
    from btc_assets.simulation.replay import Landed, land_trades, read_trades

    feed = app.settings.landing_feeds.by_label(symbol)
    landed = Landed()
    with progress_bar("landing") as advance:
        return land_trades(
            app.landing.zone(), feed, read_trades(file, feed, landed), landed,
            limits=limits or BATCH_LIMITS, progress=lambda objects: advance("objects", objects, 0),
        )  # fmt: skip


@contextmanager
def _progress_line() -> Iterator[Callable[[PlayProgress], None]]:
    """A line that shows the progress of a play; without a terminal, a new line every ten seconds."""
    from rich.live import Live
    from rich.text import Text

    shown_at = float("-inf")
    with Live(console=out, auto_refresh=False) if out.is_terminal else nullcontext() as line:

        def show(progress: PlayProgress) -> None:
            nonlocal shown_at
            if (now := time.monotonic()) - shown_at >= (0.25 if line else 10):
                shown_at = now
                if line:
                    line.update(Text(str(progress), no_wrap=True, overflow="ellipsis"), refresh=True)
                else:
                    out.print(str(progress))

        yield show
