"""Putting the rooms together: everything that Dagster sees, built from explicit settings."""

from __future__ import annotations

import dagster as dg

from btc_assets.domain.progress import Listener, ignore_progress
from btc_assets.domain.settings import Settings
from btc_assets.landing.assets import landing_assets
from btc_assets.landing.checks import landing_checks
from btc_assets.landing.keys import REGISTRY, REGISTRY_HISTORY
from btc_assets.landing.resources import EventsQueue, Landing
from btc_assets.landing.sensors import landing_sensors
from btc_assets.market_data.assets import TickLoads, market_data_assets
from btc_assets.market_data.checks import market_data_checks
from btc_assets.market_data.jobs import candle_keys, rebuild_candles_jobs
from btc_assets.market_data.keys import CANDLES_HISTORY, TICKS, TICKS_HISTORY
from btc_assets.market_data.sensors import market_data_sensors
from btc_assets.ops.assets import ops_assets
from btc_assets.ops.checks import ops_checks
from btc_assets.ops.jobs import RESTORABLE, maintain_job, reconcile_job, watch_backups_job
from btc_assets.ops.schedules import ops_schedules
from btc_assets.orchestration.deployment import Deployment
from btc_assets.orchestration.ingest import LoadingAssets
from btc_assets.orchestration.io_manager import CopyIOManager
from btc_assets.orchestration.jobs import AssetJob, SlicedJobs, asset_key, define_job
from btc_assets.signals.assets import signals_assets
from btc_assets.signals.checks import signals_checks
from btc_assets.signals.features.derivation import FeaturesOfTicks
from btc_assets.signals.jobs import evaluate_job, maintain_indexes_job, rebuild_signals_jobs, train_job
from btc_assets.signals.keys import EMBEDDINGS_HISTORY, FOLLOWERS, SLICE_FEATURES_HISTORY
from btc_assets.signals.sensors import signals_sensors
from btc_assets.store.database import Store

LOADING_ASSETS = {"ingest": LoadingAssets(REGISTRY, TICKS), "ingest_history": LoadingAssets(REGISTRY_HISTORY, TICKS_HISTORY)}
HISTORY_ASSETS = (REGISTRY_HISTORY, TICKS_HISTORY, CANDLES_HISTORY, SLICE_FEATURES_HISTORY, EMBEDDINGS_HISTORY)


def build_definitions(settings: Settings, *, patient: bool = True, progress: Listener = ignore_progress) -> dg.Definitions:
    """Everything that Dagster sees, for a store with these settings.

    Args:
        settings: of the store.
        patient: retry a step whose failure may pass by itself; a person at a terminal wants to see it at once.
        progress: called with stage, done and total while assets are made in this process.
    """
    deployment = Deployment.of(settings, patient=patient, progress=progress)
    followers = [*candle_keys(settings), *FOLLOWERS]
    loads = TickLoads(deployment, followers, [FeaturesOfTicks()])
    ingest = SlicedJobs(
        _ingest_job(settings, [REGISTRY, TICKS, *followers]),
        define_job("ingest_history", HISTORY_ASSETS, "The same as ingest, for days before the 5-minute partitions start.")
        if deployment.partitions.history
        else None,
    )
    rebuild_candles, rebuild_signals = rebuild_candles_jobs(deployment), rebuild_signals_jobs(deployment)
    reconcile, maintain, maintain_indexes = reconcile_job(), maintain_job(), maintain_indexes_job()
    watch_backups = watch_backups_job() if settings.backup_stanza else None
    single_jobs = [train_job(), evaluate_job(), maintain_indexes, reconcile, maintain, *filter(None, [watch_backups])]
    store = Store.of(settings)
    return dg.Definitions(
        assets=[
            *landing_assets(deployment, loads.beginning),
            *market_data_assets(deployment, loads),
            *signals_assets(deployment),
            *ops_assets(deployment, HISTORY_ASSETS),
        ],
        asset_checks=[
            *landing_checks(deployment),
            *market_data_checks(deployment),
            *signals_checks(deployment),
            *ops_checks(deployment),
        ],
        jobs=[*ingest, *rebuild_candles, *rebuild_signals, *single_jobs],
        schedules=ops_schedules(reconcile, maintain, maintain_indexes, watch_backups),
        sensors=[
            *landing_sensors(deployment, ingest),
            *market_data_sensors(deployment, rebuild_candles),
            *signals_sensors(deployment, rebuild_signals),
        ],
        resources={
            "store": store,
            "landing": Landing(settings),
            "events_queue": EventsQueue(settings),
            "copy_io_manager": CopyIOManager(store, deployment),
        },
        # A range run is one step after the other in one database; a process per step would only add its start-up to each.
        executor=dg.in_process_executor,
    )


def _ingest_job(settings: Settings, assets: list[str]) -> AssetJob:
    selection: dg.AssetSelection = dg.AssetSelection.assets(*map(asset_key, assets))
    if settings.backup_stanza:
        # That check is about the whole cluster: no run that loads some slices must wait for it.
        selection -= RESTORABLE
    return dg.define_asset_job(
        "ingest",
        selection=selection,
        description="Register what landed in a range of slices, load its ticks, and make its candles, features and embeddings.",
    )
