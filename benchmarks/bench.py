"""The benchmarks that tell how the store does, in about twenty minutes, and docs/benchmarks.md from all that were recorded.

Each program runs on the embedded PostgreSQL and, where BTC_ASSETS_TEST_DSN names a server, on that one; it appends its figures to
benchmarks/history.csv. The page has the newest figures of each program, marks those that got worse than the last comparable ones, and
shows what they were at first. `--page` only writes the page: for programs that were run by themselves with `--record`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from figures import CEILING, HISTORY, OURS, Figure, Line, append, read, worse

PAGE = Path(__file__).parents[1] / "docs/benchmarks.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
PATIENCE = 900  # seconds for one program

# In the order of the page: what each one measures, as a heading.
TITLES = {
    "chain": "The chain of a day",
    "load": "Loading alone",
    "read": "Reading a day back",
    "worst_day": "The worst day",
    "symbols": "Many symbols",
    "scale": "As days pile up",
    "dagster": "Dagster's own cost",
    "live": "From the end of a slice to its candles",
    "sensor": "A tick of the sensors",
    "ui": "The UI with a year of slices",
    "start": "Start of commands",
    "search": "Similar slices",
    "compare": "Beside other tools",
    "research": "Research tasks",
}
STAGES = ("c", "c2", "register", "load", "candles", "features", "checks", "Dagster", "whole")
ENGINES = {"plain": "PostgreSQL", "timescale": "TimescaleDB", "": "ours"}
SECONDS = "seconds: "  # figures of the chain that are shown as a table of stages


@dataclass(frozen=True)
class Run:
    """A program and its arguments.

    Attributes:
        program: its file in benchmarks/.
        arguments: for a run of minutes.
        servers: whether it is run on each server, or on the embedded one alone.
    """

    program: str
    arguments: tuple[str, ...]
    servers: bool = True


RUNS = (
    Run("bench_chain.py", ("--repeat", "2")),
    Run("bench_chain.py", ("--repeat", "1", "--busy", "4")),
    Run("bench_load.py", ("--repeat", "3", "--no-pandas", "--memory-ticks", "0")),
    Run("bench_read.py", ("--repeat", "2")),
    Run("bench_dagster.py", ("--slices", "2016", "--repeat", "2")),
    Run("bench_start.py", (), servers=False),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", action="store_true", help="measure nothing: only write the page")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="programs to run, such as chain")
    args = parser.parse_args()
    failed = [] if args.page else measure(args.only)
    write_page(PAGE, render(read(HISTORY)))
    if failed:
        raise SystemExit(f"without figures: {', '.join(failed)}")


def measure(only: Sequence[str] | None) -> list[str]:
    """Run the programs one after the other; returns those that failed or took too long, whose figures are left out."""
    failed = []
    given = os.environ.get("BTC_ASSETS_TEST_DSN")
    for run in RUNS:
        if only and run.program.removeprefix("bench_").removesuffix(".py") not in only:
            continue
        for dsn in [None, given] if given and run.servers else [None]:
            name = f"{run.program} {' '.join(run.arguments)}{' on BTC_ASSETS_TEST_DSN' if dsn else ''}"
            print(f"\n{name}", flush=True)
            started = time.perf_counter()
            if not _run(run, dsn):
                failed.append(name)
            print(f"{time.perf_counter() - started:.0f} s", flush=True)
    return failed


def _run(run: Run, dsn: str | None) -> bool:
    environment = {name: value for name, value in os.environ.items() if name != "BTC_ASSETS_TEST_DSN"}
    if dsn:
        environment["BTC_ASSETS_TEST_DSN"] = dsn
    with tempfile.TemporaryDirectory(prefix="btc_assets-bench-") as made:
        found = Path(made) / "found.csv"
        command = [sys.executable, str(Path(__file__).with_name(run.program)), *run.arguments, "--record", str(found)]
        with subprocess.Popen(command, env=environment) as process:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.terminate()
        if process.returncode:
            return False
        for line in read(found):
            append(HISTORY, line.conditions, [line.figure])
    return True


# ---- the page


def render(lines: Sequence[Line]) -> str:
    """Markdown: the newest figures of each program, and what they were at first."""
    parts = [_stages([line for line in lines if line.conditions.benchmark == "chain"])]
    groups = dict.fromkeys((line.conditions.benchmark, line.conditions.size) for line in lines)
    for benchmark, size in sorted(groups, key=lambda group: _place(group[0])):
        of = [line for line in lines if (line.conditions.benchmark, line.conditions.size) == (benchmark, size)]
        title = f"{TITLES.get(benchmark, benchmark)}: {size}" if size else TITLES.get(benchmark, benchmark)
        parts.append(f"### {title}\n\n{_goals(of)}\n\n{_source(benchmark, of)}")
    return "\n\n".join(filter(None, [*parts, _versions(lines)]))


def _place(benchmark: str) -> tuple[int, str]:
    names = list(TITLES)
    return (names.index(benchmark) if benchmark in names else len(names), benchmark)


def _stages(lines: Sequence[Line]) -> str:
    """Seconds of each stage of the chain: the first and the newest run on each engine under each load."""
    runs: dict[tuple[str, ...], dict[str, dict[str, Figure]]] = {}
    for line in lines:
        if line.figure.name.startswith(SECONDS):
            moment = f"{line.conditions.commit}, {line.conditions.date[:10]}"
            of = runs.setdefault(line.conditions.comparable[1:4], {}).setdefault(moment, {})
            of[line.figure.name.removeprefix(SECONDS)] = line.figure
    table = ["| seconds | commit | " + " | ".join(STAGES) + " | in times of c |", "|---" * (len(STAGES) + 3) + "|"]
    for (_, engine, load), moments in sorted(runs.items()):
        for moment in dict.fromkeys((next(iter(moments)), list(moments)[-1])):
            seconds = moments[moment]
            cells = " | ".join(f"{seconds[name].value:.1f}" for name in STAGES)
            times = f"**{seconds['whole'].value / seconds['c'].value:.1f}**"
            table.append(f"| {ENGINES[engine]}, {load} | {moment} | {cells} | {times} |")
    sizes = ", or ".join(dict.fromkeys(size for size, _, _ in runs))
    return f"### The chain of a day, stage by stage: {sizes}\n\n" + "\n".join(table) if runs else ""


def _goals(lines: Sequence[Line]) -> str:
    """A row for each figure: its goal, ours on each engine and under each load, the ceiling and peers."""
    lines = [line for line in lines if not line.figure.name.startswith(SECONDS)]
    columns = sorted({_column(line) for line in lines if line.figure.who == OURS})
    others = [heading for heading in ("ceiling", "peers") if any(_other(line) == heading for line in lines)]
    table = [f"| | goal | {' | '.join([*columns, *others])} |", "|---" * (2 + len(columns) + len(others)) + "|"]
    for name in dict.fromkeys(line.figure.name for line in lines):
        same = [line for line in lines if line.figure.name == name]
        cells = [ours([line for line in same if line.figure.who == OURS and _column(line) == column]) for column in columns]
        cells += [_newest(line for line in same if _other(line) == heading) for heading in others]
        table.append(f"| {name} | {_goal(same)} | {' | '.join(cells)} |")
    return "\n".join(table)


def _column(line: Line) -> str:
    engine, load = ENGINES[line.conditions.engine], line.conditions.load
    return engine if load in ("quiet", "shared") else f"{engine}, {load}"


def _other(line: Line) -> str:
    return "" if line.figure.who == OURS else "ceiling" if line.figure.who == CEILING else "peers"


def _goal(lines: Sequence[Line]) -> str:
    figure = next(line.figure for line in reversed(lines) if line.figure.who == OURS)
    if figure.goal is None:
        return ""
    return f"{'at least' if figure.better == 'more' else 'at most'} {_number(Figure('', figure.goal, figure.unit))}"


def ours(lines: Sequence[Line]) -> str:
    """The newest of a figure, in bold if it reaches its goal, with what it was at first, and a mark if it is worse than the one before."""
    if not lines:
        return ""
    newest = lines[-1]
    comparable = [line for line in lines if line.conditions.comparable == newest.conditions.comparable]
    text = _number(newest.figure)
    text = f"**{text}**" if newest.figure.met else text
    if newest.conditions.load == "shared":
        text += "°"
    if len(comparable) > 1 and worse(newest.figure, comparable[-2].figure):
        text += f" ▼ worse than {_number(comparable[-2].figure)}"
    if comparable[0].conditions.commit != newest.conditions.commit:
        text += f" (was {_number(comparable[0].figure)})"
    return text


def _newest(lines: Iterable[Line]) -> str:
    """The newest figures of others, each once."""
    found = {(line.figure.who, line.conditions.engine): line for line in lines}
    names = {(who, engine): "" if who == CEILING and engine != "timescale" else who for who, engine in found}
    names = {key: ENGINES["timescale"] if key == (CEILING, "timescale") else name for key, name in names.items()}
    return ", ".join(f"{names[key]} {_number(line.figure)}".strip() for key, line in found.items())


def _number(figure: Figure) -> str:
    value = figure.value
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f} {figure.unit}".strip()


def _source(benchmark: str, lines: Sequence[Line]) -> str:
    """Which program measured which commit, and when."""
    newest = {_column(line): line.conditions for line in lines}
    of = dict.fromkeys(f"{conditions.commit} ({conditions.date[:10]})" for conditions in newest.values())
    note = " ° Other programs used the machine." if any(conditions.load == "shared" for conditions in newest.values()) else ""
    return f"`benchmarks/bench_{benchmark}.py`, commit {', '.join(of)}.{note}"


def _versions(lines: Sequence[Line]) -> str:
    newest = {(line.conditions.machine, line.conditions.engine): line.conditions for line in lines}
    return "\n".join(["### Machine and versions", "", *(f"* {each.machine}: {each.versions}" for each in newest.values())])


def write_page(page: Path, measured: str) -> None:
    """Put what was measured between the marks of a page.

    Raises:
        SystemExit: the page lacks the marks.
    """
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{page} has no place for the figures: put the lines {BEGIN} and {END} into it.")
    page.write_text(f"{before}{BEGIN}\n{measured}\n{END}{after}")


if __name__ == "__main__":
    main()
