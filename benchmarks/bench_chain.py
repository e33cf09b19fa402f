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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from bench_load import FEED, GOAL_MB, Bench, Day
from bench_scale import run_stage, stages
from figures import CEILING, Better, Figure, Server, parse, record, server
from profile_stacks import profile_table, sampled
from rich.console import Console
from rich.table import Table
from throwaway import machine, store

from btc_assets.domain.settings import PREFIX, Settings, load_settings
from btc_assets.domain.slices import DAY, SLICE, Window, floor_day
from btc_assets.orchestration.home import prepare_dagster_home
from btc_assets.simulation.replay import Landed

PACKAGES = ("pyarrow", "psycopg", "pgpq", "dagster")
IN_THE_LOAD = ("… features", "… candles")  # what its threads spend on them, together; they overlap with the rest of the load
STAGES = ("register", "load", "candles", "features", "checks", "Dagster", "whole")

Seconds = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=int, default=3_000_000, help="trades of the day (default: %(default)s)")
    parser.add_argument("--objects", type=int, default=5760, help="collector objects of the day (default: %(default)s, 15 s each)")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions (default: %(default)s)")
    parser.add_argument("--busy", type=int, default=0, help="endless loops beside it (default: none)")
    parser.add_argument("--json", type=Path, help="also write the seconds of each repetition to this file")
    parser.add_argument(
        "--profile", type=Path, help="sample the last repetition with py-spy, keep its stacks in this file, and print where time goes"
    )
    args = parse(parser)
    out = Console(width=None if sys.stdout.isatty() else 132)
    with tempfile.TemporaryDirectory(prefix="btc_assets-bench-") as made, busy(args.busy):
        Path(made).chmod(0o711)
        landed: Landed | None = None
        measured = []
        for number in range(args.repeat):
            stacks = args.profile if number == args.repeat - 1 else None
            seconds, landed, used = measure(Path(made), landed, args, out, stacks)
            measured.append(seconds)
    show(measured, args, out)
    if args.profile:
        out.print(profile_table(args.profile.read_text()), highlight=False, markup=False, soft_wrap=True)
    record(args, "chain", f"{args.ticks:,} trades, {args.objects:,} objects", figures(measured), used)
    if args.json:
        args.json.write_text(json.dumps(measured, indent=1))


def measure(
    files: Path, landed: Landed | None, args: argparse.Namespace, out: Console, stacks: Path | None
) -> tuple[Seconds, Landed, Server]:
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
        used = server(bench.connection)
        bench.connection.close()
        prepare_dagster_home(load_settings())
        run_stage("load", Window(window.start - SLICE, window.start))  # creates Dagster's tables
        started = time.perf_counter()
        loaded = run_stage("load", window, sampled(stacks) if stacks else ())
        seconds["process"] = time.perf_counter() - started
    seconds |= stages(loaded) | {"peak MB": loaded["peak_mb"]}
    seconds |= {f"… {name}": spent for name, spent in loaded["in the load"].items()}
    seconds["register and load"] = seconds["register"] + seconds["load"]
    in_the_load = sum(seconds[name] for name in IN_THE_LOAD)
    seconds["candles and features"] = seconds["candles"] + seconds["features"] + in_the_load
    return seconds, bench.landed, used


def show(measured: Sequence[Seconds], args: argparse.Namespace, out: Console) -> None:
    """Print medians of the seconds, and of the ratios within each repetition."""

    def median(name: str, of: str | None = None) -> float:
        return statistics.median(one[name] / (one[of] if of else 1) for one in measured)

    table = Table("", "seconds", "of (c)", "of load", title=f"{args.ticks:,} trades, {args.objects:,} objects, {args.busy} busy loops")
    for name in ("c", "c2", "register", "load", *IN_THE_LOAD, *STAGES[2:], "process"):
        table.add_row(name, f"{median(name):.1f}", f"{median(name, 'c'):.2f}", f"{median(name, 'load'):.2f}")
    out.print(table)
    for figure in goals(measured):
        if figure.goal is not None:
            reached = "met" if figure.met else "MISSED"
            out.print(f"{figure.name}: {figure.value:.2f} {figure.unit} (goal {figure.goal:g}: {reached})", highlight=False)


def goals(measured: Sequence[Seconds]) -> list[Figure]:
    """The ratios that the chain is judged by."""

    def figure(name: str, value: Callable[[Seconds], float], unit: str, goal: float | None, better: Better = "less") -> Figure:
        return Figure.of(name, [value(one) for one in measured], unit, goal, better)

    loading = "registered and loaded, of the rate of one COPY"
    return [
        figure("the whole chain, in times of one COPY", lambda one: one["whole"] / one["c"], "", 2.2),
        figure(loading, lambda one: one["c"] / one["register and load"], "", 1.0, "more"),
        replace(figure(loading, lambda one: one["c"] / one["c2"], "", None, "more"), who=CEILING),
        figure("registered and loaded, of the rate of two at once", lambda one: one["c2"] / one["register and load"], "", 0.72, "more"),
        figure("checks, of the load", lambda one: one["checks"] / one["load"], "", 0.1),
        figure("candles and features, of the load", lambda one: one["candles and features"] / one["load"], "", 0.5),
        figure("Dagster, a slice", lambda one: one["Dagster"] / (DAY / SLICE) * 1e3, "ms", 3.0),
        figure("peak memory of the chain", lambda one: one["peak MB"], "MB", GOAL_MB),
    ]


def figures(measured: Sequence[Seconds]) -> list[Figure]:
    """What is recorded: the goals, and the seconds of each stage."""
    return [*goals(measured), *(Figure.of(f"seconds: {name}", [one[name] for one in measured], "s") for name in ("c", "c2", *STAGES))]


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
