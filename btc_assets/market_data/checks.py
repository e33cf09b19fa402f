"""Asset checks of ticks and candles: whole, single, equal to the registry and to each other."""

import dagster as dg

from btc_assets.checks import check_result, check_window
from btc_assets.database import server_errors
from btc_assets.failures import plain_failures
from btc_assets.market_data import candles
from btc_assets.market_data.continuity import read_gaps, read_repeats
from btc_assets.resources import Store
from btc_assets.settings import settings

_TICKS = dg.AssetKey(["market_data", "btc_ticks"])


@dg.asset_check(asset=_TICKS, description="Trade ids are contiguous inside the slices and from one to the next.")
def trade_ids_contiguous(context: dg.AssetCheckExecutionContext, store: Store) -> dg.AssetCheckResult:
    with plain_failures(), store.connect() as connection:
        connection.autocommit = True
        window = check_window(context, connection)
        gaps = read_gaps(connection, window)
    return check_result(window, gaps, "gaps", trades_missing=sum(gap.missing for gap in gaps))


@dg.asset_check(asset=_TICKS, description="No trade stands in two slices.")
def no_trade_twice(context: dg.AssetCheckExecutionContext, store: Store) -> dg.AssetCheckResult:
    with plain_failures(), store.connect() as connection:
        connection.autocommit = True
        window = check_window(context, connection)
        repeats = read_repeats(connection, window)
    return check_result(window, repeats, "repeats")


@dg.asset_check(
    asset=_TICKS,
    description="The table holds the rows that the registry says were loaded, unless retention dropped them, and every registered object is loaded.",
)
def registry_equals_table(context: dg.AssetCheckExecutionContext, store: Store) -> dg.AssetCheckResult:
    with plain_failures(), store.connect() as connection, server_errors():
        window = check_window(context, connection)
        rows = connection.execute(
            """
            SELECT bucket_5m, asset, state, coalesce(loaded_rows, 0), coalesce(ticks, 0)
            FROM (SELECT * FROM landing.slices WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s) AS registered
            FULL JOIN (
                SELECT bucket_5m, symbol AS asset, count(*) AS ticks FROM market_data.btc_ticks
                WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s GROUP BY bucket_5m, symbol
            ) AS stored USING (bucket_5m, asset)
            WHERE coalesce(loaded_rows, 0) <> coalesce(ticks, 0)
                    AND NOT (ticks IS NULL AND bucket_5m < ops.drop_horizon('market_data.btc_ticks'))
                OR state IS NULL OR state IN ('pending', 'stale')
            ORDER BY bucket_5m, asset
            """,
            {"start": window.start, "end": window.end},
        ).fetchall()
    differences = [
        f"{asset} {bucket:%Y-%m-%dT%H:%MZ}: {state or 'not registered'}, {loaded} rows by the registry, {ticks} in the table"
        for bucket, asset, state, loaded, ticks in rows
    ]
    return check_result(window, differences, "differences")


def _candle_check(interval: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        name="volume_equals_ticks",
        asset=dg.AssetKey(["market_data", f"candles_{interval}"]),
        description="The candles of the slices hold exactly the volume and the trades of their ticks.",
    )
    def volume_equals_ticks(context: dg.AssetCheckExecutionContext, store: Store) -> dg.AssetCheckResult:
        with plain_failures(), store.connect() as connection, server_errors():
            window = check_window(context, connection)
            differences = candles.read_differences(connection, interval, window)
        return check_result(window, differences, "differences")

    return volume_equals_ticks


market_data_checks = [
    trade_ids_contiguous,
    no_trade_twice,
    registry_equals_table,
    *(_candle_check(interval) for interval in candles.enabled(settings())),
]
