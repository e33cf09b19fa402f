"""The whole chain of a day, stage by stage, in multiples of the server's own COPY of the same rows.

One generated day is landed as the collector lands it. Each repetition has a database of its own, in which the server copies the rows
(encoded before) in one session (c) and as two halves at once (c2), and the job `ingest` then loads the day in a process of its own, as
`btc-assets load` does. `--busy 4` runs that many endless loops beside it. Seconds drift with the machine; multiples within one run
hardly do.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from bench_load import FEED, GOAL_MB, Bench, Day
from bench_scale import run_stage
from rich.console import Console
from rich.table import Table
from throwaway import machine, store

from btc_assets.domain.settings import PREFIX, Settings, load_settings
from btc_assets.domain.slices import DAY, SLICE, Window, floor_day
from btc_assets.orchestration.home import prepare_dagster_home
from btc_assets.simulation.replay import Landed

PACKAGES = ("pyarrow", "psycopg", "pgpq", "dagster")
STAGES = ("register", "load", "candles", "features", "checks", "Dagster", "whole")

Seconds = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=int, default=3_000_000, help="trades of the day (default: %(default)s)")
    parser.add_argument("--objects", type=int, default=5760, help="collector objects of the day (default: %(default)s, 15 s each)")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions (default: %(default)s)")
    parser.add_argument("--busy", type=int, default=0, help="endless loops beside it (default: none)")
    parser.add_argument("--json", type=Path, help="also write the seconds of each repetition to this file")
    args = parser.parse_args()
    out = Console(width=None if sys.stdout.isatty() else 132)
    with tempfile.TemporaryDirectory(prefix="btc_assets-bench-") as made, busy(args.busy):
        Path(made).chmod(0o711)
        landed: Landed | None = None
        measured = []
        for _ in range(args.repeat):
            seconds, landed = measure(Path(made), landed, args, out)
            measured.append(seconds)
    show(measured, args, out)
    if args.json:
        args.json.write_text(json.dumps(measured, indent=1))


def measure(files: Path, landed: Landed | None, args: argparse.Namespace, out: Console) -> tuple[Seconds, Landed]:
    """One repetition, the server's own COPY statements and the chain; the first one lands the day."""
    day = floor_day(datetime.now(UTC)) - DAY
    window = Window(day, day + DAY)
    with store() as (_, embedded):
        os.environ |= {
            f"{PREFIX}LANDING_URL": (files / "objects").as_uri(),
            f"{PREFIX}LANDING_FEEDS": f"{FEED.prefix}={FEED.symbol}:{FEED.label}",
        }
        bench = Bench(
            files,
            os.environ[f"{PREFIX}DSN"],
            Day(args.ticks, args.objects, window),
            embedded=embedded,
            commit_rows=Settings.model_fields["commit_rows"].default,
            landed=landed,
        )
        bench.prepare_copy()
        seconds: Seconds = {}
        for name, copy in (("c", bench.server_copy), ("c2", bench.server_copies)):
            bench.clear()
            seconds[name] = copy()["all"]
        bench.clear()
        if landed is None:
            out.print(machine(bench.connection, embedded, *PACKAGES), highlight=False)
        bench.connection.close()
        prepare_dagster_home(load_settings())
        run_stage("load", Window(window.start - SLICE, window.start))  # creates Dagster's tables
        started = time.perf_counter()
        loaded = run_stage("load", window)
        seconds["process"] = time.perf_counter() - started
    assets = loaded["assets"]
    seconds |= {
        "register": assets["raw_blobs_5m"],
        "load": assets["btc_ticks"],
        "candles": sum(value for name, value in assets.items() if name.startswith("candles_")),
        "features": assets["slice_features"] + assets["btc_embeddings"],
        "checks": loaded["checks"],
        "whole": loaded["seconds"],
        "peak MB": loaded["peak_mb"],
    }
    seconds["register and load"] = seconds["register"] + seconds["load"]
    seconds["candles and features"] = seconds["candles"] + seconds["features"]
    seconds["Dagster"] = seconds["whole"] - sum(seconds[name] for name in STAGES[:5])
    return seconds, bench.landed


def show(measured: Sequence[Seconds], args: argparse.Namespace, out: Console) -> None:
    """Print medians of the seconds, and of the ratios within each repetition."""

    def median(name: str, of: str | None = None) -> float:
        return statistics.median(one[name] / (one[of] if of else 1) for one in measured)

    table = Table("", "seconds", "of (c)", "of load", title=f"{args.ticks:,} trades, {args.objects:,} objects, {args.busy} busy loops")
    for name in ("c", "c2", *STAGES, "process"):
        table.add_row(name, f"{median(name):.1f}", f"{median(name, 'c'):.2f}", f"{median(name, 'load'):.2f}")
    out.print(table)
    goals = [
        ("register and load, of the rate of (c)", 1 / median("register and load", "c"), 1.0, True),
        ("register and load, of the rate of (c2)", 1 / median("register and load", "c2"), 0.72, True),
        ("checks, of load", median("checks", "load"), 0.1, False),
        ("candles and features, of load", median("candles and features", "load"), 0.5, False),
        ("Dagster, ms a slice", median("Dagster") / (DAY / SLICE) * 1e3, 3.0, False),
        ("the whole chain, of (c)", median("whole", "c"), 2.2, False),
        ("peak MB", median("peak MB"), GOAL_MB, False),
    ]
    for name, value, goal, least in goals:
        met = value >= goal if least else value <= goal
        out.print(f"{name}: {value:.2f} (goal {goal:g}: {'met' if met else 'MISSED'})", highlight=False)


@contextmanager
def busy(loops: int) -> Iterator[None]:
    """Keep that many processes busy, as other work on the machine does."""
    processes = [multiprocessing.Process(target=_loop, daemon=True) for _ in range(loops)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()


def _loop() -> None:
    while True:
        pass


if __name__ == "__main__":
    main()
