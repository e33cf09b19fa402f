"""Asset checks of the landing zone: nothing rejected, nothing lost."""

import dagster as dg

from btc_assets.database import server_errors
from btc_assets.partitions import check_window
from btc_assets.resources import Store, plain_failures

_ASSET = dg.AssetKey(["landing", "raw_blobs_5m"])
_SHOWN = 20


@dg.asset_check(asset=_ASSET, description="No object of the slices is unreadable, and none disappeared before it was loaded.")
def no_rejected_object(context: dg.AssetCheckExecutionContext, store: Store) -> dg.AssetCheckResult:
    with plain_failures(), store.connect() as connection, server_errors():
        window = check_window(context, connection)
        rows = connection.execute(
            "SELECT uri, reason, count(*) OVER () FROM landing.raw_blobs_5m "
            "WHERE bucket_5m >= %s AND bucket_5m < %s AND (status = 'rejected' OR (status = 'gone' AND loaded_at IS NULL)) "
            "GROUP BY uri, reason ORDER BY uri LIMIT %s",
            (window.start, window.end, _SHOWN),
        ).fetchall()
    return dg.AssetCheckResult(
        passed=not rows,
        metadata={
            "slices": str(window),
            "objects": rows[0][2] if rows else 0,
            "examples": dg.MetadataValue.md("\n".join(f"* {uri}: {reason}" for uri, reason, _ in rows) or "none"),
        },
    )


@dg.asset_check(asset=_ASSET, description="Every row of the readable objects is a valid trade of its feed.")
def no_rejected_row(context: dg.AssetCheckExecutionContext, store: Store) -> dg.AssetCheckResult:
    with plain_failures(), store.connect() as connection, server_errors():
        window = check_window(context, connection)
        rows = connection.execute(
            "SELECT reason, uri, row_number, count(*) OVER () FROM landing.rejected_rows "
            "WHERE bucket_5m >= %s AND bucket_5m < %s ORDER BY bucket_5m, uri, row_number LIMIT %s",
            (window.start, window.end, _SHOWN),
        ).fetchall()
    return dg.AssetCheckResult(
        passed=not rows,
        metadata={
            "slices": str(window),
            "rows": rows[0][3] if rows else 0,
            "examples": dg.MetadataValue.md("\n".join(f"* {uri}, row {number}: {reason}" for reason, uri, number, _ in rows) or "none"),
        },
    )


landing_checks = [no_rejected_object, no_rejected_row]
