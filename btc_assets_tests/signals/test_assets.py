"""The assets as Dagster runs them: embeddings by every maintained model, without a model, and without PyTorch."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from btc_assets.domain.slices import SLICE, Window
from btc_assets.signals.encoders.models import set_maintained
from btc_assets_tests.support.daemon import QUIET_LOG
from btc_assets_tests.support.stored_slices import NEXT_DAY, activate, materialize, train
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import every


@pytest.mark.slow
def test_new_slices_are_embedded_by_every_maintained_model_and_clear_their_due_marks(filled: StoreUnderTest) -> None:
    active, other, idle = train(filled), train(filled, seed=1), train(filled, seed=2)
    activate(filled, active)
    set_maintained(filled.connection, other, True)
    window = Window(NEXT_DAY, NEXT_DAY + 2 * SLICE)
    filled.land(every(2.0, 300, start=NEXT_DAY, first_id=10**10))
    assert materialize(filled, "ingest", window)
    count = "SELECT count(*) FROM signals.btc_embeddings WHERE model_id = %s AND bucket_5m >= %s AND embedding IS NOT NULL"
    assert [filled.rows(count, model.model_id, NEXT_DAY)[0][0] for model in (active, other, idle)] == [2, 2, 0]
    assert filled.rows("SELECT count(*) FROM ingestion.due_slices") == [(0,)]


def test_without_a_model_the_chain_succeeds_and_nothing_stays_due(store: StoreUnderTest) -> None:
    store.land(every(2.0, 300))
    window = Window(datetime(2024, 1, 10, 12, tzinfo=UTC), datetime(2024, 1, 10, 12, 10, tzinfo=UTC))
    assert materialize(store, "ingest", window)
    assert store.rows("SELECT count(*) FROM signals.slice_features") == [(2,)]
    assert store.rows("SELECT count(*) FROM signals.btc_embeddings") == [(0,)]
    assert store.rows("SELECT count(*) FROM ingestion.due_slices") == [(0,)]


@pytest.mark.slow
def test_the_evaluation_is_shown_with_its_picture(filled: StoreUnderTest) -> None:
    result = filled.definitions.resolve_job_def("evaluate").execute_in_process(run_config=QUIET_LOG)
    (event,) = [event for event in result.all_events if event.is_step_materialization]
    metadata = event.step_materialization_data.materialization.metadata
    assert "| HAR |" in str(metadata["evaluation"].value) and "data:image/png;base64," in str(metadata["R2 out of sample"].value)
