"""Torture, side by side: what this project, tools that load PostgreSQL, and stores of other kinds make of the same landed objects.

Each way loads a day, loads it again, and again after an object was corrected, after one was deleted, and after a late one arrived; then it
is killed half-way through a first load, and loads again. After each step the trades that its store gives are compared with those that the
objects hold. Last, a month is loaded and its candles of 15 minutes are read. Each step of each way runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from bench_compare import Comparison, Difference, replace_measured
from bench_load import DAY_START, FEED, Bench, Day
from compare_stores import WAYS
from figures import Figure, parse, record
from rich.console import Console
from throwaway import database, machine

from btc_assets.domain.settings import Settings
from btc_assets.domain.slices import DAY
from btc_assets.landing.zone import LandingZone
from btc_assets.simulation.batches import BatchLimits
from btc_assets.simulation.generate_day import generate_days
from btc_assets.simulation.replay import Landed, land_trades
from btc_assets.simulation.trade_table import FirstTrade

PROGRAM = Path(__file__).with_name("compare_stores.py")
MARKS = ("<!-- torture: begin -->", "<!-- torture: end -->")
APART = ("arcticdb", "nautilus")  # they need other versions of shared packages than the project, hence an environment of their own
PATIENCE = 600  # seconds for one step

STEPS = ("load", "the same again", "an object corrected", "an object deleted", "a late object", "killed half-way", "loaded after that")


@dataclass(frozen=True)
class Took:
    """A step in its process: what it took, and how it failed."""

    seconds: float
    peak_mb: float
    error: str | None = None


@dataclass(frozen=True)
class Cell:
    """A step: what it took, and how the store differs from the objects after it."""

    took: Took | None
    difference: Difference
    note: str = ""

    def __str__(self) -> str:
        failed = f"fails ({self.took.error.split(':')[0]}): " if self.took and self.took.error else ""
        seconds = f", {self.took.seconds:.1f} s" if self.took else ""
        return f"{failed}{self.note}{self.difference}{seconds}"


@dataclass
class Found:
    """All of one way."""

    cells: list[Cell]
    read: Took
    month: Took
    candles: Took
    wrong_candles: int


class Torture:
    """The landed day and month, a database, and a directory for what tools keep.

    Args:
        comparison: the day, in a database.
        directory: for all else.
        pythons: the interpreter of each way's environment.
        month: the folder of the month's objects, and its days.
    """

    def __init__(self, comparison: Comparison, directory: Path, pythons: dict[str, str], month: tuple[Path, int]) -> None:
        self.comparison, self.state, self.out = comparison, directory / "state", directory / "out.arrow"
        self.pythons, self.month = pythons, month
        self.day = comparison.bench.small

    def fresh(self) -> None:
        """Nothing is stored anywhere."""
        self.comparison.fresh()
        shutil.rmtree(self.state, ignore_errors=True)
        self.state.mkdir()

    def start(self, key: str, step: str, folder: Path, days: int = 1, force: bool = False) -> subprocess.Popen[str]:
        """Begin a step of a way, in a process of its own; returns when its work begins."""
        bench = self.comparison.bench
        self.out.unlink(missing_ok=True)
        words = (key, step, bench.dsn, str(folder), str(self.state), str(self.out), str(days), "force" if force else "")
        environment = {
            **os.environ,
            "DLT_DATA_DIR": str(self.comparison.kept),
            "RUNTIME__DLTHUB_TELEMETRY": "false",
            "RUNTIME__LOG_LEVEL": "ERROR",
        }
        process = subprocess.Popen(
            [self.pythons[key], str(PROGRAM), *words],
            env=environment,
            cwd=self.state,
            stdout=subprocess.PIPE,
            stderr=self.state.with_suffix(".log").open("w"),
            text=True,
        )
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == "begins":
                return process
        raise SystemExit(f"{WAYS[key].name} did not begin: {self.state.with_suffix('.log').read_text()[-2000:]}")

    def run(self, key: str, step: str, folder: Path, days: int = 1, force: bool = False) -> Took:
        """A step of a way, to its end."""
        process = self.start(key, step, folder, days, force)
        output, _ = process.communicate(timeout=PATIENCE)
        lines = [line for line in output.splitlines() if line.startswith("{")]
        if process.returncode or not lines:
            return Took(0.0, 0.0, f"ended with {process.returncode}: {self.state.with_suffix('.log').read_text()[-500:]}")
        took = json.loads(lines[-1])
        return Took(took["seconds"], took["peak_mb"], took["error"])

    def kill(self, key: str, seconds: float) -> None:
        """Begin a load and kill it some seconds later; returns when the server has noticed."""
        process = self.start(key, "load", self.day)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
        others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        while (self.comparison.bench.connection.execute(others).fetchone() or (0,))[0]:
            time.sleep(0.1)

    def difference(self, key: str) -> tuple[Difference, Took]:
        """What the store gives, against what the objects hold."""
        took = self.run(key, "read", self.day)
        if not self.out.exists():
            return Difference(len(landed(self.day)["trade_id"])), took
        return compare(landed(self.day), arrow(self.out)), took


def landed(folder: Path) -> dict[str, np.ndarray]:
    """The trades of all objects of a folder, by id."""
    table = pq.read_table(folder, columns=["trade_id", "event_time", "trade_time", "price", "quantity", "is_market_maker"])
    time_type = pa.timestamp("us", "UTC")
    for name in ("event_time", "trade_time"):
        table = table.set_column(table.column_names.index(name), name, pc.cast(table[name], time_type))
    return by_id(table)


def arrow(file: Path) -> pa.Table:
    """What a step wrote."""
    with pa.ipc.open_file(file) as reader:
        return reader.read_all()


def by_id(table: pa.Table) -> dict[str, np.ndarray]:
    """Columns as numbers, in the order of trade ids: times in microseconds, prices and quantities in units of 1e-8."""
    order = pc.sort_indices(table["trade_id"])
    found = {}
    for name in table.column_names:
        column = table[name].take(order)
        if name.endswith("_time"):
            column = pc.cast(pc.cast(column, pa.timestamp("us", "UTC"), safe=False), pa.int64())
        elif name in ("price", "quantity"):
            column = pc.cast(pc.round(pc.multiply(pc.cast(column, pa.float64()), 1e8)), pa.int64())
        elif name == "is_market_maker":
            column = pc.cast(pc.cast(column, pa.bool_()), pa.int64())
        found[name] = column.to_numpy()
    return found


def compare(truth: dict[str, np.ndarray], stored: pa.Table) -> Difference:
    """Rows that are missing, that are too many (also the same trade twice), and that have other values."""
    got = by_id(stored)
    ids, first = np.unique(got["trade_id"], return_index=True)
    missing = np.setdiff1d(truth["trade_id"], ids, assume_unique=True).size
    extra = got["trade_id"].size - np.intersect1d(truth["trade_id"], ids, assume_unique=True).size
    _, here, there = np.intersect1d(truth["trade_id"], ids, assume_unique=True, return_indices=True)
    wrong = np.zeros(here.size, bool)
    for name in truth.keys() & got.keys() - {"trade_id"}:
        wrong |= truth[name][here] != got[name][first][there]
    return Difference(missing, extra, int(wrong.sum()))


def wrong_candles(folder: Path, stored: pa.Table) -> int:
    """Candles of 15 minutes that are missing, too many, or differ from those of the objects' trades."""
    truth = landed(folder)
    bucket = truth["trade_time"] // 900_000_000
    starts = np.flatnonzero(np.r_[True, np.diff(bucket) > 0])
    ends = np.r_[starts[1:], bucket.size]
    expected = {
        int(bucket[a]): (
            truth["price"][a],
            truth["price"][a:b].max(),
            truth["price"][a:b].min(),
            truth["price"][b - 1],
            truth["quantity"][a:b].sum(),
            b - a,
        )
        for a, b in zip(starts, ends, strict=True)
    }
    units = {name: np.rint(np.asarray(pc.cast(stored[name], pa.float64())) * 1e8) for name in ("open", "high", "low", "close", "volume")}
    buckets = np.asarray(pc.cast(pc.cast(stored["bucket"], pa.timestamp("us", "UTC"), safe=False), pa.int64())) // 900_000_000
    counts = np.asarray(stored["trade_count"])
    got = {
        int(bucket): (*(units[name][row] for name in ("open", "high", "low", "close", "volume")), counts[row])
        for row, bucket in enumerate(buckets)
        if counts[row]
    }
    # Sums of floats end in other digits than exact ones: a millionth of a coin is called equal.
    same = sum(bucket in got and np.allclose(got[bucket], figures, rtol=0, atol=100) for bucket, figures in expected.items())
    return len(expected.keys() | got.keys()) - same


