"""Sensor of the signals: they follow the ticks."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg

from btc_assets.orchestration.automation import follow
from btc_assets.orchestration.jobs import rebuild_signals, rebuild_signals_history
from btc_assets.orchestration.partitions import history
from btc_assets.orchestration.resources import Store
from btc_assets.signals.features import table as slice_features
from btc_assets.signals.search import embeddings


@dg.sensor(
    jobs=[rebuild_signals, rebuild_signals_history] if history else [rebuild_signals],
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Asks for runs of `rebuild_signals` for slices whose ticks were loaded and whose features or embeddings were not made since: "
        "after a backfill of ticks alone, or a run that failed in between. Each load notes its slices in ingestion.due_slices."
    ),
)
def signals_follow_ticks(context: dg.SensorEvaluationContext, store: Store) -> Iterator[dg.RunRequest | dg.SkipReason]:
    return follow(
        context,
        store,
        [slice_features.ASSET, embeddings.ASSET],
        rebuild_signals,
        rebuild_signals_history,
        "All features and embeddings are made.",
    )


signals_sensors = [signals_follow_ticks]
