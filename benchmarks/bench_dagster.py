"""What Dagster itself costs per slice, in a range run over many slices with nothing to load.

The job runs in this process with the project's instance, as `btc-assets load` runs it, over an empty landing zone. The time in the
bodies of assets, checks and the IO manager is measured and subtracted; the rest is Dagster's.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import wraps
from inspect import isgeneratorfunction
from pathlib import Path
from typing import Any

from figures import Figure, parse, record, server
from rich.console import Console
from rich.table import Table
from throwaway import machine, store

from btc_assets.domain.settings import PREFIX, load_settings
from btc_assets.domain.slices import KEY_FORMAT, SLICE, Window, floor_day, parse_time

GOAL_MS = 3.0  # per slice, the whole job
ASSET, CHECK = "asset:", "check:"  # begin the names of frames that are bodies of ops
TICKS_ALONE = "market_data/btc_ticks"


class Bodies:
    """Seconds that a run spends in the project's own code, by the name of the op."""

    def __init__(self) -> None:
        self.by_name: defaultdict[str, float] = defaultdict(float)

    @property
    def seconds(self) -> float:
        """The sum."""
        return sum(self.by_name.values())

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the time of the block to `name`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.by_name[name] += time.perf_counter() - started

    def wrap(self, job: Any) -> None:
        """Time every op of a job, and the IO manager, which reads, builds and writes ticks, features and embeddings."""
        from dagster._core.definitions.decorators.op_decorator import DecoratedOpFunction

        from btc_assets.orchestration.io_manager import CopyIOManager

        assets = {data.node_handle.name for data in job.asset_layer.data if data.assets_def.keys}
        for node in job.nodes:
            definition = node.definition
            kind = ASSET if definition.name in assets else CHECK
            definition._compute_fn = DecoratedOpFunction(self.body(definition.name, definition.compute_fn.decorated_fn, kind))
        write = CopyIOManager.handle_output

        def handle_output(manager: CopyIOManager, context: Any, obj: object) -> None:
            self.body("__".join(context.asset_key.path), write, ASSET)(manager, context, obj)

        CopyIOManager.handle_output = handle_output  # type: ignore[method-assign, assignment]  # to time it

    def body(self, name: str, function: Callable[..., Any], kind: str) -> Callable[..., Any]:
        """A function that is timed, in a frame that tells profilers the name of the op."""

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with self.timed(name):
                return function(*args, **kwargs)

        @wraps(function)
        def generate(*args: Any, **kwargs: Any) -> Iterator[Any]:
            results, done = function(*args, **kwargs), object()
            while True:
                with self.timed(name):
                    result = next(results, done)
                if result is done:
                    return
                yield result  # what Dagster does with it is not the body's

        chosen: Any = generate if isgeneratorfunction(function) else call
        chosen.__code__ = chosen.__code__.replace(co_name=f"{kind}{name}", co_qualname=f"{kind}{name}")
        return chosen


def run(job: Any, instance: Any, window: Window, assets: list[Any] | None) -> float:
    """Run the job, or some assets of it with their checks, over a range; returns its seconds.

    Raises:
        SystemExit: the run failed.
    """
    from btc_assets.orchestration.partitions import RANGE_END_TAG, RANGE_START_TAG

    started = time.perf_counter()
    result = job.execute_in_process(
        instance=instance,
        raise_on_error=True,
        asset_selection=assets,
        tags={RANGE_START_TAG: window.start.strftime(KEY_FORMAT), RANGE_END_TAG: (window.end - SLICE).strftime(KEY_FORMAT)},
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )
    if not result.success:
        raise SystemExit("the run failed: see the log above")
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=8640, help="slices of the range (default: %(default)s, 30 days)")
    parser.add_argument(
        "--repeat", type=int, default=3, help="repetitions, the later ones on top of earlier materializations (default: %(default)s)"
    )
    parser.add_argument(
        "--start", help="first partition of the assets, such as 2024-01-01 (default: so that the newest slices are yesterday's)"
    )
    parser.add_argument("--profile", type=Path, help="write a pyinstrument profile of the last run of the whole job to this HTML file")
    args = parse(parser)
    out = Console(width=None if sys.stdout.isatty() else 132)
    with store() as (_, embedded):
        start = parse_time(args.start) if args.start else floor_day(datetime.now(UTC)) - args.slices * SLICE
        os.environ[f"{PREFIX}PARTITIONS_START"] = start.strftime(KEY_FORMAT)
        measure(args, out, embedded)


