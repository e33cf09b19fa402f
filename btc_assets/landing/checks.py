"""Asset checks of the landing zone: nothing rejected, nothing lost."""

import dagster as dg

from btc_assets.landing.assets import landing_assets
from btc_assets.orchestration.checks import check_result, check_window
from btc_assets.orchestration.failures import plain_failures
from btc_assets.orchestration.resources import Store
from btc_assets.store.database import server_errors


def _no_rejected_object(context: dg.AssetCheckExecutionContext, store: Store) -> dg.AssetCheckResult:
    with plain_failures(), store.connect() as connection, server_errors():
        window = check_window(context, connection)
        rows = connection.execute(
            "SELECT DISTINCT uri, reason FROM landing.raw_blobs_5m "
            "WHERE bucket_5m >= %s AND bucket_5m < %s AND (status = 'rejected' OR (status = 'gone' AND loaded_at IS NULL)) ORDER BY uri",
            (window.start, window.end),
        ).fetchall()
    return check_result(window, [f"{uri}: {reason}" for uri, reason in rows], "objects")


def _no_rejected_row(context: dg.AssetCheckExecutionContext, store: Store) -> dg.AssetCheckResult:
    with plain_failures(), store.connect() as connection, server_errors():
        window = check_window(context, connection)
        rows = connection.execute(
            "SELECT uri, row_number, reason, count(*) OVER () FROM landing.rejected_rows "
            "WHERE bucket_5m >= %s AND bucket_5m < %s ORDER BY bucket_5m, uri, row_number LIMIT 50",
            (window.start, window.end),
        ).fetchall()
    problems = [f"{uri}, row {number}: {reason}" for uri, number, reason, _ in rows]
    return check_result(window, problems, "rows_shown", rows=rows[0][3] if rows else 0)


_CHECKS = [
    (_no_rejected_object, "No object of the slices is unreadable, and none disappeared before it was loaded."),
    (_no_rejected_row, "Every row of the readable objects is a valid trade of its feed."),
]
landing_checks = [
    dg.asset_check(asset=asset.key, name=check.__name__.strip("_"), description=text)(check)
    for asset in landing_assets
    for check, text in _CHECKS
]
