"""A kind of encoder that a process lacks holds up its own embeddings and nothing else, and they are made when it is there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta

import pytest

from btc_assets.domain.settings import load_settings
from btc_assets.domain.slices import SLICE, Window
from btc_assets.ops.doctor import examine_store
from btc_assets.signals.checks import embeddings_check
from btc_assets.signals.encoders.kinds import Kinds
from btc_assets.signals.encoders.models import read_models, set_maintained
from btc_assets.signals.keys import EMBEDDINGS
from btc_assets_tests.support.command_line import run_command
from btc_assets_tests.support.daemon import Daemon
from btc_assets_tests.support.encoder_package import MEAN, EncoderPackage
from btc_assets_tests.support.stored_slices import NEXT_DAY, activate, materialize, train
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import every

NEW = Window(NEXT_DAY, NEXT_DAY + 2 * SLICE)


@pytest.fixture
def daemon(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    daemon = Daemon(store, "signals_follow_ticks", monkeypatch)
    yield daemon
    daemon.close()


def due(store: StoreUnderTest) -> list[tuple[str, int]]:
    return store.rows("SELECT asset, count(*) FROM ingestion.due_slices GROUP BY 1")


def embedded(store: StoreUnderTest, model_id: str) -> int:
    count = "SELECT count(*) FROM signals.btc_embeddings WHERE model_id = %s AND bucket_5m >= %s AND embedding IS NOT NULL"
    return int(store.rows(count, model_id, NEXT_DAY)[0][0])


def test_a_model_whose_package_is_missing_waits_alone_and_is_made_up_for(
    filled: StoreUnderTest, daemon: Daemon, their_encoders: EncoderPackage
) -> None:
    their_encoders.declare(f"mean-spread = {MEAN}")
    trained = run_command("train", "--kind", "mean-spread", "--dim", "8", "--activate")
    assert "is active (288 slices embedded" in trained.output, trained.output
    (model,) = read_models(filled.connection)
    assert (model.kind, model.dim, model.metrics["class"], model.metrics["package"]) == ("mean-spread", 8, MEAN, "their-encoders 1.2")
    assert "Like 2024-01-10T23:55Z" in run_command("similar", "-k", "3").output

    their_encoders.remove()
    filled.land(every(2.0, 300, start=NEXT_DAY, first_id=10**10))
    assert materialize(filled, "ingest", NEW)
    lack = f"{model.model_id} does not embed, because this process lacks its kind mean-spread: install their-encoders ({MEAN}) here."
    assert filled.rows("SELECT count(*) FROM signals.slice_features WHERE bucket_5m >= %s", NEXT_DAY) == [(2,)]
    assert filled.rows("SELECT count(*) FROM market_data.candles_5m WHERE bucket >= %s", NEXT_DAY) == [(2,)]
    assert due(filled) == [(EMBEDDINGS, 2)] and embedded(filled, model.model_id) == 0
    assert embeddings_check(Kinds()).find(filled.connection, NEW).found == [f"{lack} 2 slices wait for it."]
    assert lack in run_command("status").output.replace("\n", " ")
    found = [finding.text for finding in examine_store(load_settings()) if finding.subject == "encoders"]
    assert found == [f"{lack} Its slices stay due until then."]
    assert daemon.tick() == [] and daemon.skipped == f"No slice is due. {lack}"
    assert "lacks" not in run_command("models").output and "Like 2024-01-10T23:55Z" in run_command("similar", "-k", "3").output
    refused = run_command("models", "activate", model.model_id)
    assert refused.exit_code == 1 and "There is no encoder of the kind 'mean-spread'" in refused.output

    their_encoders.install()
    assert daemon.tick_after(timedelta(minutes=1)) == [("rebuild_signals", NEW)]
    daemon.run()
    assert due(filled) == [] and embedded(filled, model.model_id) == 2


def test_a_model_at_hand_embeds_beside_one_whose_kind_is_missing(
    filled: StoreUnderTest, daemon: Daemon, their_encoders: EncoderPackage
) -> None:
    ours = train(filled)
    activate(filled, ours)
    assert run_command("train", "--kind", MEAN, "--dim", "8").exit_code == 0  # without a declaration: in this command only
    (theirs,) = (model for model in read_models(filled.connection) if model.kind == "mean-spread")
    set_maintained(filled.connection, theirs, True)
    filled.land(every(2.0, 300, start=NEXT_DAY, first_id=10**10))
    assert materialize(filled, "ingest", NEW)
    assert (embedded(filled, ours.model_id), embedded(filled, theirs.model_id)) == (2, 0)
    assert daemon.tick() == [("rebuild_signals", NEW)]  # what is at hand is made; it cannot know that it is made already
    daemon.run()
    assert daemon.tick_after(timedelta(minutes=1)) == [] and due(filled) == [(EMBEDDINGS, 2)]
    their_encoders.declare(f"mean-spread = {MEAN}")
    assert daemon.tick_after(timedelta(minutes=1)) == [("rebuild_signals", NEW)]
    daemon.run()
    assert due(filled) == [] and embedded(filled, theirs.model_id) == 2


def test_a_module_that_fails_to_be_imported_holds_up_nothing_else(filled: StoreUnderTest, their_encoders: EncoderPackage) -> None:
    their_encoders.declare(f"mean-spread = {MEAN}")
    assert run_command("train", "--kind", "mean-spread", "--dim", "8", "--activate").exit_code == 0
    their_encoders.remove()
    their_encoders.install()
    their_encoders.write("mean.py", "import a_library_that_is_not_there")
    filled.land(every(2.0, 300, start=NEXT_DAY, first_id=10**10))
    assert materialize(filled, "ingest", NEW) and due(filled) == [(EMBEDDINGS, 2)]
    (found,) = (finding for finding in examine_store(load_settings()) if finding.subject == "encoders")
    assert f"The encoder {MEAN} cannot be imported (ModuleNotFoundError: No module named 'a_library_that_is_not_there')" in found.text


def test_without_pytorch_everything_but_the_embeddings_is_made(filled: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    model = train(filled)
    activate(filled, model)
    filled.land(every(2.0, 300, start=NEXT_DAY, first_id=10**10))
    with monkeypatch.context() as without:
        without.setattr("btc_assets.signals.encoders.torch_extra.find_spec", lambda name: None)
        assert materialize(filled, "ingest", NEW) and due(filled) == [(EMBEDDINGS, 2)]
        (problem,) = embeddings_check(Kinds()).find(filled.connection, NEW).found
        assert "lacks its kind rocket-pca" in str(problem) and "pip install 'btc-assets[torch]'" in str(problem)
    assert materialize(filled, "rebuild_signals", NEW)
    assert due(filled) == [] and embedded(filled, model.model_id) == 2


@pytest.mark.slow
@pytest.mark.parametrize("how", ["entry point", "setting"])
def test_another_process_finds_the_class_by_its_name(
    how: str, filled: StoreUnderTest, their_encoders: EncoderPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "setting":
        monkeypatch.setenv("BTC_ASSETS_ENCODERS", f"mean-spread={MEAN}")
    else:
        their_encoders.declare(f"mean-spread = {MEAN}")
    assert run_command("train", "--kind", "mean-spread", "--dim", "8", "--activate").exit_code == 0
    if how == "setting":
        evaluated = run_command("evaluate", "--kind", "mean-spread", "--from", "2024-01-10", "--to", "2024-01-11")
        assert "mean-spread" in evaluated.output, evaluated.output
    filled.land(every(2.0, 300, start=NEXT_DAY, first_id=10**10))
    command = [sys.executable, "-m", "btc_assets.cli", "load", "--from", "2024-01-11T00:00", "--to", "2024-01-11T00:10"]
    loaded = subprocess.run(command, capture_output=True, text=True)
    assert "Loaded 2024-01-11T00:00Z" in loaded.stdout and "every_slice_embedded" not in loaded.stdout, loaded.stderr
    (model,) = read_models(filled.connection)
    assert embedded(filled, model.model_id) == 2 and due(filled) == []