def measure(args: argparse.Namespace, out: Console, embedded: bool) -> None:
    """Run the ticks alone and the whole job in turn, and print what a slice costs."""
    from btc_assets.orchestration.home import prepare_dagster_home
    from btc_assets.store.database import Store
    from btc_assets.store.migrations import migrate

    settings = load_settings()
    prepare_dagster_home(settings)
    import dagster as dg

    from btc_assets.assembly import build_definitions

    with Store.of(settings).connect() as connection:
        migrate(connection)
        used = server(connection)
        out.print(machine(connection, embedded, "dagster", "dagster-postgres"), highlight=False)
    start = settings.first_slice
    window = Window(start, start + args.slices * SLICE)
    job = build_definitions(settings).resolve_job_def("ingest")
    bodies = Bodies()
    bodies.wrap(job)
    every = list(job.asset_layer.executable_asset_keys)
    ways: dict[str, list[Any] | None] = {TICKS_ALONE: [dg.AssetKey(TICKS_ALONE.split("/"))], f"ingest, {len(every)} assets": None}
    total: dict[str, list[float]] = {name: [] for name in ways}
    own: dict[str, list[float]] = {name: [] for name in ways}
    with dg.DagsterInstance.get() as instance, out.status("") as status:
        run(job, instance, Window(start, start + SLICE), None)  # imports, connections, Dagster's tables
        for repetition in range(args.repeat):
            for name, assets in ways.items():
                status.update(f"{repetition + 1} of {args.repeat}: {name}")
                bodies.by_name.clear()
                if args.profile and assets is None and repetition == args.repeat - 1:
                    seconds = profiled(lambda: run(job, instance, window, None), args.profile)
                else:
                    seconds = run(job, instance, window, assets)
                total[name].append(seconds)
                own[name].append(bodies.seconds)
    table = Table(f"{args.slices:,} slices", "run (s)", "bodies (s)", "Dagster (s)", "ms a slice", "ms a slice and asset", "goal")
    found = []
    for name, assets in ways.items():
        costs = [(t - o) / args.slices * 1e3 for t, o in zip(total[name], own[name], strict=True)]
        found.append(Figure.of(f"Dagster, a slice: {name if assets else 'ingest'}", costs, "ms", None if assets else GOAL_MS))
        seconds, inside = statistics.median(total[name]), statistics.median(own[name])
        cost = statistics.median(costs)
        goal = f"<= {GOAL_MS:.0f}: {'met' if cost <= GOAL_MS else 'MISSED'}"
        count = len(assets) if assets else len(every)
        table.add_row(name, f"{seconds:.1f}", f"{inside:.1f}", f"{seconds - inside:.1f}", f"{cost:.2f}", f"{cost / count:.2f}", goal)
    out.print(table)
    record(args, "dagster", f"{args.slices:,} slices without trades", found, used)


def profiled(work: Callable[[], float], file: Path) -> float:
    """Run under pyinstrument; the file shows where the time goes."""
    from pyinstrument import Profiler  # type: ignore[import-not-found, unused-ignore]  # only for --profile

    with Profiler(interval=0.005) as profiler:
        seconds = work()
    file.write_text(profiler.output_html())
    print(profiler.output_text(unicode=True, color=False, show_all=False))
    return seconds


if __name__ == "__main__":
    main()
