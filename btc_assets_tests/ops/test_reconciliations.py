"""The record of reconciliations."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from btc_assets.domain.slices import DAY, Window
from btc_assets.ops.differences import Differences
from btc_assets.ops.reconcile import ReconcileOptions, reconcile
from btc_assets.ops.reconciliations import read_last_reconciliations
from btc_assets_tests.support.stores import FEEDS, StoreUnderTest
from btc_assets_tests.support.trades import NOON

TWO_DAYS = Window(NOON - DAY, NOON + DAY)


def compare(store: StoreUnderTest, window: Window | None = None, *, heal: bool = False) -> Differences:
    options = ReconcileOptions(heal=heal, min_object_age=timedelta(0))
    return reconcile(store.connection, store.zone(), FEEDS, window, datetime.now(UTC), options)


def test_reconciliations_are_recorded(store: StoreUnderTest) -> None:
    assert read_last_reconciliations(store.connection) == []
    compare(store)
    store.put("2024/01/10/12/00/batch.parquet", b"")
    found = compare(store, TWO_DAYS, heal=True)
    (last,) = read_last_reconciliations(store.connection)
    assert (last.start, last.end, last.problems, last.healed) == (NOON - DAY, NOON + DAY, {"missing": 1}, 1)
    assert last.sentences == found.sentences


def test_differences_that_could_not_be_healed_are_reported_until_everything_is_compared_again(store: StoreUnderTest) -> None:
    stray = store.put("batch-a.parquet", b"")
    compare(store, heal=True)
    compare(store, TWO_DAYS)
    assert [one.problems for one in read_last_reconciliations(store.connection)] == [{"stray": 1}, {}]
    store.delete(stray)
    compare(store)
    assert [one.problems for one in read_last_reconciliations(store.connection)] == [{}]
