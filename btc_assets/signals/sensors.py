"""Sensor of the signals: features and embeddings follow the ticks."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import psycopg

from btc_assets.orchestration.automation import Obstacles, follow_ticks
from btc_assets.orchestration.deployment import Deployment
from btc_assets.orchestration.jobs import SlicedJobs
from btc_assets.signals.encoders.kinds import Kinds
from btc_assets.signals.encoders.models import read_maintained_models
from btc_assets.signals.keys import EMBEDDINGS, FOLLOWERS
from btc_assets.store.database import Store


def signals_sensors(deployment: Deployment, rebuild_signals: SlicedJobs) -> list[dg.SensorDefinition]:
    """The sensors of this room."""

    kinds = Kinds.of(deployment.settings)

    def find_lacks(connection: psycopg.Connection) -> Obstacles:
        models = read_maintained_models(connection)
        lacks = [lack for model in models if (lack := kinds.explain_lack(model))]
        return Obstacles(lacks, [EMBEDDINGS] if lacks and len(lacks) == len(models) else [])

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
        return follow_ticks(context, deployment, store, FOLLOWERS, rebuild_signals, find_lacks)

    return [signals_follow_ticks]
