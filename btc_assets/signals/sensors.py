"""Sensor of the signals: features and embeddings follow the ticks."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg

from btc_assets.orchestration.automation import follow_ticks
from btc_assets.orchestration.deployment import Deployment
from btc_assets.orchestration.jobs import SlicedJobs
from btc_assets.signals.keys import FOLLOWERS
from btc_assets.store.database import Store


def signals_sensors(deployment: Deployment, rebuild_signals: SlicedJobs) -> list[dg.SensorDefinition]:
    """The sensors of this room."""

    @dg.sensor(
        jobs=[*rebuild_signals],
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Requests runs of `rebuild_signals` for slices whose ticks were loaded and whose features or embeddings were not rebuilt since: "
            "after a backfill of ticks alone, or a run that failed in between. Each load records its slices in ingestion.due_slices."
        ),
    )
    def signals_follow_ticks(
        context: dg.SensorEvaluationContext, store: dg.ResourceParam[Store]
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        return follow_ticks(context, deployment, store, FOLLOWERS, rebuild_signals)

    return [signals_follow_ticks]
