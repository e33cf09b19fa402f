"""Embeddings of stored slices: which slices have vectors, their labels, and what is embedded again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import pytest

from btc_assets.domain.slices import SLICE, Window
from btc_assets.ingestion import due
from btc_assets.signals.encoders.artifacts import load_encoder
from btc_assets.signals.features.formulas import FEWEST_TICKS
from btc_assets.signals.keys import EMBEDDINGS
from btc_assets.signals.search import embeddings
from btc_assets.store.replace import Replacement
from btc_assets.store.tables import Target
from btc_assets.store.writers import replace_all
from btc_assets_tests.support.databases import write_ticks
from btc_assets_tests.support.stored_slices import DAY_START, FULL_DAY, NEXT_DAY, activate, materialize, store_features, train
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import every


def test_a_slice_with_too_few_ticks_has_a_row_and_no_vector(filled: StoreUnderTest) -> None:
    model = train(filled)
    few = FEWEST_TICKS - 1
    write_ticks(filled.connection, every(5.0, few, start=NEXT_DAY), Window.of_slice(NEXT_DAY))
    store_features(filled, Window.of_slice(NEXT_DAY))
    activate(filled, model)
    assert filled.rows("SELECT tick_count, embedding IS NULL FROM signals.btc_embeddings WHERE bucket_5m = %s", NEXT_DAY) == [(few, True)]


def test_labels_hold_the_next_slice_once_it_is_known(filled: StoreUnderTest) -> None:
    activate(filled, train(filled))
    labels = "SELECT label_snapshot FROM signals.btc_embeddings WHERE bucket_5m = %s"
    features = "SELECT log_return, realized_volatility, volume, trade_count FROM signals.slice_features WHERE bucket_5m = %s"
    ((label,),), ((*following,),) = filled.rows(labels, DAY_START), filled.rows(features, DAY_START + SLICE)
    assert [label[f"next_{name}"] for name in ("return", "realized_volatility", "volume", "trade_count")] == pytest.approx(following)
    assert filled.rows(labels, NEXT_DAY - SLICE) == [(None,)]  # not known yet

    after = Window.of_slice(NEXT_DAY)
    for trades in (60, 90):  # the next slice, and a later version of it
        write_ticks(filled.connection, every(3.0, trades, start=NEXT_DAY), after)
        assert materialize(filled, "rebuild_signals", after)
        assert filled.rows(labels, NEXT_DAY - SLICE)[0][0]["next_trade_count"] == trades


def test_labels_that_a_killed_run_did_not_fill_are_filled_by_the_next_run(filled: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
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
    slices_due = due.read_due_marks(filled.connection, EMBEDDINGS, FULL_DAY)
    encoder = load_encoder(model.model_id, filled.zone())
    made = embeddings.Embeddings(filled.database, model, encoder, Window.of_slice(DAY_START), settles=slices_due)
    with monkeypatch.context() as patch:
        patch.setattr(embeddings, "fill_labels", kill)
        with pytest.raises(Killed):
            replace_all(filled.connection, Target.of(filled.connection, model.table), made)
    assert due.read_due_marks(filled.connection, EMBEDDINGS, FULL_DAY) == slices_due != []


def test_slices_that_changed_since_are_reported_and_embedded_again_on_activation(filled: StoreUnderTest) -> None:
    model = train(filled)
    activate(filled, model)
    assert embeddings.read_embedding_differences(filled.connection, model, FULL_DAY) == []
    write_ticks(filled.connection, every(3.0, 60, start=DAY_START), Window.of_slice(DAY_START))
    store_features(filled, Window.of_slice(DAY_START))
    filled.connection.execute(f"DELETE FROM {model.table} WHERE bucket_5m = %s", (DAY_START + SLICE,))
    assert embeddings.read_embedding_differences(filled.connection, model, FULL_DAY) == [
        f"BTCUSDT 2024-01-10T00:00Z was embedded before its features were computed ({model.model_id})",
        f"BTCUSDT 2024-01-10T00:05Z is not embedded ({model.model_id})",
    ]
    assert activate(filled, model).written == 2
    assert embeddings.read_embedding_differences(filled.connection, model, FULL_DAY) == []


def test_features_and_vectors_that_are_made_again_keep_the_time_at_which_their_content_came_to_be(filled: StoreUnderTest) -> None:
    model = train(filled)
    activate(filled, model)

    def times() -> list[dict[datetime, datetime]]:
        tables = "signals.slice_features", "signals.btc_embeddings"
        return [dict(filled.rows(f"SELECT bucket_5m, created_at FROM {table}")) for table in tables]

    before, changed, touched = times(), DAY_START + SLICE, DAY_START + 2 * SLICE
    write_ticks(filled.connection, every(3.0, 60, start=changed), Window.of_slice(changed))
    store_features(filled, FULL_DAY)
    filled.connection.execute("UPDATE signals.slice_features SET created_at = now() WHERE bucket_5m = %s", (touched,))  # no vector differs
    encoder = load_encoder(model.model_id, filled.zone())
    replace_all(
        filled.connection, Target.of(filled.connection, model.table), embeddings.Embeddings(filled.database, model, encoder, FULL_DAY)
    )
    moved = [{bucket for bucket, time in after.items() if time != old[bucket]} for old, after in zip(before, times(), strict=True)]
    assert moved == [{changed, touched}, {changed, touched}]
    assert embeddings.read_embedding_differences(filled.connection, model, FULL_DAY) == []


def test_a_slow_run_does_not_write_vectors_of_replaced_features(filled: StoreUnderTest) -> None:
    model = train(filled)
    window = Window.of_slice(DAY_START)

    class Slow(embeddings.Embeddings):
        """Reads features; before it writes, another run computes and embeds them again."""

        def __iter__(self) -> Iterator[Replacement]:
            made = list(super().__iter__())
            write_ticks(filled.connection, every(3.0, 60, start=DAY_START), window)
            store_features(filled, window)
            embed_with(embeddings.Embeddings)
            return iter(made)

    def embed_with(kind: type[embeddings.Embeddings]) -> None:
        made = kind(filled.database, model, load_encoder(model.model_id, filled.zone()), window)
        with filled.connect() as connection:
            replace_all(connection, Target.of(connection, model.table), made)

    embed_with(Slow)
    assert filled.rows("SELECT tick_count FROM signals.btc_embeddings WHERE bucket_5m = %s", DAY_START) == [(60,)]
