"""Does the cost of a day stay the same as days pile up? Days of generated ticks, loaded end to end into one growing store.

The days are landed as collector objects and loaded by the job `ingest` in range runs, each in a process of its own, as `btc-assets load`
does: one day, then the days up to the seventh, then those up to the thirtieth. At each size one slice is loaded again, the candles of one
day are rebuilt, everything is checked and reconciled, and the policies are run. Last, retention drops all days but one. The table shows
the cost of a day at each size, and its change from the first size to the last: a cost that grows with the store, or a process that needs
more memory for more days, is a fault.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import Any

import psycopg
from bench_load import GOAL_MB
from peak_memory import peak_mb
from rich.console import Console
from rich.table import Table
from throwaway import machine, store

from btc_assets.domain.settings import load_settings
from btc_assets.domain.slices import DAY, SLICE, Window, floor_day, parse_time

GOAL_MS = 3.0  # of Dagster's own time a slice
FLAT = 1.25  # a cost a day that grew by more does not count as flat
PACKAGES = ("pyarrow", "psycopg", "dagster")
DAY_SLICES = DAY // SLICE

_SIZES = """
SELECT nspname || CASE WHEN nspname = 'market_data' AND relname NOT LIKE 'btc\\_ticks%%' THEN ' (candles)' ELSE '' END,
       sum(pg_total_relation_size(pg_class.oid)) / 1e6
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE relkind = 'r' AND nspname IN ('landing', 'market_data', 'signals', 'dagster') GROUP BY 1 ORDER BY 1
"""


@dataclass
class Measured:
    """What was measured when the store held `days` days; the newest `new` of them were loaded by one process.

    Attributes:
        costs: by what was done, the seconds (or what the name says) of a day, or of the thing itself.
        rows: rows a second of loading each new day.
        peak_mb: of the process that loaded, and of the one that did everything after.
    """

    days: int
    new: int
    costs: dict[str, float] = field(default_factory=dict)
    rows: list[float] = field(default_factory=list)
    peak_mb: dict[str, float] = field(default_factory=dict)


# ---- in processes of their own


def load(window: Window) -> dict[str, Any]:
    """Load a range as `btc-assets load` does; seconds of the run, of the project's own code in it by asset and check, and peak memory."""
    import dagster as dg
    from bench_dagster import Bodies

    from btc_assets.assembly import LOADING_ASSETS, build_definitions
    from btc_assets.market_data.derived import Makers
    from btc_assets.orchestration.ingest import IngestOptions, ingest
    from btc_assets.orchestration.partitions import Partitions

    committed: list[float] = []  # when each day was

    def listen(stage: str, done: int, total: int) -> None:
        if stage == "slices" and done % DAY_SLICES == 0:
            committed.append(time.perf_counter())

    settings = load_settings()
    definitions = build_definitions(settings, patient=False, progress=listen)
    job, bodies = definitions.resolve_job_def("ingest"), Bodies()
    bodies.wrap(job)
    opened: list[Makers] = []
    open_makers = Makers.open

    def open_and_keep(*args: Any) -> Makers:
        opened.append(open_makers(*args))
        return opened[-1]

    Makers.open = open_and_keep  # type: ignore[method-assign, assignment]  # to know what their work took
    report = ingest(definitions, LOADING_ASSETS, Partitions.of(settings), window, IngestOptions())
    if report.failed_checks:
        raise SystemExit(f"checks failed: {report.failed_checks}")
    with dg.DagsterInstance.get() as instance:
        (run,) = instance.get_run_records(limit=1)
    # The name of an asset, or of the op that makes several; what is left are checks.
    ops = {data.node_handle.name: sorted(data.assets_def.keys) for data in job.asset_layer.data if data.assets_def.keys}
    assets = {keys[0].path[-1] if len(keys) == 1 else name: bodies.by_name.pop(name, 0.0) for name, keys in ops.items()}
    # All commits of the load lie inside its seconds, the last one at their end.
    edges = [committed[-1] - assets["btc_ticks"], *committed] if committed else []
    return {
        "seconds": (run.end_time or 0.0) - (run.start_time or 0.0),
        "assets": assets,
        "checks": bodies.seconds,
        "in the load": {name: sum(one.seconds[name] for one in opened) for name in ("features", "candles")},
        "rates": [report.ticks / len(committed) / (end - start) for start, end in pairwise(edges)],
        "peak_mb": peak_mb(),
    }


