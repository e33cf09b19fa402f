"""Reading one object in a process of its own, to see what it takes."""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from btc_assets.landing.object_rows import build_readings, collect_contents
from btc_assets.landing.reading import decode_group, fetch_groups
from btc_assets.landing.zone import LandingZone
from btc_assets_tests.support.producers import csv, json_lines, parquet, table
from btc_assets_tests.support.stores import FEED, FEEDS
from btc_assets_tests.support.trades import every

# Each process is a fork of a server that has imported everything, which takes ten times as long as most objects.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload([__name__])


@dataclass(frozen=True)
class Cost:
    """What reading an object took, and what came of it.

    Attributes:
        megabytes: of memory, above what the process took for small honest objects.
        seconds: of a processor.
        ticks: that it holds.
        rejected: why it was rejected.
    """

    megabytes: float
    seconds: float
    ticks: int
    rejected: str | None


def read_measured(data: bytes, directory: Path) -> Cost:
    """Read an object as registering does, in a process of its own."""
    for number, honest in enumerate(_honest()):
        _land(honest, directory / str(number))
    _land(data, directory / "measured")
    receiver, sender = _PROCESSES.Pipe(duplex=False)
    process = _PROCESSES.Process(target=_measure, args=(directory, sender))
    process.start()
    sender.close()
    try:
        cost = receiver.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"reading ended with {process.exitcode}")
    process.join()
    assert isinstance(cost, Cost)
    return cost


def _honest() -> list[bytes]:
    ticks = every(10, 30)
    return [csv(ticks), json_lines(ticks), parquet(table(ticks))]


def _land(data: bytes, directory: Path) -> None:
    path = directory / FEED.prefix / "2024/01/10/12/00/object"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _measure(directory: Path, answer: Connection) -> None:
    for number in range(len(_honest())):  # what the first object of a format brings into memory is no object's cost
        _read(directory / str(number))
    before, start = _peak_megabytes(), time.process_time()
    ticks, rejected = _read(directory / "measured")
    answer.send(Cost(_peak_megabytes() - before, time.process_time() - start, ticks, rejected))


def _read(directory: Path) -> tuple[int, str | None]:
    """How many ticks the object in a landing zone holds, and why it was rejected."""
    zone = LandingZone(directory.as_uri())
    (group,) = fetch_groups(zone, zone.list_all(FEED.prefix))
    contents = collect_contents(1, decode_group(group, FEEDS))
    build_readings(group, contents, FEEDS)
    if group[0].error:
        raise group[0].error
    return sum(count.rows for count in contents[0].slices.values()), group[0].rejected


def _peak_megabytes() -> float:
    # Not `ru_maxrss`, which a process inherits from the one that started it.
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
