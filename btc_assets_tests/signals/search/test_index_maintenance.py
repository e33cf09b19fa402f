"""Index maintenance: when an index is built, kept, rebuilt and dropped."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import psycopg
import pytest

from btc_assets.domain.slices import SLICE
from btc_assets.signals.encoders.models import Model
from btc_assets.signals.search.index_maintenance import LEAST_RECALL, maintain_index
from btc_assets.signals.search.indexes import FEWEST_ROWS, WANTED_RECALL, read_index
from btc_assets.signals.search.recall import measure_recall
from btc_assets.signals.search.similar import find_similar_slices
from btc_assets_tests.support.vectors import index_names, market_like, registered_model, write_vectors

START = datetime(2024, 1, 10, tzinfo=UTC)
DIM = 16


@pytest.fixture
def model(on_postgres: psycopg.Connection) -> Model:
    return registered_model(on_postgres, dim=DIM)


def test_fewer_than_ten_thousand_vectors_are_compared_one_by_one(on_postgres: psycopg.Connection, model: Model) -> None:
    write_vectors(on_postgres, model, market_like(300, DIM), START)
    done = maintain_index(on_postgres, model)
    assert (done.action, done.why) == ("none", "300 vectors are compared one by one; an index is built from 10,000 vectors on")
    assert index_names(on_postgres, model) == [] and measure_recall(on_postgres, model) == 1.0


@pytest.mark.slow
def test_an_index_is_built_measured_kept_and_rebuilt_after_growth(on_postgres: psycopg.Connection, model: Model) -> None:
    vectors = market_like(2 * FEWEST_ROWS, DIM)
    write_vectors(on_postgres, model, vectors[:FEWEST_ROWS], START)
    built = maintain_index(on_postgres, model)
    assert built.action == "built" and built.index is not None and built.index.recall >= WANTED_RECALL
    assert index_names(on_postgres, model) == [built.index.index_name]

    checked = maintain_index(on_postgres, model)
    assert checked.action == "checked" and checked.index is not None and checked.index.recall >= LEAST_RECALL
    assert index_names(on_postgres, model) == [built.index.index_name]

    write_vectors(on_postgres, model, vectors[FEWEST_ROWS:], START + FEWEST_ROWS * SLICE)
    grown = maintain_index(on_postgres, model)
    assert (grown.action, grown.why) == ("rebuilt", "it was built on 10,000 vectors, and there are 20,000")
    assert grown.index is not None and index_names(on_postgres, model) == [grown.index.index_name] != [built.index.index_name]
    assert grown.index.rows_built == 2 * FEWEST_ROWS and read_index(on_postgres, model).recall == pytest.approx(grown.index.recall)  # type: ignore[union-attr]


@pytest.mark.slow
def test_an_index_that_misses_neighbors_is_rebuilt(on_postgres: psycopg.Connection, model: Model) -> None:
    write_vectors(on_postgres, model, market_like(FEWEST_ROWS, DIM), START)
    maintain_index(on_postgres, model)
    on_postgres.execute("UPDATE signals.embedding_indexes SET effort = 1")  # as if the lists no longer fitted the vectors
    assert measure_recall(on_postgres, model) < 0.8
    done = maintain_index(on_postgres, model)
    assert done.action == "rebuilt" and done.why.startswith("its recall had fallen to 0.")
    assert measure_recall(on_postgres, model) >= LEAST_RECALL


@pytest.mark.slow
@pytest.mark.parametrize(("method", "element"), [("hnsw", "vector"), ("ivfflat", "halfvec")])
def test_other_kinds_of_index_give_the_same_answers(on_postgres: psycopg.Connection, model: Model, method: str, element: str) -> None:
    write_vectors(on_postgres, model, market_like(FEWEST_ROWS, DIM), START)
    done = maintain_index(on_postgres, model, method=method, element=element)
    assert done.index is not None and (done.index.method, done.index.element) == (method, element)
    definition = on_postgres.execute("SELECT indexdef FROM pg_indexes WHERE indexname = %s", (done.index.index_name,)).fetchone()
    assert definition is not None and method in definition[0] and f"{element}_ip_ops" in definition[0]
    exact = find_similar_slices(on_postgres, START + 500 * SLICE, exact=True, model_id=model.model_id)
    found = find_similar_slices(on_postgres, START + 500 * SLICE, model_id=model.model_id)
    assert len({one.bucket_5m for one in exact} & {one.bucket_5m for one in found}) >= 9
    again = maintain_index(on_postgres, model)  # keeps its kind
    assert again.index is not None and (again.index.method, again.index.element) == (method, element)


def test_concurrent_maintenance_takes_turns(on_postgres: psycopg.Connection, model: Model) -> None:
    write_vectors(on_postgres, model, market_like(FEWEST_ROWS, DIM), START)

    def maintain(number: int) -> str:
        with psycopg.connect(on_postgres.info.dsn, autocommit=True) as connection:
            return maintain_index(connection, model).action

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(maintain, range(2))) == ["built", "checked"]
    assert len(index_names(on_postgres, model)) == 1


def test_an_index_is_dropped_when_too_few_vectors_are_left(on_postgres: psycopg.Connection, model: Model) -> None:
    write_vectors(on_postgres, model, market_like(FEWEST_ROWS, DIM), START)
    maintain_index(on_postgres, model)
    on_postgres.execute(f"DELETE FROM {model.table} WHERE bucket_5m > %s", (START + 100 * SLICE,))
    assert maintain_index(on_postgres, model).action == "dropped"
    assert index_names(on_postgres, model) == [] and read_index(on_postgres, model) is None