def maintain(window: Window) -> dict[str, Any]:
    """What is done regularly with a loaded store, over all of `window` or its last day; seconds each, and peak memory."""
    from btc_assets.landing.resources import Landing
    from btc_assets.market_data import candles
    from btc_assets.market_data.continuity import read_gaps, read_repeats
    from btc_assets.market_data.registry_equality import find_changed_slices
    from btc_assets.ops import retention_jobs
    from btc_assets.ops.policies import declared_policies
    from btc_assets.ops.reconcile import ReconcileOptions, reconcile
    from btc_assets.ops.status import read_daily_status
    from btc_assets.store.database import Store

    settings = load_settings()
    intervals, feeds = candles.enabled_intervals(settings), settings.landing_feeds
    newest = Window(window.end - DAY, window.end)
    with Store.of(settings).connect() as connection:

        def nothing_differs(of: Window | None) -> None:
            found = reconcile(
                connection, Landing(settings).zone(), feeds, of, datetime.now(UTC), ReconcileOptions(min_object_age=timedelta(0))
            )
            if found.counts:
                raise SystemExit(f"reconcile: {found.sentences}")

        def checks(of: Window) -> None:
            problems = [
                *read_gaps(connection, of),
                *read_repeats(connection, of),
                *find_changed_slices(connection, of),
                *(text for found in candles.find_candle_differences(connection, intervals, of).values() for text in found),
            ]
            if problems:
                raise SystemExit(f"checks: {problems}")

        work: dict[str, Callable[[], object]] = {
            "candles of one day again": lambda: [candles.refresh_candles(connection, interval, newest) for interval in intervals],
            "checks of one day": lambda: checks(newest),
            "checks of everything": lambda: checks(window),
            "reconcile one day": lambda: nothing_differs(newest),
            "reconcile everything": lambda: nothing_differs(None),
            "status of everything": lambda: read_daily_status(connection, window),
            "policies, nothing to do": lambda: retention_jobs.run_due_policies(connection),
        }
        retention_jobs.apply_policies(connection, declared_policies(settings))
        seconds = {name: _seconds(each) for name, each in work.items()}
    return {"seconds": seconds, "peak_mb": peak_mb()}


def drop(window: Window) -> dict[str, Any]:
    """Retention: drop the ticks of all days of `window` but the last; seconds."""
    from btc_assets.ops import retention_jobs
    from btc_assets.ops.policies import TICKS, Drop
    from btc_assets.store.database import Store

    policy = Drop(TICKS, after=datetime.now(UTC) - (window.end - DAY))
    with Store.of(load_settings()).connect() as connection:
        retention_jobs.apply_policies(connection, [policy])
        seconds = _seconds(lambda: retention_jobs.run_policy(connection, policy.job_name))
        (left,) = connection.execute("SELECT count(DISTINCT bucket_5m) FROM market_data.btc_ticks").fetchone() or (0,)
    return {"seconds": seconds, "slices_left": left}


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


STAGES = {stage.__name__: stage for stage in (load, maintain, drop)}


def run_stage(stage: str, window: Window, under: Sequence[str] = ()) -> dict[str, Any]:
    """Run a stage in a process of its own, under a command such as that of a profiler."""
    command = [*under, sys.executable, __file__, "--stage", stage, window.start.isoformat(), window.end.isoformat()]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{stage} of {window} failed: see above")
    return json.loads(next(line for line in reversed(done.stdout.splitlines()) if line.startswith("{")))  # a profiler speaks last


# ---- in the first process


def measure(connection: psycopg.Connection, window: Window, new: int) -> Measured:
    """Load the last `new` days of `window`, and maintain the store at that size."""
    days = window_days(window)
    measured = Measured(days, new)
    fresh = Window(window.end - new * DAY, window.end)
    loaded = run_stage("load", fresh)
    measured.peak_mb["load"] = loaded["peak_mb"]
    measured.rows = loaded["rates"]
    names = {"candles": "candles of all intervals", "checks": "checks in the run", "whole": "all of it"}
    measured.costs |= {names.get(name, name): seconds / new for name, seconds in stages(loaded).items()}
    connection.execute("VACUUM ANALYZE")  # what follows is of a store at rest: autovacuum is at it for minutes after a load
    again = run_stage("load", Window(window.end - SLICE, window.end))
    measured.costs["one slice again, without Dagster"] = sum(again["assets"].values()) + again["checks"]
    maintained = run_stage("maintain", window)
    measured.peak_mb["maintain"] = maintained["peak_mb"]
    for name, seconds in maintained["seconds"].items():
        measured.costs[name] = seconds / days if name.endswith("everything") else seconds
    for name, size in connection.execute(_SIZES).fetchall():
        measured.costs[f"MB: {name}"] = float(size) / days
    return measured


def stages(loaded: dict[str, Any]) -> dict[str, float]:
    """Seconds of each stage of the chain, from what `load` found."""
    seconds = dict.fromkeys(("register", "load", "candles", "features"), 0.0)
    for name, spent in loaded["assets"].items():
        seconds[stage_of(name)] += spent
    seconds |= {"checks": loaded["checks"], "Dagster": loaded["seconds"] - sum(seconds.values()) - loaded["checks"]}
    return {**seconds, "whole": loaded["seconds"]}


def stage_of(asset: str) -> str:
    """The stage of the chain that makes an asset, or several, by the name of the asset or op."""
    if "candles" in asset:
        return "candles"
    return "register" if asset.endswith("raw_blobs_5m") else "load" if asset.endswith("btc_ticks") else "features"


def window_days(window: Window) -> int:
    return (window.end - window.start) // DAY


