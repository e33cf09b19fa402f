"""Asset checks of the signals: features agree with their ticks, every slice is embedded, and the indexes find the nearest."""

import dagster as dg
import psycopg

from btc_assets.orchestration.checks import check_result, check_window, problems_result
from btc_assets.orchestration.failures import plain_failures
from btc_assets.orchestration.partitions import history
from btc_assets.orchestration.resources import Store
from btc_assets.signals.encoders import models
from btc_assets.signals.features import table as slice_features
from btc_assets.signals.search import embeddings, indexes


def _features_equal_ticks(context: dg.AssetCheckExecutionContext, store: Store) -> dg.AssetCheckResult:
    with plain_failures(), store.connect() as connection:
        connection.autocommit = True
        window = check_window(context, connection)
        differences = slice_features.read_differences(connection, window)
    return check_result(window, differences, "differences")


def _every_slice_embedded(context: dg.AssetCheckExecutionContext, store: Store) -> dg.AssetCheckResult:
    with plain_failures(), store.connect() as connection:
        connection.autocommit = True
        window = check_window(context, connection)
        kept_up = models.kept_up(connection)
        differences = [sentence for model in kept_up for sentence in embeddings.read_differences(connection, model, window)]
    return check_result(window, differences, "differences", models=len(kept_up))


@dg.asset_check(
    asset=dg.AssetKey(["signals", "embedding_indexes"]),
    name="recall_at_10",
    description=f"100 searches by the index find {indexes.LEAST_RECALL:.0%} or more of the 10 nearest slices that exact search finds.",
)
def recall_at_10(store: Store) -> dg.AssetCheckResult:
    with plain_failures(), store.connect() as connection:
        connection.autocommit = True
        recalls = {model.model_id: indexes.measure_recall(connection, model) for model in _indexed(connection)}
    low = [
        f"{model}: {recall:.3f}; materialise signals/embedding_indexes"
        for model, recall in recalls.items()
        if recall < indexes.LEAST_RECALL
    ]
    return problems_result(low, "too_low", **{model: f"{recall:.3f}" for model, recall in recalls.items()})


def _indexed(connection: psycopg.Connection) -> list[models.Model]:
    return [model for model in models.kept_up(connection) if indexes.read(connection, model)]


_SLICED = [
    ("slice_features", _features_equal_ticks, "The features count the ticks and the volume that the table of ticks holds, unless retention dropped them."),
    ("btc_embeddings", _every_slice_embedded, "Every slice that has features is embedded by every model that is kept up, since they were made."),
]  # fmt: skip
signals_checks = [
    *(
        dg.asset_check(asset=dg.AssetKey(["signals", asset + suffix]), name=check.__name__.strip("_"), description=text)(check)
        for suffix in ("", *(["_history"] if history else []))
        for asset, check, text in _SLICED
    ),
    recall_at_10,
]
