"""The spool hands what the registry decoded to the loader, and is only ever a shortcut."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest

from btc_assets.domain.objects import ObjectVersion
from btc_assets.domain.ticks import TABLE
from btc_assets.landing import spool as spool_module
from btc_assets.landing.objects import LandedObject
from btc_assets.landing.registration import RegisterOptions, register_window
from btc_assets.landing.spool import Spool
from btc_assets.landing.zone import LandingZone
from btc_assets.market_data.loading import LoadOptions, TickLoad
from btc_assets.store.tables import Target
from btc_assets.store.writers import replace_all
from btc_assets_tests.support.stores import FEEDS, StoreUnderTest
from btc_assets_tests.support.trades import HOUR, every

A, B, C = (ObjectVersion(uri, "1") for uri in "abc")


def taken(spool: Spool, *versions: ObjectVersion) -> dict[ObjectVersion, list[int]]:
    found: dict[ObjectVersion, list[int]] = {}
    for version, ticks in spool.take(versions):
        found.setdefault(version, []).extend(ticks["trade_id"].to_pylist())
    return found


def test_each_object_gets_its_own_rows_back_once() -> None:
    spool = Spool()
    spool.put([A, B, C], [(every(1, 5), np.array([0, 0, 2, 2, 2])), (every(1, 2, first_id=6), np.array([0, 2]))])
    assert taken(spool, A, B, C) == {A: [1, 2, 6], C: [3, 4, 5, 7]}
    assert taken(spool, A, C) == {}


def test_an_object_that_is_put_again_is_kept_once() -> None:
    spool = Spool()
    spool.put([A], [(every(1, 3), np.zeros(3, int))])
    spool.put([A], [(every(1, 2), np.zeros(2, int))])
    assert taken(spool, A) == {A: [1, 2]}


def test_objects_that_do_not_fit_are_not_kept_even_in_part_and_taking_frees_space() -> None:
    ticks = every(1, 1000)
    spool = Spool(limit_bytes=int(ticks.nbytes * 2.5))
    halves = [(ticks, np.zeros(1000, int)), (ticks, np.zeros(1000, int))]
    spool.put([A], halves)
    spool.put([B], halves)
    assert taken(spool, B) == {}
    assert len(taken(spool, A)[A]) == 2000
    spool.put([B], halves)
    assert len(taken(spool, B)[B]) == 2000


def test_a_group_is_one_file_and_there_are_never_more_files_than_a_process_may_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "LIMIT_FILES", 3)
    spool, ticks = Spool(), every(1, 10)
    before = len(list(Path("/proc/self/fd").iterdir()))
    groups = [[ObjectVersion(f"{group}/{number}", "1") for number in range(5)] for group in range(5)]
    for group in groups:
        spool.put(group, [(ticks, np.full(10, number)) for number in range(5)])
    assert len(list(Path("/proc/self/fd").iterdir())) == before + 3
    assert [len(taken(spool, *group)) for group in groups] == [5, 5, 5, 0, 0]
    spool.put(groups[4], [(ticks, np.full(10, 4))])
    assert taken(spool, *groups[4]) == {groups[4][4]: list(range(1, 11))}


def test_without_room_for_temporary_files_nothing_is_kept_and_nothing_fails() -> None:
    spool, ticks = Spool(), every(1, 1000)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        spool.put([A, B], [(every(1, 2), np.array([0, 1])), (ticks, np.ones(1000, int))])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert taken(spool, A, B) == {}
    spool.put([B], [(ticks, np.zeros(1000, int))])
    assert len(taken(spool, B)[B]) == 1000


def test_a_load_in_the_process_that_registered_reads_no_object_again(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    store.land(every(1, 600))
    store.land(every(1, 300), seconds=60)
    spool = Spool()
    with store.connect() as connection:
        register_window(connection, store.zone(), FEEDS, HOUR, RegisterOptions(HOUR.end - HOUR.start, spool=spool))
    read = LandingZone.read
    reads: list[str] = []

    def counted_read(zone: LandingZone, obj: LandedObject) -> tuple[bytes | Path, str]:
        reads.append(obj.uri)
        return read(zone, obj)

    monkeypatch.setattr(LandingZone, "read", counted_read)
    load = TickLoad(store.database, store.zone(), FEEDS, HOUR, LoadOptions(10_000, spool=spool))
    with store.connect() as connection:
        replace_all(connection, Target.of(connection, TABLE), load)
    assert reads == []
    assert store.rows("SELECT count(*), sum(trade_id) FROM market_data.btc_ticks") == [(600, 600 * 601 // 2)]
    assert load.result.duplicates == 300
    store.load(HOUR)  # without a spool it is the same table
    assert len(reads) == len(store.uris())
    assert store.rows("SELECT count(*) FROM market_data.btc_ticks") == [(600,)]