@contextmanager
def kept(path: Path) -> Iterator[None]:
    """An object, with its time of modification, is afterwards as it was."""
    data, stat = path.read_bytes(), path.stat()
    try:
        yield
    finally:
        path.write_bytes(data)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def torture(of: Torture, key: str) -> Found:
    """All steps of one way."""
    objects = sorted(of.day.rglob("*.parquet"))
    late, corrected, deleted = (objects[len(objects) * part // 4] for part in (1, 2, 3))
    cells: list[Cell] = []

    def step(force: bool = False) -> None:
        took = of.run(key, "load", of.day, force=force)
        cells.append(Cell(took, of.difference(key)[0]))

    of.fresh()
    with kept(late), kept(corrected), kept(deleted):
        late_data, late_stat = late.read_bytes(), late.stat()
        late.unlink()
        step()
        step()
        raise_prices(corrected)
        step()
        deleted.unlink()
        step()
        if key == "project":
            refused = cells.pop()
            step(force=True)
            cells[-1] = Cell(cells[-1].took, cells[-1].difference, f"kept ({refused.difference}) until `--force`: ")
        late.write_bytes(late_data)
        os.utime(late, ns=(late_stat.st_atime_ns, late_stat.st_mtime_ns))
        step()
    of.fresh()
    of.kill(key, cells[0].took.seconds / 2 if cells[0].took else 1.0)
    cells.append(Cell(None, of.difference(key)[0]))
    step()
    read = of.difference(key)[1]
    of.fresh()
    folder, days = of.month
    connection = of.comparison.bench.connection
    connection.execute("SELECT market_data.ensure_tick_partitions(%s, %s)", (DAY_START, DAY_START + days * DAY))
    month = of.run(key, "load", folder, days)
    candles = of.run(key, "candles", folder, days)
    wrong = wrong_candles(folder, arrow(of.out)) if of.out.exists() else -1
    return Found(cells, read, month, candles, wrong)


def raise_prices(path: Path) -> None:
    """Overwrite an object: the same trades, each at a price higher by 1."""
    rows = pq.read_table(path)
    place = rows.column_names.index("price")
    pq.write_table(rows.set_column(place, "price", pc.round(pc.add(rows["price"], 1.0), 2)), path)


def land_month(folder: Path, days: int, ticks: int) -> None:
    """Days of trades, an object an hour."""
    folder.mkdir()
    zone = LandingZone(folder.as_uri(), concurrency=Settings.model_fields["fetch_concurrency"].default)
    hours = generate_days(DAY_START, days, ticks, first=FirstTrade(FEED.label))
    land_trades(zone, FEED, hours, Landed(), limits=BatchLimits(3600, rows=10**6))


# ---- what is shown


def steps_table(found: dict[str, Found]) -> str:
    """Markdown: what each store holds after each step."""
    lines = [f"| | {' | '.join(STEPS)} |", "|---" * (len(STEPS) + 1) + "|"]
    lines += [f"| {WAYS[key].name} | {' | '.join(map(str, each.cells))} |" for key, each in found.items()]
    return "\n".join(lines)


def rates_table(found: dict[str, Found], ticks: int, month: int) -> str:
    """Markdown: rates and memory."""
    lines = [
        "| | load, rows/s | peak MB | correction, s | read the day, rows/s | peak MB | candles of the month, s | wrong candles |",
        "|---" * 8 + "|",
    ]
    for key, each in found.items():
        load, correction = each.cells[0].took, each.cells[2].took
        lines.append(
            f"| {WAYS[key].name} | {_rate(ticks, load)} | {_mb(load)} | {f'{correction.seconds:.1f}' if correction else ''} "
            f"| {_rate(ticks, each.read)} | {_mb(each.read)} | {each.candles.seconds:.2f} | {_wrong(each)} |"
        )
    return "\n".join(lines)


def _rate(ticks: int, took: Took | None) -> str:
    return f"{ticks / took.seconds / 1e3:,.0f} k" if took and not took.error else "fails"


def _mb(took: Took | None) -> str:
    return f"{took.peak_mb:,.0f}" if took else ""


def _wrong(found: Found) -> str:
    return "none" if found.wrong_candles == 0 else "fails" if found.wrong_candles < 0 else f"{found.wrong_candles:,}"


def versions(pythons: dict[str, str]) -> str:
    """Of all packages, each asked for in its environment."""
    names = {name: pythons[key] for key, way in WAYS.items() if key in pythons for name in way.packages}
    found = []
    for name, python in names.items():
        if python == sys.executable:
            try:
                found.append(f"{name} {version(name)}")
            except PackageNotFoundError:
                continue
        else:
            code = f"from importlib.metadata import version; print('{name}', version('{name}'))"
            found.append(subprocess.run([python, "-c", code], capture_output=True, text=True).stdout.strip())
    return ", ".join(filter(None, found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=int, default=1_000_000, help="trades of the day (default: %(default)s)")
    parser.add_argument("--objects", type=int, default=1920, help="collector objects of the day (default: %(default)s)")
    parser.add_argument("--month-days", type=int, default=30, help="days of the month (default: %(default)s)")
    parser.add_argument("--month-ticks", type=int, default=50_000, help="trades of each of its days (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=list(WAYS), default=list(WAYS), help="ways (default: all)")
    parser.add_argument("--apart", help="interpreter of the environment that has ArcticDB and nautilus_trader (default: they are left out)")
    parser.add_argument("--table", type=Path, help="page whose part between the marks is replaced by what was measured")
    args = parse(parser)
    out = Console(width=None if sys.stdout.isatty() else 132)
    pythons = {key: args.apart if key in APART else sys.executable for key in args.only if key not in APART or args.apart}
    with tempfile.TemporaryDirectory(prefix="btc_assets-compare-") as made, out.status("") as status:
        directory = Path(made)
        directory.chmod(0o711)  # the embedded server's user must reach its own directory below it
        with database(directory) as (dsn, embedded):
            bench = Bench(
                directory, dsn, Day(args.ticks, args.objects), embedded=embedded, commit_rows=Settings.model_fields["commit_rows"].default
            )
            land_month(directory / "month", args.month_days, args.month_ticks)
            of = Torture(Comparison(bench, directory / "kept"), directory, pythons, (directory / "month", args.month_days))
            found = {}
            for key in pythons:
                status.update(WAYS[key].name)
                found[key] = torture(of, key)
                out.print(
                    WAYS[key].name,
                    *map(str, found[key].cells),
                    found[key].read,
                    found[key].month,
                    found[key].candles,
                    sep="\n  ",
                    highlight=False,
                )
            caption = f"{machine(bench.connection, embedded, 'pyarrow', 'psycopg')}, {versions(pythons)}; {datetime.now(UTC):%Y-%m-%d}."
            record(args, "stores", f"{args.ticks:,} trades, {bench.landed.objects:,} objects", figures(found, args.ticks), bench.connection)
    settings = "\n".join(f"| {WAYS[key].name} | {WAYS[key].how} |" for key in found)
    measured = "\n\n".join(
        [
            caption,
            f"### {args.ticks:,} trades in {bench.landed.objects:,} objects: what the store holds after each step\n\n{steps_table(found)}",
            f"### Rates and memory; a month of {args.month_days} x {args.month_ticks:,} trades\n\n{rates_table(found, args.ticks, args.month_ticks)}",
            f"### Settings\n\n| | |\n|---|---|\n{settings}",
        ]
    )
    out.print(measured, highlight=False, markup=False, soft_wrap=True)
    if args.table:
        replace_measured(args.table, measured, MARKS)


def figures(found: dict[str, Found], ticks: int) -> list[Figure]:
    """What is recorded of ours and of the others."""
    recorded: list[Figure] = []
    values: dict[str, Callable[[Found], float]] = {
        "load of a day": lambda each: ticks / each.cells[0].took.seconds / 1e3 if each.cells[0].took else 0.0,
        "read of a day": lambda each: ticks / each.read.seconds / 1e3,
    }
    for name, value in values.items():
        recorded += [
            Figure(name, value(each), "k rows/s", better="more", who=_who(key)) for key, each in found.items() if not each.read.error
        ]
    recorded += [Figure("15-minute candles of a month", each.candles.seconds, "s", who=_who(key)) for key, each in found.items()]
    return recorded


def _who(key: str) -> str:
    return "ours" if key == "project" else WAYS[key].name


if __name__ == "__main__":
    main()
