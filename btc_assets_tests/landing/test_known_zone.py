"""A landing zone that the store was not filled from changes nothing, and what belongs to no feed of today holds up no other."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from btc_assets.domain.errors import UserError
from btc_assets.domain.feeds import Feeds
from btc_assets.landing.arrivals import ArrivalTiming, notice_arrivals, read_waiting_slices
from btc_assets.landing.known_zone import require_known_zone
from btc_assets.landing.zone import LandingZone
from btc_assets.ops.health import read_health
from btc_assets.ops.reconcile import reconcile
from btc_assets.simulation.batches import encode_batch
from btc_assets_tests.support.command_line import run_command
from btc_assets_tests.support.stores import FEED, FEEDS, StoreUnderTest
from btc_assets_tests.support.trades import HOUR, NOON, every

LOAD = "load", "--from", "2024-01-10T12:00Z", "--to", "2024-01-10T13:00Z"
LATER = NOON + timedelta(days=1)
TIMING = ArrivalTiming(timedelta(hours=2), timedelta(seconds=90))


def registry(store: StoreUnderTest) -> list[tuple[object, ...]]:
    return store.rows("SELECT bucket_5m, asset, uri, status, loaded_rows FROM landing.raw_blobs_5m ORDER BY 1, 2, 3")


def ticks(store: StoreUnderTest) -> dict[str, int]:
    return dict(store.rows("SELECT symbol, count(*) FROM market_data.btc_ticks GROUP BY 1"))


@pytest.fixture
def other(tmp_path: Path) -> LandingZone:
    """Another landing zone, with other trades of the same hour."""
    (tmp_path / "other").mkdir()
    zone = LandingZone((tmp_path / "other").as_uri())
    zone.put(*encode_batch(every(10, 6, first_id=5000), FEED))
    return zone


def test_another_landing_zone_than_the_stores_registers_nothing(
    store: StoreUnderTest, other: LandingZone, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.land(every(10, 60))
    assert run_command(*LOAD).exit_code == 0
    before = registry(store)
    sentence = (
        f"This store was filled from {store.zone().url}, and BTC_ASSETS_LANDING_URL names {other.url}, of which it knows nothing: correct the "
        "setting; if the objects moved, tell the store (btc-assets ops move-landing); if both are meant, load once with btc-assets load "
        "--new-landing."
    )
    with monkeypatch.context() as wrong:
        wrong.setenv("BTC_ASSETS_LANDING_URL", other.url)
        refused = run_command(*LOAD)
        assert (refused.exit_code, " ".join(refused.output.split()).endswith(f"Error: {sentence}")) == (1, True), refused.output
        assert sentence in " ".join(run_command("doctor").output.split())
    for touch in (
        lambda: notice_arrivals(store.connection, other, FEEDS, LATER, TIMING),
        lambda: reconcile(store.connection, other, FEEDS, HOUR, LATER),
    ):
        with pytest.raises(UserError) as failed:
            touch()
        assert str(failed.value) == sentence
    assert registry(store) == before
    assert run_command(*LOAD).exit_code == 0
    assert ticks(store) == {"BTCUSDT": 60}


def test_a_landing_zone_of_which_another_process_registers_the_first_objects_meanwhile_is_the_stores(
    store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.land(every(10, 60))
    with store.connect() as connection:
        execute = connection.execute

        def another_registers_after(*statement: Any) -> psycopg.Cursor[Any]:
            cursor = execute(*statement)
            store.register(HOUR)
            return cursor

        monkeypatch.setattr(connection, "execute", another_registers_after)
        require_known_zone(connection, store.zone(), FEEDS)
    assert registry(store)


def test_a_second_landing_zone_that_is_meant_is_loaded_beside_the_first(
    store: StoreUnderTest, other: LandingZone, monkeypatch: pytest.MonkeyPatch
) -> None:
    (uri,) = store.land(every(10, 6, start=NOON + timedelta(minutes=30)), seconds=3600)
    assert run_command(*LOAD).exit_code == 0
    monkeypatch.setenv("BTC_ASSETS_LANDING_URL", other.url)
    beside = run_command(*LOAD, "--new-landing")
    assert beside.exit_code == 1  # the slices of the first are left as they are, and said so
    assert (
        f"1 slice(s) were left as they are, the first at 2024-01-10T12:30Z, because {uri}, which is registered for them, lies outside"
        in (" ".join(beside.output.split()))
    )
    assert ticks(store) == {"BTCUSDT": 12}
    assert run_command("load", "--from", "2024-01-10T12:00Z", "--to", "2024-01-10T12:30Z").exit_code == 0
    assert run_command(*LOAD, "--force").exit_code == 0
    assert ticks(store) == {"BTCUSDT": 6}


TWO_PREFIXES = "Binance/BTCUSDT=BTCUSDT,Binance/ETHUSDT=ETHUSDT"
ONE_PREFIX = "Binance/BTCUSDT=BTCUSDT,Binance/BTCUSDT=ETHUSDT"


@pytest.mark.parametrize("feeds", [TWO_PREFIXES, ONE_PREFIX])
def test_a_retired_feed_is_left_alone_and_holds_up_no_other(store: StoreUnderTest, feeds: str) -> None:
    both = Feeds.parse(feeds)
    store.zone().put(*encode_batch(every(10, 30), FEED))
    eth = both[1]
    path, _ = encode_batch(every(10, 30), eth)
    lines = [f"{i},ETHUSDT,{1704888000000 + i * 10_000},100,1,true" for i in range(30)]
    text = "\n".join(["trade_id,symbol,trade_time,price,quantity,is_market_maker", *lines]).encode()
    gone = store.zone().put(f"{path}.csv", text)
    store.register(HOUR, feeds=both)
    store.load(HOUR, feeds=both)
    assert ticks(store) == {"BTCUSDT": 30, "ETHUSDT": 30}
    before = [row for row in registry(store) if row[1] == "ETHUSDT"]
    store.zone().put(*encode_batch(every(10, 5, first_id=900), FEED))
    if feeds == TWO_PREFIXES:
        store.delete(gone)  # as a person does who retires a feed
    store.register(HOUR)
    store.load(HOUR)
    assert ticks(store) == {"BTCUSDT": 35, "ETHUSDT": 30}
    assert [row for row in registry(store) if row[1] == "ETHUSDT"] == before
    health = read_health(store.connection, FEEDS, LATER, grace=timedelta(seconds=90))
    assert any(reason.startswith("ETHUSDT: of no feed in BTC_ASSETS_LANDING_FEEDS") for reason in health.reasons)


def test_what_a_retired_feed_had_waiting_is_not_due(store: StoreUnderTest) -> None:
    store.land(every(10, 30))
    store.register(HOUR)

    def due(symbols: list[str]) -> list[datetime]:
        found = read_waiting_slices(store.connection, datetime.now(UTC) + timedelta(hours=1), grace=timedelta(seconds=90), symbols=symbols)
        return [slice_.bucket for slice_ in found.due]

    assert due(["BTCUSDT"]) == [NOON]
    assert due(["ETHUSDT"]) == []


def test_the_prefix_of_a_feed_may_move(store: StoreUnderTest) -> None:
    store.land(every(10, 30))
    store.register(HOUR)
    moved = Feeds.parse("New/BTC=BTCUSDT:BTCUSDT")
    store.zone().put(
        f"New/BTC/{encode_batch(every(10, 3), FEED)[0].removeprefix(f'{FEED.prefix}/')}", encode_batch(every(10, 3, first_id=900), FEED)[1]
    )
    store.register(HOUR, feeds=moved)
    store.load(HOUR, feeds=moved)
    assert ticks(store) == {"BTCUSDT": 33}
