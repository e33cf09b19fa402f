"""The table of models: one model per symbol is active, and only others can be removed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psycopg
import pytest

from btc_assets.domain.errors import UserError
from btc_assets.signals.encoders.models import (
    Model,
    activate_model,
    read_maintained_models,
    read_model,
    read_models,
    remove_model,
    set_maintained,
)
from btc_assets.signals.search.recall import measure_recall
from btc_assets_tests.support.stored_slices import DAY_START
from btc_assets_tests.support.vectors import market_like, registered_model, write_vectors

DIM = 16


@pytest.fixture
def model(on_postgres: psycopg.Connection) -> Model:
    return registered_model(on_postgres, dim=DIM)


def test_a_model_is_maintained_on_request_and_the_active_one_always(on_postgres: psycopg.Connection, model: Model) -> None:
    assert read_maintained_models(on_postgres) == []
    set_maintained(on_postgres, model, True)
    assert [one.model_id for one in read_maintained_models(on_postgres)] == [model.model_id]
    set_maintained(on_postgres, model, False)
    assert read_maintained_models(on_postgres) == []
    activate_model(on_postgres, model)
    set_maintained(on_postgres, model, False)
    assert [one.model_id for one in read_maintained_models(on_postgres)] == [model.model_id]


def test_a_model_is_registered_for_one_symbol(on_postgres: psycopg.Connection, model: Model) -> None:
    assert registered_model(on_postgres, dim=DIM) == model  # again changes nothing
    with pytest.raises(UserError, match=r"is registered for BTCUSDT: train another one for BTCUSDT\.P\.$"):
        registered_model(on_postgres, dim=DIM, symbol="BTCUSDT.P")
    with pytest.raises(UserError, match=r"^There is no model tcn-1: btc-assets models lists them\.$"):
        read_model(on_postgres, "tcn-1")


def test_removing_a_model_drops_its_vectors(on_postgres: psycopg.Connection, model: Model) -> None:
    write_vectors(on_postgres, model, market_like(300, DIM), DAY_START)
    remove_model(on_postgres, model)
    assert on_postgres.execute("SELECT to_regclass(%s)", (model.table,)).fetchone() == (None,)
    again = registered_model(on_postgres, dim=DIM)
    write_vectors(on_postgres, again, market_like(300, DIM), DAY_START)
    assert np.isclose(measure_recall(on_postgres, again), 1.0)


def test_a_model_that_became_active_meanwhile_is_not_removed(on_postgres: psycopg.Connection, model: Model) -> None:
    activate_model(on_postgres, model)
    with pytest.raises(UserError, match="activate another one first"):
        remove_model(on_postgres, model)  # as read before
    assert read_model(on_postgres, model.model_id).active


def test_of_two_concurrent_activations_the_later_one_wins(on_postgres: psycopg.Connection, model: Model) -> None:
    other = registered_model(on_postgres, "rocket-pca-0000000000000002", dim=DIM)

    def activate_other() -> str | None:
        with psycopg.connect(on_postgres.info.dsn, autocommit=True) as connection:
            return activate_model(connection, other)

    with ThreadPoolExecutor(1) as pool:
        with on_postgres.transaction():
            activate_model(on_postgres, model)
            later = pool.submit(activate_other)
            blocked = "SELECT FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"
            while not later.done() and on_postgres.execute(blocked).rowcount == 0:
                pass
        assert later.result() == model.model_id
    assert [one.model_id for one in read_models(on_postgres) if one.active] == [other.model_id]


def test_activation_leaves_one_active_model(on_postgres: psycopg.Connection, model: Model) -> None:
    activate_model(on_postgres, model)
    new = registered_model(on_postgres, "rocket-pca-0000000000000004", dim=DIM)
    assert activate_model(on_postgres, new) == model.model_id
    assert [(one.model_id, one.active, one.kept_up) for one in read_models(on_postgres)] == [
        (new.model_id, True, True),
        (model.model_id, False, False),
    ]
    assert activate_model(on_postgres, new) is None
