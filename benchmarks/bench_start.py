"""How long commands take to answer, as a person waits for them: each in a process of its own, on a store that holds a day of trades."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from datetime import UTC, datetime

from bench_load import FEED, Day
from bench_scale import run_stage
from figures import Figure, parse, record
from rich.console import Console
from rich.table import Table
from throwaway import machine, store

from btc_assets.domain.settings import PREFIX, load_settings
from btc_assets.domain.slices import DAY, SLICE, Window, floor_day
from btc_assets.landing.resources import Landing
from btc_assets.orchestration.home import prepare_dagster_home
from btc_assets.simulation.batches import BatchLimits
from btc_assets.simulation.generate_day import generate_day
from btc_assets.simulation.replay import Landed, land_trades
from btc_assets.store.database import Store
from btc_assets.store.migrations import migrate

PATIENCE = 60.0  # seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=int, default=1_000_000, help="trades of the day (default: %(default)s)")
    parser.add_argument("--objects", type=int, default=1440, help="collector objects of the day (default: %(default)s, a minute each)")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions (default: %(default)s)")
    args = parse(parser)
    out = Console(width=None if sys.stdout.isatty() else 132)
    start = floor_day(datetime.now(UTC)) - DAY
    day = Day(args.ticks, args.objects, Window(start, start + DAY))
    with store() as (directory, embedded):
        landing = directory / "objects"
        landing.mkdir()
        os.environ |= {
            f"{PREFIX}LANDING_URL": landing.as_uri(),
            f"{PREFIX}LANDING_FEEDS": f"{FEED.prefix}={FEED.symbol}:{FEED.label}",
        }
        load(day)
        dates = ["--from", f"{start:%Y-%m-%d}", "--to", f"{start + DAY:%Y-%m-%d}"]
        commands = [
            (["--help"], 0.5),
            (["status"], 0.5),
            (["load", *dates], 3.0),
            (["load", "--from", "2199-01-01", "--to", "2199-02-01"], 1.0),
            (["candles", "1s", *dates, "--plot", str(directory / "day.png")], 5.0),
        ]
        names = ["--help", "status", "load, nothing to do", "load, a month far in the future", "candles 1s --plot of a day"]
        seconds = [[run(words) for words, _ in commands] for _ in range(args.repeat)]
        found = [
            Figure.of(f"btc-assets {name}", [each[number] for each in seconds], "s", goal)
            for number, (name, (_, goal)) in enumerate(zip(names, commands, strict=True))
        ]
        with Store.of(load_settings()).connect() as connection:
            out.print(machine(connection, embedded, "dagster", "matplotlib"), highlight=False)
            record(args, "start", f"{args.ticks:,} trades", found, connection)
    table = Table("command", "seconds", "runs (s)", "goal")
    for figure in found:
        goal = f"<= {figure.goal:g}: {'met' if figure.met else 'MISSED'}"
        table.add_row(figure.name, f"{figure.value:.2f}", f"{figure.low:.2f} to {figure.high:.2f}", goal)
    out.print(table)


def load(day: Day) -> None:
    """Land the day and load it with the job `ingest`."""
    settings = load_settings()
    with Store.of(settings).connect() as connection:
        migrate(connection)
    prepare_dagster_home(settings)
    limits = BatchLimits(DAY.total_seconds() / day.objects)
    land_trades(Landing(settings).zone(), FEED, iter(list(generate_day(day.window.start, day.ticks))), Landed(), limits=limits)
    run_stage("load", Window(day.window.start - SLICE, day.window.start))  # creates Dagster's tables
    run_stage("load", day.window)


def run(words: list[str]) -> float:
    """Run a command; seconds until its process has ended, or after which it was given up. That there is nothing to load is an answer, too.

    Raises:
        SystemExit: it failed in another way.
    """
    started = time.perf_counter()
    try:
        done = subprocess.run([sys.executable, "-m", "btc_assets.cli", *words], capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return PATIENCE
    seconds = time.perf_counter() - started
    if done.returncode not in (0, 1) or "Traceback" in done.stderr:
        raise SystemExit(f"btc-assets {' '.join(words)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return seconds


if __name__ == "__main__":
    main()