def print_table(out: Console, measures: list[Measured]) -> None:
    """Print the cost of a day at each size, and whether it stays the same."""
    first, last = measures[0], measures[-1]
    of = f"{last.days} to {first.days}"
    table = Table("seconds a day, or as said", *(f"{m.days} day{'s' * (m.days > 1)}" for m in measures), of, "")
    for name, cost in first.costs.items():
        ratio = last.costs[name] / cost if cost else float("nan")
        verdict = "flat" if ratio <= FLAT else "GROWS"
        table.add_row(name, *(f"{m.costs[name]:.2f}" for m in measures), f"{ratio:.2f}", verdict)
    ms = [m.costs["Dagster"] / DAY_SLICES * 1e3 for m in measures]
    table.add_row(
        "Dagster, ms a slice", *(f"{each:.1f}" for each in ms), f"{ms[-1] / ms[0]:.2f}", f"<= {GOAL_MS:.0f}: {_met(ms[-1] <= GOAL_MS)}"
    )
    rates = [statistics.median(m.rows) for m in measures]
    table.add_row("rows/s, median of the new days", *(f"{rate:,.0f}" for rate in rates), f"{rates[-1] / rates[0]:.2f}", "")
    for process in first.peak_mb:
        peaks = [m.peak_mb[process] for m in measures]
        table.add_row(
            f"peak MB of the process: {process}",
            *(f"{peak:.0f}" for peak in peaks),
            f"{peaks[-1] / peaks[0]:.2f}",
            f"< {GOAL_MB}: {_met(max(peaks) < GOAL_MB)}",
        )
    out.print(table)
    for m in measures:
        out.print(f"rows/s of the days up to {m.days}: {' '.join(f'{rate / 1e3:.0f}k' for rate in m.rows)}", highlight=False)


def _met(met: bool) -> str:
    return "met" if met else "MISSED"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, nargs="+", default=[1, 7, 30], help="sizes of the store, ascending (default: 1 7 30)")
    parser.add_argument("--ticks", type=int, default=3_000_000, help="trades a day (default: %(default)s)")
    parser.add_argument("--batch-seconds", type=float, default=60, help="of a collector object (default: %(default)s; 15 to 60)")
    parser.add_argument("--stage", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stage:
        stage, start, end = args.stage
        print(json.dumps(STAGES[stage](Window(parse_time(start), parse_time(end)))))
        return
    out = Console(width=None if sys.stdout.isatty() else 132)
    with store() as (_, embedded):
        grow(args, out, embedded)


def grow(args: argparse.Namespace, out: Console, embedded: bool) -> None:
    """Land all days, and load and measure them size by size."""
    from btc_assets.landing.resources import Landing
    from btc_assets.orchestration.home import prepare_dagster_home
    from btc_assets.simulation.batches import BatchLimits
    from btc_assets.simulation.generate_day import generate_days
    from btc_assets.simulation.replay import Landed, land_trades
    from btc_assets.simulation.trade_table import FirstTrade
    from btc_assets.store.database import Store
    from btc_assets.store.migrations import migrate

    settings, sizes = load_settings(), sorted(args.days)
    prepare_dagster_home(settings)
    zone, feed = Landing(settings).zone(), settings.landing_feeds[0]
    end = floor_day(datetime.now(UTC))
    start = end - sizes[-1] * DAY
    hours = generate_days(start, sizes[-1], args.ticks, first=FirstTrade(feed.label))
    landed, landing_seconds = Landed(), 0.0
    measures: list[Measured] = []
    with Store.of(settings).connect() as connection, out.status("") as status:
        migrate(connection)
        for days, before in zip(sizes, [0, *sizes], strict=False):
            status.update(f"{days} days: landing")
            started = time.perf_counter()
            land_trades(zone, feed, islice(hours, (days - before) * 24), landed, limits=BatchLimits(args.batch_seconds))
            landing_seconds += time.perf_counter() - started
            status.update(f"{days} days: loading")
            measures.append(measure(connection, Window(start, start + days * DAY), days - before))
            if days < sizes[-1]:  # the last one takes long
                print_table(out, measures)
        dropped = run_stage("drop", Window(start, end)) if sizes[-1] > 1 else None
        out.print(
            f"{machine(connection, embedded, *PACKAGES)}\n{sizes[-1]} days of {args.ticks:,} ticks, generated and landed as {landed.objects:,} "
            f"objects of {landed.bytes / landed.objects / 1e3:.0f} kB in {landing_seconds:.0f} s ({landing_seconds / sizes[-1]:.1f} s a day)",
            highlight=False,
        )
    print_table(out, measures)
    if dropped:
        days = sizes[-1] - 1
        out.print(f"retention dropped the ticks of {days} days in {dropped['seconds']:.2f} s ({dropped['seconds'] / days:.3f} s a day)")
        if dropped["slices_left"] > DAY_SLICES:
            raise SystemExit(f"retention left {dropped['slices_left']} slices")


if __name__ == "__main__":
    main()
