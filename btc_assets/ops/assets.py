"""Asset `ops/retention_jobs`: the declared policies, in force."""

import dagster as dg

from btc_assets.metadata import column_schema
from btc_assets.ops import retention_jobs as jobs
from btc_assets.ops.policies import declared
from btc_assets.resources import Store, plain_failures
from btc_assets.settings import settings
from btc_assets.tables import read_columns


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
        "the server has no scheduler or its scheduler failed, and records how each last went; with the option apply it first brings "
        "them into force."
    ),
    metadata={"dagster/table_name": "ops.retention_jobs"},
)
def retention_jobs(context: dg.AssetExecutionContext, config: PolicyConfig, store: Store) -> dg.MaterializeResult[None]:
    with plain_failures(), store.connect() as connection:
        connection.autocommit = True
        policies = declared(settings())
        changes = jobs.apply(connection, policies) if config.apply else []
        ran = jobs.run_due(connection)
        statuses = jobs.read(connection, policies)
        jobs.record(connection, statuses)
        rows = connection.execute("SELECT FROM ops.retention_jobs").fetchall()
        columns = read_columns(connection, "ops.retention_jobs")
    for change in changes:
        context.log.info(change)
    lines = [f"| {s.job_name} | {s.state} | {s.last_result or ''} | {s.drift} |" for s in statuses]
    table = "\n".join(["| policy | state | last result | drift |", "|---|---|---|---|", *lines])
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": len(rows),
            **column_schema(columns),
            "changed": len(changes),
            "ran": ", ".join(ran) or "none",
            "policies": dg.MetadataValue.md(table),
        }
    )
