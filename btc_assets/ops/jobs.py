"""The jobs of this room."""

import dagster as dg

from btc_assets.market_data.keys import TICKS
from btc_assets.ops.keys import POLICIES, RECONCILIATIONS
from btc_assets.orchestration.jobs import AssetJob, asset_key, define_job

RESTORABLE = dg.AssetSelection.checks(dg.AssetCheckKey(asset_key(TICKS), "restorable"))


def reconcile_job() -> AssetJob:
    """The job `reconcile`."""
    return define_job(
        "reconcile", [RECONCILIATIONS], "Compare landing zone, registry and tables, report differences, and optionally heal them."
    )


def maintain_job() -> AssetJob:
    """The job `maintain`."""
    return define_job(
        "maintain",
        [POLICIES],
        "Run the policies that are due (on plain PostgreSQL all of them, on TimescaleDB those that its scheduler failed at), record their "
        "results, and check that the declared policies are in force.",
    )


def watch_backups_job() -> AssetJob:
    """The job `watch_backups`."""
    return dg.define_asset_job(
        "watch_backups", selection=RESTORABLE, description="Check that there are recent backups, and that WAL is archived."
    )
