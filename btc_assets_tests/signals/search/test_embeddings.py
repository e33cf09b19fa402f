"""From ticks to vectors that answer: training, activating, embedding what is new, and its labels."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from btc_assets.cli.main import main
from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import DAY, SLICE, Window
from btc_assets.ingestion import due
from btc_assets.orchestration.partitions import partition_tags
from btc_assets.signals import workflows
from btc_assets.signals.encoders import models
from btc_assets.signals.encoders.artefacts import load
from btc_assets.signals.encoders.encoder import embed
from btc_assets.signals.encoders.models import Model
from btc_assets.signals.features import table as slice_features
from btc_assets.signals.keys import EMBEDDINGS
from btc_assets.signals.search import embeddings
from btc_assets.signals.search.similar import similar
from btc_assets.simulation.generate_market import generate_market
from btc_assets.store.replace import Replacement
from btc_assets.store.tables import Target
from btc_assets.store.writers import replace_all
from btc_assets_tests.support.daemon import QUIETLY
from btc_assets_tests.support.databases import write_ticks
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import every

DAY_START = datetime(2024, 1, 10, tzinfo=UTC)
FULL_DAY = Window(DAY_START, DAY_START + DAY)
NEXT_DAY = DAY_START + DAY


@pytest.fixture(scope="module")
def market() -> pa.Table:
    """A day of 40 trades a slice."""
    return next(generate_market(DAY_START, 1, slice_ticks=40))[0]


@pytest.fixture
def filled(store: StoreUnderTest, market: pa.Table) -> StoreUnderTest:
    """A store with a day of ticks and their features."""
    write_ticks(store.connection, market, FULL_DAY)
    make_features(store, FULL_DAY)
    return store


def make_features(store: StoreUnderTest, window: Window) -> None:
    made = slice_features.SliceFeatures(store.database, window, ["BTCUSDT"])
    replace_all(store.connection, Target.of(store.connection, slice_features.TABLE), made)


def train(store: StoreUnderTest, *, seed: int = 0, dim: int = 16) -> Model:
    plan = workflows.TrainingPlan("BTCUSDT", dim=dim, seed=seed)
    return workflows.train(store.database, store.zone(), store.home / "training", plan)


def activate(store: StoreUnderTest, model: Model) -> workflows.Activation:
    return workflows.activate(store.database, store.zone(), model)


def materialize(store: StoreUnderTest, job: str, window: Window) -> bool:
    """Run a job for a window as Dagster does."""
    result = store.definitions.resolve_job_def(job).execute_in_process(
        tags=partition_tags(window), run_config=QUIETLY, raise_on_error=False
    )
    failures = [event for event in result.all_node_events if event.is_step_failure]
    if failures:
        raise AssertionError(failures[0].step_failure_data.user_failure_data.description)  # type: ignore[union-attr]
    return result.success


def test_a_model_is_trained_registered_activated_and_answers(filled: StoreUnderTest) -> None:
    model = train(filled)
    assert (model.symbol, model.dim, model.kept_up, model.active) == ("BTCUSDT", 16, False, False)
    assert (model.trained_from, model.trained_to, model.metrics["slices"]) == (FULL_DAY.start, FULL_DAY.end, 288)
    assert (filled.landing / "models" / f"{model.model_id}.safetensors").exists()
    assert "288 vectors are compared one by one" in str(activate(filled, model))
    stored = slice_features.read_features(filled.database, "BTCUSDT", FULL_DAY)
    vectors = embed(load(model.model_id, filled.zone()), stored.bars, stored.features)
    query = DAY_START + 100 * SLICE
    closeness = vectors @ vectors[100]
    assert [one.bucket_5m for one in similar(filled.connection, query, 5)] == [
        DAY_START + int(i) * SLICE for i in np.argsort(-closeness)[1:6]
    ]


def test_the_same_training_gives_the_same_model_and_another_seed_another(filled: StoreUnderTest) -> None:
    model = train(filled)
    assert train(filled) == model
    assert train(filled, seed=1).model_id != model.model_id
    assert len(models.read_models(filled.connection)) == 2


def test_a_slice_with_too_few_ticks_has_a_row_and_no_vector(filled: StoreUnderTest) -> None:
    model = train(filled)
    few = embeddings.FEWEST_TICKS - 1
    write_ticks(filled.connection, every(5.0, few, start=NEXT_DAY), Window.of_slice(NEXT_DAY))
    make_features(filled, Window.of_slice(NEXT_DAY))
    activate(filled, model)
    assert filled.rows("SELECT tick_count, embedding IS NULL FROM signals.btc_embeddings WHERE bucket_5m = %s", NEXT_DAY) == [(few, True)]


def test_labels_tell_of_the_next_slice_as_soon_as_it_is_known(filled: StoreUnderTest) -> None:
    activate(filled, train(filled))
    labels = "SELECT label_snapshot FROM signals.btc_embeddings WHERE bucket_5m = %s"
    features = "SELECT log_return, realized_volatility, volume, trade_count FROM signals.slice_features WHERE bucket_5m = %s"
    ((label,),), ((*following,),) = filled.rows(labels, DAY_START), filled.rows(features, DAY_START + SLICE)
    assert [label[f"next_{name}"] for name in ("return", "realized_volatility", "volume", "trade_count")] == pytest.approx(following)
    assert filled.rows(labels, NEXT_DAY - SLICE) == [(None,)]  # nobody knows yet

    after = Window.of_slice(NEXT_DAY)
    for trades in (60, 90):  # what comes next, and a later version of it
        write_ticks(filled.connection, every(3.0, trades, start=NEXT_DAY), after)
        assert materialize(filled, "rebuild_signals", after)
        assert filled.rows(labels, NEXT_DAY - SLICE)[0][0]["next_trade_count"] == trades


def test_labels_that_were_not_filled_when_a_run_was_killed_are_filled_by_the_next(
    filled: StoreUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: object) -> int:
        raise Killed

    model = train(filled)
    unlabelled = "SELECT count(*) FROM signals.btc_embeddings WHERE label_snapshot IS NULL AND bucket_5m < %s"
    activate(filled, model)
    filled.connection.execute(f"UPDATE {model.table} SET label_snapshot = NULL")  # as before the window of a run that was killed
    activate(filled, model)
    assert filled.rows(unlabelled, NEXT_DAY - SLICE) == [(0,)]

    filled.connection.execute("INSERT INTO ingestion.due_slices (asset, bucket_5m) VALUES (%s, %s)", (EMBEDDINGS, DAY_START))
    slices_due = due.read_due(filled.connection, EMBEDDINGS, FULL_DAY)
    encoder = load(model.model_id, filled.zone())
    made = embeddings.Embeddings(filled.database, model, encoder, Window.of_slice(DAY_START), settles=slices_due)
    with monkeypatch.context() as patch:
        patch.setattr(embeddings, "fill_labels", kill)
        with pytest.raises(Killed):
            replace_all(filled.connection, Target.of(filled.connection, model.table), made)
    assert due.read_due(filled.connection, EMBEDDINGS, FULL_DAY) == slices_due != []


def test_new_slices_are_embedded_with_every_model_that_is_kept_up_and_settle_what_was_due(filled: StoreUnderTest) -> None:
    active, other, idle = train(filled), train(filled, seed=1), train(filled, seed=2)
    activate(filled, active)
    models.set_maintained(filled.connection, other, True)
    window = Window(NEXT_DAY, NEXT_DAY + 2 * SLICE)
    filled.land(every(2.0, 300, start=NEXT_DAY, first_id=10**10))
    assert materialize(filled, "ingest", window)
    count = "SELECT count(*) FROM signals.btc_embeddings WHERE model_id = %s AND bucket_5m >= %s AND embedding IS NOT NULL"
    assert [filled.rows(count, model.model_id, NEXT_DAY)[0][0] for model in (active, other, idle)] == [2, 2, 0]
    assert filled.rows("SELECT count(*) FROM ingestion.due_slices") == [(0,)]


def test_without_a_model_the_chain_goes_through_and_nothing_stays_due(store: StoreUnderTest) -> None:
    store.land(every(2.0, 300))
    window = Window(datetime(2024, 1, 10, 12, tzinfo=UTC), datetime(2024, 1, 10, 12, 10, tzinfo=UTC))
    assert materialize(store, "ingest", window)
    assert store.rows("SELECT count(*) FROM signals.slice_features") == [(2,)]
    assert store.rows("SELECT count(*) FROM signals.btc_embeddings") == [(0,)]
    assert store.rows("SELECT count(*) FROM ingestion.due_slices") == [(0,)]


def test_the_model_that_answers_changes_only_when_the_new_one_is_ready(filled: StoreUnderTest) -> None:
    first, second = train(filled), train(filled, seed=1)
    activate(filled, first)
    artefact = filled.landing / "models" / f"{second.model_id}.safetensors"
    data = artefact.read_bytes()
    artefact.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(UserError, match="is damaged"):
        activate(filled, second)
    assert [model.model_id for model in models.read_models(filled.connection) if model.active or model.kept_up] == [first.model_id]
    artefact.write_bytes(data)
    done = activate(filled, second)
    assert done.before == first.model_id and done.written == 288
    assert [(m.model_id, m.kept_up) for m in models.read_models(filled.connection) if m.active or m.kept_up] == [(second.model_id, True)]


def test_what_has_changed_since_it_was_embedded_is_reported_and_embedded_again_on_activation(filled: StoreUnderTest) -> None:
    model = train(filled)
    activate(filled, model)
    assert embeddings.read_embedding_differences(filled.connection, model, FULL_DAY) == []
    make_features(filled, Window.of_slice(DAY_START))
    filled.connection.execute(f"DELETE FROM {model.table} WHERE bucket_5m = %s", (DAY_START + SLICE,))
    assert embeddings.read_embedding_differences(filled.connection, model, FULL_DAY) == [
        f"BTCUSDT 2024-01-10T00:00Z was embedded before its features were made ({model.model_id})",
        f"BTCUSDT 2024-01-10T00:05Z is not embedded ({model.model_id})",
    ]
    assert activate(filled, model).written == 2
    assert embeddings.read_embedding_differences(filled.connection, model, FULL_DAY) == []


def test_whoever_is_slow_does_not_write_vectors_of_features_that_are_no_more(filled: StoreUnderTest) -> None:
    model = train(filled)
    window = Window.of_slice(DAY_START)

    class Slow(embeddings.Embeddings):
        """Reads features; before it writes, another run makes and embeds them again."""

        def __iter__(self) -> Iterator[Replacement]:
            read = list(super().__iter__())
            write_ticks(filled.connection, every(3.0, 60, start=DAY_START), window)
            make_features(filled, window)
            embed_with(embeddings.Embeddings)
            return iter(read)

    def embed_with(kind: type[embeddings.Embeddings]) -> None:
        made = kind(filled.database, model, load(model.model_id, filled.zone()), window)
        with filled.connect() as connection:
            replace_all(connection, Target.of(connection, model.table), made)

    embed_with(Slow)
    assert filled.rows("SELECT tick_count FROM signals.btc_embeddings WHERE bucket_5m = %s", DAY_START) == [(60,)]


def test_too_little_to_train_on(store: StoreUnderTest) -> None:
    with pytest.raises(UserError, match=r"^No features of BTCUSDT are stored: load ticks first \(btc-assets load\)\.$"):
        train(store)
    write_ticks(store.connection, every(2.0, 300, start=DAY_START))
    make_features(store, Window(DAY_START, DAY_START + 2 * SLICE))
    with pytest.raises(UserError) as raised:
        train(store)
    assert str(raised.value) == (
        "Only 2 slices of BTCUSDT with 10 ticks or more are stored in 2024-01-10T00:00Z to 2024-01-10T00:10Z, and training takes 50: load more "
        "(btc-assets load), or name another range."
    )


def test_without_pytorch_the_embeddings_say_what_to_install(filled: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    activate(filled, train(filled))
    monkeypatch.setattr("btc_assets.signals.encoders.optional.find_spec", lambda name: None)
    with pytest.raises(AssertionError, match=r"pip install 'btc-assets\[torch\]'"):
        materialize(filled, "rebuild_signals", Window.of_slice(DAY_START))
    for command in (["train"], ["evaluate"]):
        assert "pip install 'btc-assets[torch]'" in CliRunner().invoke(main, command).output


@pytest.fixture
def said(filled: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> Iterator[StoreUnderTest]:
    monkeypatch.setenv("COLUMNS", "200")
    yield filled


def test_the_commands_train_find_and_draw(said: StoreUnderTest, tmp_path: Path) -> None:
    def run(*command: str) -> str:
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
        return result.output

    trained = run("train", "--dim", "16", "--activate")
    assert "on 288 slices of BTCUSDT" in trained and "is active (288 slices embedded" in trained
    assert models.read_models(said.connection)[0].model_id in run("models")
    picture = tmp_path / "similar.png"
    output = run("similar", "2024-01-10T13:35Z", "-k", "3", "--before-only", "--apart", "60", "--plot", str(picture))
    found = similar(said.connection, datetime(2024, 1, 10, 13, 35, tzinfo=UTC), 3, before_only=True, apart=timedelta(hours=1))
    assert all(f"{one.bucket_5m:%Y-%m-%dT%H:%MZ}" in output for one in found)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "Like 2024-01-10T23:55Z:" in run("similar", "-k", "1")  # the newest slice
    refused = CliRunner().invoke(main, ["similar", "2024-03-01"])
    assert refused.exit_code == 1 and "The slice 2024-03-01T00:00Z was never loaded: load it first (btc-assets load)." in refused.output
