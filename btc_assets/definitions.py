"""Everything that Dagster sees, put together."""

from __future__ import annotations

import dagster as dg

from btc_assets.io_manager import CopyIOManager
from btc_assets.landing.assets import raw_blobs_5m
from btc_assets.landing.checks import landing_checks
from btc_assets.market_data.assets import btc_ticks, candle_assets
from btc_assets.market_data.checks import market_data_checks
from btc_assets.ops.assets import retention_jobs
from btc_assets.ops.checks import ops_checks
from btc_assets.ops.schedules import maintain, maintain_hourly
from btc_assets.resources import Landing, Store

# The main job: what landed becomes ticks and candles, for one slice or a range of them.
ingest = dg.define_asset_job(
    "ingest",
    selection=dg.AssetSelection.assets(raw_blobs_5m, btc_ticks, *candle_assets),
    description="Register what landed in a range of slices, load its ticks and make its candles.",
)

store = Store()

defs = dg.Definitions(
    assets=[raw_blobs_5m, btc_ticks, *candle_assets, retention_jobs],
    asset_checks=[*landing_checks, *market_data_checks, *ops_checks],
    jobs=[ingest, maintain],
    schedules=[maintain_hourly],
    resources={"store": store, "landing": Landing(), "copy_io_manager": CopyIOManager(store=store)},
    # A range run is one step after the other in one database; a process a step would only add its start-up to each.
    executor=dg.in_process_executor,
)
