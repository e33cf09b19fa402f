"""Everything that Dagster sees, put together."""

from __future__ import annotations

import dagster as dg

from btc_assets.landing.assets import landing_assets
from btc_assets.landing.checks import landing_checks
from btc_assets.landing.sensors import landing_sensors
from btc_assets.market_data.assets import market_data_assets
from btc_assets.market_data.checks import market_data_checks
from btc_assets.market_data.sensors import market_data_sensors
from btc_assets.ops.assets import ops_assets
from btc_assets.ops.checks import ops_checks
from btc_assets.ops.schedules import schedules
from btc_assets.orchestration.io_manager import CopyIOManager
from btc_assets.orchestration.jobs import jobs
from btc_assets.orchestration.resources import EventsQueue, Landing, Store
from btc_assets.signals.assets import signals_assets
from btc_assets.signals.checks import signals_checks
from btc_assets.signals.sensors import signals_sensors

store = Store()

defs = dg.Definitions(
    assets=[*landing_assets, *market_data_assets, *signals_assets, *ops_assets],
    asset_checks=[*landing_checks, *market_data_checks, *signals_checks, *ops_checks],
    jobs=jobs,
    schedules=schedules,
    sensors=[*landing_sensors, *market_data_sensors, *signals_sensors],
    resources={"store": store, "landing": Landing(), "events_queue": EventsQueue(), "copy_io_manager": CopyIOManager(store=store)},
    # A range run is one step after the other in one database; a process a step would only add its start-up to each.
    executor=dg.in_process_executor,
)
