"""Assets `ops/retention_jobs`, the policies in force, and `ops/reconciliations`, comparisons of the store with what landed."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg

from btc_assets.domain.printable import markdown_table, printable
from btc_assets.domain.slices import Window
from btc_assets.landing.resources import Landing
from btc_assets.ops import retention_jobs
from btc_assets.ops.keys import POLICIES, RECONCILIATIONS
from btc_assets.ops.policies import declared_policies
from btc_assets.ops.policies_in_force import read_policy_statuses
from btc_assets.ops.reconcile import ReconcileOptions, reconcile
from btc_assets.orchestration.checks import bullets
from btc_assets.orchestration.deployment import Deployment
from btc_assets.orchestration.failures import plain_failures
from btc_assets.orchestration.handover import report_complete_days
from btc_assets.orchestration.jobs import asset_key
from btc_assets.orchestration.metadata import column_schema
from btc_assets.orchestration.old_events import delete_old_events
from btc_assets.store.database import Store, only_row
from btc_assets.store.tables import read_columns


def ops_assets(deployment: Deployment, history_assets: Sequence[str]) -> list[dg.AssetsDefinition]:
    """The assets of this room.

    Args:
        deployment: what they are built from.
        history_assets: keys of the assets of all rooms that have daily partitions.
    """
    return [_policies_asset(deployment), _reconciliations_asset(deployment, history_assets)]


class PolicyConfig(dg.Config):
    """Launchpad options of the policies.

    Attributes:
        apply: bring the declared policies into force, as `btc-assets ops apply` does. Off by default, because retention then starts
            to drop ticks, which a person who materializes everything may not want.
    """

    apply: bool = False


def _policies_asset(deployment: Deployment) -> dg.AssetsDefinition:
    settings = deployment.settings

    @dg.asset(
        key=asset_key(POLICIES),
        group_name="ops",
        kinds={"postgres"},
        backfill_policy=dg.BackfillPolicy.single_run(),  # `dagster asset materialize --select '*' --partition-range` demands it
        owners=["team:data-engineering"],
        description=(
            "Compression, retention and refresh policies as declared in btc_assets/ops/policies.py. Materializing runs what is due if "
            "the server has no scheduler or its scheduler failed, records the results, and deletes old events of Dagster; with the option "
            "apply it first brings the policies into force."
        ),
        metadata={"dagster/table_name": "ops.retention_jobs"},
    )
    def policies(context: dg.AssetExecutionContext, config: PolicyConfig, store: dg.ResourceParam[Store]) -> dg.MaterializeResult[None]:
        with plain_failures(), store.connect(owner=True) as connection:
            declared = declared_policies(settings)
            changes = retention_jobs.apply_policies(connection, declared) if config.apply else []
            ran = retention_jobs.run_due_policies(connection)
            statuses = read_policy_statuses(connection, declared)
            retention_jobs.record_statuses(connection, statuses)
            (count,) = only_row(connection.execute("SELECT count(*) FROM ops.retention_jobs"))
            columns = read_columns(connection, "ops.retention_jobs")
        days = settings.dagster_events_days
        deleted = delete_old_events(context.instance, datetime.now(UTC) - timedelta(days=days)) if days else 0
        for change in changes:
            context.log.info(printable(change))
        rows = [(s.job_name, s.state, s.last_result or "", s.drift) for s in statuses]
        table = markdown_table(("policy", "state", "last result", "drift"), rows)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": count,
                **column_schema(columns),
                "changed": len(changes),
                "ran": ", ".join(ran) or "none",
                "events_forgotten": deleted,
                "policies": dg.MetadataValue.md(table),
            }
        )

    return policies


class ReconcileConfig(dg.Config):
    """Launchpad options of reconciling.

    Attributes:
        hours: how far back from now to compare; 0 compares everything.
        heal: also hand the differences to the sensors, which request the runs that repair them.
        ask_again: with `heal`, request stuck slices at once, as is right after their cause was removed; otherwise the sensors
            request them, at growing intervals.
    """

    hours: int = 48
    heal: bool = False
    ask_again: bool = True


def _reconciliations_asset(deployment: Deployment, history_assets: Sequence[str]) -> dg.AssetsDefinition:
    settings = deployment.settings

    @dg.asset(
        key=asset_key(RECONCILIATIONS),
        group_name="ops",
        kinds={"s3", "postgres"},
        backfill_policy=dg.BackfillPolicy.single_run(),
        owners=["team:data-engineering"],
        description=(
            "Landing zone, registry and tables compared from scratch: objects that are missing, changed, extra or in no minute folder, "
            "slices that are stuck or hold other rows than they should, candles that are behind. With the option heal, differences are healed. "
            "Comparing everything also reports days of history that were loaded as slices as materialized."
        ),
        metadata={"dagster/table_name": "ops.reconciliations"},
    )
    def reconciliations(
        context: dg.AssetExecutionContext, config: ReconcileConfig, store: dg.ResourceParam[Store], landing: dg.ResourceParam[Landing]
    ) -> dg.MaterializeResult[None]:
        now = datetime.now(UTC)
        window = Window.covering(now - timedelta(hours=config.hours), now) if config.hours else None
        options = ReconcileOptions(since=settings.history_start, heal=config.heal, ask_again=config.ask_again)
        with plain_failures(), store.connect() as connection:
            found = reconcile(connection, landing.zone(), settings.landing_feeds, window, now, options)
            reported = (
                report_complete_days(context.instance, connection, deployment.partitions, [*map(asset_key, history_assets)])
                if window is None
                else 0
            )
            (count,) = only_row(connection.execute("SELECT count(*) FROM ops.reconciliations"))
            columns = read_columns(connection, "ops.reconciliations")
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": count,
                **column_schema(columns),
                "compared": str(window) if window else "everything",
                "healed": found.healed,
                "history_days_shown": reported,
                **found.counts,
                "differences": dg.MetadataValue.md(bullets(found.sentences)),
            }
        )

    return reconciliations
