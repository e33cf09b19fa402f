"""The common form of what benchmarks measure: one line of a CSV file for each figure, with all that makes it comparable.

A program that measures parses its arguments with `parse`, which adds `--record FILE`, and ends with `record`. `bench.py` runs the
programs and writes docs/benchmarks.md from benchmarks/history.csv, to which they append.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, NamedTuple, Self

import psutil
import psycopg

import btc_assets

HISTORY = Path(__file__).with_name("history.csv")
PACKAGES = ("dagster", "psycopg", "pyarrow", "pgpq", "obstore")
QUIET_PERCENT = 15  # of all cores that other programs may use of a machine that is called quiet

OURS, CEILING = "ours", "ceiling"

Better = Literal["less", "more"]


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        name: what was measured, as a reader of the page would say it; the same in every run.
        value: a median, where it was measured several times.
        unit: such as `s`, `ms`, `MB`, `rows/s`; empty for a ratio.
        goal: what it should reach; None where there is none.
        better: whether less of it is better, or more.
        low: the least of its repetitions; the value itself, if it was measured once.
        high: the most of them.
        who: `ours`, `ceiling`, or the name of a peer that did the same.
    """

    name: str
    value: float
    unit: str = ""
    goal: float | None = None
    better: Better = "less"
    low: float | None = None
    high: float | None = None
    who: str = OURS

    @classmethod
    def of(
        cls, name: str, values: Sequence[float], unit: str = "", goal: float | None = None, better: Better = "less", who: str = OURS
    ) -> Self:
        """The median of repetitions, with their range."""
        return cls(name, statistics.median(values), unit, goal, better, min(values), max(values), who)

    @property
    def met(self) -> bool | None:
        """Whether it reaches its goal; None without one."""
        if self.goal is None:
            return None
        return self.value <= self.goal if self.better == "less" else self.value >= self.goal


@dataclass(frozen=True)
class Conditions:
    """What a run of a benchmark was made on and of: figures are compared if these agree, but for date, commit and versions.

    Attributes:
        benchmark: the program, without `bench_`.
        size: of what was measured, such as `3,000,000 trades, 5,760 objects`.
        engine: `plain` or `timescale`; empty where no server has a part in it.
        load: `quiet`, `4 busy loops`, or `shared` where other programs used the machine when the run began.
        machine: cores, processor and memory.
        commit: of the code that was measured, with a `+` where it was changed since.
        date: UTC.
        versions: of the server, Python and the packages that matter.
    """

    benchmark: str
    size: str
    engine: str
    load: str
    machine: str
    commit: str
    date: str
    versions: str

    @property
    def comparable(self) -> tuple[str, ...]:
        """What must agree for figures of two runs to be compared."""
        return (self.benchmark, self.size, self.engine, self.load, self.machine)


@dataclass(frozen=True)
class Line:
    """A line of the history."""

    conditions: Conditions
    figure: Figure = field(compare=False)


_COLUMNS = [each.name for each in (*fields(Figure), *fields(Conditions))]
_NUMBERS = ("value", "goal", "low", "high")


class Server(NamedTuple):
    """Which engine a server is, and its versions."""

    engine: str
    versions: str


def server(connection: psycopg.Connection) -> Server:
    """What a server is."""
    (number,) = connection.execute("SELECT split_part(current_setting('server_version'), ' ', 1)").fetchone() or ("",)
    (timescale,) = connection.execute("SELECT max(extversion) FROM pg_extension WHERE extname = 'timescaledb'").fetchone() or (None,)
    postgres = f"PostgreSQL {number}"
    return Server("timescale", f"TimescaleDB {timescale} on {postgres}") if timescale else Server("plain", postgres)


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the arguments with `--record FILE` among them, and see whether the machine is quiet before anything is measured."""
    parser.add_argument("--record", type=Path, help="append the figures to this CSV file, such as benchmarks/history.csv")
    args = parser.parse_args()
    args.load = "quiet" if not args.record or psutil.cpu_percent(3.0) < QUIET_PERCENT else "shared"
    if getattr(args, "busy", 0):
        args.load = f"{args.busy} busy loops"
    return args


def record(
    args: argparse.Namespace, benchmark: str, size: str, found: Sequence[Figure], of: psycopg.Connection | Server | None = None
) -> None:
    """Append figures to the file that `--record` names; nothing without it.

    Args:
        args: what `parse` returned.
        benchmark: the program, without `bench_`.
        size: what makes two runs comparable.
        found: the figures.
        of: a connection to the server, or what `server` said of it; None where no server has a part in it.
    """
    if args.record:
        used = server(of) if isinstance(of, psycopg.Connection) else of
        append(args.record, conditions(benchmark, size, args.load, used), found)


def conditions(benchmark: str, size: str, load: str, used: Server | None = None) -> Conditions:
    """Those of this moment, machine and working tree."""
    engine, name = used or ("", "")
    versions = [name, f"Python {platform.python_version()}", *(f"{name} {found}" for name in PACKAGES if (found := _version(name)))]
    date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ")
    return Conditions(benchmark, size, engine, load, _machine(), _commit(), date, ", ".join(filter(None, versions)))


def append(file: Path, of: Conditions, found: Sequence[Figure]) -> None:
    """Append figures to a CSV file; a new one gets its heading."""
    new = not file.exists()
    with file.open("a", newline="") as out:
        writer = csv.DictWriter(out, _COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        for figure in found:
            values = {**asdict(figure), **asdict(of)}
            writer.writerow({name: f"{value:.6g}" if name in _NUMBERS and value is not None else value for name, value in values.items()})


def read(file: Path) -> list[Line]:
    """The lines of a CSV file, the oldest first."""
    if not file.exists():
        return []
    with file.open(newline="") as text:
        return [_line(row) for row in csv.DictReader(text)]


def _line(row: dict[str, str]) -> Line:
    numbers = {name: float(row[name]) if row[name] else None for name in _NUMBERS}
    value = numbers.pop("value")
    assert value is not None
    better: Better = "more" if row["better"] == "more" else "less"
    figure = Figure(row["name"], value, row["unit"], better=better, who=row["who"], **numbers)
    return Line(Conditions(**{each.name: row[each.name] for each in fields(Conditions)}), figure)


def worse(new: Figure, last: Figure) -> bool:
    """Whether a figure got worse than the last comparable one by more than both vary within their runs, and by over 5 %."""
    noise = max(0.05 * abs(last.value), *((each.high or each.value) - (each.low or each.value) for each in (new, last)))
    change = new.value - last.value
    return (change if new.better == "less" else -change) > noise


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _machine() -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores {platform.machine()}, {psutil.virtual_memory().total / 2**30:.0f} GB"


def _commit() -> str:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=Path(btc_assets.__file__).parent, capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", "../sql")
    return f"{git('rev-parse', '--short=7', 'HEAD')}{'+' if changed else ''}"
