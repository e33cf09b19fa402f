"""Assets of the signals: `slice_features`, `btc_embeddings`, `embedding_model`, `embedding_indexes` and `evaluation`."""

from datetime import datetime

import dagster as dg

from btc_assets.domain.printable import markdown_table
from btc_assets.domain.slices import parse_time
from btc_assets.ingestion import due
from btc_assets.landing.resources import Landing
from btc_assets.market_data.keys import TICKS, TICKS_HISTORY
from btc_assets.orchestration.deployment import DATABASE_POOL, Deployment
from btc_assets.orchestration.failures import plain_failures
from btc_assets.orchestration.jobs import asset_key, run_makes
from btc_assets.orchestration.metadata import Output, Shown, column_schema, pictures
from btc_assets.signals.encoders.artifacts import load_encoder, load_maintained
from btc_assets.signals.encoders.interface import Encoder
from btc_assets.signals.encoders.kinds import Kinds
from btc_assets.signals.encoders.models import Model, read_maintained_models, read_model
from btc_assets.signals.encoders.options import FitOptions
from btc_assets.signals.encoders.torch_extra import require_torch
from btc_assets.signals.encoders.training import TrainingPlan, train_model
from btc_assets.signals.features.compute import SliceFeatures
from btc_assets.signals.features.formulas import FEATURES
from btc_assets.signals.features.table import TABLE as FEATURES_TABLE
from btc_assets.signals.keys import EMBEDDINGS, EMBEDDINGS_HISTORY, EVALUATION, INDEXES, MODEL, SLICE_FEATURES, SLICE_FEATURES_HISTORY
from btc_assets.signals.search.activation import embed_and_activate
from btc_assets.signals.search.embeddings import TABLE as EMBEDDINGS_TABLE
from btc_assets.signals.search.embeddings import Embeddings
from btc_assets.signals.search.index_maintenance import maintain_index
from btc_assets.store.database import Store
from btc_assets.store.tables import count_rows, read_columns

# Modules that need PyTorch are imported inside the functions that use them, so everything else works without PyTorch or a model.


def signals_assets(deployment: Deployment) -> list[dg.AssetsDefinition]:
    """The assets of this room."""
    partitions = deployment.partitions
    assets = [_features_asset(deployment, SLICE_FEATURES, partitions.slices), _embeddings_asset(deployment, EMBEDDINGS, partitions.slices)]
    if partitions.history:
        assets.append(_features_asset(deployment, SLICE_FEATURES_HISTORY, partitions.history))
        assets.append(_embeddings_asset(deployment, EMBEDDINGS_HISTORY, partitions.history))
    return [*assets, _model_asset(deployment), _indexes_asset(), _evaluation_asset(deployment)]


def _features_asset(deployment: Deployment, key: str, partitions: dg.TimeWindowPartitionsDefinition) -> dg.AssetsDefinition:
    sliced = key == SLICE_FEATURES

    @dg.asset(
        key=asset_key(key),
        group_name="signals" if sliced else "history",
        deps=[asset_key(TICKS if sliced else TICKS_HISTORY)],
        io_manager_key="copy_io_manager",
        kinds={"postgres"},
        owners=["team:research"],
        description=f"{len(FEATURES)} features of each slice, and its 60 bars of 5 seconds, computed from its ticks.",
        metadata={"dagster/table_name": FEATURES_TABLE, "table": FEATURES_TABLE},
        **deployment.writes_slices(partitions),
    )
    def features(context: dg.AssetExecutionContext, store: dg.ResourceParam[Store]) -> Output:
        window = deployment.partitions.run_window(context)
        rows = SliceFeatures(
            store,
            window,
            deployment.settings.landing_feeds.labels,
            progress=lambda done: deployment.report_progress("features", done, len(window)),
            only_due=run_makes(context, TICKS, TICKS_HISTORY),  # a load makes the features of its slices itself
        )
        return Output(rows, lambda connection: Shown(slice_rows=count_rows(connection, FEATURES_TABLE, window)))

    return features


