"""Many replacements are written by several sessions at once; stale ones are rebuilt; a failure ends all of them at whole slices."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psycopg
import pyarrow as pa
import pytest

from btc_assets.domain.errors import TransientError
from btc_assets.domain.slices import SLICE, Window
from btc_assets.domain.ticks import TIME
from btc_assets.store.database import Store
from btc_assets.store.replace import Replacement, Replacements, Stale
from btc_assets.store.tables import Target
from btc_assets.store.writers import replace_all
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import NOON
from btc_assets_tests.support.waiting import PATIENCE_SECONDS


@pytest.fixture
def numbers(store: StoreUnderTest) -> StoreUnderTest:
    """A store with an empty table of numbers."""
    store.connection.execute("CREATE TABLE ops.numbers (bucket_5m timestamptz NOT NULL, n bigint NOT NULL)")
    return store


class Number(Replacement):
    """One slice's number, which is stale as often as asked for; each rebuild adds 100."""

    def __init__(self, position: int, value: int, stale: int = 0) -> None:
        bucket = NOON + position * SLICE
        rows = pa.table({"bucket_5m": pa.array([bucket], TIME), "n": pa.array([value], pa.int64())})
        super().__init__(Window.of_slice(bucket), rows)
        self._again = (position, value + 100, stale - 1)
        self._stale = stale

    def confirm(self, cursor: psycopg.Cursor) -> None:
        if self._stale:
            raise Stale("the source moved on")

    def rebuild(self) -> Iterator[Replacement]:
        yield Number(*self._again)


class Numbers(Replacements):
    """Numbers of the first slices of the hour; notes what is committed, and by how many threads."""

    def __init__(self, *parts: Replacement) -> None:
        self._parts = parts
        self.done: list[int] = []
        self.threads: set[str] = set()

    def __iter__(self) -> Iterator[Replacement]:
        yield from self._parts

    def committed(self, replacement: Replacement) -> None:
        self.done += replacement.rows["n"].to_pylist()
        self.threads.add(threading.current_thread().name)


class CountingStore(Store):
    """A store that counts the sessions that are opened."""

    sessions = 0

    def connect(self, *, owner: bool = False) -> psycopg.Connection:
        self.sessions += 1
        return super().connect(owner=owner)


def write(store: StoreUnderTest, numbers: Replacements, *, writers: int = 1, others: Store | None = None) -> int:
    with store.connect() as connection:
        return replace_all(connection, Target.of(connection, "ops.numbers"), numbers, writers=writers, store=others)


def content(store: StoreUnderTest) -> list[int]:
    return [n for (n,) in store.rows("SELECT n FROM ops.numbers ORDER BY bucket_5m")]


def test_one_session_commits_in_order(numbers: StoreUnderTest) -> None:
    made = Numbers(*(Number(i, i) for i in range(12)))
    assert write(numbers, made) == 12
    assert made.done == content(numbers) == list(range(12))


def test_several_sessions_write_the_same(numbers: StoreUnderTest) -> None:
    both = threading.Barrier(2, timeout=PATIENCE_SECONDS)

    class Meeting(Number):
        def record(self, cursor: psycopg.Cursor) -> None:
            both.wait()  # only passes while another session writes, too

    made = Numbers(*(Meeting(i, i) for i in range(12)))
    store = CountingStore(numbers.dsn)
    assert write(numbers, made, writers=2, others=store) == 12
    assert content(numbers) == sorted(made.done) == list(range(12))
    assert (len(made.threads), store.sessions) == (2, 1)


def test_a_single_part_opens_no_other_session(numbers: StoreUnderTest) -> None:
    store = CountingStore(numbers.dsn)
    assert write(numbers, Numbers(Number(0, 7)), writers=4, others=store) == 1
    assert store.sessions == 0


def test_a_stale_replacement_is_rebuilt_until_it_is_not(numbers: StoreUnderTest) -> None:
    made = Numbers(Number(0, 1, stale=3), Number(1, 2))
    assert write(numbers, made) == 2
    assert content(numbers) == [301, 2]
    assert made.done == [301, 2]  # what was written, not what was stale


def test_a_replacement_that_stays_stale_ends_the_write_and_what_was_committed_stays(numbers: StoreUnderTest) -> None:
    with pytest.raises(TransientError) as raised:
        write(numbers, Numbers(Number(0, 1), Number(1, 2, stale=100), Number(2, 3)))
    assert str(raised.value) == (
        "The sources of ops.numbers, 2024-01-10T12:05Z to 2024-01-10T12:10Z, keep changing (the source moved on): run it again later."
    )
    assert content(numbers) == [1]


@pytest.mark.parametrize("writers", [1, 3])
def test_a_source_that_fails_ends_the_write_and_what_was_committed_stays(numbers: StoreUnderTest, writers: int) -> None:
    class Failing(Numbers):
        def __iter__(self) -> Iterator[Replacement]:
            yield from super().__iter__()
            raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        write(numbers, Failing(Number(0, 1), Number(1, 2)), writers=writers, others=numbers.database)
    assert set(content(numbers)) <= {1, 2}


def test_a_session_that_fails_stops_the_others(numbers: StoreUnderTest) -> None:
    class Poisoned(Number):
        def record(self, cursor: psycopg.Cursor) -> None:
            raise RuntimeError("this one cannot be written")

    parts = [Poisoned(i % 12, i) if i == 3 else Number(i % 12, i) for i in range(500)]
    with pytest.raises(RuntimeError, match="this one cannot be written"):
        write(numbers, made := Numbers(*parts), writers=2, others=numbers.database)
    assert len(made.done) < 499
