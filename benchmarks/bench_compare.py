"""This project beside its alternatives: the same objects into the same table of the same server.

Every way runs in a process of its own and starts from an empty table after a checkpoint; the ways take turns, and medians are
shown. Then, on a smaller day, each way is run again on the same objects, after one of them was overwritten with corrected prices,
after a trade was removed from it, and after a late object arrived; each time the table is compared with the truth, row by row.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import psutil
import pyarrow.compute as pc
import pyarrow.parquet as pq
from bench_load import Bench, Day
from compare_ways import COLUMNS, PACKAGES, TOOLS
from psycopg import sql
from rich.console import Console
from throwaway import database, machine

from btc_assets.domain.settings import Settings

WAYS = Path(__file__).with_name("compare_ways.py")
SMALL = ("project", "polars", "dlt_append", "dlt_merge", "pandas", "dlt_rows")
LARGE = ("io_manager", "project", "polars", "dlt_append", "dlt_merge", "pandas")
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"

_COMPARE = """
SELECT count(*) FILTER (WHERE stored.trade_id IS NULL), count(*) FILTER (WHERE truth.trade_id IS NULL),
       count(*) FILTER (WHERE stored.trade_id IS NOT NULL AND truth.trade_id IS NOT NULL AND NOT {same})
FROM (SELECT * FROM market_data.btc_ticks) AS stored FULL JOIN truth USING (bucket_5m, symbol, trade_id)
"""


@dataclass(frozen=True)
class Run:
    """What one run of a way took.

    Attributes:
        seconds: from its imports to its last commit.
        client_cpu: seconds of its process.
        server_cpu: seconds of the server's processes; None where they are not on this machine.
        peak_mb: most resident memory of its process; None where the server does all the work.
        error: why it failed.
    """

    seconds: float
    client_cpu: float
    server_cpu: float | None
    peak_mb: float | None
    error: str | None = None


@dataclass(frozen=True)
class Difference:
    """The table compared with the truth: rows that are missing, that are too many, and that have other values."""

    missing: int = 0
    extra: int = 0
    wrong: int = 0

    def __str__(self) -> str:
        parts = [f"{count:,} {'row' if count == 1 else 'rows'} {name}" for name, count in vars(self).items() if count]
        return ", ".join(parts) if parts else "exact"


@dataclass
class Row:
    """A line of a table: a way and its runs."""

    name: str
    ours: bool
    run: Callable[[], Run]
    slow: bool = False
    runs: list[Run] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """The median time of its runs."""
        return statistics.median(run.seconds for run in self.runs)

    def median(self, name: str) -> float | None:
        """Of an attribute of its runs; None where that is not known."""
        values = [getattr(run, name) for run in self.runs]
        return None if None in values else statistics.median(values)


class Comparison:
    """A landed day, the server, and what it takes to run a tool on them.

    Args:
        bench: the day and the database.
        kept: an empty directory for what tools keep between two runs.
    """

    def __init__(self, bench: Bench, kept: Path) -> None:
        self.bench, self.kept = bench, kept
        bench.prepare_copy()
        bench.connection.execute("DROP TABLE IF EXISTS truth, loaded")
        bench.connection.execute("CREATE TABLE loaded AS SELECT * FROM market_data.btc_ticks")
        self.tell_truth()

    def tell_truth(self) -> None:
        """The truth is what landed first."""
        self.bench.connection.execute("DROP TABLE IF EXISTS truth")
        self.bench.connection.execute("CREATE TABLE truth AS SELECT * FROM loaded")

    def fresh(self) -> None:
        """As if no tool had ever run: empty tables, nothing of dlt's, nothing dirty."""
        execute = self.bench.connection.execute
        execute("DROP SCHEMA IF EXISTS market_data_staging CASCADE")
        execute("DROP TABLE IF EXISTS market_data._dlt_loads, market_data._dlt_version, market_data._dlt_pipeline_state")
        execute("ALTER TABLE market_data.btc_ticks DROP COLUMN IF EXISTS _dlt_load_id, DROP COLUMN IF EXISTS _dlt_id")
        shutil.rmtree(self.kept, ignore_errors=True)
        self.kept.mkdir()
        self.bench.clear()

    def run(self, key: str, folder: Path) -> Run:
        """Run a tool in a process of its own on what lies in a folder."""
        before = self._server_cpu()
        done = subprocess.run(
            [sys.executable, str(WAYS), key, self.bench.dsn, str(folder), str(self.kept)],
            env={
                **os.environ,
                "DLT_DATA_DIR": str(self.kept),
                "RUNTIME__DLTHUB_TELEMETRY": "false",
                "RUNTIME__LOG_LEVEL": "ERROR",
                # More rows a row group than dlt's default, as its documentation advises for speed: a sixth less CPU here.
                "DATA_WRITER__BUFFER_MAX_ITEMS": "100000",
            },
            cwd=self.kept,
            capture_output=True,
            text=True,
        )
        after = self._server_cpu()
        if done.returncode:
            raise SystemExit(f"{TOOLS[key].name} ended with {done.returncode}: {done.stderr[-2000:]}")
        took = json.loads(done.stdout.splitlines()[-1])
        server = None if before is None or after is None else after - before
        return Run(took["seconds"], took["cpu"], server, took["peak_mb"], took["error"])

    def copy(self, copy: Callable[[], object]) -> Run:
        """The server's own COPY of rows that were encoded before, as one or as two halves at once."""
        before, cpu, started = self._server_cpu(), time.process_time(), time.perf_counter()
        copy()
        seconds, client, after = time.perf_counter() - started, time.process_time() - cpu, self._server_cpu()
        return Run(seconds, client, None if before is None or after is None else after - before, None)

    def difference(self) -> Difference:
        """Compare every row of the table with the truth."""
        same = sql.SQL("({stored}) IS NOT DISTINCT FROM ({truth})").format(
            **{side: sql.SQL(", ").join(sql.Identifier(side, name) for name in COLUMNS) for side in ("stored", "truth")}
        )
        return Difference(*self.bench.connection.execute(sql.SQL(_COMPARE).format(same=same)).fetchone() or ())

    def _server_cpu(self) -> float | None:
        """CPU seconds of all processes of the server so far, ended ones included; None where it runs elsewhere."""
        for _ in range(10):
            try:
                backend = psutil.Process(self.bench.connection.info.backend_pid)
                server = backend.parent()
                if server is None or "postgres" not in backend.name():
                    return None
                ended = server.cpu_times()
                own = [process.cpu_times() for process in server.children()]
                return sum(ended[:4]) + sum(times.user + times.system for times in own)
            except psutil.NoSuchProcess:
                continue  # a process ended between being listed and being asked
        return None


