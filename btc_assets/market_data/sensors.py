"""Sensor of the candles: they follow the ticks."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg

from btc_assets.domain.settings import settings
from btc_assets.market_data import candles
from btc_assets.orchestration.automation import follow
from btc_assets.orchestration.jobs import rebuild_candles, rebuild_candles_history
from btc_assets.orchestration.partitions import history
from btc_assets.orchestration.resources import Store

_ASSETS = [candles.asset_key(interval) for interval in candles.enabled(settings())]


@dg.sensor(
    jobs=[rebuild_candles, rebuild_candles_history] if history else [rebuild_candles],
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Asks for runs of `rebuild_candles` for slices whose ticks were loaded and whose candles were not made since: after a backfill of "
        "ticks alone, or a run that failed in between. Each load notes its slices in ingestion.due_slices, so none is overlooked."
    ),
)
def candles_follow_ticks(context: dg.SensorEvaluationContext, store: Store) -> Iterator[dg.RunRequest | dg.SkipReason]:
    return follow(context, store, _ASSETS, rebuild_candles, rebuild_candles_history, "All candles are made.")


market_data_sensors = [candles_follow_ticks]
