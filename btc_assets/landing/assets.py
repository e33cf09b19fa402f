"""Assets `landing/raw_blobs_5m`, the registry, and `landing/raw_blobs_history`, the same for the days before its partitions."""

import time

import dagster as dg

from btc_assets.domain import progress
from btc_assets.domain.settings import settings
from btc_assets.landing.registry import register_window
from btc_assets.orchestration.failures import RETRIES, plain_failures
from btc_assets.orchestration.metadata import add_once, add_slice_rows, column_schema
from btc_assets.orchestration.partitions import DATABASE_POOL, backfill_policy, five_minutes, history, last_partition, run_window
from btc_assets.orchestration.resources import Landing, Store
from btc_assets.store.tables import count_rows, read_columns

_TABLE = "landing.raw_blobs_5m"


class RegisterConfig(dg.Config):
    """Launchpad options of the registry."""

    reread: bool = False


def _register(context: dg.AssetExecutionContext, config: RegisterConfig, store: Store, landing: Landing) -> dg.MaterializeResult[None]:
    started = time.perf_counter()
    window = run_window(context)
    with plain_failures(), store.connect() as connection:
        connection.autocommit = True
        zone = landing.zone()
        result = register_window(
            connection,
            zone,
            settings().landing_feeds,
            window,
            margin=settings().landing_margin,
            reread=config.reread,
            spool=landing.spool,
            progress=lambda done, total: progress.report("objects", done, total),
        )
        rows = count_rows(connection, _TABLE, window)
        add_slice_rows(context, context.asset_key, window, last_partition(context), rows)
        add_once(context, context.asset_key, last_partition(context), column_schema(read_columns(connection, _TABLE)))
    for rejection in result.rejections:
        context.log.warning(f"rejected {rejection}")
    for refusal in result.refused:
        context.log.warning(refusal)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": sum(rows.values()),
            "objects_listed": result.listed,
            "objects_read": result.read,
            "objects_registered": result.registered,
            "objects_rejected": result.rejected,
            "objects_gone": result.gone,
            "rejected_rows": result.rejected_rows,
            "bytes_read": result.bytes,
            "dagster/uri": zone.url,
            "seconds": round(time.perf_counter() - started, 3),
            **({"rejections": dg.MetadataValue.md("\n".join(f"* {text}" for text in result.rejections))} if result.rejections else {}),
        }
    )


def _registry_asset(name: str, partitions: dg.TimeWindowPartitionsDefinition, group: str, of: str) -> dg.AssetsDefinition:
    return dg.asset(
        name=name,
        key_prefix="landing",
        group_name=group,
        partitions_def=partitions,
        backfill_policy=backfill_policy,
        retry_policy=RETRIES,
        pool=DATABASE_POOL,
        kinds={"s3", "postgres"},
        owners=["team:data-engineering"],
        description=(
            f"Which objects of the landing zone cover each {of}. Lists the folders of its slices, reads every object once, verifies "
            "it and registers it under each slice that it covers; what cannot be read is marked rejected, with the reason."
        ),
        metadata={"dagster/table_name": _TABLE},
    )(_register)


raw_blobs_5m = _registry_asset("raw_blobs_5m", five_minutes, "landing", "slice")
landing_assets = [raw_blobs_5m, *([_registry_asset("raw_blobs_history", history, "history", "slice of a day")] if history else [])]