def rates(comparison: Comparison, folder: Path, keys: Sequence[str], rounds: int, tell: Callable[[str], None]) -> list[Row]:
    """Run every way on a folder, `rounds` times, in turns; the last row is the ceiling.

    Raises:
        SystemExit: a way failed or did not load the whole day exactly.
    """
    rows = [
        Row(TOOLS[key].name, TOOLS[key].modules == ("bench_load",), partial(comparison.run, key, folder), TOOLS[key].slow) for key in keys
    ]
    bench = comparison.bench
    copy = "COPY on the server" if bench.on_server else "COPY FROM STDIN"
    rows.append(Row(f"{copy}, two halves at once", False, lambda: comparison.copy(bench.server_copies)))
    rows.append(Row(f"{copy}: the ceiling", False, lambda: comparison.copy(bench.server_copy)))
    for number in range(rounds):
        for row in rows:
            if row.slow and number:
                continue
            tell(f"{number + 1} of {rounds}: {row.name}")
            comparison.fresh()
            row.runs.append(row.run())
            difference = comparison.difference() if number == 0 else Difference()
            if row.runs[-1].error or difference != Difference():
                raise SystemExit(f"{row.name}: {row.runs[-1].error or difference}")
    return rows


@dataclass(frozen=True)
class Again:
    """What became of the table after a further run of a way, and what the run took and said."""

    run: Run
    difference: Difference

    def __str__(self) -> str:
        said = f"fails ({self.run.error.split(':')[0]}): " if self.run.error else ""
        return f"{said}{self.difference}, {self.run.seconds:.1f} s"


