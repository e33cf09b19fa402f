"""Training an encoder on stored slices, and registering it as a model."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from btc_assets.domain.errors import UserError
from btc_assets.domain.progress import Listener, ignore_progress
from btc_assets.domain.slices import Window
from btc_assets.landing.zone import LandingZone
from btc_assets.market_data.versions import read_recorded_digests
from btc_assets.signals.encoders.artifacts import artifact_path, save_encoder
from btc_assets.signals.encoders.fitting import fit_encoder
from btc_assets.signals.encoders.kinds import Kinds
from btc_assets.signals.encoders.models import Model, read_model, register_model
from btc_assets.signals.encoders.options import FitOptions
from btc_assets.signals.encoders.windows import TrainingWindows
from btc_assets.signals.features import schema
from btc_assets.signals.features.formulas import FEWEST_TICKS
from btc_assets.signals.features.slice_arrays import SliceArrays
from btc_assets.signals.features.table import read_features, read_stored_window
from btc_assets.store.database import Store

FEWEST_SLICES = 50


@dataclass(frozen=True)
class TrainingPlan:
    """What to train, and on which slices.

    Attributes:
        symbol: whose slices.
        kind: of the encoder.
        start, end: range to train on; by default, everything stored.
        options: how to fit the encoder.
        kinds: of encoders that this process may use; by default, those that no setting names.
    """

    symbol: str
    kind: str = "rocket-pca"
    start: datetime | None = None
    end: datetime | None = None
    options: FitOptions = field(default_factory=FitOptions)
    kinds: Kinds = field(default_factory=Kinds)


def train_model(
    store: Store, artifacts: LandingZone, checkpoints: Path, plan: TrainingPlan, *, progress: Listener = ignore_progress
) -> Model:
    """Train an encoder and register it. It is neither maintained nor active yet.

    Args:
        store: holds the slices and the table of models.
        artifacts: where encoders are stored.
        checkpoints: a directory; interrupted training resumes from there and ends with the same model.
        plan: what to train.
        progress: called with stage, done and total.

    Raises:
        UserError: too few slices are stored, or the kind or the device does not exist.
    """
    plan.kinds.require(plan.kind)
    with store.connect() as connection:
        window = read_stored_window(connection, plan.symbol, plan.start, plan.end)
        # Before the features are read: a slice that is loaded in between is told to have changed, and none is believed not to have.
        data = read_recorded_digests(connection, plan.symbol, window)
    slices = read_features(store, plan.symbol, window)
    slices = slices.where(slices.embeddable)
    if len(slices) < FEWEST_SLICES:
        raise UserError(
            f"Only {len(slices)} slices of {plan.symbol} with {FEWEST_TICKS} ticks or more are stored in {window}, and training takes "
            f"{FEWEST_SLICES}: load more (btc-assets load), or name another range."
        )
    started = datetime.now(UTC)
    checkpoints.mkdir(parents=True, exist_ok=True)
    checkpoint = checkpoints / f"{_training_id(plan, window, slices)}.pt"
    encoder = fit_encoder(plan.kind, TrainingWindows.of(slices), plan.options, kinds=plan.kinds, checkpoint=checkpoint, progress=progress)
    model_id = save_encoder(encoder, artifacts)
    seconds = round((datetime.now(UTC) - started).total_seconds(), 1)
    first, last = slices.range
    model = Model(
        model_id=model_id,
        kind=plan.kind,
        symbol=plan.symbol,
        dim=plan.options.dim,
        feature_schema=schema.digest(),
        trained_from=first,
        trained_to=last,
        metrics={"slices": len(slices), "seed": plan.options.seed, "training_seconds": seconds, **plan.kinds.describe(plan.kind)},
        uri=f"{artifacts.url}/{artifact_path(model_id)}",
    )
    with store.connect() as connection:
        register_model(connection, model, data and data.part(Window(first, last)))
        return read_model(connection, model_id)


def _training_id(plan: TrainingPlan, window: Window, slices: SliceArrays) -> str:
    """Changes with everything that the trained model depends on."""
    options, features = plan.options, hashlib.sha256(slices.features.tobytes()).hexdigest()
    text = f"{plan.kind} {plan.symbol} {window} {options.dim} {options.seed} {options.epochs} {schema.digest()} {features}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]
