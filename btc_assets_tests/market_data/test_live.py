"""The open slice: its candles follow what lands, and once it is closed one recorded run makes everything of it exact."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from btc_assets.domain.slices import SLICE, Window, floor_slice
from btc_assets.ingestion.due import read_open_loads
from btc_assets.landing.arrivals import read_waiting_slices
from btc_assets.landing.resources import Landing
from btc_assets.market_data.candles import INTERVALS, read_candles_of
from btc_assets.market_data.keys import TICKS, candles_key
from btc_assets.market_data.live import LiveLoader, Pass, follow, only_loader, open_window
from btc_assets.ops.health import read_health
from btc_assets.signals.keys import FOLLOWERS
from btc_assets.store.database import Store
from btc_assets_tests.support.daemon import Daemon
from btc_assets_tests.support.paths import PROJECT
from btc_assets_tests.support.stores import FEED, FEEDS, StoreUnderTest
from btc_assets_tests.support.trades import every
from btc_assets_tests.support.truth import Landings, Tick, check, violations
from btc_assets_tests.support.waiting import PATIENCE_SECONDS, free_port, wait_for

SECOND, MINUTE, GRACE = timedelta(seconds=1), timedelta(minutes=1), timedelta(seconds=90)
CANDLES = [candles_key(interval) for interval in INTERVALS]


class Live:
    """The loader of a store's open slices, at times of the test's own."""

    def __init__(self, store: StoreUnderTest) -> None:
        self.store = store
        self.loader = LiveLoader(store.database, Landing(store.settings), store.settings, [*CANDLES, *FOLLOWERS])

    def load(self, now: datetime) -> Pass:
        with only_loader(self.store.database) as connection:
            assert connection is not None
            return self.loader.load_open_slices(connection, now)


@pytest.fixture
def start() -> datetime:
    """A slice an hour ago, which is open at the times of the test."""
    return floor_slice(datetime.now(UTC)) - timedelta(hours=1)


@pytest.fixture
def live(store: StoreUnderTest) -> Live:
    return Live(store)


class LandedOnDisk(Landings):
    """What landed in a directory, whose ETags are no sums of the content."""

    def put_bytes(self, data: bytes, name: str, folder: datetime, rows: list[Tick] | None = None) -> str:
        uri = super().put_bytes(data, name, folder, rows)
        found = self.store.zone().head(uri, FEED.prefix)
        assert found is not None
        etag = found.etag.strip('"')  # as the registry keeps it
        self.versions[uri, etag] = self.versions.pop((uri, self.current[uri]))
        self.current[uri] = etag
        return uri


@pytest.fixture
def landed(store: StoreUnderTest) -> Landings:
    return LandedOnDisk(store)


@pytest.fixture
def daemon(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    daemon = Daemon(store, "landing_sensor", monkeypatch)
    yield daemon
    daemon.close()


def due(store: StoreUnderTest) -> set[str]:
    return {asset for (asset,) in store.rows("SELECT DISTINCT asset FROM ingestion.due_slices")}


def wrong(landed: Landings) -> list[str]:
    """What is wrong, except that something is due: what is made of a closed slice alone."""
    return [sentence for sentence in violations(landed) if not sentence.endswith(" is due")]


def test_the_window_is_what_is_not_closed(start: datetime) -> None:
    assert open_window(start + MINUTE, GRACE) == Window(start - SLICE, start + SLICE)
    assert open_window(start + GRACE, GRACE) == Window(start, start + SLICE)
    assert open_window(start, timedelta(0)) == Window(start, start + SLICE)


def test_trades_that_arrive_in_the_middle_of_a_slice_are_in_its_candles(live: Live, landed: Landings, start: datetime) -> None:
    landed.put(every(1, 60, start=start), "first")
    assert live.load(start + MINUTE).rows == 60
    assert wrong(landed) == [] and due(live.store) == {TICKS, *FOLLOWERS}

    landed.put(every(1, 40, start=start + MINUTE, first_id=61), "second")
    assert live.load(start + 100 * SECOND) == Pass(open_window(start + 100 * SECOND, GRACE), read=1, rows=100)
    assert wrong(landed) == [] and due(live.store) == {TICKS, *FOLLOWERS}
    with live.store.connect() as connection:
        ((trades,),) = [row[9:10] for row in read_candles_of(connection, "5m", ["BTCUSDT"], Window.of_slice(start))["BTCUSDT"]]
    assert trades == 100

    marks = live.store.rows("SELECT * FROM ingestion.due_slices ORDER BY 1, 2")
    assert live.load(start + 2 * MINUTE).rows == 0  # nothing has landed, so nothing is written
    assert live.store.rows("SELECT * FROM ingestion.due_slices ORDER BY 1, 2") == marks


def test_trades_that_arrive_in_the_grace_and_objects_that_span_two_slices_are_exact(live: Live, landed: Landings, start: datetime) -> None:
    landed.put(every(2, 180, start=start), "spans")  # a minute into the next slice
    live.load(start + 6 * MINUTE)
    landed.put(every(1, 9, start=start + 50 * SECOND, first_id=1000), "late", folder=start + SLICE)
    landed.put(every(2, 5, start=start + SLICE + MINUTE, first_id=181), "next")
    assert live.load(start + SLICE + 80 * SECOND).read == 2
    assert wrong(landed) == []


def test_overwritten_and_deleted_objects_of_an_open_slice_follow(live: Live, landed: Landings, start: datetime) -> None:
    landed.put(every(1, 60, start=start), "first")
    live.load(start + MINUTE)
    landed.put(every(1, 50, start=start + SECOND, first_id=7), "first", folder=start)
    live.load(start + 2 * MINUTE)
    assert wrong(landed) == []


def test_a_closed_slice_is_loaded_once_more_by_a_run_even_if_nothing_is_new(
    live: Live, landed: Landings, daemon: Daemon, start: datetime
) -> None:
    landed.put(every(1, 299, start=start))
    live.load(start + SLICE - SECOND)

    daemon.now = start + SLICE + GRACE - SECOND
    with live.store.connect() as connection:
        waiting = read_waiting_slices(connection, daemon.now, grace=GRACE)
        assert (waiting.open, waiting.due) == (1, [])
        waiting = read_waiting_slices(connection, daemon.now + SECOND, grace=GRACE)
        assert (waiting.open, [one.bucket for one in waiting.due]) == (0, [start])
    assert daemon.tick() == [("ingest", Window.of_slice(start))]
    daemon.run()
    check(landed)  # as a load from scratch: nothing is due, nothing differs
    assert live.store.rows("SELECT bucket_5m FROM signals.slice_features") == [(start,)]
    assert daemon.tick_after(MINUTE) == []
    assert live.load(start + SLICE + MINUTE).rows == 0 and read_open_loads(live.store.connection) == []


def test_a_pass_that_commits_after_the_closed_load_makes_another_run_due(
    live: Live, landed: Landings, daemon: Daemon, start: datetime
) -> None:
    landed.put(every(1, 100, start=start))
    live.load(start + MINUTE)
    assert daemon.tick() == [("ingest", Window.of_slice(start))]
    daemon.run()
    landed.put(every(1, 20, start=start + 2 * MINUTE, first_id=101), "late")
    live.load(start + SLICE)  # by a clock that is slow
    assert wrong(landed) == []
    assert daemon.tick_after(MINUTE) == [("ingest", Window.of_slice(start))]
    daemon.run()
    check(landed)


def test_nothing_else_is_requested_or_reported_for_an_open_slice(
    live: Live, landed: Landings, start: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    landed.put(every(1, 60, start=start))
    live.load(start + MINUTE)
    for sensor in ("candles_follow_ticks", "signals_follow_ticks"):
        follower = Daemon(live.store, sensor, monkeypatch)
        assert follower.tick() == []
        follower.close()
    health = read_health(live.store.connection, FEEDS, start + MINUTE, grace=GRACE, daemon_runs=lambda: True)
    assert (health.candles_due, health.signals_due, health.waiting.open, health.stuck) == (0, 0, 1, False)


def test_a_load_that_a_person_starts_closes_a_slice_too(live: Live, landed: Landings, start: datetime) -> None:
    landed.put(every(1, 60, start=start))
    live.load(start + MINUTE)
    live.store.ingest(Window.of_slice(start))
    assert read_open_loads(live.store.connection) == [] and wrong(landed) == []


def test_one_process_loads_open_slices_at_a_time(store: StoreUnderTest) -> None:
    with only_loader(store.database) as first:
        assert first is not None
        with only_loader(store.database) as second:
            assert second is None
    with only_loader(store.database) as third:
        assert third is not None


def test_a_database_that_is_away_is_told_once_and_waited_for(
    live: Live, landed: Landings, start: datetime, caplog: pytest.LogCaptureFixture
) -> None:
    landed.put(every(1, 60, start=start))
    nowhere, asked = f"postgresql://nobody@127.0.0.1:{free_port()}/nothing", list[str]()

    def dsn() -> str:
        asked.append(live.store.dsn if len(asked) >= 3 else nowhere)
        return asked[-1]

    stop = threading.Event()
    with caplog.at_level(logging.INFO, logger="btc_assets"):
        thread = threading.Thread(target=follow, args=(Store(dsn), live.loader, 0.01, stop, lambda: start + MINUTE))
        thread.start()
        wait_for(lambda: live.store.rows("SELECT count(*) FROM market_data.btc_ticks") == [(60,)], "the slice is loaded")
        stop.set()
        thread.join(PATIENCE_SECONDS)
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING and record.name.startswith("btc_assets")]
    assert len(warnings) == 1 and "127.0.0.1" in warnings[0]


def start_live(store: StoreUnderTest, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "btc_assets.cli", "live", "--every", "1"],
            env=os.environ | {"PYTHONPATH": str(PROJECT), "BTC_ASSETS_LANDING_GRACE_SECONDS": "3600"},  # nothing is closed in this test
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def test_a_loader_that_is_killed_costs_nothing_and_one_that_is_told_to_end_does(
    store: StoreUnderTest, landed: Landings, tmp_path: Path
) -> None:
    start, log = floor_slice(datetime.now(UTC)) - 2 * SLICE, tmp_path / "live.log"
    count = "SELECT count(*) FROM market_data.btc_ticks"
    landed.put(every(1, 500, start=start), "first")
    first = start_live(store, log)
    try:
        wait_for(lambda: store.rows(count) == [(500,)], f"the slices are loaded: {log}")
        with store.connect() as holder, holder.transaction():
            holder.execute("LOCK TABLE market_data.btc_ticks IN ACCESS EXCLUSIVE MODE")  # so that it is killed in the middle
            landed.put(every(1, 100, start=start + 500 * SECOND, first_id=501), "second")
            wait_for(
                lambda: store.rows("SELECT 1 FROM pg_locks WHERE relation = 'market_data.btc_ticks'::regclass AND NOT granted"), "it waits"
            )
            first.kill()
            first.wait(PATIENCE_SECONDS)
        wait_for(
            lambda: store.rows("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'btc_assets'") == [(0,)], "its sessions end"
        )
        assert store.rows(count) == [(500,)]
        second = start_live(store, log)
        try:
            wait_for(lambda: store.rows(count) == [(600,)] and wrong(landed) == [], f"the next one goes on: {log}")
            second.send_signal(signal.SIGTERM)
            assert second.wait(PATIENCE_SECONDS) == 0
        finally:
            second.kill()
    finally:
        first.kill()
    assert "Traceback" not in log.read_text()
