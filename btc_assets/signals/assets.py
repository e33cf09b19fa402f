"""Assets of the signals: `slice_features`, `btc_embeddings`, `embedding_model`, `embedding_indexes` and `evaluation`."""

from datetime import datetime
from typing import Any

import dagster as dg

from btc_assets.domain import progress
from btc_assets.domain.settings import settings
from btc_assets.domain.slices import parse_time
from btc_assets.ingestion import due
from btc_assets.orchestration.failures import RETRIES, plain_failures
from btc_assets.orchestration.metadata import column_schema, pictures
from btc_assets.orchestration.partitions import DATABASE_POOL, backfill_policy, five_minutes, history, run_window
from btc_assets.orchestration.resources import Landing, Store
from btc_assets.signals.encoders import models
from btc_assets.signals.encoders.optional import require_torch
from btc_assets.signals.features import table as slice_features
from btc_assets.signals.search import embeddings, indexes
from btc_assets.simulation.replay import feed_named
from btc_assets.store.database import dsn
from btc_assets.store.tables import read_columns

# Modules that need PyTorch are imported where they are used: without it, or without a model, everything else goes on.


def _features(context: dg.AssetExecutionContext, store: Store) -> slice_features.SliceFeatures:
    window = run_window(context)
    return slice_features.SliceFeatures(
        store.connect,
        dsn(),
        window,
        [feed.label for feed in settings().landing_feeds],
        progress=lambda done: progress.report("features", done, len(window)),
    )


def _embeddings(context: dg.AssetExecutionContext, store: Store, landing: Landing) -> list[embeddings.Embeddings]:
    window = run_window(context)
    with plain_failures(), store.connect() as connection:
        connection.autocommit = True
        due_before = due.before_making(connection, embeddings.ASSET, window, below=slice_features.ASSET)
        kept_up = models.kept_up(connection)
        if not kept_up:
            due.settle(connection, embeddings.ASSET, due_before)
            context.log.info("No model is kept up: train one (btc-assets train) and activate it (btc-assets models activate).")
            return []
        require_torch()
        from btc_assets.signals.encoders.artefacts import load

        return [
            embeddings.Embeddings(
                store.connect,
                dsn(),
                model,
                load(model.model_id, landing.models()),
                window,
                settles=due_before if model == kept_up[-1] else (),
                progress=lambda done: progress.report("embeddings", done, len(window)),
            )
            for model in kept_up
        ]


def _sliced(make: Any, name: str, partitions: dg.TimeWindowPartitionsDefinition, group: str, deps: list[dg.AssetKey], table: str, text: str) -> dg.AssetsDefinition:  # fmt: skip
    return dg.asset(
        name=name,
        key_prefix="signals",
        group_name=group,
        deps=deps,
        partitions_def=partitions,
        backfill_policy=backfill_policy,
        retry_policy=RETRIES,
        pool=DATABASE_POOL,
        io_manager_key="copy_io_manager",
        kinds={"postgres"} if make is _features else {"postgres", "torch"},
        owners=["team:research"],
        description=text,
        metadata={"dagster/table_name": table, "table": table},
    )(make)


def _features_asset(name: str, partitions: dg.TimeWindowPartitionsDefinition, group: str, ticks: str) -> dg.AssetsDefinition:
    return _sliced(
        _features, name, partitions, group, [dg.AssetKey(["market_data", ticks])], slice_features.TABLE,
        "48 features of each slice, and its 60 bars of 5 seconds, made of its ticks.",
    )  # fmt: skip


def _embeddings_asset(name: str, partitions: dg.TimeWindowPartitionsDefinition, group: str, features: str) -> dg.AssetsDefinition:
    return _sliced(
        _embeddings, name, partitions, group, [dg.AssetKey(["signals", features])], embeddings.TABLE,
        "A vector of each slice, by every model that is kept up; what the next slice brought stands beside it as a label.",
    )  # fmt: skip


# What follows looks at all that is stored, not at the slices of a run. It depends on no other asset for Dagster and has a group of
# its own, so that whoever backfills a range with all that is made of it does not train an encoder as well.


class TrainConfig(dg.Config):
    """Launchpad options of training.

    `kind`: rocket-pca or tcn. `start`, `end`: what it is trained on, all that is stored unless they are given. `symbol`: needed
    where several feeds land. `activate`: also embed what is stored, build the index, and have it answer searches.
    """

    kind: str = "rocket-pca"
    symbol: str | None = None
    start: str | None = None
    end: str | None = None
    dim: int = 256
    seed: int = 0
    activate: bool = False


