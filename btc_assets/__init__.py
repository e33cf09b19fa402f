"""A research-grade Bitcoin trade-tick store: landing zone, ticks, candles and embeddings as Dagster assets."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from btc_assets.client.store import ClientStore, Expectation, connect

__all__ = ["ClientStore", "Expectation", "connect"]

# Dagster reads these when it stores events: those of a range at once, and one planned event instead of one a slice.
# Set here because every process (webserver, daemon, worker, CLI) imports this package first.
os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "1000")
os.environ.setdefault("DAGSTER_EMIT_PARTITION_SUBSET_IN_PLANNED_EVENTS", "true")

# Arrow's own allocator keeps a hundred megabytes of what it has freed, the system's returns them.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

# The parameter is beta in name only: `--partition-range` and range backfills cannot do without it.
warnings.filterwarnings("ignore", message="Parameter `backfill_policy`")


def __dir__() -> list[str]:
    """For people who press Tab: what is imported later is there as well."""
    return [*globals(), *__all__]


def __getattr__(name: str) -> Any:
    """The Python client, imported when it is first used: every process imports this package, and most do without Arrow."""
    if name in __all__:
        from btc_assets.client import store

        return getattr(store, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
