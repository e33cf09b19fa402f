"""What a store asks of the server does not grow with its number of feeds: of 2 and of 20, with as many trades and objects in all.

Statements and connections are counted, not seconds. A listing for each prefix is the nature of S3.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import psycopg
import pytest

from btc_assets.domain.feeds import Feed, Feeds
from btc_assets.domain.slices import KEY_FORMAT, SLICE, Window
from btc_assets.landing.absence import explain_absence
from btc_assets.landing.arrivals import ArrivalTiming, notice_arrivals, read_waiting_slices
from btc_assets.landing.registration import RegisterOptions, register_window
from btc_assets.market_data.assets import _candle_pictures
from btc_assets.ops import doctor
from btc_assets.ops.health import read_health
from btc_assets.ops.reconcile import ReconcileOptions, reconcile
from btc_assets.ops.status import read_daily_status
from btc_assets_tests.support.command_line import run_command
from btc_assets_tests.support.producers import PRODUCERS
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import NOON, table, trade
from btc_assets_tests.support.work import Work, counting_work

FEW, MANY, OBJECTS, TRADES = 2, 20, 40, 10
HOUR = Window(NOON, NOON + timedelta(hours=1))
NOW = HOUR.end + timedelta(hours=1)
GRACE = timedelta(seconds=90)
BUNCHES = 2  # in which twenty prefixes are listed beyond the one of two: 4, 8 and 8
PER_BUNCH = {
    "register": 15,
    "register, nothing new": 2,
    "reconcile": 2,
    "reconcile everything": 2,
}  # statements: it is compared, and a group


def feeds_of(count: int) -> Feeds:
    names = [f"COIN{number:03}" for number in range(count)]
    return Feeds(Feed(f"Binance/{name}", "BTCUSDT", name) for name in names)


def land(store: StoreUnderTest, feeds: Feeds) -> None:
    """Land the same number of objects and trades whatever the number of feeds, in every slice of the hour."""
    each = OBJECTS // len(feeds)
    for feed in feeds:
        for number in range(each):
            at = NOON + number * (timedelta(hours=1) / each)
            trades = [trade(1 + TRADES * number + i, at + i * timedelta(seconds=1)) for i in range(TRADES)]
            store.zone().put(f"{feed.prefix}/{at:%Y/%m/%d/%H/%M}/batch-{number:02}.parquet", PRODUCERS["collector"].encode(table(trades)))


def work_of(store: StoreUnderTest, feeds: Feeds, monkeypatch: pytest.MonkeyPatch) -> dict[str, Work]:
    """What sensors, runs and commands ask for, one after the other."""
    monkeypatch.setenv("BTC_ASSETS_LANDING_FEEDS", str(feeds))
    land(store, feeds)
    connection, zone, found = store.connection, store.zone(), dict[str, Work]()
    timing, options = ArrivalTiming(timedelta(hours=1), GRACE), RegisterOptions(timedelta(minutes=5))

    def sensor(minutes: int) -> None:
        notice_arrivals(connection, zone, feeds, NOW + minutes * timedelta(minutes=1), timing)
        read_waiting_slices(connection, NOW, grace=GRACE, symbols=feeds.labels)

    def status() -> None:
        read_daily_status(connection, HOUR)
        read_health(connection, feeds, NOW, grace=GRACE)

    def nothing_differs(window: Window | None) -> None:
        at = NOW if window else NOW + SLICE
        assert not reconcile(connection, zone, feeds, window, at, ReconcileOptions(min_object_age=timedelta(0))).counts

    stages: dict[str, Callable[[], object]] = {
        "sensor": lambda: sensor(0),
        "register": lambda: register_window(connection, zone, feeds, HOUR, options),
        "load": lambda: store.load(HOUR, feeds=feeds),
        "candles": lambda: store.refresh(HOUR),
        "pictures": lambda: _candle_pictures(connection, "1m", HOUR, feeds),
        "sensor, nothing new": lambda: sensor(5),
        "register, nothing new": lambda: register_window(connection, zone, feeds, HOUR, options),
        "status": status,
        "reconcile": lambda: nothing_differs(HOUR),
        "reconcile everything": lambda: nothing_differs(None),
        "doctor": lambda: list(doctor._examine_landing(store.settings)),
    }
    for name, stage in stages.items():
        with counting_work() as work:
            stage()
        found[name] = work
    assert store.rows("SELECT count(*), count(DISTINCT symbol) FROM market_data.btc_ticks") == [(OBJECTS * TRADES, len(feeds))]
    return found


def empty(store: StoreUnderTest) -> None:
    """Forget everything of other feeds."""
    store.connection.execute(
        "TRUNCATE market_data.btc_ticks, landing.raw_blobs_5m, ingestion.stream_offsets, ingestion.due_slices, ops.reconciliations, "
        "signals.slice_features"
    )
    for path in store.landing.rglob("*.parquet"):
        path.unlink()


@pytest.fixture
def counts(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> dict[int, dict[str, Work]]:
    """What each number of feeds asks for, the store emptied in between."""
    counts = {}
    for number in (FEW, MANY):
        counts[number] = work_of(store, feeds_of(number), monkeypatch)
        empty(store)
    return counts


def test_no_stage_asks_more_of_the_server_for_more_feeds(counts: dict[int, dict[str, Work]]) -> None:
    few, many = counts[FEW], counts[MANY]
    grown = {
        name: (few[name].statements, many[name].statements)
        for name in few
        if many[name].statements > few[name].statements + BUNCHES * PER_BUNCH.get(name, 0)
    }
    assert grown == {}
    assert {name: work.connections for name, work in many.items()} == {name: work.connections for name, work in few.items()}


def test_each_prefix_is_listed_as_often_whatever_the_number_of_feeds(counts: dict[int, dict[str, Work]]) -> None:
    each = {count: {name: work.listings / count for name, work in of.items() if work.listings} for count, of in counts.items()}
    assert each[MANY] == pytest.approx(each[FEW], rel=0.2)  # where nothing landed just now, the doctor looks for the newest folder
    assert each[MANY].keys() >= {"sensor", "register", "reconcile", "doctor"}


def test_many_prefixes_are_listed_together_until_they_hold_many_objects(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    from btc_assets.landing import registration

    feeds = feeds_of(MANY)
    land(store, feeds)
    days = [(HOUR, feeds.prefixes), (Window(HOUR.end, HOUR.end + SLICE), feeds.prefixes)]

    def bunches() -> list[int]:
        return [len(folders.strays) for folders in registration.compare_days(store.connection, store.zone(), feeds, days)]

    assert bunches() == [4, 8, 8, 20]
    monkeypatch.setattr(registration, "_LISTED_TOGETHER", 6)  # objects; each prefix has two in the hour, and none after it
    assert bunches() == [4, 3, 3, 3, 3, 3, 1, 3, 6, 11]


@pytest.mark.slow
def test_a_whole_load_with_its_checks_asks_as_little_for_more_feeds(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    work: dict[tuple[int, str], Work] = {}
    for number in (FEW, MANY):
        feeds = feeds_of(number)
        monkeypatch.setenv("BTC_ASSETS_LANDING_FEEDS", str(feeds))
        land(store, feeds)
        for turn in ("all new", "nothing new"):
            with counting_work() as work[number, turn]:
                done = run_command("load", "--from", f"{HOUR.start:{KEY_FORMAT}}", "--to", f"{HOUR.end:{KEY_FORMAT}}")
            assert done.exit_code == 0, done.output
        assert store.rows("SELECT count(*), count(DISTINCT symbol) FROM market_data.btc_ticks") == [(OBJECTS * TRADES, number)]
        empty(store)
    for turn in ("all new", "nothing new"):
        few, many = work[FEW, turn], work[MANY, turn]
        assert many.statements <= few.statements + BUNCHES * PER_BUNCH["register"], turn
        assert many.connections == few.connections, turn


def test_a_hundred_prefixes_without_an_object_are_told_of_in_their_order_by_sentences_that_name_few(store: StoreUnderTest) -> None:
    feeds = feeds_of(100)
    assert [sentence.split(";")[0] for sentence in explain_absence(store.zone(), feeds)] == [
        f"Nothing lies in {store.zone().url}/{prefix}: look after the collector, or correct BTC_ASSETS_LANDING_FEEDS."
        for prefix in feeds.prefixes
    ]
    (reason,) = read_health(store.connection, feeds, NOW, grace=GRACE).reasons
    assert reason.startswith(
        "The landing sensor has not listed Binance/COIN000, Binance/COIN001, Binance/COIN002 and 97 more prefixes yet: start btc-assets dev"
    )


def test_counts_are_of_the_block_alone(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection, counting_work() as work:
        connection.execute("SELECT 1")
        connection.cursor().executemany("SELECT %s", [(1,), (2,)])
        psycopg.connect(database).close()
    assert (work.statements, work.connections) == (3, 1)
