"""Does the cost of a day depend on how many symbols it has? The same number of trades in as many objects, of 1, 10 and 100 feeds.

Each number of feeds has a store and a landing zone of its own, and a process of its own that does what runs and sensors do, one after the
other: a tick of the landing sensor, registering, loading, candles, features, checks, status, and all of it once more where it finds
nothing new. Counted are statements, connections and listings, which are the same on a busy machine, and CPU seconds of this process.
Last, the job `ingest` does the same from the beginning, with Dagster. A listing for each prefix is the nature of S3; nothing else may
grow with the number of feeds as it is, so the table shows each count at the most feeds as a multiple of that at one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from bench_load import GOAL_MB
from peak_memory import peak_mb
from rich.console import Console
from rich.table import Table
from throwaway import machine, store

from btc_assets.domain.feeds import Feed, Feeds
from btc_assets.domain.settings import PREFIX, load_settings
from btc_assets.domain.slices import DAY, SLICE, Window, floor_day, parse_time

OBJECTS_A_SLICE = 100  # of all feeds together; of 100 feeds, each lands one
FLAT = 1.5  # seconds at the most feeds, as a multiple of those at one
COUNTS = ("statements", "connections", "listings")

Stage = dict[str, float]


def feeds_of(count: int) -> Feeds:
    """The feeds of a store: one prefix each."""
    return Feeds(Feed(f"Binance/COIN{number:03}USDT", f"COIN{number:03}USDT", f"COIN{number:03}USDT") for number in range(count))


def land(feeds: Feeds, window: Window, ticks: int) -> int:
    """Land the trades of all feeds as collectors do; returns the number of objects."""
    from btc_assets.landing.resources import Landing
    from btc_assets.simulation.batches import BatchLimits
    from btc_assets.simulation.generate_day import generate_day
    from btc_assets.simulation.replay import Landed, land_trades
    from btc_assets.simulation.trade_table import FirstTrade

    zone, landed = Landing(load_settings()).zone(), Landed()
    hours = (window.end - window.start) // timedelta(hours=1)
    limits = BatchLimits(SLICE.total_seconds() * len(feeds) / OBJECTS_A_SLICE)
    for number, feed in enumerate(feeds):
        day = generate_day(window.start, ticks * 24 // hours // len(feeds), seed=number, first=FirstTrade(feed.label))
        land_trades(zone, feed, islice(day, hours), landed, limits=limits)
    return landed.objects


# ---- in a process of its own


@contextmanager
def measured(stages: dict[str, Stage], name: str) -> Iterator[None]:
    """Measure a block."""
    from btc_assets_tests.support.work import counting_work

    with counting_work() as work:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        stages[name] = {"seconds": time.perf_counter() - wall, "CPU seconds": time.process_time() - cpu} | {
            what: getattr(work, what) for what in COUNTS
        }


def work_through(window: Window) -> dict[str, Any]:
    """Do what runs and sensors do with the objects of a window; returns what each stage cost."""
    from btc_assets.landing.arrivals import ArrivalTiming, notice_arrivals, read_waiting_slices
    from btc_assets.landing.registration import RegisterOptions, register_window
    from btc_assets.landing.resources import Landing
    from btc_assets.landing.spool import Spool
    from btc_assets.market_data.candles import enabled_intervals, read_candle_differences, refresh_candles
    from btc_assets.market_data.continuity import read_gaps, read_repeats
    from btc_assets.market_data.loading import LoadOptions, TickLoad
    from btc_assets.market_data.registry_equality import find_unequal_slices
    from btc_assets.ops.health import read_health
    from btc_assets.ops.reconcile import ReconcileOptions, reconcile
    from btc_assets.ops.status import read_daily_status
    from btc_assets.store.database import Store
    from btc_assets.store.migrations import migrate
    from btc_assets.store.tables import Target
    from btc_assets.store.writers import replace_all

    settings = load_settings()
    feeds, zone, at = settings.landing_feeds, Landing(settings).zone(), Store.of(settings)
    now, intervals, stages = datetime.now(UTC), enabled_intervals(settings), dict[str, Stage]()
    timing = ArrivalTiming(window.end - window.start, settings.landing_grace)
    with at.connect() as connection:
        migrate(connection)

        def load() -> None:
            options = LoadOptions(settings.commit_rows, (), spool=spool)
            load = TickLoad(at, zone, feeds, window, options)
            replace_all(connection, Target.of(connection, load.table), load, writers=settings.writers, store=at)

        def check() -> None:
            problems = [*read_gaps(connection, window), *read_repeats(connection, window), *find_unequal_slices(connection, window)]
            problems += [text for interval in intervals for text in read_candle_differences(connection, interval, window)]
            if problems:
                raise SystemExit(f"checks: {problems[:3]}")

        def compare() -> None:
            found = reconcile(connection, zone, feeds, window, now, ReconcileOptions(min_object_age=timedelta(0)))
            if found.counts:
                raise SystemExit(f"reconcile: {found.sentences}")

        def tick(moment: datetime) -> Callable[[], None]:
            def listen() -> None:
                notice_arrivals(connection, zone, feeds, moment, timing)
                read_waiting_slices(connection, moment, grace=settings.landing_grace, symbols=feeds.labels)

            return listen

        def status() -> None:
            read_daily_status(connection, window)
            read_health(connection, feeds, now, grace=settings.landing_grace)

        spool = Spool()
        options = RegisterOptions(settings.landing_margin, spool=spool)
        work: dict[str, Callable[[], object]] = {
            "sensor, all new": tick(window.end),
            "register": lambda: register_window(connection, zone, feeds, window, options),
            "load": load,
            "candles": lambda: [refresh_candles(connection, interval, window) for interval in intervals],
            "checks": check,
            "reconcile": compare,
            "status": status,
            "sensor, nothing new": tick(window.end + timedelta(minutes=1)),
            "register, nothing new": lambda: register_window(connection, zone, feeds, window, options),
        }
        for name, each in work.items():
            with measured(stages, name):
                each()
        connection.execute("TRUNCATE market_data.btc_ticks, landing.raw_blobs_5m, ingestion.stream_offsets")
    return {"stages": stages, "peak_mb": peak_mb()}


def run_job(window: Window) -> dict[str, Any]:
    """Load the window by the job `ingest`, and again where nothing is new."""
    from bench_dagster import Bodies

    from btc_assets.assembly import LOADING_ASSETS, build_definitions
    from btc_assets.orchestration.ingest import IngestOptions, ingest
    from btc_assets.orchestration.partitions import Partitions

    settings, stages = load_settings(), dict[str, Stage]()
    definitions, bodies = build_definitions(settings, patient=False), Bodies()
    bodies.wrap(definitions.resolve_job_def("ingest"))
    shown = {}
    for name in ("ingest", "ingest, nothing new"):
        bodies.by_name.clear()
        with measured(stages, name):
            report = ingest(definitions, LOADING_ASSETS, Partitions.of(settings), window, IngestOptions())
        if report.failed_checks:
            raise SystemExit(f"checks failed: {report.failed_checks}")
        shown[name] = {key: round(seconds, 2) for key, seconds in sorted(bodies.by_name.items(), key=lambda item: -item[1])[:8]}
    return {"stages": stages, "peak_mb": peak_mb(), "bodies": shown}


STAGES = {"work": work_through, "job": run_job}


def in_process(stage: str, window: Window) -> dict[str, Any]:
    """Run one of `STAGES` in a process of its own."""
    command = [sys.executable, __file__, "--stage", stage, window.start.isoformat(), window.end.isoformat()]
    paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])  # the tests' support
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": paths})
    if done.returncode:
        raise SystemExit(f"{stage} failed: see above")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


# ---- in the first process


def measure(count: int, args: argparse.Namespace, out: Console) -> dict[str, Any]:
    """Everything with that many feeds."""
    from btc_assets.orchestration.home import prepare_dagster_home
    from btc_assets.store.database import Store

    start = floor_day(datetime.now(UTC)) - DAY
    window = Window(start, start + timedelta(hours=args.hours))
    with store() as (directory, embedded), tempfile.TemporaryDirectory(dir=directory) as landing:
        os.environ |= {f"{PREFIX}LANDING_URL": Path(landing).as_uri(), f"{PREFIX}LANDING_FEEDS": str(feeds_of(count))}
        objects = land(load_settings().landing_feeds, window, args.ticks)
        with Store.of(load_settings()).connect() as connection:
            line = machine(connection, embedded, "pyarrow", "psycopg")
        out.print(f"{count} feed(s), {args.ticks:,} trades, {objects:,} objects; {line}", highlight=False)
        found = in_process("work", window)
        if not args.no_job:
            prepare_dagster_home(load_settings())
            job = in_process("job", window)
            found["stages"] |= job["stages"]
            found["peak_mb"] = max(found["peak_mb"], job["peak_mb"])
            for name, bodies in job["bodies"].items():
                out.print(f"{name}: {bodies}", highlight=False)
    return found


def show(found: dict[int, dict[str, Any]], out: Console) -> None:
    """Print the stages side by side, with the growth from the fewest feeds to the most."""
    fewest, most = min(found), max(found)
    table = Table("stage", "", *(f"{count} feeds" for count in found), "growth")
    for stage in found[fewest]["stages"]:
        for what in ("seconds", "CPU seconds", *COUNTS):
            values = {count: each["stages"][stage][what] for count, each in found.items()}
            if not any(values.values()):
                continue
            form = "{:.2f}" if "seconds" in what else "{:,}"
            growth = values[most] / values[fewest] if values[fewest] else float("inf")
            table.add_row(stage if what == "seconds" else "", what, *(form.format(value) for value in values.values()), f"{growth:.1f}")
    table.add_row("peak MB", f"goal {GOAL_MB}", *(f"{each['peak_mb']:.0f}" for each in found.values()), "")
    out.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--feeds", type=int, nargs="+", default=[1, 10, 100], help="numbers of feeds (default: 1 10 100)")
    parser.add_argument("--ticks", type=int, default=3_000_000, help="trades of all feeds together (default: %(default)s)")
    parser.add_argument("--hours", type=int, default=24, help="length of the window (default: %(default)s)")
    parser.add_argument("--no-job", action="store_true", help="without the job in Dagster")
    parser.add_argument("--stage", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stage:
        stage, start, end = args.stage
        print(json.dumps(STAGES[stage](Window(parse_time(start), parse_time(end)))))
        return
    out = Console(width=None if sys.stdout.isatty() else 132)
    show({count: measure(count, args, out) for count in sorted(args.feeds)}, out)


if __name__ == "__main__":
    main()
