"""Where the time of the chain goes, from stacks that py-spy sampled: by stage, and by the project's own function that was under way."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench_dagster import ASSET, CHECK
from bench_scale import stage_of

RATE = 50  # samples a second
ROWS = 4  # functions of a stage
LEAST = 0.01  # of all time

_FRAME = re.compile(r"(?P<name>.+) \((?P<file>[^()]*?)(?::\d+)?\)$")
_ORDER = ("register", "load", "candles", "features", "checks", "Dagster")
_WAITS = ("psycopg", "select", "selectors", "threading", "queue", "concurrent")


def sampled(stacks: Path) -> list[str]:
    """The command that samples another one, waiting included, so that shares are of the time that passes."""
    return [
        "py-spy",
        "record",
        "--idle",
        "--threads",
        "--full-filenames",
        "--rate",
        str(RATE),
        "--format",
        "raw",
        "--output",
        str(stacks),
        "--",
    ]


def profile_table(stacks: str) -> str:
    """Markdown: what part of the time each stage takes, in which of our functions, and in whose code below it.

    Args:
        stacks: lines of py-spy's raw format, `thread;frame;…;frame count`.
    """
    stages: Counter[str] = Counter()
    functions: Counter[tuple[str, str, str]] = Counter()
    for line in stacks.splitlines():
        text, _, samples = line.rpartition(" ")
        thread, *frames = text.split(";")
        named = [(match["name"], match["file"]) for frame in frames if (match := _FRAME.match(frame))]
        if "MainThread" not in thread or not any(name == "ingest" for name, _ in named):
            continue
        stage = _stage(named)
        stages[stage] += int(samples)
        functions[stage, *_function(named)] += int(samples)
    every = sum(stages.values())
    table = ["| stage | of the time | our function under way | in the code of | of the time |", "|---|---|---|---|---|"]
    for stage in sorted(stages, key=_ORDER.index):
        share = f"**{stages[stage] / every:.0%}**"
        most = [found for found in functions.most_common() if found[0][0] == stage and found[1] >= LEAST * every][:ROWS]
        for (_, function, below), count in most or [((stage, "", ""), 0)]:
            table.append(
                f"| {stage} | {share} | {f'`{function}`' if function else ''} | {below} | {f'{count / every:.0%}' if count else ''} |"
            )
            stage = share = ""  # told once
    return "\n".join(table)


def _stage(frames: Sequence[tuple[str, str]]) -> str:
    """The stage of the chain that a stack belongs to, by the frame of the op in it."""
    for name, _ in frames:
        if name.startswith(CHECK):
            return "checks"
        if name.startswith(ASSET):
            return stage_of(name.removeprefix(ASSET))
    return "Dagster"


def _function(frames: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """The innermost of our functions, and whose code it waits for or runs in."""
    if any(name == "_find_and_load" for name, _ in frames):
        return "imports", ""
    own = [(place, name, _module(file)) for place, (name, file) in enumerate(frames) if _module(file)]
    place, name, module = own[-1]
    inner = [_package(file) for _, file in frames[place + 1 :]]
    below = (
        "the server (waits)" if "psycopg" in inner else "other threads (waits)" if inner and inner[-1] in _WAITS else next(iter(inner), "")
    )
    return f"{module}: {name}", below or "itself"


def _module(file: str) -> str:
    """The path of a file of ours below the package; empty for others."""
    _, found, path = file.rpartition("/btc_assets/")
    return path if found and "site-packages" not in file else ""


def _package(file: str) -> str:
    _, found, path = file.rpartition("/site-packages/")
    if found:
        return path.partition("/")[0]
    return file.rpartition("/python3")[2].partition("/")[2].partition("/")[0].removesuffix(".py") if "/python3" in file else ""
