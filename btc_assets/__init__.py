"""A research-grade Bitcoin trade-tick store: landing zone, ticks, candles and embeddings as Dagster assets."""

import os
import warnings

# Dagster reads these when it stores events: those of a range at once, and one planned event instead of one a slice.
# Set here because every process (webserver, daemon, worker, CLI) imports this package first.
os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "1000")
os.environ.setdefault("DAGSTER_EMIT_PARTITION_SUBSET_IN_PLANNED_EVENTS", "true")

# Arrow's own allocator keeps a hundred megabytes of what it has freed, the system's returns them.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

# The parameter is beta in name only: `--partition-range` and range backfills cannot do without it.
warnings.filterwarnings("ignore", message="Parameter `backfill_policy`")
