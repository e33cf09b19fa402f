"""Schedules of the maintenance jobs. They run from the start, because these jobs only maintain what already exists."""

import dagster as dg

from btc_assets.orchestration.jobs import AssetJob


def ops_schedules(
    reconcile: AssetJob, maintain: AssetJob, maintain_indexes: AssetJob, watch_backups: AssetJob | None
) -> list[dg.ScheduleDefinition]:
    """The schedules of this room and of the indexes.

    Args:
        reconcile, maintain, maintain_indexes: the jobs to schedule.
        watch_backups: the job that checks the backups; None if there are none.
    """
    schedules = [
        # Hourly, as the most frequent policy.
        _schedule("maintain_hourly", maintain, "20 * * * *", "Run the policies that are due. A policy that was not applied never runs."),
        _schedule("reconcile_hourly", reconcile, "40 * * * *", "Compare the last 48 hours and heal what differs.", _heal(hours=48)),
        _schedule("reconcile_weekly", reconcile, "10 3 * * 0", "Compare everything and heal what differs.", _heal(hours=0)),
        _schedule(
            "care_for_indexes_daily", maintain_indexes, "50 2 * * *", "Measure the indexes on embeddings, and rebuild those that need it."
        ),
    ]
    if watch_backups:
        schedules.append(
            _schedule(
                "watch_backups_often",
                watch_backups,
                "*/10 * * * *",
                "Check whether the store could be restored, if BTC_ASSETS_BACKUP_STANZA is set.",
            )
        )
    return schedules


def _heal(*, hours: int) -> dict[str, object]:
    return {"ops": {"ops__reconciliations": {"config": {"hours": hours, "heal": True, "ask_again": False}}}}


def _schedule(
    name: str, job: AssetJob, cron_schedule: str, description: str, run_config: dict[str, object] | None = None
) -> dg.ScheduleDefinition:
    return dg.ScheduleDefinition(
        name=name,
        job=job,
        cron_schedule=cron_schedule,
        run_config=run_config,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=description,
    )
