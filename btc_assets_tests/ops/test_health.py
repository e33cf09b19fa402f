"""How far the store lags behind, and why: each reason is one sentence, and a store that is up to date has none."""

from __future__ import annotations

from datetime import datetime, timedelta

import dagster as dg
import pytest
from click.testing import CliRunner

from btc_assets.cli.main import main
from btc_assets.domain.slices import SLICE, Window
from btc_assets.ingestion.offsets import Listed, record_listings
from btc_assets.landing.arrivals import ArrivalTiming, notice_arrivals
from btc_assets.ops.health import Health, read_health
from btc_assets.orchestration.home import prepare_dagster_home
from btc_assets_tests.support.stores import FEED, FEEDS, StoreUnderTest
from btc_assets_tests.support.trades import HOUR, NOON, every

GRACE = timedelta(seconds=90)
CLOSED = NOON + SLICE + GRACE  # when the slice of noon is loaded


def at(store: StoreUnderTest, now: datetime) -> Health:
    return read_health(store.connection, FEEDS, now, grace=GRACE)


def sensor_looks(store: StoreUnderTest, now: datetime) -> None:
    notice_arrivals(store.connection, store.zone(), FEEDS, now, ArrivalTiming(timedelta(hours=2), GRACE))


def test_a_store_that_is_up_to_date_has_no_reason(store: StoreUnderTest) -> None:
    store.land(every(1, 300))
    store.ingest(Window.of_slice(NOON))
    sensor_looks(store, CLOSED)
    health = at(store, CLOSED)
    assert health.reasons == [] and not health.stuck
    assert [(symbol.label, symbol.newest) for symbol in health.symbols] == [("BTCUSDT", NOON + timedelta(seconds=299))]


def test_a_store_without_a_sensor_says_what_starts_it(store: StoreUnderTest) -> None:
    assert at(store, NOON).reasons == [
        "The landing sensor has not listed Binance/BTCUSDT yet: start btc-assets dev, or load without it (btc-assets load)."
    ]


def test_a_sensor_that_stopped_is_a_reason_with_its_last_listing(store: StoreUnderTest) -> None:
    sensor_looks(store, NOON)
    assert at(store, NOON + timedelta(minutes=3)).reasons == [
        "The landing sensor has not listed Binance/BTCUSDT since 2024-01-10 12:00:00: start btc-assets dev (or the host's dagster-daemon)."
    ]


def test_nobody_is_told_to_start_a_daemon_that_runs(store: StoreUnderTest) -> None:
    def reasons(now: datetime) -> list[str]:
        return read_health(store.connection, FEEDS, now, grace=GRACE, daemon_runs=lambda: True).reasons

    advice = "a daemon runs, so look in the Dagster UI whether the sensor is switched on and what its ticks say."
    assert reasons(NOON) == [f"The landing sensor has not listed Binance/BTCUSDT yet: {advice}"]
    sensor_looks(store, NOON)
    assert reasons(NOON + timedelta(minutes=3)) == [
        f"The landing sensor has not listed Binance/BTCUSDT since 2024-01-10 12:00:00: {advice}"
    ]


def test_a_collector_that_stopped_is_a_reason_with_its_last_folder(store: StoreUnderTest) -> None:
    record_listings(store.connection, [Listed(FEED.prefix, None, NOON, NOON + timedelta(minutes=30))])
    assert at(store, NOON + timedelta(minutes=30)).reasons == [
        "Nothing landed in Binance/BTCUSDT since the folder of 2024-01-10 12:00:00: check the collector."
    ]


@pytest.mark.parametrize(
    ("written", "silent"), [(timedelta(seconds=30), True), (timedelta(minutes=29), False), (timedelta(days=900), False)]
)
def test_a_collector_is_missed_only_where_one_has_landed_objects(store: StoreUnderTest, written: timedelta, silent: bool) -> None:
    """Neither after a file was landed long after its day, as a demo does, nor while a collector with a slow clock still writes."""
    store.land(every(1, 60))
    store.register(HOUR)
    store.connection.execute("UPDATE landing.raw_blobs_5m SET last_modified = %s", (NOON + written,))
    now = NOON + max(timedelta(minutes=30), written)
    record_listings(store.connection, [Listed(FEED.prefix, None, NOON, now)])
    assert any("check the collector" in reason for reason in at(store, now).reasons) == silent


def test_slices_that_wait_for_longer_than_a_run_takes_make_the_store_stuck(store: StoreUnderTest) -> None:
    store.land(every(2, 600))
    sensor_looks(store, CLOSED)
    store.connection.execute("UPDATE landing.raw_blobs_5m SET noticed_at = %s", (NOON + SLICE,))
    health = at(store, NOON + timedelta(hours=1))
    assert "4 slice(s) wait for their run, the oldest since 2024-01-10 12:05:00." in health.reasons
    assert health.stuck


def test_a_source_that_is_gone_is_a_reason(store: StoreUnderTest) -> None:
    uris = store.land(every(1, 300))
    store.ingest(HOUR)
    store.delete(uris[0])
    store.register(HOUR)
    assert (
        "1 slice(s) were loaded from an object that is gone: restore it, or load them with btc-assets load --force."
        in at(store, CLOSED).reasons
    )


def test_candles_that_were_not_rebuilt_are_counted(store: StoreUnderTest) -> None:
    store.connection.execute("INSERT INTO ingestion.due_slices VALUES ('market_data/candles_1m', %s, %s)", (NOON, NOON))
    assert at(store, NOON + timedelta(hours=1)).candles_due == 1
    assert (
        "The candles of 1 slice(s) were not rebuilt since their ticks changed, the oldest at 2024-01-10 12:00:00."
        in at(store, NOON + timedelta(hours=1)).reasons
    )


def test_the_command_status_names_the_last_failure_of_a_stuck_store(store: StoreUnderTest) -> None:
    store.land(every(1, 300))
    sensor_looks(store, CLOSED)
    store.connection.execute("UPDATE landing.raw_blobs_5m SET noticed_at = noticed_at - interval '1 hour'")
    prepare_dagster_home(store.settings)

    @dg.op
    def fails() -> None:
        raise dg.Failure("The disk is full: free some.", allow_retries=False)

    @dg.job
    def ingest() -> None:
        fails()

    with dg.DagsterInstance.get() as instance:
        ingest.execute_in_process(instance=instance, raise_on_error=False)
    shown = " ".join(CliRunner().invoke(main, ["status"], catch_exceptions=False).output.split())
    assert "0 of 1" in shown and "1 waiting" in shown
    assert "ingest: The disk is full: free some." in shown


def test_what_landed_before_the_history_of_the_store_is_told_and_is_not_late(store: StoreUnderTest) -> None:
    store.land(every(1, 300))
    store.register(Window.of_slice(NOON))
    later = NOON + timedelta(days=36_500)
    assert len(at(store, later).waiting.due) == 1
    health = read_health(store.connection, FEEDS, later, grace=GRACE, history_start=NOON + timedelta(days=1))
    assert health.waiting.due == [] and health.waiting.before_history == 1 and not health.stuck
    assert any(reason.startswith("1 slice(s) with something to load lie before the history of this store") for reason in health.reasons)
