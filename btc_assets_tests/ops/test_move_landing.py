"""The registry follows objects that were moved, if every one of them is the same in its new place."""

from __future__ import annotations

import os
import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from btc_assets.landing.problems import acknowledge, read_problems
from btc_assets.landing.registration import RegisterOptions, register_window
from btc_assets.landing.zone import LandingZone
from btc_assets.ops.move_landing import LandingMove
from btc_assets_tests.support.command_line import run_command
from btc_assets_tests.support.stores import FEED, FEEDS, StoreUnderTest
from btc_assets_tests.support.trades import HOUR, every

HEADER = b"trade_id,symbol,trade_time,price,quantity,is_market_maker\n"


@pytest.fixture
def loaded(store: StoreUnderTest) -> StoreUnderTest:
    """A store with loaded slices, an object with a wrong row, an acknowledged one that is unreadable, and one that is gone."""
    store.land(every(1, 450))
    store.put("2024/01/10/12/03/wrong.csv", HEADER + b"9,BTCUSDT,1704888001000,-1,1,true\n")
    unreadable = store.put("2024/01/10/12/03/unreadable.parquet", b"")
    (gone,) = store.land(every(1, 15, first_id=9000), seconds=60)
    store.ingest(HOUR)
    acknowledge(store.connection, [unreadable], "")
    store.delete(gone)
    store.register(HOUR)
    return store


@pytest.fixture
def new(store: StoreUnderTest) -> Path:
    """A new place, with a name that URLs spell otherwise."""
    return store.landing.with_name("new place [1]")


def registry(store: StoreUnderTest, place: Path) -> list[tuple[object, ...]]:
    """The registry, without where objects are and what their ETags are."""
    return store.rows(
        "SELECT bucket_5m, substr(uri, length(%s) + 1), status, loaded_at, loaded_rows FROM landing.raw_blobs_5m "
        "WHERE starts_with(uri, %s) ORDER BY 1, 2",
        place.as_uri(),
        place.as_uri(),
    )


def move(store: StoreUnderTest, new: Path) -> None:
    result = run_command("ops", "move-landing", store.landing.as_uri(), new.as_uri(), "--yes")
    assert result.exit_code == 0, result.output
    assert f"set BTC_ASSETS_LANDING_URL={new.as_uri()}" in result.output


@pytest.mark.parametrize("how", ["moved", "copied", "copied, and the settings were switched first"])
def test_nothing_is_loaded_again_after_a_move(loaded: StoreUnderTest, new: Path, how: str) -> None:
    before, problems = registry(loaded, loaded.landing), [problem.kind for problem in read_problems(loaded.connection).shown]
    ticks = loaded.rows("SELECT * FROM market_data.btc_ticks ORDER BY trade_id")
    if how == "moved":
        loaded.landing.rename(new)
    else:
        shutil.copytree(loaded.landing, new)  # other inodes, and so other ETags
    if "first" in how:
        other = StoreUnderTest(loaded.dsn, loaded.home, new, loaded.connection)
        register_window(other.connection, other.zone(), FEEDS, HOUR, RegisterOptions(timedelta(minutes=5), new_zone=True))
    loaded.connection.execute("INSERT INTO landing.strays VALUES (%s || '/x', 'BTCUSDT', 'it is no object')", (loaded.landing.as_uri(),))
    move(loaded, new)
    assert loaded.rows("SELECT * FROM landing.strays") == []
    assert registry(loaded, new) == before and registry(loaded, loaded.landing) == []
    assert [problem.kind for problem in read_problems(loaded.connection).shown] == problems

    moved = StoreUnderTest(loaded.dsn, loaded.home, new, loaded.connection)
    result = moved.register(HOUR)
    assert (result.read, result.gone) == (0, 0)
    assert registry(loaded, new) == before
    moved.load(HOUR, force=True)
    assert moved.rows("SELECT count(*) FROM market_data.btc_ticks") == [(len(ticks) - 15,)]


def test_a_move_is_refused_if_an_object_is_missing_or_not_the_same(loaded: StoreUnderTest, new: Path) -> None:
    shutil.copytree(loaded.landing, new)
    before = registry(loaded, loaded.landing)
    first, second, third = sorted((new / FEED.prefix).rglob("batch-*.parquet"))[:3]
    first.unlink()
    second.write_bytes(second.read_bytes() + b"x")
    third.write_bytes(bytes(reversed(third.read_bytes())))
    result = run_command("ops", "move-landing", loaded.landing.as_uri(), new.as_uri(), "--yes")
    assert result.exit_code == 1
    assert (
        "there is no file://" in result.output and "bytes instead of" in result.output and "has other bytes: copy it again" in result.output
    )
    assert "3 versions of objects are not the same in" in result.output and "nothing moved." in result.output
    assert registry(loaded, loaded.landing) == before


def test_an_object_that_cannot_be_compared_is_not_moved(loaded: StoreUnderTest, new: Path) -> None:
    shutil.copytree(loaded.landing, new)
    old = loaded.landing.as_uri()
    shutil.rmtree(loaded.landing)
    found = LandingMove(loaded.connection, old, LandingZone(new.as_uri())).verify()
    assert found.refused == found.objects - 1  # the one that is gone is nowhere
    assert f"btc-assets db forget --objects {old}" in found.reasons[0]


def test_the_md5_in_an_etag_of_s3_proves_that_a_copy_is_the_same(store: StoreUnderTest, new: Path) -> None:
    import hashlib

    new.mkdir()
    data = {name: os.urandom(100) for name in ("a.parquet", "b.parquet")}
    for name, content in data.items():
        (new / name).write_bytes(content)
        etag = hashlib.md5(content if name == "a.parquet" else b"other", usedforsecurity=False).hexdigest()
        store.connection.execute(
            "INSERT INTO landing.raw_blobs_5m (bucket_5m, asset, uri, etag, size_bytes, row_count, status, last_modified) "
            "VALUES (%s, 'BTCUSDT', %s, %s, 100, 1, 'registered', now())",
            (HOUR.start, f"s3://old/{name}", etag),
        )
    found = LandingMove(store.connection, "s3://old/", LandingZone(new.as_uri())).verify()
    assert (found.objects, found.compared, found.refused) == (2, 2, 1)
    assert found.reasons == [f"s3://old/b.parquet: {new.as_uri()}/b.parquet has other bytes: copy it again"]


def test_a_dry_run_and_an_unknown_place_change_nothing(loaded: StoreUnderTest, new: Path) -> None:
    shutil.copytree(loaded.landing, new)
    before = registry(loaded, loaded.landing)
    dry = run_command("ops", "move-landing", loaded.landing.as_uri(), new.as_uri(), "--dry-run")
    assert dry.exit_code == 0 and "objects are the same in" in dry.output
    assert run_command("ops", "move-landing", loaded.landing.as_uri(), new.as_uri()).exit_code == 1  # asked, and nobody answers
    unknown = run_command("ops", "move-landing", "s3://nowhere", new.as_uri())
    assert unknown.exit_code == 1 and "The registry has no object below s3://nowhere" in unknown.output
    assert registry(loaded, loaded.landing) == before
