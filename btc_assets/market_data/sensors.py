"""Sensor of the candles: they follow the ticks."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg

from btc_assets.market_data.jobs import candle_keys
from btc_assets.orchestration.automation import follow_ticks
from btc_assets.orchestration.deployment import Deployment
from btc_assets.orchestration.jobs import SlicedJobs
from btc_assets.store.database import Store


def market_data_sensors(deployment: Deployment, rebuild_candles: SlicedJobs) -> list[dg.SensorDefinition]:
    """The sensors of this room."""
    assets = candle_keys(deployment.settings)

    @dg.sensor(
        jobs=[*rebuild_candles],
        minimum_interval_seconds=15,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Requests runs of `rebuild_candles` for slices whose ticks were loaded and whose candles were not rebuilt since: after a backfill "
            "of ticks alone, or a run that failed in between. Each load records its slices in ingestion.due_slices, so none is overlooked."
        ),
    )
    def candles_follow_ticks(
        context: dg.SensorEvaluationContext, store: dg.ResourceParam[Store]
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        return follow_ticks(context, deployment, store, assets, rebuild_candles)

    return [candles_follow_ticks]
