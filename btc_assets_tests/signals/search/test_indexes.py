"""Planning and building the index on embeddings."""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg
import pytest

from btc_assets.domain.errors import UserError
from btc_assets.signals.encoders.models import Model
from btc_assets.signals.search.indexes import FEWEST_ROWS, build_index, plan_index, read_index
from btc_assets_tests.support.vectors import index_names, market_like, registered_model, write_vectors

START = datetime(2024, 1, 10, tzinfo=UTC)
DIM = 16


@pytest.fixture
def model(on_postgres: psycopg.Connection) -> Model:
    return registered_model(on_postgres, dim=DIM)


def test_the_number_of_lists_follows_the_rows_and_few_rows_need_no_index(model: Model) -> None:
    assert plan_index(model, FEWEST_ROWS - 1) is None
    for rows, lists in ((10_000, 100), (105_120, 324), (1_000_000, 1000)):
        plan = plan_index(model, rows)
        assert plan is not None and plan.lists == lists and plan.method == "ivfflat"
    hnsw = plan_index(model, 105_120, method="hnsw", element="halfvec")
    assert hnsw is not None and hnsw.lists is None and hnsw.element == "halfvec"
    with pytest.raises(UserError, match=r"^There is no index lsh on vector: choose ivfflat or hnsw, on vector or halfvec\.$"):
        plan_index(model, 5, method="lsh")


def test_an_index_is_built_on_a_search_path_without_pgvector(on_postgres: psycopg.Connection, model: Model) -> None:
    write_vectors(on_postgres, model, market_like(FEWEST_ROWS, DIM), START)
    plan = plan_index(model, FEWEST_ROWS, element="halfvec")
    assert plan is not None
    on_postgres.execute("SET search_path = pg_catalog")
    built = build_index(on_postgres, model, plan)
    assert index_names(on_postgres, model) == [built.index_name]


def test_the_remains_of_an_interrupted_build_are_removed(on_postgres: psycopg.Connection, model: Model) -> None:
    write_vectors(on_postgres, model, market_like(FEWEST_ROWS, DIM), START)
    on_postgres.execute(f"CREATE INDEX left_behind ON {model.table} USING ivfflat ((embedding::vector({DIM})) vector_ip_ops)")
    on_postgres.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'signals.left_behind'::regclass")
    plan = plan_index(model, FEWEST_ROWS)
    assert plan is not None and read_index(on_postgres, model) is None
    built = build_index(on_postgres, model, plan)
    assert index_names(on_postgres, model) == [built.index_name]
    recorded = read_index(on_postgres, model)
    assert recorded is not None and recorded.effort == built.effort
    assert recorded.recall == pytest.approx(built.recall)
