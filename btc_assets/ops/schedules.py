"""When jobs run by themselves. They only mend and look after what is there, so they start by themselves."""

import dagster as dg

from btc_assets.domain.settings import settings
from btc_assets.orchestration.jobs import care_for_indexes, maintain, reconcile, watch_backups

_HEAL = {"ops": {"ops__reconciliations": {"config": {"hours": 48, "heal": True, "ask_again": False}}}}
_HEAL_ALL = {"ops": {"ops__reconciliations": {"config": {"hours": 0, "heal": True, "ask_again": False}}}}

maintain_hourly = dg.ScheduleDefinition(
    name="maintain_hourly",
    job=maintain,
    cron_schedule="20 * * * *",  # hourly, like the most frequent policy
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Run the policies that are due. It does nothing that was not applied before.",
)

reconcile_hourly = dg.ScheduleDefinition(
    name="reconcile_hourly",
    job=reconcile,
    cron_schedule="40 * * * *",
    run_config=_HEAL,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Compare the last 48 hours and mend what differs.",
)

reconcile_weekly = dg.ScheduleDefinition(
    name="reconcile_weekly",
    job=reconcile,
    cron_schedule="10 3 * * 0",
    run_config=_HEAL_ALL,
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Compare everything and mend what differs.",
)

care_for_indexes_daily = dg.ScheduleDefinition(
    name="care_for_indexes_daily",
    job=care_for_indexes,
    cron_schedule="50 2 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Measure the indexes on embeddings, and build those again that need it.",
)

watch_backups_often = dg.ScheduleDefinition(
    name="watch_backups_often",
    job=watch_backups,
    cron_schedule="*/10 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Look whether the store could be restored; where BTC_ASSETS_BACKUP_STANZA is set.",
)

_of_backups = [watch_backups_often] if settings().backup_stanza else []
schedules = [maintain_hourly, reconcile_hourly, reconcile_weekly, care_for_indexes_daily, *_of_backups]
