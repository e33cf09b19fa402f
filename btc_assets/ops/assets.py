"""Assets `ops/retention_jobs`, the declared policies in force, and `ops/reconciliations`, the store compared with what landed."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from btc_assets.domain.settings import settings
from btc_assets.domain.slices import Window
from btc_assets.ops import retention_jobs as jobs
from btc_assets.ops.policies import declared
from btc_assets.ops.reconcile import reconcile
from btc_assets.orchestration.checks import bullets
from btc_assets.orchestration.failures import plain_failures
from btc_assets.orchestration.handover import show_whole_days
from btc_assets.orchestration.metadata import column_schema
from btc_assets.orchestration.resources import Landing, Store
from btc_assets.orchestration.storage import forget_events
from btc_assets.store.tables import read_columns


class PolicyConfig(dg.Config):
    """Launchpad options of the policies.

    `apply`: bring what is declared into force, as `btc-assets ops apply` does. Off, because retention starts to drop with it, and
    somebody who materialises everything may not have meant that.
    """

    apply: bool = False


@dg.asset(
    key_prefix="ops",
    group_name="ops",
    kinds={"postgres"},
    backfill_policy=dg.BackfillPolicy.single_run(),  # so that `dagster asset materialize --select '*' --partition-range` takes it along
    owners=["team:data-engineering"],
    description=(
        "Compression, retention and refresh policies as declared in btc_assets/ops/policies.py. Materialising runs what is due where "
        "the server has no scheduler or its scheduler failed, records how each last went, and deletes old events of Dagster's; with the option apply it first brings "
        "them into force."
    ),
    metadata={"dagster/table_name": "ops.retention_jobs"},
)
def retention_jobs(context: dg.AssetExecutionContext, config: PolicyConfig, store: Store) -> dg.MaterializeResult[None]:
    with plain_failures(), store.connect(owner=True) as connection:
        connection.autocommit = True
        policies = declared(settings())
        changes = jobs.apply(connection, policies) if config.apply else []
        ran = jobs.run_due(connection)
        statuses = jobs.read(connection, policies)
        jobs.record(connection, statuses)
        count = connection.execute("SELECT count(*) FROM ops.retention_jobs").fetchone()
        columns = read_columns(connection, "ops.retention_jobs")
    days = settings().dagster_events_days
    forgotten = forget_events(context.instance, datetime.now(UTC) - timedelta(days=days)) if days else 0
    for change in changes:
        context.log.info(change)
    lines = [f"| {s.job_name} | {s.state} | {s.last_result or ''} | {s.drift} |" for s in statuses]
    table = "\n".join(["| policy | state | last result | drift |", "|---|---|---|---|", *lines])
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": count[0] if count else 0,
            **column_schema(columns),
            "changed": len(changes),
            "ran": ", ".join(ran) or "none",
            "events_forgotten": forgotten,
            "policies": dg.MetadataValue.md(table),
        }
    )


class ReconcileConfig(dg.Config):
    """Launchpad options of reconciling.

    `hours`: how far back to compare, from now; 0 is everything. `heal`: also mend what differs, by handing it to the sensors.
    `ask_again`: then have stuck slices asked for at once, as after the cause is mended; else the sensors do, ever more rarely.
    """

    hours: int = 48
    heal: bool = False
    ask_again: bool = True


@dg.asset(
    key_prefix="ops",
    group_name="ops",
    kinds={"s3", "postgres"},
    backfill_policy=dg.BackfillPolicy.single_run(),
    owners=["team:data-engineering"],
    description=(
        "Landing zone, registry and tables compared from scratch: objects that are missing, changed, extra or in no minute folder, "
        "slices that are stuck or hold other rows than they should, candles that are behind. With the option heal, what differs is mended. "
        "Comparing everything also shows days of history that were loaded as slices as materialised."
    ),
    metadata={"dagster/table_name": "ops.reconciliations"},
)
def reconciliations(
    context: dg.AssetExecutionContext, config: ReconcileConfig, store: Store, landing: Landing
) -> dg.MaterializeResult[None]:
    now = datetime.now(UTC)
    window = Window.covering(now - timedelta(hours=config.hours), now) if config.hours else None
    with plain_failures(), store.connect() as connection:
        connection.autocommit = True
        found = reconcile(
            connection,
            landing.zone(),
            settings().landing_feeds,
            window,
            now,
            since=settings().history_start,
            heal=config.heal,
            ask_again=config.ask_again,
        )
        shown = show_whole_days(context.instance, connection) if window is None else 0
        count = connection.execute("SELECT count(*) FROM ops.reconciliations").fetchone()
        columns = read_columns(connection, "ops.reconciliations")
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": count[0] if count else 0,
            **column_schema(columns),
            "compared": str(window) if window else "everything",
            "healed": found.healed,
            "history_days_shown": shown,
            **found.counts,
            "differences": dg.MetadataValue.md(bullets(found.sentences)),
        }
    )


ops_assets = [retention_jobs, reconciliations]
