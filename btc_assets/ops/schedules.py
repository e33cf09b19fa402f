"""The job `maintain` and when it runs."""

import dagster as dg

from btc_assets.ops.assets import retention_jobs

maintain = dg.define_asset_job(
    "maintain",
    selection=dg.AssetSelection.assets(retention_jobs),
    description=(
        "Run the policies that are due (on plain PostgreSQL all of them, on TimescaleDB those that its scheduler failed at), record how "
        "they went, and check that what is declared is in force."
    ),
)

# Hourly, like the most frequent policy. It does nothing that was not applied before, so it starts by itself.
maintain_hourly = dg.ScheduleDefinition(
    name="maintain_hourly", job=maintain, cron_schedule="20 * * * *", default_status=dg.DefaultScheduleStatus.RUNNING
)