def reruns(comparison: Comparison, keys: Sequence[str], tell: Callable[[str], None]) -> dict[str, list[Again]]:
    """Run each way on the day; on the same objects; after a correction; after a trade was taken out; after a late object.

    The late object has the time of modification that it was made at, as files have that are copied with their times.
    """
    objects = sorted(comparison.bench.small.rglob("*.parquet"))
    late, path = objects[len(objects) // 4], objects[len(objects) // 2]
    landed = {file: (file.read_bytes(), file.stat()) for file in (late, path)}

    def restore(file: Path) -> None:
        data, stat = landed[file]
        file.write_bytes(data)
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    def arrive() -> None:
        restore(late)
        comparison.bench.connection.execute("INSERT INTO truth SELECT * FROM loaded WHERE trade_id = ANY(%s)", (_trade_ids(late),))

    def withhold() -> None:
        comparison.tell_truth()
        comparison.bench.connection.execute("DELETE FROM truth WHERE trade_id = ANY(%s)", (_trade_ids(late),))
        late.unlink()

    changes = (withhold, lambda: None, lambda: correct(comparison, path), lambda: take_out(comparison, path), arrive)
    found: dict[str, list[Again]] = {}
    for key in keys:
        comparison.fresh()
        found[key] = []
        for number, change in enumerate(changes):
            tell(f"run {number + 1} of {len(changes)}: {TOOLS[key].name}")
            change()
            found[key].append(Again(comparison.run(key, comparison.bench.small), comparison.difference()))
        restore(path)
    return found


def _trade_ids(path: Path) -> list[int]:
    return pq.read_table(path, columns=["trade_id"])["trade_id"].to_pylist()


def correct(comparison: Comparison, path: Path) -> None:
    """Overwrite an object: the same trades, each at a price higher by 1."""
    rows = pq.read_table(path)
    column = rows.column_names.index("price")
    pq.write_table(rows.set_column(column, "price", pc.round(pc.add(rows["price"], 1.0), 2)), path)
    comparison.bench.connection.execute("UPDATE truth SET price = price + 1 WHERE trade_id = ANY(%s)", (rows["trade_id"].to_pylist(),))


def take_out(comparison: Comparison, path: Path) -> None:
    """Overwrite an object: all of its trades but the last one."""
    rows = pq.read_table(path)
    pq.write_table(rows.slice(0, len(rows) - 1), path)
    comparison.bench.connection.execute("DELETE FROM truth WHERE trade_id = %s", (rows["trade_id"][-1].as_py(),))


def rates_table(rows: Sequence[Row], ticks: int) -> str:
    """Markdown: rates of the ways and what they take, the fastest first."""
    ceiling = rows[-1].seconds
    lines = ["| way | of the ceiling | rows/s | seconds | client CPU (s) | server CPU (s) | peak MB |", "|---|---|---|---|---|---|---|"]
    for row in sorted(rows, key=lambda row: row.seconds):
        seconds = row.seconds
        all_seconds = [run.seconds for run in row.runs]
        spread = f" ({min(all_seconds):.1f} to {max(all_seconds):.1f})" if len(all_seconds) > 1 else ""
        name = f"**{row.name}**" if row.ours else row.name
        figures = [_figure(row.median("client_cpu"), 1), _figure(row.median("server_cpu"), 1), _figure(row.median("peak_mb"), 0)]
        lines.append(
            f"| {name} | {ceiling / seconds:.2f} | {ticks / seconds / 1e3:,.0f} k | {seconds:.1f}{spread} | {' | '.join(figures)} |"
        )
    return "\n".join(lines)


def _figure(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def goals(small: Sequence[Row], large: Sequence[Row]) -> str:
    """What was aimed at, and what came out."""

    def seconds(rows: Sequence[Row], key: str) -> float:
        return next(row.seconds for row in rows if row.name == TOOLS[key].name)

    ours, ours_large = seconds(small, "project"), seconds(large, "io_manager")
    reached = [
        ("of the ceiling from small objects", 0.6, small[-1].seconds / ours),
        ("times dlt with its defaults, from small objects", 6, seconds(small, "dlt_rows") / ours),
        ("times dlt with Arrow and ADBC, from small objects", 6, seconds(small, "dlt_append") / ours),
        ("times pandas, from small objects", 10, seconds(small, "pandas") / ours),
        ("of the ceiling from a large file", 0.9, large[-1].seconds / ours_large),
        ("times pandas, from a large file", 10, seconds(large, "pandas") / ours_large),
    ]
    return "\n".join(f"* {got:.2g} {what}; goal {goal:g}: {'met' if got >= goal else 'missed'}" for what, goal, got in reached)


def reruns_table(found: dict[str, list[Again]]) -> str:
    """Markdown: what the table holds after each run."""
    lines = [
        "| way | first run | the same again | an object with corrected prices | a trade less in it | a late object |",
        "|---|---|---|---|---|---|",
    ]
    for key, runs in found.items():
        name = f"**{TOOLS[key].name}**" if key == "project" else TOOLS[key].name
        lines.append(f"| {name} | {' | '.join(map(str, runs))} |")
    return "\n".join(lines)


def replace_measured(page: Path, measured: str, marks: tuple[str, str] = (BEGIN, END)) -> None:
    """Put what was measured between the marks of a page.

    Raises:
        SystemExit: the page lacks the marks.
    """
    text = page.read_text() if page.exists() else ""
    before, begin, rest = text.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not (begin and end):
        raise SystemExit(f"{page} has no place for the table: put the lines {marks[0]} and {marks[1]} into it.")
    page.write_text(f"{before}{begin}\n{measured}\n{end}{after}")


def draw(panels: Mapping[str, Sequence[Row]], ticks: int, caption: str, path: Path) -> None:
    """Bars of rows/s as ratios to the ceiling, one panel for each way of landing, with the range of the runs."""
    from matplotlib.figure import Figure  # without pyplot: no global state, no display

    heights = [len(rows) for rows in panels.values()]
    figure = Figure(figsize=(9, 0.42 * sum(heights) + 1.9), layout="constrained")
    axes_of = figure.subplots(len(panels), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    for axes, (title, rows) in zip(axes_of, panels.items(), strict=True):
        ceiling = rows[-1].seconds
        ordered = sorted(rows, key=lambda row: row.seconds, reverse=True)
        ratios = [ceiling / row.seconds for row in ordered]
        colors = ["#1a9850" if row.ours else "#555555" if row in rows[-2:] else "#9ecae1" for row in ordered]
        bars = axes.barh([row.name.removesuffix(": the ceiling") for row in ordered], ratios, color=colors, height=0.66)
        for row, bar, ratio in zip(ordered, bars, ratios, strict=True):
            fastest, slowest = (ceiling / choose(run.seconds for run in row.runs) for choose in (min, max))
            middle = bar.get_y() + bar.get_height() / 2
            axes.hlines(middle, slowest, fastest, color="black", linewidth=0.8)
            rate = ticks / row.seconds / 1e3
            axes.text(max(fastest, ratio) + 0.012, middle, f"{ratio:.2f}   {rate:,.0f} k rows/s", va="center", fontsize=8.5)
        axes.set_title(title, loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.margins(y=0.03)
    axes_of[-1].set_xlabel("rows/s, as a ratio to the server's own COPY; the thin line is the range of the runs")
    axes_of[-1].set_xlim(0, 1.3 * max(1.0, *(axes.get_xlim()[1] / 1.05 for axes in axes_of)))
    figure.text(0.0, -0.01, caption, fontsize=7, va="top", wrap=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=int, default=3_000_000, help="trades of the day (default: %(default)s)")
    parser.add_argument("--objects", type=int, help="collector objects of the day (default: one for each 521 trades, at most 5760)")
    parser.add_argument("--repeat", type=int, default=3, help="rounds; a slow way has one (default: %(default)s)")
    parser.add_argument("--again-ticks", type=int, default=300_000, help="trades of the day for further runs (default: %(default)s)")
    parser.add_argument("--table", type=Path, help="page whose part between the marks is replaced by what was measured")
    parser.add_argument("--plot", type=Path, help="PNG to draw")
    args = parser.parse_args()
    out = Console(width=None if sys.stdout.isatty() else 132)
    commit_rows = Settings.model_fields["commit_rows"].default
    with tempfile.TemporaryDirectory(prefix="btc_assets-compare-") as made, out.status("") as status:
        directory = Path(made)
        directory.chmod(0o711)  # the embedded server's user must reach its own directory below it
        with database(directory) as (dsn, embedded):

            def compare(ticks: int, objects: int | None) -> Comparison:
                status.update(f"landing {ticks:,} trades")
                count = objects or min(5760, max(ticks // 521, 1))
                bench = Bench(directory, dsn, Day(ticks, count), embedded=embedded, commit_rows=commit_rows)
                return Comparison(bench, directory / "kept")

            comparison = compare(args.ticks, args.objects)
            landed = comparison.bench.landed
            caption = f"{machine(comparison.bench.connection, embedded, *PACKAGES)}; {datetime.now(UTC):%Y-%m-%d}"
            small = rates(comparison, comparison.bench.small, SMALL, args.repeat, status.update)
            large = rates(comparison, comparison.bench.large, LARGE, args.repeat, status.update)
            smaller = compare(args.again_ticks, None)
            again = reruns(smaller, SMALL, status.update)
            again_objects = smaller.bench.landed.objects
    title = {
        f"{args.ticks:,} trades in {landed.objects:,} objects of {landed.bytes / landed.objects / 1e3:.0f} kB": small,
        f"{args.ticks:,} trades in one file": large,
    }
    measured = "\n\n".join(
        [
            f"{caption}; medians of {args.repeat}, the slow way once.",
            *(f"### {name}\n\n{rates_table(rows, args.ticks)}" for name, rows in title.items()),
            f"Goals:\n\n{goals(small, large)}",
            f"### Run again: {args.again_ticks:,} trades in {again_objects:,} objects\n\n{reruns_table(again)}",
        ]
    )
    out.print(measured, highlight=False, markup=False, soft_wrap=True)
    if args.table:
        replace_measured(args.table, measured)
    if args.plot:
        draw(title, args.ticks, f"{caption}; medians of {args.repeat}.", args.plot)


if __name__ == "__main__":
    main()
