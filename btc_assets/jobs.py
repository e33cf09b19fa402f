"""The jobs, named for what a person wants to have done."""

import dagster as dg

from btc_assets.market_data import candles
from btc_assets.partitions import history
from btc_assets.settings import settings

_candles = [dg.AssetKey(candles.asset_key(interval).split("/")) for interval in candles.enabled(settings())]
history_assets = [
    dg.AssetKey(key.split("/")) for key in ("landing/raw_blobs_history", "market_data/btc_ticks_history", "market_data/candles_history")
]

# A worker that was killed is replaced, twice; what fails inside a run is tried again there, where it can pass (see failures.py).
_AGAIN = {"dagster/max_retries": "2"}

ingest = dg.define_asset_job(
    "ingest",
    selection=dg.AssetSelection.assets(["landing", "raw_blobs_5m"], ["market_data", "btc_ticks"], *_candles),
    description="Register what landed in a range of slices, load its ticks and make its candles.",
    tags=_AGAIN,
)

rebuild_candles = dg.define_asset_job(
    "rebuild_candles",
    selection=dg.AssetSelection.assets(*_candles),
    description="Make the candles of a range of slices again from their ticks.",
    tags=_AGAIN,
)

ingest_history = dg.define_asset_job(
    "ingest_history",
    selection=dg.AssetSelection.assets(*history_assets),
    description="The same as ingest, for days before the 5-minute partitions start.",
    tags=_AGAIN,
)

rebuild_candles_history = dg.define_asset_job(
    "rebuild_candles_history",
    selection=dg.AssetSelection.assets(history_assets[-1]),
    description="The same as rebuild_candles, for days before the 5-minute partitions start.",
    tags=_AGAIN,
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

jobs = [ingest, rebuild_candles, reconcile, maintain, *([ingest_history, rebuild_candles_history] if history else [])]
