"""The slices of a window are replaced in one transaction: all of it happens, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pyarrow as pa
import pytest

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE, Window
from btc_assets.domain.ticks import TIME
from btc_assets.store.encode import encode_rows
from btc_assets.store.replace import CreatedAt, Replacement, Stale, replace_slices
from btc_assets.store.tables import Target
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import HOUR, NOON


@pytest.fixture
def numbers(store: StoreUnderTest) -> Iterator[StoreUnderTest]:
    """A store with a table of numbers: 1, 2 and 3 in the first three slices of the hour."""
    store.connection.execute("CREATE TABLE ops.numbers (bucket_5m timestamptz NOT NULL, n bigint NOT NULL, PRIMARY KEY (bucket_5m, n))")
    replace(store, Replacement(HOUR, rows(1, 2, 3)))
    yield store


def rows(*numbers: int, start: Window = HOUR) -> pa.Table:
    """One row in each slice from the start of a window on."""
    return pa.table(
        {"bucket_5m": pa.array([start.start + i * SLICE for i in range(len(numbers))], TIME), "n": pa.array(numbers, pa.int64())}
    )


def replace(store: StoreUnderTest, replacement: Replacement) -> list[str]:
    with store.connect() as connection:
        target = Target.of(connection, "ops.numbers")
        return replace_slices(connection, target, replacement, encode_rows(replacement.rows, target))


def content(store: StoreUnderTest) -> list[int]:
    return [n for (n,) in store.rows("SELECT n FROM ops.numbers ORDER BY bucket_5m, n")]


class Dated(Replacement):
    """A replacement in a table whose rows know when their content came to be."""

    created_at = CreatedAt(("n",), unless="old.n = 3")


def test_a_row_whose_content_is_the_same_keeps_the_time_at_which_it_was_created(store: StoreUnderTest) -> None:
    store.connection.execute(
        "CREATE TABLE ops.numbers (bucket_5m timestamptz PRIMARY KEY, n bigint, created_at timestamptz NOT NULL DEFAULT now())"
    )
    times = []
    for numbers in ((1, 2, 3, 4), (1, 20, 3), (1, 20, 3, 4)):
        replace(store, Dated(HOUR, rows(*numbers)))
        times.append([at for (at,) in store.rows("SELECT created_at FROM ops.numbers ORDER BY bucket_5m")])
    assert content(store) == [1, 20, 3, 4]
    assert [len({row[column] for row in times}) for column in range(3)] == [1, 2, 3]  # the third moves all the same
    assert times[2][3] == times[2][2]  # it is a new row
    replace(store, Replacement(HOUR, rows(1)))
    assert store.rows("SELECT created_at > %s FROM ops.numbers", times[2][2]) == [(True,)]


class Scripted(Replacement):
    """A replacement of the second slice by 20 that calls a function before or after the rows are written."""

    def __init__(
        self, confirm: Callable[[psycopg.Cursor], None] | None = None, record: Callable[[psycopg.Cursor], None] | None = None
    ) -> None:
        second = Window.of_slice(NOON + SLICE)
        super().__init__(second, rows(20, start=second))
        self._confirm, self._record = confirm, record

    def confirm(self, cursor: psycopg.Cursor) -> None:
        if self._confirm:
            self._confirm(cursor)

    def record(self, cursor: psycopg.Cursor) -> None:
        if self._record:
            self._record(cursor)


def test_a_window_is_replaced_and_nothing_outside_it(numbers: StoreUnderTest) -> None:
    assert replace(numbers, Scripted()) == []  # no chunk to compress again
    assert content(numbers) == [1, 20, 3]
    replace(numbers, Replacement(Window(NOON, NOON + 2 * SLICE)))
    assert content(numbers) == [3]


def test_rows_and_what_must_agree_with_them_are_committed_together(numbers: StoreUnderTest) -> None:
    seen_outside: list[list[int]] = []

    def record(cursor: psycopg.Cursor) -> None:
        cursor.execute("CREATE TABLE ops.recorded AS SELECT sum(n)::int AS total FROM ops.numbers")
        seen_outside.append(content(numbers))

    replace(numbers, Scripted(record=record))
    assert seen_outside == [[1, 2, 3]]
    assert numbers.rows("SELECT total FROM ops.recorded") == [(24,)]


@pytest.mark.parametrize("moment", ["confirm", "record"])
def test_a_failure_changes_nothing(numbers: StoreUnderTest, moment: str) -> None:
    def fails(cursor: psycopg.Cursor) -> None:
        cursor.execute("CREATE TABLE ops.recorded ()")
        raise Stale("the sources changed")

    with pytest.raises(Stale):
        replace(numbers, Scripted(**{moment: fails}))
    assert content(numbers) == [1, 2, 3]
    assert numbers.rows("SELECT to_regclass('ops.recorded')") == [(None,)]


def test_the_slices_are_locked_while_sources_are_confirmed(numbers: StoreUnderTest) -> None:
    held: list[tuple[int]] = []
    locks = "SELECT count(*)::int FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND granted"
    replace(numbers, Scripted(confirm=lambda cursor: held.extend(cursor.execute(locks).fetchall())))
    assert held == [(2,)]  # the table's, shared, and the slice's


def test_a_deadlock_is_tried_again(numbers: StoreUnderTest) -> None:
    deadlocks = iter([psycopg.errors.DeadlockDetected("a job of TimescaleDB"), psycopg.errors.SerializationFailure("a job of TimescaleDB")])

    def confirm(cursor: psycopg.Cursor) -> None:
        for error in deadlocks:
            raise error

    replace(numbers, Scripted(confirm=confirm))
    assert content(numbers) == [1, 20, 3]


def test_what_the_server_refuses_is_one_sentence(numbers: StoreUnderTest) -> None:
    def call_a_missing_function(cursor: psycopg.Cursor) -> None:
        cursor.execute("SELECT ops.none()")

    with pytest.raises(UserError, match="run btc-assets db migrate"):
        replace(numbers, Scripted(record=call_a_missing_function))
    assert content(numbers) == [1, 2, 3]


def test_a_plain_replacement_cannot_be_rebuilt() -> None:
    with pytest.raises(NotImplementedError, match="Replacement never raises Stale"):
        Replacement(HOUR).rebuild()