def _embeddings_asset(deployment: Deployment, key: str, partitions: dg.TimeWindowPartitionsDefinition) -> dg.AssetsDefinition:
    sliced = key == EMBEDDINGS

    @dg.asset(
        key=asset_key(key),
        group_name="signals" if sliced else "history",
        deps=[asset_key(SLICE_FEATURES if sliced else SLICE_FEATURES_HISTORY)],
        io_manager_key="copy_io_manager",
        kinds={"postgres", "torch"},
        owners=["team:research"],
        description="A vector of each slice by every maintained model, with what the next slice brought as its label.",
        metadata={"dagster/table_name": EMBEDDINGS_TABLE, "table": EMBEDDINGS_TABLE},
        **deployment.writes_slices(partitions),
    )
    def embeddings(context: dg.AssetExecutionContext, store: dg.ResourceParam[Store], landing: dg.ResourceParam[Landing]) -> list[Output]:
        window = deployment.partitions.run_window(context)
        with plain_failures(), store.connect() as connection:
            slices_due = due.read_due_marks(connection, EMBEDDINGS, window, below=SLICE_FEATURES)
            models = read_maintained_models(connection)
            if not models:
                due.clear_due_marks(connection, EMBEDDINGS, slices_due)
                context.log.info("No model is maintained: train one (btc-assets train) and activate it (btc-assets models activate).")
                return []
            kinds = Kinds.of(deployment.settings)
            encoders, lacks = load_maintained(models, landing.models(), kinds)
            for lack in lacks:
                context.log.warning(f"{lack} Its slices stay due until then, and everything else goes on.")

            def embed_with(model: Model, encoder: Encoder) -> Output:
                last = not lacks and model == models[-1]
                rows = Embeddings(
                    store,
                    model,
                    encoder,
                    window,
                    settles=slices_due if last else (),
                    progress=lambda done: deployment.report_progress("embeddings", done, len(window)),
                )
                return Output(rows, lambda connection: Shown(metadata={model.model_id: rows.summary()}))

            return [embed_with(model, encoder) for model, encoder in encoders]

    return embeddings


# The assets below cover everything stored, not the slices of a run. They have no dependencies in Dagster and a group of their own, so
# that a backfill of a range with everything downstream does not also train an encoder.


class TrainConfig(dg.Config):
    """Launchpad options of training.

    `kind`: rocket-pca, tcn, or one that a package or BTC_ASSETS_ENCODERS declares. `start`, `end`: range to train on; by default, everything stored. `symbol`: needed if several feeds
    land. `activate`: also embed what is stored, build the index, and let the model answer searches.
    """

    kind: str = "rocket-pca"
    symbol: str | None = None
    start: str | None = None
    end: str | None = None
    dim: int = 256
    seed: int = 0
    activate: bool = False


def _model_asset(deployment: Deployment) -> dg.AssetsDefinition:
    settings = deployment.settings

    @dg.asset(
        key=asset_key(MODEL),
        group_name="encoders",
        backfill_policy=dg.BackfillPolicy.single_run(),
        kinds={"torch", "s3"},
        owners=["team:research"],
        description=(
            "An encoder, trained on the stored features and bars: an immutable artifact in the landing zone, registered in signals.models."
        ),
        metadata={"dagster/table_name": "signals.models"},
    )
    def embedding_model(
        context: dg.AssetExecutionContext, config: TrainConfig, store: dg.ResourceParam[Store], landing: dg.ResourceParam[Landing]
    ) -> dg.MaterializeResult[None]:
        with plain_failures(), store.connect() as connection:
            plan = TrainingPlan(
                symbol=settings.landing_feeds.by_label(config.symbol).label,
                kind=config.kind,
                start=_time(config.start),
                end=_time(config.end),
                options=FitOptions(dim=config.dim, seed=config.seed),
                kinds=Kinds.of(settings),
            )
            model = train_model(store, landing.models(), settings.home / "training", plan, progress=deployment.report_progress)
            done = None
            if config.activate:
                encoder = load_encoder(model.model_id, landing.models(), kinds=plan.kinds)
                done = embed_and_activate(store, model, encoder, progress=deployment.report_progress)
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

    return embedding_model


