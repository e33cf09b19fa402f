"""Asset checks of ticks and candles: whole, single, equal to the registry and to each other."""

from collections.abc import Sequence

import dagster as dg

from btc_assets.domain.settings import settings
from btc_assets.market_data import candles
from btc_assets.market_data.assets import tick_assets
from btc_assets.market_data.continuity import read_gaps, read_repeats
from btc_assets.market_data.loading import table_differences
from btc_assets.orchestration.checks import check_result, check_window
from btc_assets.orchestration.failures import plain_failures
from btc_assets.orchestration.partitions import history
from btc_assets.orchestration.resources import Store
from btc_assets.store.database import server_errors


def _trade_ids_contiguous(context: dg.AssetCheckExecutionContext, store: Store) -> dg.AssetCheckResult:
    with plain_failures(), store.connect() as connection:
        connection.autocommit = True
        window = check_window(context, connection)
        gaps = read_gaps(connection, window)
    return check_result(window, gaps, "gaps", trades_missing=sum(gap.missing for gap in gaps))


def _no_trade_twice(context: dg.AssetCheckExecutionContext, store: Store) -> dg.AssetCheckResult:
    with plain_failures(), store.connect() as connection:
        connection.autocommit = True
        window = check_window(context, connection)
        repeats = read_repeats(connection, window)
    return check_result(window, repeats, "repeats")


def _registry_equals_table(context: dg.AssetCheckExecutionContext, store: Store) -> dg.AssetCheckResult:
    with plain_failures(), store.connect() as connection:
        connection.autocommit = True
        window = check_window(context, connection)
        differences = [sentence for _, sentence in table_differences(connection, window)]
    return check_result(window, differences, "differences")


_TICK_CHECKS = [
    (_trade_ids_contiguous, "Trade ids are contiguous inside the slices and from one to the next."),
    (_no_trade_twice, "No trade stands in two slices."),
    (
        _registry_equals_table,
        "The table holds the rows that the registry says were loaded, unless retention dropped them, and every registered object is loaded.",
    ),
]


def _candle_check(asset: str, intervals: Sequence[str]) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        name="volume_equals_ticks",
        asset=dg.AssetKey(["market_data", asset]),
        description="The candles of the slices hold exactly the volume and the trades of their ticks.",
    )
    def volume_equals_ticks(context: dg.AssetCheckExecutionContext, store: Store) -> dg.AssetCheckResult:
        with plain_failures(), store.connect() as connection, server_errors():
            window = check_window(context, connection)
            differences = [sentence for interval in intervals for sentence in candles.read_differences(connection, interval, window)]
        return check_result(window, differences, "differences")

    return volume_equals_ticks


_INTERVALS = candles.enabled(settings())
market_data_checks = [
    *(
        dg.asset_check(asset=asset.key, name=check.__name__.strip("_"), description=text)(check)
        for asset in tick_assets
        for check, text in _TICK_CHECKS
    ),
    *(_candle_check(f"candles_{interval}", [interval]) for interval in _INTERVALS),
    *([_candle_check("candles_history", _INTERVALS)] if history else []),
]
