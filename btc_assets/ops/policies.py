"""The policies on the store's tables, declared once for both engines.

On TimescaleDB they become jobs of its scheduler. On plain PostgreSQL the Dagster job `maintain` runs them, except compression, which
that server does not have. `retention_jobs.py` brings them into force, `policies_in_force.py` compares.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, ClassVar

from btc_assets.domain.errors import UserError
from btc_assets.domain.settings import Settings
from btc_assets.market_data.candles import enabled_intervals

TICKS = "market_data.btc_ticks"
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Policy:
    """What happens to a table regularly.

    Attributes:
        kind: of the policy.
        table: `schema.table`.
        every: how often it runs.
    """

    kind: ClassVar[str]
    table: str
    every: timedelta = DAY

    @property
    def job_name(self) -> str:
        """Key in `ops.retention_jobs`."""
        return f"{self.kind} {self.table}"

    def as_json(self) -> dict[str, Any]:
        """Kind and settings, as in `ops.retention_jobs.policy`. Durations have the form `60 seconds`, which SQL reads as an interval."""
        settings = {name: value for name, value in asdict(self).items() if name != "table" and value is not None}
        return {"kind": self.kind} | {name: _seconds(value) if isinstance(value, timedelta) else value for name, value in settings.items()}


@dataclass(frozen=True)
class Compress(Policy):
    """Compress chunks older than `after`, in segments of equal `segment_by`, each in the order of `order_by`."""

    kind = "compress"
    after: timedelta = 7 * DAY
    segment_by: tuple[str, ...] = ()
    order_by: tuple[str, ...] = ()
    every: timedelta = 12 * HOUR


@dataclass(frozen=True)
class Drop(Policy):
    """Drop chunks older than `after`; chunks of ticks only once all their candles and features exist."""

    kind = "drop"
    after: timedelta = 90 * DAY


@dataclass(frozen=True)
class Refresh(Policy):
    """Rebuild candles whose ticks, from between `after` and `until` ago, changed without a run that rebuilt them.

    A safety net below the candle assets: it repairs what a killed run or a change by hand left behind.
    """

    kind = "refresh"
    after: timedelta = 7 * DAY
    until: timedelta = timedelta(minutes=15)
    every: timedelta = HOUR


@dataclass(frozen=True)
class Keep(Policy):
    """Keep a table forever: a policy of the server that drops from it is a fault."""

    kind = "keep"
    every: timedelta | None = None  # type: ignore[assignment]  # it never runs


def declared_policies(settings: Settings) -> tuple[Policy, ...]:
    """The policies of a store with these settings.

    Raises:
        UserError: ticks would be dropped while policies still compress them or rebuild their candles.
    """
    compress = Compress(TICKS, segment_by=("symbol",), order_by=("bucket_5m", "trade_id"))
    candles = [f"market_data.candle_partials_{interval}" for interval in enabled_intervals(settings)]
    refresh = [Refresh(table) for table in candles]
    drop_after = settings.ticks_drop_after_days
    if drop_after is None:
        ticks: Policy = Keep(TICKS)
    else:
        ticks = Drop(TICKS, after=drop_after * DAY)
        longest = max(compress.after, *(policy.after for policy in refresh)) + DAY  # a chunk is a day
        if ticks.after < longest:
            raise UserError(
                f"BTC_ASSETS_TICKS_DROP_AFTER_DAYS={drop_after} would drop ticks whose candles a policy still rebuilds: set {longest.days} or more."
            )
    return (
        compress,
        ticks,
        *refresh,
        *map(Keep, candles),
        Keep("signals.slice_features"),
        Keep("signals.btc_embeddings"),
        Keep("landing.raw_blobs_5m"),
    )


def _seconds(duration: timedelta) -> str:
    return f"{duration // timedelta(seconds=1)} seconds"
