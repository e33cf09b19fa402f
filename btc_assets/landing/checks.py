"""Asset checks of the registry: no object is unreadable or lost, and no row is invalid."""

import dagster as dg
import psycopg

from btc_assets.domain.slices import Window
from btc_assets.landing.keys import REGISTRY, REGISTRY_HISTORY
from btc_assets.landing.states import Status
from btc_assets.orchestration.checks import Problems, SliceCheck
from btc_assets.orchestration.deployment import Deployment
from btc_assets.orchestration.jobs import asset_key


def find_unusable_objects(connection: psycopg.Connection, window: Window) -> Problems:
    """Objects that are unreadable, or that disappeared before they were loaded, each with the reason."""
    rows = connection.execute(
        "SELECT DISTINCT uri, reason FROM landing.raw_blobs_5m "
        "WHERE bucket_5m >= %s AND bucket_5m < %s AND (status = %s OR (status = %s AND loaded_at IS NULL)) ORDER BY uri",
        (window.start, window.end, Status.REJECTED, Status.GONE),
    ).fetchall()
    return Problems([f"{uri}: {reason}" for uri, reason in rows])


def find_rejected_rows(connection: psycopg.Connection, window: Window) -> Problems:
    """The first 50 rows of readable objects that are no valid trades, each with the reason; `rows` counts all of them."""
    rows = connection.execute(
        "SELECT uri, row_number, reason, count(*) OVER () FROM landing.rejected_rows "
        "WHERE bucket_5m >= %s AND bucket_5m < %s ORDER BY bucket_5m, uri, row_number LIMIT 50",
        (window.start, window.end),
    ).fetchall()
    return Problems([f"{uri}, row {number}: {reason}" for uri, number, reason, _ in rows], {"rows": rows[0][3] if rows else 0})


_CHECKS = [
    SliceCheck(
        "no_rejected_object",
        "No object of the slices is unreadable, and none disappeared before it was loaded.",
        "objects",
        find_unusable_objects,
    ),
    SliceCheck("no_rejected_row", "Every row of the readable objects is a valid trade of its feed.", "rows_shown", find_rejected_rows),
]


def landing_checks(deployment: Deployment) -> list[dg.AssetChecksDefinition]:
    """The checks of this room."""
    assets = [REGISTRY, *([REGISTRY_HISTORY] if deployment.partitions.history else [])]
    return [check.on(asset_key(asset), deployment) for asset in assets for check in _CHECKS]
