"""Fixtures: a store with a generated day of features, and what one does with it: train, activate, run jobs."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa
import pytest

from btc_assets.domain.slices import DAY, Window
from btc_assets.orchestration.partitions import partition_tags
from btc_assets.signals.encoders.artifacts import load_encoder
from btc_assets.signals.encoders.models import Model
from btc_assets.signals.encoders.options import FitOptions
from btc_assets.signals.encoders.training import TrainingPlan, train_model
from btc_assets.signals.features.compute import SliceFeatures
from btc_assets.signals.features.table import TABLE
from btc_assets.signals.search.activation import Activation, embed_and_activate
from btc_assets.simulation.generate_market import generate_market
from btc_assets.store.tables import Target
from btc_assets.store.writers import replace_all
from btc_assets_tests.support.daemon import QUIET_LOG
from btc_assets_tests.support.databases import write_ticks
from btc_assets_tests.support.stores import StoreUnderTest

DAY_START = datetime(2024, 1, 10, tzinfo=UTC)
NEXT_DAY = DAY_START + DAY
FULL_DAY = Window(DAY_START, NEXT_DAY)


@pytest.fixture(scope="session")
def market_day() -> pa.Table:
    """A day with 40 trades in each slice."""
    return next(generate_market(DAY_START, 1, slice_ticks=40))[0]


@pytest.fixture
def filled(store: StoreUnderTest, market_day: pa.Table) -> StoreUnderTest:
    """A store with a day of ticks and their features."""
    write_ticks(store.connection, market_day, FULL_DAY)
    store_features(store, FULL_DAY)
    return store


def store_features(store: StoreUnderTest, window: Window, symbols: tuple[str, ...] = ("BTCUSDT",)) -> SliceFeatures:
    """Compute the features of a window and write them."""
    made = SliceFeatures(store.database, window, symbols)
    replace_all(store.connection, Target.of(store.connection, TABLE), made)
    return made


def train(store: StoreUnderTest, *, seed: int = 0, dim: int = 16) -> Model:
    plan = TrainingPlan("BTCUSDT", options=FitOptions(dim=dim, seed=seed))
    return train_model(store.database, store.zone(), store.home / "training", plan)


def activate(store: StoreUnderTest, model: Model) -> Activation:
    return embed_and_activate(store.database, model, load_encoder(model.model_id, store.zone()))


def materialize(store: StoreUnderTest, job: str, window: Window) -> bool:
    """Run a job for a window as Dagster does.

    Raises:
        AssertionError: a step failed; the message is that of the step.
    """
    definition = store.definitions.resolve_job_def(job)
    result = definition.execute_in_process(tags=partition_tags(window), run_config=QUIET_LOG, raise_on_error=False)
    failures = [event for event in result.all_node_events if event.is_step_failure]
    if failures:
        raise AssertionError(failures[0].step_failure_data.user_failure_data.description)  # type: ignore[union-attr]
    return result.success
