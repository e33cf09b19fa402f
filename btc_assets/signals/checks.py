"""Asset checks of the signals: features agree with their ticks, every slice is embedded, and the indexes find the nearest slices."""

import dagster as dg
import psycopg

from btc_assets.domain.slices import Window
from btc_assets.orchestration.checks import Problems, SliceCheck, check_result, check_slices
from btc_assets.orchestration.deployment import Deployment
from btc_assets.orchestration.failures import plain_failures
from btc_assets.orchestration.jobs import asset_key
from btc_assets.signals.encoders.kinds import Kinds
from btc_assets.signals.encoders.models import read_maintained_models
from btc_assets.signals.features.table import find_feature_differences
from btc_assets.signals.keys import EMBEDDINGS, EMBEDDINGS_HISTORY, INDEXES, SLICE_FEATURES, SLICE_FEATURES_HISTORY
from btc_assets.signals.search.embeddings import read_embedding_differences
from btc_assets.signals.search.index_maintenance import LEAST_RECALL
from btc_assets.signals.search.indexes import read_index
from btc_assets.signals.search.recall import measure_recall
from btc_assets.store.database import Store

FEATURES_CHECK = SliceCheck(
    "features_equal_ticks",
    "The features count the trades and the volume of the ticks that were loaded, as the load recorded them (registry_equals_table compares "
    "that with the table); where they differ, those of the ticks themselves, unless retention dropped them.",
    "differences",
    lambda connection, window: Problems(find_feature_differences(connection, window)),
)


def embeddings_check(kinds: Kinds) -> SliceCheck:
    """The check of the embeddings, in a process with these kinds of encoders."""

    def find(connection: psycopg.Connection, window: Window) -> Problems:
        models = read_maintained_models(connection)
        problems = []
        for model in models:
            differences = read_embedding_differences(connection, model, window)
            lack = kinds.explain_lack(model) if differences else None
            problems += [f"{lack} {len(differences):,} slices wait for it."] if lack else differences
        return Problems(problems, {"models": len(models)})

    return SliceCheck(
        "every_slice_embedded",
        "Every slice that has features was embedded by every maintained model after they were computed.",
        "differences",
        find,
    )


@dg.asset_check(
    asset=asset_key(INDEXES),
    name="recall_at_10",
    description=f"100 searches by the index find {LEAST_RECALL:.0%} or more of the 10 nearest slices that exact search finds.",
)
def recall_at_10(store: dg.ResourceParam[Store]) -> dg.AssetCheckResult:
    with plain_failures(), store.connect() as connection:
        indexed = [model for model in read_maintained_models(connection) if read_index(connection, model)]
        recalls = {model.model_id: measure_recall(connection, model) for model in indexed}
    low = [f"{model}: {recall:.3f}; materialize signals/embedding_indexes" for model, recall in recalls.items() if recall < LEAST_RECALL]
    return check_result(low, "too_low", **{model: f"{recall:.3f}" for model, recall in recalls.items()})


def signals_checks(deployment: Deployment) -> list[dg.AssetChecksDefinition]:
    """The checks of this room."""
    of_embeddings = embeddings_check(Kinds.of(deployment.settings))
    steps = {"check_signals": (SLICE_FEATURES, EMBEDDINGS)}
    if deployment.partitions.history:
        steps["check_signals_history"] = (SLICE_FEATURES_HISTORY, EMBEDDINGS_HISTORY)
    return [
        *(
            check_slices(name, [(asset_key(features), FEATURES_CHECK), (asset_key(embeddings), of_embeddings)], deployment)
            for name, (features, embeddings) in steps.items()
        ),
        recall_at_10,
    ]
