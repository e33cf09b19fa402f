"""Reading one object in a process of its own, to see what it takes: `python -m btc_assets_tests.support.measured_read FILE`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from btc_assets.landing.object_rows import build_readings, collect_contents
from btc_assets.landing.reading import decode_group, fetch_groups
from btc_assets.landing.zone import LandingZone
from btc_assets_tests.support.paths import PROJECT
from btc_assets_tests.support.stores import FEED, FEEDS


@dataclass(frozen=True)
class Cost:
    """What reading an object took, and what came of it.

    Attributes:
        megabytes: of memory, above what the process had before.
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
    path = directory / FEED.prefix / "2024/01/10/12/00/object"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(directory)],
        capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    path.unlink()
    if done.returncode:
        raise RuntimeError(f"reading ended with {done.returncode}: {done.stderr[-2000:]}")
    return Cost(**json.loads(done.stdout))


def main(directory: str) -> None:
    zone = LandingZone(Path(directory).as_uri())
    before, start = _peak_megabytes(), time.process_time()
    (group,) = fetch_groups(zone, zone.list_all(FEED.prefix))
    contents = collect_contents(1, decode_group(group, FEEDS))
    build_readings(group, contents, FEEDS)
    seconds, megabytes = time.process_time() - start, _peak_megabytes() - before
    ticks = sum(count.rows for count in contents[0].slices.values())
    if group[0].error:
        raise group[0].error
    print(json.dumps({"megabytes": megabytes, "seconds": seconds, "ticks": ticks, "rejected": group[0].rejected}))


def _peak_megabytes() -> float:
    # Not `ru_maxrss`, which a process inherits from the one that started it.
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main(sys.argv[1])
