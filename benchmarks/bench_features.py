"""From ticks to features and bars: rates on one core for a generated day, medians of several repetitions."""

from __future__ import annotations

import argparse
import statistics
import time
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from btc_assets.signals.features.bars import compute_bars
from btc_assets.signals.features.formulas import compute_features
from btc_assets.signals.features.tick_arrays import TickArrays
from btc_assets.simulation.generate_day import generate_day

GOAL_SECONDS = 3.0  # features and bars of three million ticks


def median_seconds(run: Callable[[], object], repetitions: int) -> float:
    """The median duration of a call."""
    taken = []
    for _ in range(repetitions):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def peak_megabytes(run: Callable[[], object]) -> float:
    """The peak of the memory that NumPy allocates during a call."""
    tracemalloc.start()
    run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ticks", type=int, default=3_000_000, help="ticks of the day")
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()

    table = pa.concat_tables(generate_day(datetime(2024, 1, 1, tzinfo=UTC), arguments.ticks))
    ticks = TickArrays.of(table)
    ways: dict[str, Callable[[], object]] = {
        "arrays from Arrow": lambda: TickArrays.of(table),
        "features": lambda: compute_features(ticks),
        "bars": lambda: compute_bars(ticks),
    }
    shown = Table("", "seconds", "ticks/s", "ms a slice", "peak MB of NumPy", title=f"{len(table):,} ticks in {len(ticks)} slices")
    total = 0.0
    for name, way in ways.items():
        taken = median_seconds(way, arguments.repetitions)
        total += taken
        shown.add_row(name, f"{taken:.2f}", f"{len(table) / taken:,.0f}", f"{1e3 * taken / len(ticks):.2f}", f"{peak_megabytes(way):.0f}")
    shown.add_row("together", f"{total:.2f}", f"{len(table) / total:,.0f}", f"{1e3 * total / len(ticks):.2f}", "")
    Console().print(shown)
    Console().print(f"The goal for three million ticks is {GOAL_SECONDS:.0f} s.")


if __name__ == "__main__":
    main()
