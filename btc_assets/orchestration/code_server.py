"""Dagster's code server, with processes that are ready for a run: `BTC_ASSETS_SPARE_PROCESSES` of them.

`python -m btc_assets.orchestration.code_server` takes the arguments of `dagster`: `code-server start` is what a deployment starts. That one
starts another server, which has loaded the code and starts the runs, and replaces it when a person reloads the code location. So spare
processes belong to that other server, and those of old code end with it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import btc_assets
from btc_assets.domain.settings import load_settings, settings_files
from btc_assets.orchestration.dagster_private import run_dagster_command, serve_from_module, start_runs_in
from btc_assets.orchestration.spare_processes import SpareProcesses

_PACKAGE = Path(btc_assets.__file__).parent


def read_stamp() -> tuple[tuple[str, int, int], ...]:
    """Names, times and sizes of the files that a run depends on: the code, and where settings stand."""
    files = [*_PACKAGE.rglob("*.py"), *settings_files()]
    found = ((str(file), os.stat(file)) for file in sorted(files) if file.exists())
    return tuple((name, status.st_mtime_ns, status.st_size) for name, status in found)


def serve() -> None:
    """Run `dagster` with the arguments of this process."""
    serve_from_module("btc_assets.orchestration.code_server")
    settings = load_settings()
    count = 0 if settings.workers_broker else settings.spare_processes  # workers have processes of their own
    start_runs_in(lambda prepare: SpareProcesses(count, prepare, read_stamp))
    run_dagster_command(sys.argv[1:])


if __name__ == "__main__":
    serve()
