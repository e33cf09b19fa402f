"""Due slices: the followers of the ticks are due from the moment the ticks change until they are rebuilt."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
import pytest

from btc_assets.domain.slices import DAY, SLICE, Window, floor_day
from btc_assets.domain.ticks import TABLE
from btc_assets.ingestion import due
from btc_assets.market_data import candles
from btc_assets.market_data.keys import candles_key
from btc_assets.market_data.loading import LoadOptions, TickLoad
from btc_assets.store.tables import Target
from btc_assets.store.writers import replace_all
from btc_assets_tests.support.stores import FEEDS, StoreUnderTest
from btc_assets_tests.support.trades import HOUR, NOON, every

CANDLES = [candles_key(interval) for interval in candles.INTERVALS]


def load(store: StoreUnderTest, window: Window) -> None:
    """Register and load ticks as the asset does, with the candles as followers."""
    store.register(window)
    with store.connect() as connection:
        ticks = TickLoad(store.database, store.zone(), FEEDS, window, LoadOptions(commit_rows=100_000, followers=CANDLES))
        replace_all(connection, Target.of(connection, TABLE), ticks)


def mark(store: StoreUnderTest, assets: list[str], window: Window) -> None:
    with store.connection.transaction(), store.connection.cursor() as cursor:
        due.mark_due(cursor, assets, window)


def registered(store: StoreUnderTest, window: Window) -> None:
    """An object in each slice of a window, without landing any."""
    store.connection.execute(
        "INSERT INTO landing.raw_blobs_5m (bucket_5m, asset, uri, etag, size_bytes, row_count, status, last_modified, loaded_at, loaded_rows) "
        "SELECT bucket, 'BTCUSDT', 'file:///' || bucket, 'etag', 1, 1, 'registered', now(), now(), 1 "
        "FROM generate_series(%s, %s, interval '5 minutes') AS bucket",
        (window.start, window.end - SLICE),
    )


def due_slices(store: StoreUnderTest, *assets: str) -> list[datetime]:
    return [one.bucket for one in due.read_due_slices(store.connection, assets or CANDLES)]


@pytest.fixture
def ticks(store: StoreUnderTest) -> Iterator[StoreUnderTest]:
    """A store with ten minutes of ticks and no candles yet."""
    store.land(every(2, 300), seconds=60)
    load(store, HOUR)
    yield store


def test_loading_makes_the_slices_of_every_follower_due(ticks: StoreUnderTest) -> None:
    for asset in CANDLES:
        assert due_slices(ticks, asset) == [NOON, NOON + SLICE]


def test_slices_without_an_object_are_never_due(ticks: StoreUnderTest) -> None:
    load(ticks, Window(HOUR.end, HOUR.end + DAY))
    assert due_slices(ticks) == [NOON, NOON + SLICE]


def test_a_load_that_is_rolled_back_makes_nothing_due(store: StoreUnderTest) -> None:
    store.land(every(2, 300))
    store.connection.execute(
        """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused at commit'; END $$;
        CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON ingestion.due_slices
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()
        """
    )
    with pytest.raises(psycopg.errors.RaiseException, match="refused at commit"):
        load(store, HOUR)
    assert due_slices(store) == []
    assert store.rows("SELECT count(*) FROM market_data.btc_ticks") == [(0,)]


def test_rebuilding_candles_clears_their_marks(ticks: StoreUnderTest) -> None:
    ticks.refresh(HOUR)
    assert due_slices(ticks) == []


def test_rebuilding_some_slices_or_intervals_leaves_the_others_due(ticks: StoreUnderTest) -> None:
    ticks.refresh(Window.of_slice(NOON))
    assert due_slices(ticks) == [NOON + SLICE]
    candles.refresh_candles(ticks.connection, "1s", HOUR)
    assert due_slices(ticks, candles_key("1s")) == []
    assert due_slices(ticks, candles_key("30s")) == [NOON + SLICE]


def test_a_slice_that_is_loaded_while_its_candles_are_rebuilt_stays_due(ticks: StoreUnderTest) -> None:
    asset = candles_key("1s")
    with due.clearing_due_marks(ticks.connection, asset, HOUR):
        load(ticks, Window.of_slice(NOON))
    assert due_slices(ticks, asset) == [NOON]


def test_a_slice_that_becomes_due_while_its_candles_are_rebuilt_stays_due(ticks: StoreUnderTest) -> None:
    asset = candles_key("1s")
    late = NOON + 2 * SLICE
    with due.clearing_due_marks(ticks.connection, asset, HOUR):
        ticks.land(every(1, 5, start=late, first_id=1000))
        load(ticks, Window.of_slice(late))
    assert due_slices(ticks, asset) == [late]


def test_a_load_that_commits_after_the_rebuild_began_leaves_the_slice_due(ticks: StoreUnderTest) -> None:
    asset = candles_key("1s")
    with ticks.connect() as loader, loader.cursor() as cursor:
        loader.autocommit = False
        due.mark_due(cursor, [asset], Window.of_slice(NOON))  # written, but the rebuild does not see it
        with due.clearing_due_marks(ticks.connection, asset, HOUR):
            loader.commit()
    assert due_slices(ticks, asset) == [NOON]


def test_a_rebuild_that_fails_leaves_its_slices_due(ticks: StoreUnderTest) -> None:
    with pytest.raises(RuntimeError), due.clearing_due_marks(ticks.connection, candles_key("1s"), HOUR):
        raise RuntimeError("killed")
    assert due_slices(ticks, candles_key("1s")) == [NOON, NOON + SLICE]


def test_an_interval_that_is_rebuilt_while_the_one_below_it_is_due_stays_due(ticks: StoreUnderTest) -> None:
    candles.refresh_candles(ticks.connection, "30s", HOUR)
    assert due_slices(ticks, candles_key("30s")) == [NOON, NOON + SLICE]
    candles.refresh_candles(ticks.connection, "1s", HOUR)
    candles.refresh_candles(ticks.connection, "30s", HOUR)
    assert due_slices(ticks, candles_key("30s")) == []


def test_an_interval_stays_due_if_another_run_rebuilds_the_one_below_it_meanwhile(ticks: StoreUnderTest) -> None:
    above, below = candles_key("30s"), candles_key("1s")
    with due.clearing_due_marks(ticks.connection, above, HOUR, below=below), ticks.connect() as other:
        candles.refresh_candles(other, "1s", HOUR)
    assert due_slices(ticks, above) == [NOON, NOON + SLICE]
    assert due_slices(ticks, below) == []


def test_a_slice_that_is_due_for_several_assets_is_one_due_slice_since_the_first_of_them(store: StoreUnderTest) -> None:
    registered(store, HOUR)
    mark(store, ["market_data/candles_1m"], Window.of_slice(NOON))
    (first,) = due.read_due_slices(store.connection, CANDLES)
    mark(store, ["market_data/candles_5m"], Window.of_slice(NOON))
    (both,) = due.read_due_slices(store.connection, CANDLES)
    assert (both.bucket, both.since) == (NOON, first.since)
    assert both.digest != first.digest


def test_another_load_changes_the_digest_of_a_due_slice_but_not_since_when_it_is_due(store: StoreUnderTest) -> None:
    registered(store, HOUR)
    mark(store, CANDLES, Window.of_slice(NOON))
    before = due.read_due_slices(store.connection, CANDLES)
    assert due.read_due_slices(store.connection, CANDLES) == before
    mark(store, CANDLES, Window.of_slice(NOON))
    (again,) = due.read_due_slices(store.connection, CANDLES)
    assert (again.bucket, again.since) == (before[0].bucket, before[0].since)
    assert again.digest != before[0].digest


def test_only_the_named_assets_count(store: StoreUnderTest) -> None:
    registered(store, HOUR)
    mark(store, ["signals/btc_embeddings"], HOUR)
    assert due_slices(store) == []
    assert due_slices(store, "signals/btc_embeddings") == list(HOUR.slices())


def test_slices_that_retention_may_have_dropped_are_not_due(store: StoreUnderTest) -> None:
    today = floor_day(datetime.now(UTC))
    old, kept = Window(today - 91 * DAY, today - 91 * DAY + SLICE), Window(today - 80 * DAY, today - 80 * DAY + SLICE)
    for window in (old, kept):
        registered(store, window)
        mark(store, CANDLES, window)
    assert due_slices(store) == [old.start, kept.start]
    store.connection.execute(
        "INSERT INTO ops.retention_jobs (job_name, hypertable, policy, enabled, state) "
        """VALUES ('drop market_data.btc_ticks', 'market_data.btc_ticks', '{"after": "90 days"}', true, 'applied')"""
    )
    assert due_slices(store) == [kept.start]


def test_ticks_that_land_after_their_retention_are_due_until_they_are_dropped(store: StoreUnderTest) -> None:
    old = Window(NOON, NOON + SLICE)
    store.land(every(2, 10))
    load(store, old)
    mark(store, ["signals/btc_embeddings"], old)
    store.connection.execute(
        "INSERT INTO ops.retention_jobs (job_name, hypertable, policy, enabled, state) "
        """VALUES ('drop market_data.btc_ticks', 'market_data.btc_ticks', '{"after": "90 days"}', true, 'applied')"""
    )
    assert due_slices(store) == [NOON]
    store.connection.execute("DELETE FROM market_data.btc_ticks")  # as dropping their day does
    assert due_slices(store) == []
    assert due_slices(store, "signals/btc_embeddings") == [NOON]  # built from features, which are kept


def test_the_drop_horizon_is_looked_up_once_for_a_query(store: StoreUnderTest) -> None:
    """An InitPlan runs once, however many slices are due; a function in the condition would run for each."""
    rows = store.rows("EXPLAIN (VERBOSE, COSTS OFF) SELECT * FROM ingestion.makeable_slices WHERE asset = 'market_data/candles_1m'")
    plan = [line.strip() for (line,) in rows]
    (init_plan,) = [number for number, line in enumerate(plan) if line.startswith("InitPlan")]
    (lookup,) = [number for number, line in enumerate(plan) if "drop_horizon(" in line]
    assert lookup > init_plan


def test_three_days_of_slices_are_marked_and_cleared_at_once(store: StoreUnderTest) -> None:
    window = Window(floor_day(NOON), floor_day(NOON) + 3 * DAY)
    registered(store, window)
    mark(store, CANDLES, window)
    assert due_slices(store) == list(window.slices())
    assert len(window) == 864
    noon_to_noon = Window(NOON, NOON + DAY)
    for asset in CANDLES:
        with due.clearing_due_marks(store.connection, asset, noon_to_noon):
            pass
    assert due_slices(store) == [bucket for bucket in window.slices() if bucket not in noon_to_noon]


def test_of_very_many_slices_the_newest_are_read_first(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(due, "_MAX_ROWS", 3)
    registered(store, HOUR)
    mark(store, CANDLES[:1], HOUR)
    assert due_slices(store) == list(HOUR.slices())[-3:]
