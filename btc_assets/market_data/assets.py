"""Assets `market_data/btc_ticks` and `market_data/candles_*`."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta

import dagster as dg
import psycopg
import pyarrow as pa

from btc_assets.domain.feeds import Feeds
from btc_assets.domain.slices import Window
from btc_assets.domain.ticks import TABLE
from btc_assets.landing.keys import REGISTRY, REGISTRY_HISTORY
from btc_assets.landing.resources import Landing
from btc_assets.landing.sources import count_sources
from btc_assets.market_data.candles import (
    WIDTHS,
    enabled_intervals,
    interval_below,
    read_candles_of,
    refresh_candles,
    refresh_due_candles,
)
from btc_assets.market_data.continuity import not_judged, read_gaps
from btc_assets.market_data.derived import Derivation
from btc_assets.market_data.early_load import loading_early
from btc_assets.market_data.keys import CANDLES_HISTORY, TICKS, TICKS_HISTORY, candles_key
from btc_assets.market_data.loading import LoadOptions, TickLoad
from btc_assets.market_data.partial_candles import CandlesOfTicks
from btc_assets.market_data.pictures import MOST_PICTURED, VolumeStrips, draw_candles
from btc_assets.orchestration.deployment import Deployment
from btc_assets.orchestration.failures import plain_failures
from btc_assets.orchestration.jobs import asset_key, run_makes
from btc_assets.orchestration.metadata import Output, Shown, add_once, add_slice_rows, column_schema, pictures
from btc_assets.orchestration.partitions import last_partition
from btc_assets.store.database import Store
from btc_assets.store.tables import count_all_rows, count_rows, read_columns

# A slice takes five minutes and is complete some minutes after its end: a third missing one means that something is wrong.
_FRESHNESS = dg.FreshnessPolicy.time_window(warn_window=timedelta(minutes=15), fail_window=timedelta(minutes=30))

_CANDLES_DRAWN = range(2, 401)  # with fewer or more candles, a picture would show nothing


class LoadConfig(dg.Config):
    """Options of a load in Dagster's launchpad.

    Attributes:
        force: also replace slices that lost an object from which they were loaded, and drop its rows.
    """

    force: bool = False


class TickLoads:
    """The loads of the runs in this process, of which each may begin while its run registers.

    Args:
        deployment: what the assets are built from.
        followers: keys of all assets that are built from ticks, whatever their room: a load makes their slices due.
        derivations: of other rooms: those of them that a load makes itself. Candles are added here.
    """

    def __init__(self, deployment: Deployment, followers: Sequence[str], derivations: Sequence[Derivation] = ()) -> None:
        self._deployment, self._followers = deployment, followers
        self._derivations = [*derivations, CandlesOfTicks(enabled_intervals(deployment.settings))]
        self._begun: dict[str, tuple[TickLoad, VolumeStrips]] = {}  # by run

    @contextmanager
    def beginning(
        self, context: dg.AssetExecutionContext, window: Window, store: Store, landing: Landing
    ) -> Iterator[Callable[[datetime], None]]:
        """Begin the load of a run that also materializes ticks, while its window is registered in the block; see `loading_early`."""
        self._begun.pop(context.run_id, None)
        if not run_makes(context, TICKS, TICKS_HISTORY):
            yield lambda before: None
            return
        settings = self._deployment.settings
        load, strips = self.new(window, store, landing)
        with loading_early(load, settings.landing_margin, settings.writers) as on_settled:
            yield on_settled
        self._begun[context.run_id] = load, strips

    def of_run(
        self, context: dg.AssetExecutionContext, config: LoadConfig, store: Store, landing: Landing
    ) -> tuple[TickLoad, VolumeStrips]:
        """The load of a run, which its registry may have begun, and what is drawn of it."""
        begun = self._begun.pop(context.run_id, None)
        window = self._deployment.partitions.run_window(context)
        return begun if begun and not config.force else self.new(window, store, landing, force=config.force)

    def new(self, window: Window, store: Store, landing: Landing, *, force: bool = False) -> tuple[TickLoad, VolumeStrips]:
        """A load that was not begun, and what is drawn of it."""
        settings = self._deployment.settings
        strips = VolumeStrips(window, settings.landing_feeds.labels[:MOST_PICTURED])

        def on_commit(done: int, rows: pa.Table) -> None:
            strips.add(rows)
            self._deployment.report_progress("slices", done, len(window))

        options = LoadOptions(settings.commit_rows, self._followers, force, landing.spool, self._derivations)
        return TickLoad(store, landing.zone(), settings.landing_feeds, window, options, on_commit), strips


def market_data_assets(deployment: Deployment, loads: TickLoads) -> list[dg.AssetsDefinition]:
    """The assets of this room.

    Args:
        deployment: what the assets are built from.
        loads: of ticks.
    """
    partitions = deployment.partitions
    assets = [
        _ticks_asset(deployment, TICKS, partitions.slices, loads),
        *(_candles_asset(deployment, interval) for interval in enabled_intervals(deployment.settings)),
    ]
    if partitions.history:
        assets.append(_ticks_asset(deployment, TICKS_HISTORY, partitions.history, loads))
        assets.append(_candles_history(deployment, partitions.history))
    return assets


def _ticks_asset(deployment: Deployment, key: str, partitions: dg.TimeWindowPartitionsDefinition, loads: TickLoads) -> dg.AssetsDefinition:
    feeds, sliced = deployment.settings.landing_feeds, key == TICKS

    @dg.asset(
        key=asset_key(key),
        group_name="market_data" if sliced else "history",
        deps=[asset_key(REGISTRY if sliced else REGISTRY_HISTORY)],
        io_manager_key="copy_io_manager",
        freshness_policy=_FRESHNESS if sliced else None,
        kinds={"postgres"},
        owners=["team:data-engineering"],
        description=(
            "Trades as the exchange reported them: exactly the de-duplicated rows of the objects that are registered for each slice."
        ),
        metadata={"dagster/table_name": TABLE, "table": TABLE},
        **deployment.writes_slices(partitions),
    )
    def ticks(
        context: dg.AssetExecutionContext, config: LoadConfig, store: dg.ResourceParam[Store], landing: dg.ResourceParam[Landing]
    ) -> Output:
        with plain_failures():
            load, strips = loads.of_run(context, config, store, landing)
        landing.loaded_outside[load.window] = load.loaded_outside  # filled while the load is written
        return Output(load, lambda connection: _show_load(connection, load, strips, feeds.labels_with_gaps))

    return ticks


def _show_load(connection: psycopg.Connection, load: TickLoad, strips: VolumeStrips, unjudged: frozenset[str]) -> Shown:
    result = load.result
    objects, rejected_rows = count_sources(connection, load.window)
    gaps = read_gaps(connection, load.window, unjudged)
    return Shown(
        metadata={
            "rows": result.rows,
            "objects": objects,
            "rejected_rows": rejected_rows,
            "slices_with_ticks": len(result.slice_rows),
            "duplicates_removed": result.duplicates,
            "conflicting_duplicates": result.conflicting,
            "slices_loaded_outside": sum(map(len, load.loaded_outside)),
            **{f"seconds_of_{name}": round(seconds, 3) for name, seconds in load.makers.seconds.items()},
            "first_trade_id": result.first_trade_id,
            "last_trade_id": result.last_trade_id,
            **({"ids_not_judged": not_judged(unjudged)} if unjudged else {}),
        },
        slice_rows=result.slice_rows,
        pictures={f"volume and gaps of {symbol}": svg for symbol, svg in strips.draw(gaps, unjudged).items()},
    )


def _candles_asset(deployment: Deployment, interval: str) -> dg.AssetsDefinition:
    below, table = interval_below(interval), f"market_data.candles_{interval}"
    intervals = enabled_intervals(deployment.settings)

    @dg.asset(
        key=asset_key(candles_key(interval)),
        group_name="market_data",
        deps=[asset_key(candles_key(below) if below else TICKS)],
        kinds={"postgres"},
        freshness_policy=_FRESHNESS,
        owners=["team:research"],
        description=(
            f"Candles of {interval} by trade time, as the exchange defines them, built from {f'candles of {below}' if below else 'ticks'}."
        ),
        metadata={"dagster/table_name": table},
        **deployment.writes_slices(deployment.partitions.slices),
    )
    def candles(
        context: dg.AssetExecutionContext, store: dg.ResourceParam[Store], landing: dg.ResourceParam[Landing]
    ) -> dg.MaterializeResult[None]:
        window = deployment.partitions.run_window(context)
        started = time.perf_counter()
        outside = landing.loaded_outside.get(window, ())
        with plain_failures(), store.connect(owner=True) as connection:
            partials = _make_candles(store, connection, interval, [window, *outside], loaded=run_makes(context, TICKS))
            seconds = time.perf_counter() - started
            deployment.report_progress("candles", intervals.index(interval) + 1, len(intervals))
            rows = count_rows(connection, table, window, time_column="bucket")
            in_table = count_all_rows(connection, table, estimated_from=100_000)  # a view: counting a row costs more
            add_slice_rows(context, context.asset_key, window, last_partition(context), rows)
            shown_once = column_schema(read_columns(connection, table)) | pictures(
                _candle_pictures(connection, interval, window, deployment.settings.landing_feeds)
            )
            add_once(context, context.asset_key, last_partition(context), shown_once)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": in_table,
                "rows": sum(rows.values()),
                "partial_candles": partials,
                "seconds": round(seconds, 3),
            }
        )

    return candles


def _make_candles(store: Store, connection: psycopg.Connection, interval: str, windows: Sequence[Window], *, loaded: bool) -> int:
    """Make the candles of windows: all, or, if the same run loaded their ticks, what that left to do.

    Returns:
        The number of partial candles that were made.
    """
    refresh = refresh_due_candles if loaded else refresh_candles
    return sum(refresh(connection, interval, window, store) for window in windows)


def _candle_pictures(connection: psycopg.Connection, interval: str, window: Window, feeds: Feeds) -> dict[str, str]:
    if (window.end - window.start) // WIDTHS[interval] not in _CANDLES_DRAWN:
        return {}
    rows = read_candles_of(connection, interval, feeds.labels[:MOST_PICTURED], window)
    return {f"candlesticks of {symbol}": draw_candles(rows[symbol], interval, symbol, window) for symbol in rows if rows[symbol]}


def _candles_history(deployment: Deployment, days: dg.TimeWindowPartitionsDefinition) -> dg.AssetsDefinition:
    @dg.asset(
        key=asset_key(CANDLES_HISTORY),
        group_name="history",
        deps=[asset_key(TICKS_HISTORY)],
        kinds={"postgres"},
        owners=["team:research"],
        description="Candles of all intervals, built from ticks.",
        **deployment.writes_slices(days),
    )
    def candles_history(
        context: dg.AssetExecutionContext, store: dg.ResourceParam[Store], landing: dg.ResourceParam[Landing]
    ) -> dg.MaterializeResult[None]:
        window = deployment.partitions.run_window(context)
        with plain_failures(), store.connect(owner=True) as connection:
            loaded, windows = run_makes(context, TICKS_HISTORY), [window, *landing.loaded_outside.get(window, ())]
            made = {
                interval: _make_candles(store, connection, interval, windows, loaded=loaded)
                for interval in enabled_intervals(deployment.settings)
            }
        return dg.MaterializeResult(metadata={f"partial_candles_{interval}": count for interval, count in made.items()})

    return candles_history
