"""Assets `market_data/btc_ticks` and `market_data/candles_*`."""

import time
from datetime import timedelta

import dagster as dg
import psycopg

from btc_assets.domain import progress
from btc_assets.domain.settings import settings
from btc_assets.domain.slices import Window
from btc_assets.domain.ticks import TABLE
from btc_assets.market_data import candles
from btc_assets.market_data.loading import TickLoad
from btc_assets.market_data.pictures import draw_candles
from btc_assets.orchestration.failures import RETRIES, plain_failures
from btc_assets.orchestration.metadata import add_once, add_slice_rows, column_schema, pictures
from btc_assets.orchestration.partitions import DATABASE_POOL, backfill_policy, five_minutes, history, last_partition, run_window
from btc_assets.orchestration.resources import Landing, Store
from btc_assets.signals.features import table as slice_features
from btc_assets.signals.search import embeddings
from btc_assets.store.tables import count_rows, read_columns

# A slice is five minutes, and complete some minutes after its end: the third one that is missing is no coincidence.
_FRESHNESS = dg.FreshnessPolicy.time_window(warn_window=timedelta(minutes=15), fail_window=timedelta(minutes=30))


class LoadConfig(dg.Config):
    """Launchpad options of the ticks.

    `force`: also replace slices of which an object has disappeared since they were loaded; its rows go.
    """

    force: bool = False


def _load(context: dg.AssetExecutionContext, config: LoadConfig, store: Store, landing: Landing) -> TickLoad:
    window = run_window(context)
    with plain_failures():
        return TickLoad(
            store.connect,
            landing.zone(),
            settings().landing_feeds,
            window,
            commit_rows=settings().commit_rows,
            followers=[*(candles.asset_key(interval) for interval in candles.enabled(settings())), slice_features.ASSET, embeddings.ASSET],
            force=config.force,
            spool=landing.spool,
            progress=lambda done: progress.report("slices", done, len(window)),
        )


def _ticks_asset(
    name: str,
    partitions: dg.TimeWindowPartitionsDefinition,
    group: str,
    registry: str,
    freshness: dg.FreshnessPolicy | None = None,
) -> dg.AssetsDefinition:
    return dg.asset(
        name=name,
        key_prefix="market_data",
        group_name=group,
        deps=[dg.AssetKey(["landing", registry])],
        partitions_def=partitions,
        backfill_policy=backfill_policy,
        retry_policy=RETRIES,
        pool=DATABASE_POOL,
        io_manager_key="copy_io_manager",
        freshness_policy=freshness,
        kinds={"postgres"},
        owners=["team:data-engineering"],
        description=(
            "Trades as the exchange reported them: exactly the de-duplicated rows of the objects that are registered for each slice."
        ),
        metadata={"dagster/table_name": TABLE, "table": TABLE},
    )(_load)


btc_ticks = _ticks_asset("btc_ticks", five_minutes, "market_data", "raw_blobs_5m", _FRESHNESS)


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
        retry_policy=RETRIES,
        pool=DATABASE_POOL,
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
        with plain_failures(), store.connect(owner=True) as connection:
            connection.autocommit = True
            made = candles.refresh(connection, interval, window)
            seconds = time.perf_counter() - started
            progress.report("candles", list(_INTERVALS).index(interval) + 1, len(_INTERVALS))
            rows = count_rows(connection, table, window, time_column="bucket")
            add_slice_rows(context, context.asset_key, window, last_partition(context), rows)
            large = column_schema(read_columns(connection, table)) | pictures(_candle_pictures(connection, interval, window))
            add_once(context, context.asset_key, last_partition(context), large)
        return dg.MaterializeResult(
            metadata={"dagster/row_count": sum(rows.values()), "partial_candles": made, "seconds": round(seconds, 3)}
        )

    return candle_asset


def _all_candles(context: dg.AssetExecutionContext, store: Store) -> dg.MaterializeResult[None]:
    window = run_window(context)
    with plain_failures(), store.connect(owner=True) as connection:
        connection.autocommit = True
        made = {interval: candles.refresh(connection, interval, window) for interval in _INTERVALS}
    return dg.MaterializeResult(metadata={f"partial_candles_{interval}": count for interval, count in made.items()})


def _candles_history(days: dg.TimeWindowPartitionsDefinition) -> dg.AssetsDefinition:
    return dg.asset(
        name="candles_history",
        key_prefix="market_data",
        group_name="history",
        deps=[dg.AssetKey(["market_data", "btc_ticks_history"])],
        partitions_def=days,
        backfill_policy=backfill_policy,
        retry_policy=RETRIES,
        pool=DATABASE_POOL,
        kinds={"postgres"},
        owners=["team:research"],
        description="Candles of all intervals, made of ticks.",
    )(_all_candles)


candle_assets = [_candle_asset(interval) for interval in _INTERVALS]

# The same tables, for the days before the 5-minute partitions; one asset for the candles of all intervals.
tick_assets = [btc_ticks, *([_ticks_asset("btc_ticks_history", history, "history", "raw_blobs_history")] if history else [])]
market_data_assets = [*tick_assets, *candle_assets, *([_candles_history(history)] if history else [])]
