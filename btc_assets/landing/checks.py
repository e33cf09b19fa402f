"""Asset checks of the registry: no object is unreadable or lost, and no row is invalid; and of the store, that no problem is open.

What a person acknowledged (`btc-assets acknowledge`) fails no check.
"""

from collections.abc import Sequence

import dagster as dg
import psycopg

from btc_assets.domain.slices import Window
from btc_assets.landing.keys import REGISTRY, REGISTRY_HISTORY
from btc_assets.landing.problems import read_problems
from btc_assets.landing.states import Status
from btc_assets.orchestration.checks import Problems, SliceCheck, check_slices
from btc_assets.orchestration.deployment import Deployment
from btc_assets.orchestration.jobs import asset_key

_UNUSABLE = """
SELECT DISTINCT uri, reason FROM landing.raw_blobs_5m AS blob
WHERE bucket_5m >= %s AND bucket_5m < %s
    AND (status = %s OR (status = %s AND loaded_at IS NULL) OR (status = %s AND reason IS NOT NULL)) AND NOT EXISTS (
    SELECT 1 FROM landing.acknowledgements AS accepted
    WHERE accepted.what = blob.uri AND accepted.version = blob.etag AND accepted.kind IN ('rejected object', 'lost object', 'refused object')
)
ORDER BY uri
"""

_REJECTED_ROWS = """
SELECT uri, row_number, reason, sum(row_count) OVER ()::bigint FROM landing.rejected_rows AS rejected
WHERE bucket_5m >= %s AND bucket_5m < %s AND NOT EXISTS (
    SELECT 1 FROM landing.acknowledgements AS accepted
    WHERE accepted.what = rejected.uri AND accepted.version = rejected.etag AND accepted.kind = 'rejected rows'
)
ORDER BY bucket_5m, uri, row_number LIMIT 50
"""


def find_unusable_objects(connection: psycopg.Connection, window: Window) -> Problems:
    """Objects that are unreadable or refused, or that disappeared before they were loaded, each with the reason."""
    rows = connection.execute(_UNUSABLE, (window.start, window.end, Status.REJECTED, Status.GONE, Status.NOTICED)).fetchall()
    return Problems([f"{uri}: {reason}" for uri, reason in rows])


def find_rejected_rows(connection: psycopg.Connection, window: Window) -> Problems:
    """The first 50 rows of readable objects that are no valid trades, each with the reason, and the number of all of them."""
    rows = connection.execute(_REJECTED_ROWS, (window.start, window.end)).fetchall()
    return Problems([f"{uri}, row {number}: {reason}" for uri, number, reason, _ in rows], count=rows[0][3] if rows else 0)


_CHECKS = [
    SliceCheck(
        "no_rejected_object",
        "No object of the slices is unreadable or refused, and none disappeared before it was loaded.",
        "objects",
        find_unusable_objects,
    ),
    SliceCheck("no_rejected_row", "Every row of the readable objects is a valid trade of its feed.", "rows", find_rejected_rows),
]


def landing_checks(deployment: Deployment) -> list[dg.AssetChecksDefinition]:
    """The checks of this room."""
    steps = {"check_registry": REGISTRY} | ({"check_registry_history": REGISTRY_HISTORY} if deployment.partitions.history else {})
    checks = [*_CHECKS, _no_open_problem(deployment.settings.landing_feeds.labels)]
    return [check_slices(name, [(asset_key(asset), check) for check in checks], deployment) for name, asset in steps.items()]


def _no_open_problem(labels: Sequence[str]) -> SliceCheck:
    def find(connection: psycopg.Connection, window: Window) -> Problems:
        found = read_problems(connection, labels)
        return Problems(found.shown, count=found.count)

    return SliceCheck(
        "no_open_problem",
        "No problem of the whole store waits for a person: an unreadable or lost object, rows that are no valid trades, a slice that "
        "an object which is gone blocks. It fails until the problem is mended or acknowledged (btc-assets acknowledge).",
        "open",
        find,
        whole_store=True,
    )
