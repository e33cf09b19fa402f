"""Assets `market_data/btc_ticks` and `market_data/candles_*`."""

import time
from datetime import timedelta

import dagster as dg
import psycopg

from btc_assets import progress
from btc_assets.market_data import candles
from btc_assets.market_data.loading import TickLoad
from btc_assets.market_data.pictures import draw_candles
from btc_assets.market_data.ticks import TABLE
from btc_assets.metadata import add_once, add_slice_rows, column_schema, pictures
from btc_assets.partitions import backfill_policy, five_minutes, run_window
from btc_assets.resources import Landing, Store, plain_failures
from btc_assets.settings import settings
from btc_assets.slices import Window
from btc_assets.tables import count_rows, read_columns

# A slice is five minutes, and complete some minutes after its end: the third one that is missing is no coincidence.
_FRESHNESS = dg.FreshnessPolicy.time_window(warn_window=timedelta(minutes=15), fail_window=timedelta(minutes=30))


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
    metadata={"dagster/table_name": TABLE},
    kinds={"postgres"},
    freshness_policy=_FRESHNESS,
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
            force=config.force,
            spool=landing.spool,
            progress=lambda done: progress.report("slices", done, len(window)),
        )


_INTERVALS = candles.enabled(settings())
_CANDLES_DRAWN = range(2, 401)  # an interval that is finer or coarser shows nothing in a picture of the window


def _candle_pictures(connection: psycopg.Connection, interval: str, window: Window) -> dict[str, str]:
    if (window.end - window.start) // candles.WIDTHS[interval] not in _CANDLES_DRAWN:
        return {}
    rows = {feed.label: candles.read(connection, interval, feed.label, window) for feed in settings().landing_feeds}
    return {f"candlesticks of {symbol}": draw_candles(rows[symbol], interval, symbol, window) for symbol in rows if rows[symbol]}


def _candle_asset(interval: str) -> dg.AssetsDefinition:
    below, table = candles.below(interval), f"market_data.candles_{interval}"

    @dg.asset(
        name=f"candles_{interval}",
        key_prefix="market_data",
        group_name="market_data",
        deps=[dg.AssetKey(["market_data", f"candles_{below}" if below else "btc_ticks"])],
        partitions_def=five_minutes,
        backfill_policy=backfill_policy,
        kinds={"postgres"},
        freshness_policy=_FRESHNESS,
        owners=["team:research"],
        description=(
            f"Candles of {interval} by trade time, as the exchange defines them, made of {f'candles of {below}' if below else 'ticks'}."
        ),
        metadata={"dagster/table_name": table},
    )
    def candle_asset(context: dg.AssetExecutionContext, store: Store) -> dg.MaterializeResult[None]:
        window = run_window(context)
        started = time.perf_counter()
        with plain_failures(), store.connect() as connection:
            connection.autocommit = True
            made = candles.refresh(connection, interval, window)
            seconds = time.perf_counter() - started
            progress.report("candles", list(_INTERVALS).index(interval) + 1, len(_INTERVALS))
            rows = count_rows(connection, table, window, time_column="bucket")
            add_slice_rows(context, context.asset_key, window, rows)
            large = column_schema(read_columns(connection, table)) | pictures(_candle_pictures(connection, interval, window))
            add_once(context, context.asset_key, window, large)
        return dg.MaterializeResult(
            metadata={"dagster/row_count": sum(rows.values()), "partial_candles": made, "seconds": round(seconds, 3)}
        )

    return candle_asset


candle_assets = [_candle_asset(interval) for interval in _INTERVALS]
