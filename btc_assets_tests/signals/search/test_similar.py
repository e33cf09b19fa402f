"""Searching for similar slices: exactly against NumPy, by the index against exact search, and questions without an answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import psycopg
import pytest

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE, Window
from btc_assets.signals.encoders.models import Model, activate_model, read_model
from btc_assets.signals.search.index_maintenance import LEAST_RECALL, maintain_index
from btc_assets.signals.search.indexes import FEWEST_ROWS
from btc_assets.signals.search.similar import find_nearest_slices, find_similar_slices, read_active_model, read_newest_slice
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
    """An active model with 600 slices, two of them without a vector."""
    model = registered_model(on_postgres, dim=DIM)
    write_vectors(on_postgres, model, VECTORS, START, missing=MISSING)
    activate_model(on_postgres, model)
    return model


def at(number: int) -> datetime:
    return START + number * SLICE


def expected(query: int, k: int, allowed: Sequence[int] = range(ROWS)) -> list[datetime]:
    """The nearest others by NumPy."""
    candidates = [i for i in allowed if i != query and i not in MISSING]
    order = np.argsort(-(VECTORS[candidates] @ VECTORS[query]), kind="stable")
    return [at(candidates[i]) for i in order[:k]]


def test_the_nearest_slices_come_first_and_the_slice_itself_is_left_out(on_postgres: psycopg.Connection, model: Model) -> None:
    found = find_similar_slices(on_postgres, at(100) + timedelta(minutes=3), 10)
    assert [one.bucket_5m for one in found] == expected(100, 10)
    assert [one.distance for one in found] == pytest.approx(sorted(1 - (VECTORS @ VECTORS[100])[[i for i in range(ROWS) if at(i) in {o.bucket_5m for o in found}]]), abs=1e-5)  # fmt: skip
    assert {one.symbol for one in found} == {"BTCUSDT"} and found[0].tick_count == (found[0].bucket_5m - START) // SLICE


def test_a_search_path_without_pgvector_changes_nothing(on_postgres: psycopg.Connection, model: Model) -> None:
    found = find_similar_slices(on_postgres, at(100), 5)
    on_postgres.execute("SET search_path = pg_catalog")
    assert found and find_similar_slices(on_postgres, at(100), 5) == found
    write_vectors(on_postgres, model, VECTORS, START, missing=MISSING)
    assert find_similar_slices(on_postgres, at(100), 5) == found


def test_only_slices_before(on_postgres: psycopg.Connection, model: Model) -> None:
    assert [one.bucket_5m for one in find_similar_slices(on_postgres, at(100), 5, before_only=True)] == expected(100, 5, range(100))


def test_only_slices_in_a_window(on_postgres: psycopg.Connection, model: Model) -> None:
    found = find_similar_slices(on_postgres, at(100), 5, within=Window(at(300), at(320)))
    assert [one.bucket_5m for one in found] == expected(100, 5, range(300, 320))


def test_no_slices_close_in_time(on_postgres: psycopg.Connection, model: Model) -> None:
    allowed = [*range(41), *range(160, ROWS)]  # five hours are 60 slices
    found = find_similar_slices(on_postgres, at(100), 30, apart=timedelta(hours=5))
    assert [one.bucket_5m for one in found] == expected(100, 30, allowed) != expected(100, 30)


def test_a_vector_as_the_query(on_postgres: psycopg.Connection, model: Model) -> None:
    (found,) = find_nearest_slices(on_postgres, 5 * VECTORS[100], 1, model_id=model.model_id)  # its direction counts, not its length
    assert found.bucket_5m == at(100) and found.distance == pytest.approx(0, abs=1e-6)


def test_models_exist_side_by_side_and_never_answer_for_each_other(on_postgres: psycopg.Connection, model: Model) -> None:
    other = registered_model(on_postgres, "tcn-0000000000000002", dim=4)
    write_vectors(on_postgres, other, market_like(50, 4, seed=1), START)
    assert len(find_similar_slices(on_postgres, at(3), 100, model_id=other.model_id)) == 49
    assert len(find_similar_slices(on_postgres, at(3), 1000)) == ROWS - 1 - len(MISSING)
    assert on_postgres.execute("SELECT count(*) FROM signals.btc_embeddings").fetchone() == (ROWS + 50,)


def test_another_symbol_has_a_model_of_its_own(on_postgres: psycopg.Connection, model: Model) -> None:
    other = registered_model(on_postgres, "rocket-pca-0000000000000003", dim=DIM, symbol="BTCUSDT.P")
    write_vectors(on_postgres, other, VECTORS[:50], START)
    activate_model(on_postgres, other)
    assert read_active_model(on_postgres, "BTCUSDT.P") == other.model_id
    assert {one.symbol for one in find_similar_slices(on_postgres, at(3), symbol="BTCUSDT.P")} == {"BTCUSDT.P"}
    with pytest.raises(UserError, match=r"^Several symbols have embeddings: name one of BTCUSDT, BTCUSDT\.P\.$"):
        find_similar_slices(on_postgres, at(3))


def test_the_newest_slice_is_the_last_one_with_a_vector(on_postgres: psycopg.Connection, model: Model) -> None:
    assert read_newest_slice(on_postgres, model.model_id) == at(ROWS - 1)
    on_postgres.execute(f"UPDATE {model.table} SET embedding = NULL WHERE bucket_5m > %s", (at(9),))
    assert read_newest_slice(on_postgres, model.model_id) == at(9)


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda c, m: find_similar_slices(c, at(17)), "The slice 2024-01-10T01:25Z has too few ticks (17) for an embedding: ask for another."),
        (lambda c, m: find_similar_slices(c, at(-9)), "The slice 2024-01-09T23:15Z was never loaded: load it first (btc-assets load)."),
        (lambda c, m: find_similar_slices(c, at(3), model_id="tcn-1"), "There is no model tcn-1: btc-assets models lists them."),
        (lambda c, m: find_similar_slices(c, at(3), 0), "The number of neighbours is 0: ask for one or more."),
        (
            lambda c, m: find_nearest_slices(c, VECTORS[3, :5], model_id=m.model_id),
            "The vector has 5 dimensions, but those of rocket-pca-0000000000000001 have 8: embed the query with that model.",
        ),
        (lambda c, m: find_nearest_slices(c, VECTORS[3] * np.nan, model_id=m.model_id), "The query vector has values that are not finite: embed the slice again."),
        (
            lambda c, m: find_similar_slices(c, at(3), symbol="ETHUSDT", model_id=m.model_id),
            "The model rocket-pca-0000000000000001 is not one of ETHUSDT: leave out one of both.",
        ),
        (
            lambda c, m: find_similar_slices(c, at(3), symbol="ETHUSDT"),
            "No model is active for ETHUSDT: train one (btc-assets train) and activate it (btc-assets models activate).",
        ),
    ],
)  # fmt: skip
def test_a_question_without_an_answer_says_why(on_postgres: psycopg.Connection, model: Model, ask, sentence: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError) as raised:
        ask(on_postgres, model)
    assert str(raised.value) == sentence


def test_without_any_model_or_any_vector(on_postgres: psycopg.Connection) -> None:
    with pytest.raises(
        UserError, match=r"^No model is active: train one \(btc-assets train\) and activate it \(btc-assets models activate\)\.$"
    ):
        find_similar_slices(on_postgres, at(3))
    model = registered_model(on_postgres, dim=DIM)
    with pytest.raises(
        UserError, match=rf"^There are no embeddings of {model.model_id} yet: run btc-assets models activate {model.model_id}\.$"
    ):
        find_similar_slices(on_postgres, at(3), model_id=model.model_id)


def test_a_vector_of_another_dimension_or_length_is_not_stored(on_postgres: psycopg.Connection, model: Model) -> None:
    statement = "INSERT INTO signals.btc_embeddings (bucket_5m, symbol, model_id, embedding, tick_count) VALUES (now(), 'X', %s, %s, 1)"
    for wrong in ("[1,0]", "[" + ",".join(["0.1"] * DIM) + "]"):
        with pytest.raises(psycopg.errors.CheckViolation):
            on_postgres.execute(statement, (model.model_id, wrong))
    with pytest.raises(psycopg.errors.CheckViolation):  # nor of an unregistered model
        on_postgres.execute(statement, ("tcn-9", "[1,0]"))


# With an index


MANY = FEWEST_ROWS + 500


@pytest.fixture(scope="module")
def indexed(plain_server: str) -> Iterator[psycopg.Connection]:
    """A connection to a store with an index and enough vectors for it; only for reading."""
    with temporary_database(plain_server) as dsn, psycopg.connect(dsn, autocommit=True, options="-c timezone=UTC") as connection:
        migrate(connection)
        model = registered_model(connection, dim=16)
        write_vectors(connection, model, market_like(MANY, 16), START)
        activate_model(connection, model)
        assert maintain_index(connection, model).action == "built"
        yield connection


def test_the_index_answers_without_a_filter_and_not_with_a_narrow_one(indexed: psycopg.Connection) -> None:
    def scans() -> int:
        indexed.execute("SELECT pg_stat_force_next_flush()")
        row = indexed.execute("SELECT sum(idx_scan) FROM pg_stat_all_indexes WHERE indexrelname LIKE '%\\_ann_'").fetchone()
        assert row
        return int(row[0])

    before = scans()
    find_similar_slices(indexed, at(5000))
    assert scans() == before + 1
    find_similar_slices(indexed, at(MANY - 1), before_only=True, apart=timedelta(hours=1))  # nearly all rows lie before
    assert scans() == before + 2
    for narrow in ({"within": Window(at(0), at(3000))}, {"before_only": True}, {"exact": True}):
        find_similar_slices(indexed, at(5000), **narrow)
    assert scans() == before + 2


@pytest.mark.parametrize("within", [Window(at(0), at(288)), Window(at(2000), at(8000))])
def test_a_time_filter_stays_exact_beside_an_index(indexed: psycopg.Connection, within: Window) -> None:
    for query in (10, 4000, 9000):
        by_filter = find_similar_slices(indexed, at(query), within=within)
        assert by_filter == find_similar_slices(indexed, at(query), within=within, exact=True)
        assert len(by_filter) == 10


def test_a_filter_that_leaves_most_days_and_few_rows_stays_exact(indexed: psycopg.Connection) -> None:
    long_ago = START - timedelta(days=3650)
    with indexed.transaction(force_rollback=True):
        model = read_model(indexed, read_active_model(indexed))
        indexed.execute(
            f"INSERT INTO {model.table} SELECT %s, symbol, model_id, embedding, tick_count FROM {model.table} WHERE bucket_5m = %s",
            (long_ago, START),
        )
        for query in range(100, MANY, 400):
            first = Window(long_ago, at(1000))
            assert find_similar_slices(indexed, at(query), within=first) == find_similar_slices(
                indexed, at(query), within=first, exact=True
            )


def test_many_neighbors_are_found_by_comparing_all(indexed: psycopg.Connection) -> None:
    assert find_similar_slices(indexed, at(5000), 500) == find_similar_slices(indexed, at(5000), 500, exact=True)


def test_a_filter_that_leaves_most_rows_finds_nearly_all(indexed: psycopg.Connection) -> None:
    found = right = 0
    for query in range(9600, MANY, 20):
        exact = {one.bucket_5m for one in find_similar_slices(indexed, at(query), before_only=True, exact=True)}
        found += len(exact & {one.bucket_5m for one in find_similar_slices(indexed, at(query), before_only=True)})
        right += len(exact)
    assert found / right >= LEAST_RECALL


def test_a_search_leaves_the_settings_of_the_session_unchanged(indexed: psycopg.Connection) -> None:
    statement = "SELECT current_setting('ivfflat.probes'), current_setting('enable_seqscan'), current_setting('enable_sort')"
    with indexed.transaction():
        assert len(find_similar_slices(indexed, at(100))) == 10
        assert indexed.execute(statement).fetchone() == ("1", "on", "on")
