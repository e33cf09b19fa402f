"""Asset checks of the landing zone: nothing rejected, nothing lost."""

import dagster as dg

from btc_assets.checks import check_result, check_window
from btc_assets.database import server_errors
from btc_assets.failures import plain_failures
from btc_assets.resources import Store

_ASSET = dg.AssetKey(["landing", "raw_blobs_5m"])


@dg.asset_check(asset=_ASSET, description="No object of the slices is unreadable, and none disappeared before it was loaded.")
def no_rejected_object(context: dg.AssetCheckExecutionContext, store: Store) -> dg.AssetCheckResult:
    with plain_failures(), store.connect() as connection, server_errors():
        window = check_window(context, connection)
        rows = connection.execute(
            "SELECT DISTINCT uri, reason FROM landing.raw_blobs_5m "
            "WHERE bucket_5m >= %s AND bucket_5m < %s AND (status = 'rejected' OR (status = 'gone' AND loaded_at IS NULL)) ORDER BY uri",
            (window.start, window.end),
        ).fetchall()
    return check_result(window, [f"{uri}: {reason}" for uri, reason in rows], "objects")


@dg.asset_check(asset=_ASSET, description="Every row of the readable objects is a valid trade of its feed.")
def no_rejected_row(context: dg.AssetCheckExecutionContext, store: Store) -> dg.AssetCheckResult:
    with plain_failures(), store.connect() as connection, server_errors():
        window = check_window(context, connection)
        rows = connection.execute(
            "SELECT uri, row_number, reason, count(*) OVER () FROM landing.rejected_rows "
            "WHERE bucket_5m >= %s AND bucket_5m < %s ORDER BY bucket_5m, uri, row_number LIMIT 50",
            (window.start, window.end),
        ).fetchall()
    problems = [f"{uri}, row {number}: {reason}" for uri, number, reason, _ in rows]
    return check_result(window, problems, "rows_shown", rows=rows[0][3] if rows else 0)


landing_checks = [no_rejected_object, no_rejected_row]
