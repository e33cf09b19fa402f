"""Assets of the registry: `landing/raw_blobs_5m`, and `landing/raw_blobs_history` for the days before its partitions."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime

import dagster as dg

from btc_assets.domain.printable import printable
from btc_assets.domain.slices import Window
from btc_assets.landing.keys import REGISTRY, REGISTRY_HISTORY
from btc_assets.landing.registration import RegisterOptions, register_window
from btc_assets.landing.resources import Landing
from btc_assets.orchestration.checks import bullets
from btc_assets.orchestration.deployment import Deployment
from btc_assets.orchestration.failures import plain_failures
from btc_assets.orchestration.jobs import asset_key
from btc_assets.orchestration.metadata import add_once, add_slice_rows, column_schema
from btc_assets.orchestration.partitions import last_partition
from btc_assets.store.database import Store
from btc_assets.store.tables import count_all_rows, count_rows, read_columns

_TABLE = "landing.raw_blobs_5m"


class RegisterConfig(dg.Config):
    """Launchpad options of the registry.

    `reread`: read objects again that are registered already, as after a change of the feeds.
    `new_landing`: load from a landing zone that the registry knows nothing of, beside the one that the store was filled from.
    """

    reread: bool = False
    new_landing: bool = False


# What a run does while it registers a window: a context that yields what is called as folders are settled (see RegisterOptions).
Beside = Callable[[dg.AssetExecutionContext, Window, Store, Landing], AbstractContextManager[Callable[[datetime], None]]]


def landing_assets(deployment: Deployment, beside: Beside) -> list[dg.AssetsDefinition]:
    """The assets of this room.

    Args:
        deployment: what the assets are built from.
        beside: what a run does while it registers.
    """
    partitions = deployment.partitions
    assets = [_registry_asset(deployment, REGISTRY, partitions.slices, beside)]
    if partitions.history:
        assets.append(_registry_asset(deployment, REGISTRY_HISTORY, partitions.history, beside))
    return assets


def _registry_asset(deployment: Deployment, key: str, partitions: dg.TimeWindowPartitionsDefinition, beside: Beside) -> dg.AssetsDefinition:
    settings, sliced = deployment.settings, key == REGISTRY

    @dg.asset(
        key=asset_key(key),
        group_name="landing" if sliced else "history",
        kinds={"s3", "postgres"},
        owners=["team:data-engineering"],
        description=(
            f"Which objects of the landing zone cover each {'slice' if sliced else 'slice of a day'}. Lists the folders of its slices, reads every object once, verifies "
            "it and registers it under each slice that it covers; an unreadable object is marked rejected, with the reason."
        ),
        metadata={"dagster/table_name": _TABLE},
        **deployment.writes_slices(partitions),
    )
    def registry(
        context: dg.AssetExecutionContext, config: RegisterConfig, store: dg.ResourceParam[Store], landing: dg.ResourceParam[Landing]
    ) -> dg.MaterializeResult[None]:
        started = time.perf_counter()
        window = deployment.partitions.run_window(context)
        with plain_failures(), store.connect() as connection:
            zone = landing.zone()
            with beside(context, window, store, landing) as on_settled:
                result = register_window(
                    connection,
                    zone,
                    settings.landing_feeds,
                    window,
                    RegisterOptions(settings.landing_margin, config.reread, landing.spool, config.new_landing, on_settled),
                    lambda done, total: deployment.report_progress("objects", done, total),
                )
            rows = count_rows(connection, _TABLE, window)
            in_table = count_all_rows(connection, _TABLE)
            add_slice_rows(context, context.asset_key, window, last_partition(context), rows)
            add_once(context, context.asset_key, last_partition(context), column_schema(read_columns(connection, _TABLE)))
        for rejection in result.rejections:
            context.log.warning(f"rejected {printable(rejection)}")
        for refusal in result.refusals:
            context.log.warning(printable(refusal))
        strays = [str(stray) for stray in sorted(result.strays)]
        for stray in strays:
            context.log.warning(stray)
        told = {"rejections": result.rejections, "refusals": result.refusals, "strays": strays}
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": in_table,
                "rows": sum(rows.values()),
                "objects_listed": result.listed,
                "objects_read": result.read,
                "objects_registered": result.registered,
                "objects_rejected": result.rejected,
                "objects_refused": result.refused,
                "objects_stray": len(strays),
                "objects_gone": result.gone,
                "rejected_rows": result.rejected_rows,
                "left_out_rows": result.left_out_rows,
                "bytes_read": result.bytes,
                "dagster/uri": zone.url,
                "seconds": round(time.perf_counter() - started, 3),
                **{name: dg.MetadataValue.md(bullets(sentences)) for name, sentences in told.items() if sentences},
            }
        )

    return registry
