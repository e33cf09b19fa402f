"""Assets `market_data/btc_ticks` and `market_data/candles_*`."""

import time

import dagster as dg

from btc_assets import progress
from btc_assets.market_data import candles
from btc_assets.market_data.loading import TickLoad
from btc_assets.partitions import backfill_policy, five_minutes, run_window
from btc_assets.resources import Landing, Store, plain_failures
from btc_assets.settings import settings


class LoadConfig(dg.Config):
    """Launchpad options of the ticks.

    `force`: also replace slices of which an object has disappeared since they were loaded; its rows go.
    """

    force: bool = False


@dg.asset(
    key_prefix="market_data",
    group_name="market_data",
    deps=[dg.AssetKey(["landing", "raw_blobs_5m"])],
    partitions_def=five_minutes,
    backfill_policy=backfill_policy,
    io_manager_key="copy_io_manager",
    kinds={"postgres"},
    owners=["team:data-engineering"],
    description="Trades as the exchange reported them: exactly the de-duplicated rows of the objects that are registered for each slice.",
)
def btc_ticks(context: dg.AssetExecutionContext, config: LoadConfig, store: Store, landing: Landing) -> TickLoad:
    window = run_window(context)
    with plain_failures():
        return TickLoad(
            store.connect,
            landing.zone(),
            settings().landing_feeds,
            window,
            commit_rows=settings().commit_rows,
            followers=[candles.asset_key(interval) for interval in candles.enabled(settings())],
            force=config.force,
            spool=landing.spool,
            progress=lambda done: progress.report("slices", done, len(window)),
        )


_INTERVALS = candles.enabled(settings())


def _candle_asset(interval: str) -> dg.AssetsDefinition:
    below = candles.below(interval)

    @dg.asset(
        name=f"candles_{interval}",
        key_prefix="market_data",
        group_name="market_data",
        deps=[dg.AssetKey(["market_data", f"candles_{below}" if below else "btc_ticks"])],
        partitions_def=five_minutes,
        backfill_policy=backfill_policy,
        kinds={"postgres"},
        owners=["team:research"],
        description=(
            f"Candles of {interval} by trade time, as the exchange defines them, made of {f'candles of {below}' if below else 'ticks'}."
        ),
        metadata={"dagster/table_name": f"market_data.candles_{interval}"},
    )
    def candle_asset(context: dg.AssetExecutionContext, store: Store) -> dg.MaterializeResult[None]:
        window = run_window(context)
        started = time.perf_counter()
        with plain_failures(), store.connect() as connection:
            connection.autocommit = True
            made = candles.refresh(connection, interval, window)
            progress.report("candles", list(_INTERVALS).index(interval) + 1, len(_INTERVALS))
        return dg.MaterializeResult(metadata={"partial_candles": made, "seconds": round(time.perf_counter() - started, 3)})

    return candle_asset


candle_assets = [_candle_asset(interval) for interval in _INTERVALS]
