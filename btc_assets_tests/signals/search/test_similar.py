"""Searching for similar slices: exact against NumPy, by the index against exact, and what is asked wrongly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import psycopg
import pytest

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE, Window
from btc_assets.signals.encoders import models
from btc_assets.signals.encoders.models import Model
from btc_assets.signals.search import indexes
from btc_assets.signals.search.similar import nearest, read_active_model, similar
from btc_assets.store.migrations import migrate
from btc_assets_tests.support.stores import temporary_database
from btc_assets_tests.support.vectors import market_like, registered_model, write_vectors

START = datetime(2024, 1, 10, tzinfo=UTC)
DIM = 8
ROWS = 600
VECTORS = market_like(ROWS, DIM, states=3)
MISSING = (17, 400)


@pytest.fixture
def model(on_postgres: psycopg.Connection) -> Model:
    """A model that is active, with 600 vectors, two of them NULL."""
    model = registered_model(on_postgres, dim=DIM)
    write_vectors(on_postgres, model, VECTORS, START, missing=MISSING)
    models.activate_model(on_postgres, model)
    return model


def at(number: int) -> datetime:
    return START + number * SLICE


def expected(query: int, k: int, allowed: Sequence[int] = range(ROWS)) -> list[datetime]:
    """The nearest others by NumPy."""
    candidates = [i for i in allowed if i != query and i not in MISSING]
    order = np.argsort(-(VECTORS[candidates] @ VECTORS[query]), kind="stable")
    return [at(candidates[i]) for i in order[:k]]


def test_the_nearest_slices_come_first_and_the_slice_itself_is_left_out(on_postgres: psycopg.Connection, model: Model) -> None:
    found = similar(on_postgres, at(100) + timedelta(minutes=3), 10)
    assert [one.bucket_5m for one in found] == expected(100, 10)
    assert [one.distance for one in found] == pytest.approx(sorted(1 - (VECTORS @ VECTORS[100])[[i for i in range(ROWS) if at(i) in {o.bucket_5m for o in found}]]), abs=1e-5)  # fmt: skip
    assert {one.symbol for one in found} == {"BTCUSDT"} and found[0].tick_count == (found[0].bucket_5m - START) // SLICE


def test_only_what_came_before(on_postgres: psycopg.Connection, model: Model) -> None:
    assert [one.bucket_5m for one in similar(on_postgres, at(100), 5, before_only=True)] == expected(100, 5, range(100))


def test_only_a_window(on_postgres: psycopg.Connection, model: Model) -> None:
    found = similar(on_postgres, at(100), 5, within=Window(at(300), at(320)))
    assert [one.bucket_5m for one in found] == expected(100, 5, range(300, 320))


def test_nothing_that_is_close_in_time(on_postgres: psycopg.Connection, model: Model) -> None:
    allowed = [*range(41), *range(160, ROWS)]  # five hours are 60 slices
    found = similar(on_postgres, at(100), 30, apart=timedelta(hours=5))
    assert [one.bucket_5m for one in found] == expected(100, 30, allowed) != expected(100, 30)


def test_a_vector_of_ones_own(on_postgres: psycopg.Connection, model: Model) -> None:
    (found,) = nearest(on_postgres, 5 * VECTORS[100], 1, model_id=model.model_id)  # its direction counts, not its length
    assert found.bucket_5m == at(100) and found.distance == pytest.approx(0, abs=1e-6)


def test_models_stand_side_by_side_and_never_answer_for_each_other(on_postgres: psycopg.Connection, model: Model) -> None:
    other = registered_model(on_postgres, "tcn-0000000000000002", dim=4)
    write_vectors(on_postgres, other, market_like(50, 4, seed=1), START)
    assert len(similar(on_postgres, at(3), 100, model_id=other.model_id)) == 49
    assert len(similar(on_postgres, at(3), 1000)) == ROWS - 1 - len(MISSING)
    assert on_postgres.execute("SELECT count(*) FROM signals.btc_embeddings").fetchone() == (ROWS + 50,)


def test_another_symbol_has_a_model_of_its_own(on_postgres: psycopg.Connection, model: Model) -> None:
    other = registered_model(on_postgres, "rocket-pca-0000000000000003", dim=DIM, symbol="BTCUSDT.P")
    write_vectors(on_postgres, other, VECTORS[:50], START)
    models.activate_model(on_postgres, other)
    assert read_active_model(on_postgres, "BTCUSDT.P") == other.model_id
    assert {one.symbol for one in similar(on_postgres, at(3), symbol="BTCUSDT.P")} == {"BTCUSDT.P"}
    with pytest.raises(UserError, match=r"^Several symbols have embeddings: name one of BTCUSDT, BTCUSDT\.P\.$"):
        similar(on_postgres, at(3))


def test_moving_the_pointer_leaves_one_active_model(on_postgres: psycopg.Connection, model: Model) -> None:
    new = registered_model(on_postgres, "rocket-pca-0000000000000004", dim=DIM)
    assert models.activate_model(on_postgres, new) == model.model_id
    assert [(one.model_id, one.active, one.kept_up) for one in models.read_models(on_postgres)] == [
        (new.model_id, True, True),
        (model.model_id, False, False),
    ]
    assert models.activate_model(on_postgres, new) is None


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda c, m: similar(c, at(17)), "The slice 2024-01-10T01:25Z has too few ticks (17) for an embedding: ask for another."),
        (lambda c, m: similar(c, at(-9)), "The slice 2024-01-09T23:15Z was never loaded: load it first (btc-assets load)."),
        (lambda c, m: similar(c, at(3), model_id="tcn-1"), "There is no model tcn-1: btc-assets models lists them."),
        (lambda c, m: similar(c, at(3), 0), "The number of neighbours is 0: ask for one or more."),
        (
            lambda c, m: nearest(c, VECTORS[3, :5], model_id=m.model_id),
            "The vector has 5 dimensions, but those of rocket-pca-0000000000000001 have 8: embed the query with that model.",
        ),
        (lambda c, m: nearest(c, VECTORS[3] * np.nan, model_id=m.model_id), "The query vector has values that are not finite: embed the slice again."),
        (
            lambda c, m: similar(c, at(3), symbol="ETHUSDT", model_id=m.model_id),
            "The model rocket-pca-0000000000000001 is not one of ETHUSDT: leave out one of both.",
        ),
        (
            lambda c, m: similar(c, at(3), symbol="ETHUSDT"),
            "No model is active for ETHUSDT: train one (btc-assets train) and activate it (btc-assets models activate).",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_says_why(on_postgres: psycopg.Connection, model: Model, ask, sentence: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError) as raised:
        ask(on_postgres, model)
    assert str(raised.value) == sentence


def test_without_any_model_or_any_vector(on_postgres: psycopg.Connection) -> None:
    with pytest.raises(
        UserError, match=r"^No model is active: train one \(btc-assets train\) and activate it \(btc-assets models activate\)\.$"
    ):
        similar(on_postgres, at(3))
    model = registered_model(on_postgres, dim=DIM)
    with pytest.raises(
        UserError, match=rf"^There are no embeddings of {model.model_id} yet: run btc-assets models activate {model.model_id}\.$"
    ):
        similar(on_postgres, at(3), model_id=model.model_id)


def test_a_vector_of_another_dimension_or_length_is_not_stored(on_postgres: psycopg.Connection, model: Model) -> None:
    statement = "INSERT INTO signals.btc_embeddings (bucket_5m, symbol, model_id, embedding, tick_count) VALUES (now(), 'X', %s, %s, 1)"
    for wrong in ("[1,0]", "[" + ",".join(["0.1"] * DIM) + "]"):
        with pytest.raises(psycopg.errors.CheckViolation):
            on_postgres.execute(statement, (model.model_id, wrong))
    with pytest.raises(psycopg.errors.CheckViolation):  # nor of a model that nobody registered
        on_postgres.execute(statement, ("tcn-9", "[1,0]"))


# ---- with an index

MANY = indexes.FEWEST_ROWS + 500


@pytest.fixture(scope="module")
def indexed(plain_server: str) -> Iterator[psycopg.Connection]:
    """A connection to a store with as many vectors as an index takes, and the index; for reading."""
    with temporary_database(plain_server) as dsn, psycopg.connect(dsn, autocommit=True, options="-c timezone=UTC") as connection:
        migrate(connection)
        model = registered_model(connection, dim=16)
        write_vectors(connection, model, market_like(MANY, 16), START)
        models.activate_model(connection, model)
        assert indexes.maintain_index(connection, model).action == "built"
        yield connection


def test_the_index_answers_without_a_filter_and_not_with_a_narrow_one(indexed: psycopg.Connection) -> None:
    def scans() -> int:
        indexed.execute("SELECT pg_stat_force_next_flush()")
        row = indexed.execute("SELECT sum(idx_scan) FROM pg_stat_all_indexes WHERE indexrelname LIKE '%\\_ann_'").fetchone()
        assert row
        return int(row[0])

    before = scans()
    similar(indexed, at(5000))
    assert scans() == before + 1
    similar(indexed, at(MANY - 1), before_only=True, apart=timedelta(hours=1))  # nearly all rows lie before
    assert scans() == before + 2
    for narrow in ({"within": Window(at(0), at(3000))}, {"before_only": True}, {"exact": True}):
        similar(indexed, at(5000), **narrow)  # type: ignore[arg-type]
    assert scans() == before + 2


@pytest.mark.parametrize("within", [Window(at(0), at(288)), Window(at(2000), at(8000))])
def test_a_time_filter_stays_exact_beside_an_index(indexed: psycopg.Connection, within: Window) -> None:
    for query in (10, 4000, 9000):
        by_filter = similar(indexed, at(query), within=within)
        assert by_filter == similar(indexed, at(query), within=within, exact=True)
        assert len(by_filter) == 10


def test_a_filter_that_leaves_most_days_and_few_rows_stays_exact(indexed: psycopg.Connection) -> None:
    long_ago = START - timedelta(days=3650)
    with indexed.transaction(force_rollback=True):
        model = models.read_model(indexed, read_active_model(indexed))
        indexed.execute(
            f"INSERT INTO {model.table} SELECT %s, symbol, model_id, embedding, tick_count FROM {model.table} WHERE bucket_5m = %s",
            (long_ago, START),
        )
        for query in range(100, MANY, 400):
            first = Window(long_ago, at(1000))
            assert similar(indexed, at(query), within=first) == similar(indexed, at(query), within=first, exact=True)


def test_many_neighbours_are_found_by_comparing_all(indexed: psycopg.Connection) -> None:
    assert similar(indexed, at(5000), 500) == similar(indexed, at(5000), 500, exact=True)


def test_a_filter_that_leaves_most_rows_finds_nearly_all(indexed: psycopg.Connection) -> None:
    found = right = 0
    for query in range(9600, MANY, 20):
        exact = {one.bucket_5m for one in similar(indexed, at(query), before_only=True, exact=True)}
        found += len(exact & {one.bucket_5m for one in similar(indexed, at(query), before_only=True)})
        right += len(exact)
    assert found / right >= indexes.LEAST_RECALL


def test_a_search_leaves_the_settings_of_the_session_alone(indexed: psycopg.Connection) -> None:
    statement = "SELECT current_setting('ivfflat.probes'), current_setting('enable_seqscan'), current_setting('enable_sort')"
    with indexed.transaction():
        assert len(similar(indexed, at(100))) == 10
        assert indexed.execute(statement).fetchone() == ("1", "on", "on")
