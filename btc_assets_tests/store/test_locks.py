"""Writers of the same slice or of a whole table exclude each other; writers of other slices do not."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from btc_assets.domain.slices import DAY, SLICE, Window
from btc_assets.domain.ticks import TABLE
from btc_assets.store.locks import MAX_LOCKED_SLICES, lock_slices, lock_table
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import NOON

TWO = Window(NOON, NOON + 2 * SLICE)


@pytest.fixture
def other(store: StoreUnderTest) -> Iterator[psycopg.Connection]:
    """A session that fails at once if it would have to wait for a lock."""
    with store.connect() as connection:
        connection.execute("SET lock_timeout = '1ms'")
        yield connection


def waits_for_slices(connection: psycopg.Connection, window: Window, table: str = TABLE) -> bool:
    try:
        with connection.transaction(), connection.cursor() as cursor:
            lock_slices(cursor, table, window)
    except psycopg.errors.LockNotAvailable:
        return True
    return False


def waits_for_table(connection: psycopg.Connection, *, exclusive: bool) -> bool:
    try:
        with connection.transaction(), connection.cursor() as cursor:
            lock_table(cursor, TABLE, exclusive=exclusive)
    except psycopg.errors.LockNotAvailable:
        return True
    return False


def test_a_slice_is_locked_until_the_transaction_ends(store: StoreUnderTest, other: psycopg.Connection) -> None:
    with store.connection.transaction(), store.connection.cursor() as cursor:
        lock_slices(cursor, TABLE, TWO)
        assert waits_for_slices(other, Window.of_slice(NOON))
        assert waits_for_slices(other, Window.of_slice(NOON + SLICE))
        assert not waits_for_slices(other, Window.of_slice(NOON - SLICE))
        assert not waits_for_slices(other, Window.of_slice(NOON + 2 * SLICE))
        assert not waits_for_slices(other, TWO, "signals.btc_embeddings")
    assert not waits_for_slices(other, TWO)


def test_loaders_share_a_table_and_whatever_needs_it_alone_waits(store: StoreUnderTest, other: psycopg.Connection) -> None:
    with store.connection.transaction(), store.connection.cursor() as cursor:
        lock_table(cursor, TABLE, exclusive=False)
        assert not waits_for_table(other, exclusive=False)
        assert waits_for_table(other, exclusive=True)
    with store.connection.transaction(), store.connection.cursor() as cursor:
        lock_table(cursor, TABLE, exclusive=True)
        assert waits_for_table(other, exclusive=False)


def test_a_day_of_slices_fits_the_lock_table(store: StoreUnderTest) -> None:
    day = Window(NOON, NOON + DAY)
    assert len(day) == MAX_LOCKED_SLICES
    with store.connection.transaction(), store.connection.cursor() as cursor:
        lock_slices(cursor, TABLE, day)
        held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
        assert store.rows(held) == [(MAX_LOCKED_SLICES,)]