class EvaluationConfig(dg.Config):
    """Launchpad options of the evaluation.

    `start`, `end`: the slices; by default, the newest 90 days that are stored. `symbol`: needed if several feeds land. `models`: ids
    to evaluate; by default, an encoder of `kind` is trained on the slices before the queries. `generated`: instead evaluate such an
    encoder on a generated market of this many days, whose regimes are known.
    """

    symbol: str | None = None
    start: str | None = None
    end: str | None = None
    models: list[str] = []  # noqa: RUF012  # Dagster copies it
    kind: str = "rocket-pca"
    generated: int = 0
    seed: int = 0


def _evaluation_asset(deployment: Deployment) -> dg.AssetsDefinition:
    settings = deployment.settings

    @dg.asset(
        key=asset_key(EVALUATION),
        group_name="encoders",
        backfill_policy=dg.BackfillPolicy.single_run(),
        kinds={"torch"},
        owners=["team:research"],
        description=(
            "Forecasts of the next slice from similar slices, compared with persistence, time of day, HAR, raw features, an untrained encoder "
            "and chance: a table and a picture, with all signs of leakage."
        ),
    )
    def evaluation(
        context: dg.AssetExecutionContext, config: EvaluationConfig, store: dg.ResourceParam[Store], landing: dg.ResourceParam[Landing]
    ) -> dg.MaterializeResult[None]:
        with plain_failures(), store.connect() as connection:
            require_torch()  # whatever is evaluated, an untrained `tcn` is compared with it
            from btc_assets.signals.evaluation.evaluate_encoders import (
                EvaluationPlan,
                evaluate_generated,
                evaluate_stored,
                read_newest_window,
            )

            kinds = Kinds.of(settings)
            if config.generated:
                result = evaluate_generated(
                    days=config.generated, kind=config.kind, seed=config.seed, kinds=kinds, progress=deployment.report_progress
                )
            else:
                symbol = settings.landing_feeds.by_label(config.symbol).label
                plan = EvaluationPlan(
                    symbol,
                    read_newest_window(connection, symbol, _time(config.start), _time(config.end)),
                    models=[read_model(connection, model_id) for model_id in config.models],
                    kind=config.kind,
                    seed=config.seed,
                    kinds=kinds,
                )
                result = evaluate_stored(store, landing.models(), plan, progress=deployment.report_progress)
        return dg.MaterializeResult(
            metadata={
                "evaluation": dg.MetadataValue.md(result.to_markdown()),
                **pictures({"R2 out of sample": result.plot()}),
                "alarms": len(result.alarms),
            }
        )

    return evaluation


class IndexConfig(dg.Config):
    """Launchpad options of the indexes: `method` ivfflat or hnsw, `element` vector or halfvec; by default the present kind of each."""

    method: str | None = None
    element: str | None = None


def _indexes_asset() -> dg.AssetsDefinition:
    @dg.asset(
        key=asset_key(INDEXES),
        group_name="encoders",
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=DATABASE_POOL,
        kinds={"postgres"},
        owners=["team:research"],
        description=(
            "The approximate index of each maintained model: measured against exact search with 100 queries, built once there are 10,000 "
            "vectors, and rebuilt when its recall falls or the vectors grow by half."
        ),
        metadata={"dagster/table_name": "signals.embedding_indexes"},
    )
    def embedding_indexes(
        context: dg.AssetExecutionContext, config: IndexConfig, store: dg.ResourceParam[Store]
    ) -> dg.MaterializeResult[None]:
        with plain_failures(), store.connect(owner=True) as connection:
            done = [
                maintain_index(connection, model, method=config.method, element=config.element, progress=context.log.info)
                for model in read_maintained_models(connection)
            ]
            columns = read_columns(connection, "signals.embedding_indexes")
        rows = [(one.model_id, one.action, one.why, str(one.index or "")) for one in done]
        table = markdown_table(("model", "done", "why", "index"), rows)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": sum(one.index is not None for one in done),
                **column_schema(columns),
                "indexes": dg.MetadataValue.md(table if done else "No model is maintained."),
            }
        )

    return embedding_indexes


def _time(text: str | None) -> datetime | None:
    return parse_time(text) if text else None
