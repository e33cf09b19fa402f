"""The worst day: 15.2 million trades, 2.7 million of them in two hours and 340,785 in five minutes (`worst_day_counts`).

An ordinary day is loaded first, and an encoder trained on it that embeds everything after it. Then the worst day lands as a collector
lands it, and is loaded in a process of its own, as `btc-assets load` does: registered, loaded, made into candles, features and embeddings,
and checked. The slice of the peak is loaded once more alone, as a run of the sensor loads it. With `--live`, the burst is then played at
speed 1 into another store that `btc-assets dev` keeps up to date, from ten minutes before the peak on, and every slice of it is compared
with what was played (`bench_live.py`). `--scale 0.05` makes everything smaller by as much.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from threading import Event, Thread

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from bench_load import GOAL_MB
from bench_scale import run_stage
from rich.console import Console
from rich.table import Table
from throwaway import machine, store

from btc_assets.domain.settings import PREFIX, load_settings
from btc_assets.domain.slices import DAY, SLICE, Window, floor_day
from btc_assets.landing.resources import Landing
from btc_assets.orchestration.home import prepare_dagster_home
from btc_assets.simulation.generate_day import generate_day, generate_slices, worst_day_counts
from btc_assets.simulation.replay import Landed, land_trades
from btc_assets.simulation.trade_table import FirstTrade
from btc_assets.store.database import Store
from btc_assets.store.migrations import migrate

TICKS = 15_220_000
ORDINARY = 2_000_000  # trades of the day before
LIVE_BEFORE_PEAK = timedelta(minutes=10)

PACKAGES = ("pyarrow", "psycopg", "dagster")


@contextmanager
def watched_server(embedded: bool) -> Iterator[dict[str, float]]:
    """The most memory that one process of the embedded server has of its own, in MB, looked at ten times a second."""
    found, ended = {"MB": 0.0}, Event()

    def watch() -> None:
        while not ended.wait(0.1):
            for process in psutil.process_iter(["name"]):
                if process.info["name"] == "postgres":
                    try:
                        memory = process.memory_info()
                    except psutil.Error:
                        continue
                    found["MB"] = max(found["MB"], (memory.rss - memory.shared) / 1e6)

    watching = Thread(target=watch, daemon=True)
    if embedded:
        watching.start()
    yield found
    ended.set()


def land_worst_day(day: datetime, ticks: int, first_id: int) -> tuple[Landed, list[int]]:
    """Land the day; returns what landed, and the trades of each slice."""
    settings, counts = load_settings(), worst_day_counts(ticks)
    feed = settings.landing_feeds[0]
    slices = generate_slices(day, counts, first=FirstTrade(feed.label, first_id))
    return land_trades(Landing(settings).zone(), feed, slices, Landed()), counts


def measure(args: argparse.Namespace, out: Console) -> None:
    """Load the day before and the worst day, and print what that costs."""
    settings, day = load_settings(), floor_day(datetime.now(UTC)) - DAY
    ticks, ordinary = round(TICKS * args.scale), round(ORDINARY * max(args.scale, 0.02))
    prepare_dagster_home(settings)
    feed = settings.landing_feeds[0]
    with Store.of(settings).connect() as connection:
        migrate(connection)
        out.print(machine(connection, args.embedded, *PACKAGES), highlight=False)
    land_trades(Landing(settings).zone(), feed, generate_day(day - DAY, ordinary, first=FirstTrade(feed.label)), Landed())
    run_stage("load", Window(day - DAY, day))
    if not args.no_model:
        subprocess.run([sys.executable, "-m", "btc_assets.cli", "train", "--activate"], check=True, stdout=subprocess.DEVNULL)
    landed, counts = land_worst_day(day, ticks, FirstTrade().trade_id + ordinary)
    peak = day + counts.index(max(counts)) * SLICE
    out.print(f"{landed.ticks:,} trades, {landed.objects:,} objects, {max(counts):,} trades in the slice of {peak:%H:%M}", highlight=False)
    table = Table("", "trades", "seconds", "trades/s", "peak MB", f"goal {GOAL_MB}", "a server process, MB")
    for name, window, count in (("the day", Window(day, day + DAY), landed.ticks), ("its peak again", Window.of_slice(peak), max(counts))):
        with watched_server(args.embedded) as server:
            started = time.perf_counter()
            done = run_stage("load", window)
            seconds = time.perf_counter() - started
        met = "met" if done["peak_mb"] < GOAL_MB else "MISSED"
        table.add_row(name, f"{count:,}", f"{seconds:.1f}", f"{count / seconds:,.0f}", f"{done['peak_mb']:.0f}", met, f"{server['MB']:.0f}")
        stages = done["assets"] | {"checks": done["checks"]}
        out.print(f"{name}: {', '.join(f'{key} {value:.1f}' for key, value in stages.items())} s", highlight=False)
    out.print(table)
    check_rows(day, counts)


def check_rows(day: datetime, counts: list[int]) -> None:
    """Compare the number of rows of every slice with what landed; features and candles were compared by the checks.

    Raises:
        SystemExit: they differ.
    """
    with Store.of(load_settings()).connect() as connection:
        rows = connection.execute(
            "SELECT bucket_5m, count(*) FROM market_data.btc_ticks WHERE bucket_5m >= %s GROUP BY bucket_5m ORDER BY 1", (day,)
        ).fetchall()
    expected = [(day + number * SLICE, count) for number, count in enumerate(counts) if count]
    if rows != expected:
        raise SystemExit(
            f"the table holds other rows than landed: {[pair for pair in zip(rows, expected, strict=False) if pair[0] != pair[1]][:3]}"
        )


def play_burst(args: argparse.Namespace) -> None:
    """Play the burst at speed 1, by `bench_live.py`."""
    day, counts = floor_day(datetime.now(UTC)) - DAY, worst_day_counts(round(TICKS * args.scale))
    first = counts.index(max(counts)) - LIVE_BEFORE_PEAK // SLICE
    slices = generate_slices(day, [0] * first + counts[first:])
    with tempfile.TemporaryDirectory(prefix="btc_assets-bench-") as made:
        file = Path(made) / "burst.parquet"
        pq.write_table(pa.concat_tables(islice(slices, first, first + int(args.live // 5) + 2)), file)
        command = [sys.executable, str(Path(__file__).with_name("bench_live.py")), "--trades", str(file), "--speed", "1"]
        subprocess.run([*command, "--minutes", str(args.live)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the trades (default: %(default)s)")
    parser.add_argument("--no-model", action="store_true", help="without an encoder, so without PyTorch")
    parser.add_argument("--live", type=float, default=0, help="also play the burst at speed 1, for that many minutes (default: not)")
    args = parser.parse_args()
    out = Console(width=None if sys.stdout.isatty() else 132)
    with store() as (directory, args.embedded):
        (directory / "objects").mkdir()
        os.environ[f"{PREFIX}LANDING_URL"] = (directory / "objects").as_uri()
        measure(args, out)
    if args.live:
        play_burst(args)


if __name__ == "__main__":
    main()
