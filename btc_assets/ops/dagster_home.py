"""DAGSTER_HOME: the instance that the CLI, `make dev` and the workers share."""

from __future__ import annotations

import os
from pathlib import Path

from btc_assets.settings import settings

_DAGSTER_YAML = """\
# Written by btc-assets; edit it as you like, it is not written again.

storage:
  custom:
    module: btc_assets.ops.dagster_storage
    class: StoreStorage

# Slices close at a known time, so what is asked for starts at once. A range run is one process that writes to one database:
# more than a few at a time only get into each other's way.
run_queue:
  dequeue_interval_seconds: 1
concurrency:
  runs:
    max_concurrent_runs: 4
  pools:
    default_limit: 2
    granularity: run

# So that a slow sensor or schedule does not hold up the others.
sensors:
  use_threads: true
  num_workers: 4
schedules:
  use_threads: true
  num_workers: 2

# A worker that was killed leaves its run STARTED; monitoring ends it.
run_monitoring:
  enabled: true
  max_runtime_seconds: 14400

# Its run is started again, where the job says so. What fails in a step is tried again there, if it may pass.
run_retries:
  enabled: true
  max_retries: 0
  retry_on_asset_or_op_failure: false

# Sensors tick every few seconds, and mostly there is nothing to do.
retention:
  sensor:
    purge_after_days:
      skipped: 1
      failure: 30
      success: 30

telemetry:
  enabled: false

# No invitation to newsletters over the first page.
nux:
  enabled: false
"""


def prepare_dagster_home() -> Path:
    """Make DAGSTER_HOME (default: `dagster` in `BTC_ASSETS_HOME`) with a dagster.yaml, set the variable and return it."""
    home = Path(os.environ.get("DAGSTER_HOME") or settings().home / "dagster")
    home.mkdir(parents=True, exist_ok=True)
    file = home / "dagster.yaml"
    if not file.exists():
        file.write_text(_DAGSTER_YAML)
    os.environ["DAGSTER_HOME"] = str(home)
    return home
