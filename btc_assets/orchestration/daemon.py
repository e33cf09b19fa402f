"""Dagster's daemon, which looks at its queue of runs at once when a sensor or a schedule has added one.

`python -m btc_assets.orchestration.daemon` takes the arguments of `dagster-daemon`. That one looks once a second, and a run of a slice
that was closed waited for that.
"""

from __future__ import annotations

import sys

from btc_assets.orchestration.dagster_private import dequeue_at_once, run_daemon_command


def serve() -> None:
    """Run `dagster-daemon` with the arguments of this process."""
    dequeue_at_once()
    run_daemon_command(sys.argv[1:])


if __name__ == "__main__":
    serve()
