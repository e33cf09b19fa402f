"""The jobs, named for what a person wants to have done."""

import dagster as dg

from btc_assets.domain.settings import settings
from btc_assets.market_data import candles
from btc_assets.orchestration.partitions import history

_candles = [dg.AssetKey(candles.asset_key(interval).split("/")) for interval in candles.enabled(settings())]
_signals = [dg.AssetKey(["signals", name]) for name in ("slice_features", "btc_embeddings")]
_signals_history = [dg.AssetKey([*key.path[:-1], f"{key.path[-1]}_history"]) for key in _signals]
_candles_history = dg.AssetKey(["market_data", "candles_history"])
history_assets = [
    dg.AssetKey(["landing", "raw_blobs_history"]),
    dg.AssetKey(["market_data", "btc_ticks_history"]),
    _candles_history,
    *_signals_history,
]

_chain = dg.AssetSelection.assets(["landing", "raw_blobs_5m"], ["market_data", "btc_ticks"], *_candles, *_signals)
_restorable = dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey(["market_data", "btc_ticks"]), "restorable"))

ingest = dg.define_asset_job(
    "ingest",
    # That check is of the whole cluster: no run that loads some slices has to wait for it.
    selection=_chain - _restorable if settings().backup_stanza else _chain,
    description="Register what landed in a range of slices, load its ticks, and make its candles, features and embeddings.",
)

rebuild_candles = dg.define_asset_job(
    "rebuild_candles",
    selection=dg.AssetSelection.assets(*_candles),
    description="Make the candles of a range of slices again from their ticks.",
)

ingest_history = dg.define_asset_job(
    "ingest_history",
    selection=dg.AssetSelection.assets(*history_assets),
    description="The same as ingest, for days before the 5-minute partitions start.",
)

rebuild_candles_history = dg.define_asset_job(
    "rebuild_candles_history",
    selection=dg.AssetSelection.assets(_candles_history),
    description="The same as rebuild_candles, for days before the 5-minute partitions start.",
)

rebuild_signals = dg.define_asset_job(
    "rebuild_signals",
    selection=dg.AssetSelection.assets(*_signals),
    description="Make the features and embeddings of a range of slices again from their ticks.",
)

rebuild_signals_history = dg.define_asset_job(
    "rebuild_signals_history",
    selection=dg.AssetSelection.assets(*_signals_history),
    description="The same as rebuild_signals, for days before the 5-minute partitions start.",
)

train = dg.define_asset_job(
    "train",
    selection=dg.AssetSelection.assets(["signals", "embedding_model"]),
    description="Train an encoder on the features and bars that are stored.",
)

evaluate = dg.define_asset_job(
    "evaluate",
    selection=dg.AssetSelection.assets(["signals", "evaluation"]),
    description="Compare what similar slices foretell with what simpler forecasts do.",
)

care_for_indexes = dg.define_asset_job(
    "care_for_indexes",
    selection=dg.AssetSelection.assets(["signals", "embedding_indexes"]),
    description="Measure the indexes on embeddings, and build those again that find too few of the nearest or grew by half.",
)

reconcile = dg.define_asset_job(
    "reconcile",
    selection=dg.AssetSelection.assets(["ops", "reconciliations"]),
    description="Compare landing zone, registry and tables, report what differs, and mend it where asked to.",
)

maintain = dg.define_asset_job(
    "maintain",
    selection=dg.AssetSelection.assets(["ops", "retention_jobs"]),
    description=(
        "Run the policies that are due (on plain PostgreSQL all of them, on TimescaleDB those that its scheduler failed at), record how "
        "they went, and check that what is declared is in force."
    ),
)

watch_backups = dg.define_asset_job(
    "watch_backups",
    selection=_restorable,
    description="Look whether there are recent backups, and whether WAL is archived.",
)

_of_backups = [watch_backups] if settings().backup_stanza else []
_of_history = [ingest_history, rebuild_candles_history, rebuild_signals_history] if history else []
jobs = [ingest, rebuild_candles, rebuild_signals, train, evaluate, care_for_indexes, reconcile, maintain, *_of_backups, *_of_history]