@dg.asset(
    key_prefix="signals",
    group_name="encoders",
    backfill_policy=dg.BackfillPolicy.single_run(),
    kinds={"torch", "s3"},
    owners=["team:research"],
    description="An encoder, trained on the features and bars that are stored: an immutable artefact in the landing zone, registered in signals.models.",
    metadata={"dagster/table_name": "signals.models"},
)
def embedding_model(context: dg.AssetExecutionContext, config: TrainConfig, store: Store, landing: Landing) -> dg.MaterializeResult[None]:
    with plain_failures(), store.connect(owner=config.activate) as connection:
        connection.autocommit = True
        require_torch()
        from btc_assets.signals.workflows import activate, train

        model = train(
            connection,
            dsn(),
            landing.models(),
            settings().home / "training",
            kind=config.kind,
            symbol=feed_named(settings().landing_feeds, config.symbol).label,
            start=_time(config.start),
            end=_time(config.end),
            dim=config.dim,
            seed=config.seed,
            progress=progress.report,
        )
        done = activate(connection, store.connect, dsn(), landing.models(), model, progress=progress.report) if config.activate else None
        columns = read_columns(connection, "signals.models")
    return dg.MaterializeResult(
        metadata={
            **column_schema(columns),
            "model_id": model.model_id,
            "dim": model.dim,
            "symbol": model.symbol,
            "trained_from": f"{model.trained_from:%Y-%m-%d %H:%M}",
            "trained_to": f"{model.trained_to:%Y-%m-%d %H:%M}",
            "dagster/uri": model.uri,
            "active": str(done) if done else "no: btc-assets models activate does it",
            **model.metrics,
        }
    )


class EvaluationConfig(dg.Config):
    """Launchpad options of the evaluation.

    `start`, `end`: the slices, the newest 90 days that are stored unless they are given. `symbol`: needed where several feeds
    land. `models`: ids to judge; by default an encoder of `kind` is trained on what lies before the questions.
    `generated`: instead judge such an encoder on a generated market of so many days, whose regimes are known.
    """

    symbol: str | None = None
    start: str | None = None
    end: str | None = None
    models: list[str] = []  # noqa: RUF012  # Dagster copies it
    kind: str = "rocket-pca"
    generated: int = 0
    seed: int = 0


@dg.asset(
    key_prefix="signals",
    group_name="encoders",
    backfill_policy=dg.BackfillPolicy.single_run(),
    kinds={"torch"},
    owners=["team:research"],
    description=(
        "What similar slices foretell of the next one, against persistence, time of day, HAR, raw features, an untrained encoder and "
        "chance: a table and a picture, with every sign of leakage."
    ),
)
def evaluation(context: dg.AssetExecutionContext, config: EvaluationConfig, store: Store, landing: Landing) -> dg.MaterializeResult[None]:
    with plain_failures(), store.connect() as connection:
        connection.autocommit = True
        require_torch()
        from btc_assets.signals.workflows import evaluate_generated, evaluate_stored, newest_window

        if config.generated:
            result = evaluate_generated(days=config.generated, kind=config.kind, seed=config.seed, progress=progress.report)
        else:
            symbol = feed_named(settings().landing_feeds, config.symbol).label
            result = evaluate_stored(
                dsn(),
                landing.models(),
                symbol,
                newest_window(connection, symbol, _time(config.start), _time(config.end)),
                trained=[models.read(connection, model_id) for model_id in config.models],
                kind=config.kind,
                seed=config.seed,
                progress=progress.report,
            )
    return dg.MaterializeResult(
        metadata={
            "evaluation": dg.MetadataValue.md(result.to_markdown()),
            **pictures({"R2 out of sample": result.plot()}),
            "alarms": len(result.alarms),
        }
    )


class IndexConfig(dg.Config):
    """Launchpad options of the indexes: `method` ivfflat or hnsw, `element` vector or halfvec; by default what each model has."""

    method: str | None = None
    element: str | None = None


@dg.asset(
    key_prefix="signals",
    group_name="encoders",
    backfill_policy=dg.BackfillPolicy.single_run(),
    pool=DATABASE_POOL,
    kinds={"postgres"},
    owners=["team:research"],
    description=(
        "The approximate index of each model that is kept up: measured against exact search with 100 queries, and built where there is none "
        "for 10,000 vectors, where it finds too few of the nearest, or where the vectors grew by half."
    ),
    metadata={"dagster/table_name": "signals.embedding_indexes"},
)
def embedding_indexes(context: dg.AssetExecutionContext, config: IndexConfig, store: Store) -> dg.MaterializeResult[None]:
    with plain_failures(), store.connect(owner=True) as connection:
        connection.autocommit = True
        cares = [
            indexes.care(connection, model, method=config.method, element=config.element, progress=context.log.info)
            for model in models.kept_up(connection)
        ]
        columns = read_columns(connection, "signals.embedding_indexes")
    lines = [f"| {care.model_id} | {care.action} | {care.why} | {care.index or ''} |" for care in cares]
    table = "\n".join(["| model | done | why | index |", "|---|---|---|---|", *lines])
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": sum(care.index is not None for care in cares),
            **column_schema(columns),
            "indexes": dg.MetadataValue.md(table if cares else "No model is kept up."),
        }
    )


def _time(text: str | None) -> datetime | None:
    return parse_time(text) if text else None


sliced_assets = [
    _features_asset("slice_features", five_minutes, "signals", "btc_ticks"),
    _embeddings_asset("btc_embeddings", five_minutes, "signals", "slice_features"),
]
history_assets = (
    [
        _features_asset("slice_features_history", history, "history", "btc_ticks_history"),
        _embeddings_asset("btc_embeddings_history", history, "history", "slice_features_history"),
    ]
    if history
    else []
)
signals_assets = [*sliced_assets, *history_assets, embedding_model, embedding_indexes, evaluation]
