"""Peak memory of this process. It imports nothing else of ours, so that a measured process holds only what it needs."""

from __future__ import annotations

import sys
from pathlib import Path


def peak_mb() -> float:
    """The most memory that was resident in this process since it started, in MB.

    Linux has a better figure than `ru_maxrss`, which a process inherits from the parent that forked it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e6
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
