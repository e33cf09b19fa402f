"""The index on embeddings: when there is one, when it is built again, and how it is measured."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import numpy as np
import psycopg
import pytest

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE
from btc_assets.signals.encoders import models
from btc_assets.signals.encoders.models import Model
from btc_assets.signals.search import indexes
from btc_assets.signals.search.similar import similar
from btc_assets_tests.support.vectors import market_like, registered_model, write_vectors

START = datetime(2024, 1, 10, tzinfo=UTC)
DIM = 16
ENOUGH = indexes.FEWEST_ROWS


@pytest.fixture
def model(on_postgres: psycopg.Connection) -> Model:
    model = registered_model(on_postgres, dim=DIM)
    models.set_maintained(on_postgres, model, True)
    return model


def index_names(connection: psycopg.Connection, model: Model) -> list[str]:
    rows = connection.execute(
        "SELECT indexname FROM pg_indexes WHERE schemaname = 'signals' AND tablename = %s AND indexdef ~ 'ivfflat|hnsw' ORDER BY 1",
        (model.table.removeprefix("signals."),),
    ).fetchall()
    return [name for (name,) in rows]


def test_lists_follow_the_number_of_rows_and_few_rows_need_none(model: Model) -> None:
    assert indexes.plan_index(model, ENOUGH - 1) is None
    for rows, lists in ((10_000, 100), (105_120, 324), (1_000_000, 1000)):
        plan = indexes.plan_index(model, rows)
        assert plan is not None and plan.lists == lists and plan.method == "ivfflat"
    hnsw = indexes.plan_index(model, 105_120, method="hnsw", element="halfvec")
    assert hnsw is not None and hnsw.lists is None and hnsw.element == "halfvec"
    with pytest.raises(UserError, match=r"^There is no index lsh on vector: choose ivfflat or hnsw, on vector or halfvec\.$"):
        indexes.plan_index(model, 5, method="lsh")


def test_below_ten_thousand_vectors_all_are_compared(on_postgres: psycopg.Connection, model: Model) -> None:
    write_vectors(on_postgres, model, market_like(300, DIM), START)
    done = indexes.maintain_index(on_postgres, model)
    assert (done.action, done.why) == ("none", "300 vectors are compared one by one; an index comes with 10,000")
    assert index_names(on_postgres, model) == [] and indexes.measure_recall(on_postgres, model) == 1.0


def test_an_index_is_built_measured_kept_and_built_again(on_postgres: psycopg.Connection, model: Model) -> None:
    vectors = market_like(2 * ENOUGH, DIM)
    write_vectors(on_postgres, model, vectors[:ENOUGH], START)
    built = indexes.maintain_index(on_postgres, model)
    assert built.action == "built" and built.index is not None and built.index.recall >= indexes.WANTED_RECALL
    assert index_names(on_postgres, model) == [built.index.index_name]

    checked = indexes.maintain_index(on_postgres, model)
    assert checked.action == "checked" and checked.index is not None and checked.index.recall >= indexes.LEAST_RECALL
    assert index_names(on_postgres, model) == [built.index.index_name]

    write_vectors(on_postgres, model, vectors[ENOUGH:], START + ENOUGH * SLICE)
    grown = indexes.maintain_index(on_postgres, model)
    assert (grown.action, grown.why) == ("rebuilt", "it was built on 10,000 vectors, and there are 20,000")
    assert grown.index is not None and index_names(on_postgres, model) == [grown.index.index_name] != [built.index.index_name]
    assert grown.index.rows_built == 2 * ENOUGH and indexes.read_index(on_postgres, model).recall == pytest.approx(grown.index.recall)  # type: ignore[union-attr]


def test_an_index_that_misses_neighbours_is_found_out_and_built_again(on_postgres: psycopg.Connection, model: Model) -> None:
    write_vectors(on_postgres, model, market_like(ENOUGH, DIM), START)
    indexes.maintain_index(on_postgres, model)
    on_postgres.execute("UPDATE signals.embedding_indexes SET effort = 1")  # as after a change of the vectors that the lists do not fit
    assert indexes.measure_recall(on_postgres, model) < 0.8
    done = indexes.maintain_index(on_postgres, model)
    assert done.action == "rebuilt" and done.why.startswith("its recall had fallen to 0.")
    assert indexes.measure_recall(on_postgres, model) >= indexes.LEAST_RECALL


@pytest.mark.parametrize(("method", "element"), [("hnsw", "vector"), ("ivfflat", "halfvec")])
def test_other_kinds_of_index_answer_the_same(on_postgres: psycopg.Connection, model: Model, method: str, element: str) -> None:
    write_vectors(on_postgres, model, market_like(ENOUGH, DIM), START)
    done = indexes.maintain_index(on_postgres, model, method=method, element=element)
    assert done.index is not None and (done.index.method, done.index.element) == (method, element)
    definition = on_postgres.execute("SELECT indexdef FROM pg_indexes WHERE indexname = %s", (done.index.index_name,)).fetchone()
    assert definition is not None and method in definition[0] and f"{element}_ip_ops" in definition[0]
    exact = similar(on_postgres, START + 500 * SLICE, exact=True, model_id=model.model_id)
    found = similar(on_postgres, START + 500 * SLICE, model_id=model.model_id)
    assert len({one.bucket_5m for one in exact} & {one.bucket_5m for one in found}) >= 9
    again = indexes.maintain_index(on_postgres, model)  # keeps what it is
    assert again.index is not None and (again.index.method, again.index.element) == (method, element)


def test_what_a_build_that_was_cut_off_left_is_removed(on_postgres: psycopg.Connection, model: Model) -> None:
    write_vectors(on_postgres, model, market_like(ENOUGH, DIM), START)
    on_postgres.execute(f"CREATE INDEX left_behind ON {model.table} USING ivfflat ((embedding::vector({DIM})) vector_ip_ops)")
    on_postgres.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'signals.left_behind'::regclass")
    done = indexes.maintain_index(on_postgres, model)
    assert done.action == "built" and index_names(on_postgres, model) == [done.index.index_name]  # type: ignore[union-attr]


def test_two_that_care_for_an_index_at_once_do_so_in_turn(on_postgres: psycopg.Connection, model: Model) -> None:
    write_vectors(on_postgres, model, market_like(ENOUGH, DIM), START)

    def care(number: int) -> str:
        with psycopg.connect(on_postgres.info.dsn, autocommit=True) as connection:
            return indexes.maintain_index(connection, model).action

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(care, range(2))) == ["built", "checked"]
    assert len(index_names(on_postgres, model)) == 1


def test_an_index_goes_when_too_few_vectors_are_left(on_postgres: psycopg.Connection, model: Model) -> None:
    write_vectors(on_postgres, model, market_like(ENOUGH, DIM), START)
    indexes.maintain_index(on_postgres, model)
    on_postgres.execute(f"DELETE FROM {model.table} WHERE bucket_5m > %s", (START + 100 * SLICE,))
    assert indexes.maintain_index(on_postgres, model).action == "dropped"
    assert index_names(on_postgres, model) == [] and indexes.read_index(on_postgres, model) is None


def test_removing_a_model_takes_its_vectors_along_but_not_the_active_one(on_postgres: psycopg.Connection, model: Model) -> None:
    write_vectors(on_postgres, model, market_like(300, DIM), START)
    models.remove_model(on_postgres, model)
    assert on_postgres.execute("SELECT to_regclass(%s)", (model.table,)).fetchone() == (None,)
    again = registered_model(on_postgres, dim=DIM)
    write_vectors(on_postgres, again, market_like(300, DIM), START)
    assert np.isclose(indexes.measure_recall(on_postgres, again), 1.0)


def test_a_model_that_became_active_meanwhile_is_not_removed(on_postgres: psycopg.Connection, model: Model) -> None:
    models.activate_model(on_postgres, model)
    with pytest.raises(UserError, match="activate another one first"):
        models.remove_model(on_postgres, model)  # as it was read before
    assert models.read_model(on_postgres, model.model_id).active


def test_of_two_models_that_are_activated_at_once_the_later_one_answers(on_postgres: psycopg.Connection, model: Model) -> None:
    other = registered_model(on_postgres, "rocket-pca-0000000000000002", dim=DIM)

    def activate_other() -> str | None:
        with psycopg.connect(on_postgres.info.dsn, autocommit=True) as connection:
            return models.activate_model(connection, other)

    with ThreadPoolExecutor(1) as pool:
        with on_postgres.transaction():
            models.activate_model(on_postgres, model)
            later = pool.submit(activate_other)
            blocked = "SELECT FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"
            while not later.done() and on_postgres.execute(blocked).rowcount == 0:
                pass
        assert later.result() == model.model_id
    assert [one.model_id for one in models.read_models(on_postgres) if one.active] == [other.model_id]
