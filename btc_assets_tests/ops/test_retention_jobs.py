"""Policies are brought into force, run and recorded, on either engine."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from btc_assets.domain.settings import Settings
from btc_assets.domain.slices import DAY, Window, floor_slice
from btc_assets.market_data import candles
from btc_assets.ops import retention_jobs
from btc_assets.ops.policies import TICKS, declared_policies
from btc_assets.ops.policies_in_force import read_policies_in_force, read_policy_statuses
from btc_assets.ops.table_sizes import read_table_sizes
from btc_assets.store.engines import engine
from btc_assets_tests.support.databases import read_candles, write_candles, write_ticks
from btc_assets_tests.support.policies import DECLARED, TODAY, read_days_of_ticks, read_drift, statuses_by_name
from btc_assets_tests.support.trades import every
from btc_assets_tests.support.waiting import wait_for

pytestmark = pytest.mark.slow


def job_of(connection: psycopg.Connection, kind: str, table: str = TICKS) -> int:
    row = connection.execute("SELECT job_id FROM ops.policies_in_force() WHERE (kind, hypertable) = (%s, %s)", (kind, table)).fetchone()
    assert row is not None
    return row[0]


def test_applying_brings_everything_into_force_and_is_idempotent(on_each_engine: psycopg.Connection) -> None:
    assert set(read_drift(on_each_engine).values()) == {"it is not applied yet: run btc-assets ops apply"}
    assert len(retention_jobs.apply_policies(on_each_engine, DECLARED)) == len(DECLARED)
    assert retention_jobs.apply_policies(on_each_engine, DECLARED) == []
    assert read_drift(on_each_engine) == {}
    states = {status.policy.kind: status.state for status in read_policy_statuses(on_each_engine, DECLARED) if status.policy}
    compression = "applied" if engine(on_each_engine) == "timescale" else "not supported"
    assert states == {"compress": compression, "drop": "applied", "refresh": "applied", "keep": "applied"}
    recorded = on_each_engine.execute("SELECT job_name, hypertable, policy ->> 'kind', state FROM ops.retention_jobs").fetchall()
    assert {row[0] for row in recorded} == {policy.job_name for policy in DECLARED}


def test_a_policy_that_is_no_longer_declared_is_ended(on_each_engine: psycopg.Connection) -> None:
    retention_jobs.apply_policies(on_each_engine, DECLARED)
    kept = declared_policies(Settings(ticks_drop_after_days="never"))
    assert set(read_drift(on_each_engine, kept)) == {"keep market_data.btc_ticks", "drop market_data.btc_ticks"}
    assert set(retention_jobs.apply_policies(on_each_engine, kept)) == {
        "keep market_data.btc_ticks: applied",
        "drop market_data.btc_ticks: removed",
    }
    assert read_drift(on_each_engine, kept) == {}
    assert ("drop", TICKS) not in {(policy.kind, policy.table) for policy in read_policies_in_force(on_each_engine)}


def test_old_ticks_are_dropped_and_their_candles_stay(on_each_engine: psycopg.Connection) -> None:
    retention_jobs.apply_policies(on_each_engine, DECLARED)
    for days_ago in (200, 91, 89, 0):
        write_candles(
            on_each_engine, write_ticks(on_each_engine, every(1, 600, start=TODAY - days_ago * DAY, first_id=1000 * (1 + days_ago)))
        )
    before = read_candles(on_each_engine)
    retention_jobs.run_policy(on_each_engine, f"drop {TICKS}")
    assert read_days_of_ticks(on_each_engine) == [TODAY - 89 * DAY, TODAY]
    assert read_candles(on_each_engine) == before
    status = statuses_by_name(on_each_engine)[f"drop {TICKS}"]
    assert (status.last_result, status.failure) == ("ok, dropped 2 day(s) of market_data.btc_ticks", "")
    assert status.last_run_at and datetime.now(UTC) - status.last_run_at < timedelta(minutes=5)


def test_old_ticks_without_their_candles_are_kept_and_reported(on_each_engine: psycopg.Connection) -> None:
    retention_jobs.apply_policies(on_each_engine, DECLARED)
    first, second = TODAY - 200 * DAY, TODAY - 100 * DAY
    for day in (first, second):
        write_ticks(on_each_engine, every(1, 600, start=day, first_id=1 if day == first else 601))
    write_candles(on_each_engine, Window(first, first + DAY))
    retention_jobs.run_policy(on_each_engine, f"drop {TICKS}")
    assert read_days_of_ticks(on_each_engine) == [second]
    kept = (
        f"kept 1 day(s) of market_data.btc_ticks that are old enough to drop, the first {second:%Y-%m-%d}, whose candles_1s are not "
        f"what they are made of, from {second:%Y-%m-%dT%H:%MZ} on: make them again, then it is dropped"
    )
    assert statuses_by_name(on_each_engine)[f"drop {TICKS}"].failure == kept
    write_candles(on_each_engine, Window(second, second + DAY))
    retention_jobs.run_policy(on_each_engine, f"drop {TICKS}")
    assert read_days_of_ticks(on_each_engine) == []
    assert statuses_by_name(on_each_engine)[f"drop {TICKS}"].failure == ""


def test_old_ticks_are_kept_until_candles_that_differ_from_them_in_any_column_are_rebuilt(on_each_engine: psycopg.Connection) -> None:
    retention_jobs.apply_policies(on_each_engine, DECLARED)
    changes = {
        "a price": "UPDATE market_data.btc_ticks SET price = price + 1 WHERE trade_id = 7",
        "a taker side": "UPDATE market_data.btc_ticks SET is_market_maker = NOT is_market_maker WHERE trade_id = 1007",
        "a trade time": "UPDATE market_data.btc_ticks SET trade_time = trade_time - interval '1 minute' WHERE trade_id = 2007",
        "a symbol": "UPDATE market_data.btc_ticks SET symbol = 'ETHUSDT' WHERE trade_id = 3007",
        "a slice emptied": "DELETE FROM market_data.btc_ticks WHERE trade_id BETWEEN 4001 AND 4300",
    }
    windows = [
        write_ticks(on_each_engine, every(1, 600, start=TODAY - (200 - i) * DAY, first_id=1 + 1000 * i)) for i in range(len(changes) + 1)
    ]
    for window in windows:
        write_candles(on_each_engine, window)
    for change in changes.values():
        on_each_engine.execute(change)
    on_each_engine.execute(
        "UPDATE landing.raw_blobs_5m SET loaded_rows = 0 WHERE bucket_5m NOT IN (SELECT bucket_5m FROM market_data.btc_ticks)"
    )
    retention_jobs.run_policy(on_each_engine, f"drop {TICKS}")
    assert dict(zip(changes, read_days_of_ticks(on_each_engine), strict=True)) == {
        name: w.start for name, w in zip(changes, windows[:-1], strict=True)
    }
    for window in windows[:-1]:
        write_candles(on_each_engine, window)
    retention_jobs.run_policy(on_each_engine, f"drop {TICKS}")
    assert read_days_of_ticks(on_each_engine) == []


def test_late_ticks_of_a_dropped_day_are_dropped_again(on_each_engine: psycopg.Connection) -> None:
    retention_jobs.apply_policies(on_each_engine, DECLARED)
    day = TODAY - 200 * DAY
    write_candles(on_each_engine, write_ticks(on_each_engine, every(1, 600, start=day)))
    retention_jobs.run_policy(on_each_engine, f"drop {TICKS}")
    late = write_ticks(on_each_engine, every(1, 300, start=day))
    write_candles(on_each_engine, late)
    before = read_candles(on_each_engine)
    retention_jobs.run_policy(on_each_engine, f"drop {TICKS}")
    assert statuses_by_name(on_each_engine)[f"drop {TICKS}"].last_result == "ok, dropped 1 day(s) of market_data.btc_ticks"
    assert read_candles(on_each_engine) == before
    assert before["1d"][0][9] == 600


def test_candles_that_are_no_longer_enabled_keep_no_ticks(on_each_engine: psycopg.Connection) -> None:
    candles.create_optional_candles(on_each_engine)
    retention_jobs.apply_policies(on_each_engine, declared_policies(Settings(candles_100ms=True)))
    write_candles(on_each_engine, write_ticks(on_each_engine, every(1, 600, start=TODAY - 200 * DAY)))
    retention_jobs.run_policy(on_each_engine, f"drop {TICKS}")
    assert len(read_days_of_ticks(on_each_engine)) == 1
    retention_jobs.apply_policies(on_each_engine, DECLARED)
    retention_jobs.run_policy(on_each_engine, f"drop {TICKS}")
    assert read_days_of_ticks(on_each_engine) == []


def test_a_manual_refresh_keeps_the_candles_of_dropped_ticks_if_the_server_supports_it(on_timescale: psycopg.Connection) -> None:
    if on_timescale.execute("SELECT 1 FROM pg_settings WHERE name = 'timescaledb.skip_cagg_invalidation'").fetchone() is None:
        pytest.skip("TimescaleDB before 2.28 marks what is dropped as changed, and a refresh by hand erases it")
    retention_jobs.apply_policies(on_timescale, DECLARED)
    write_candles(on_timescale, write_ticks(on_timescale, every(1, 600, start=TODAY - 200 * DAY)))
    before = read_candles(on_timescale)
    retention_jobs.run_policy(on_timescale, f"drop {TICKS}")
    on_timescale.execute("CALL refresh_continuous_aggregate('market_data.candle_partials_1s', NULL, %s)", (TODAY - DAY,))
    assert read_candles(on_timescale) == before


def test_ticks_of_last_week_are_compressed(on_timescale: psycopg.Connection) -> None:
    retention_jobs.apply_policies(on_timescale, DECLARED)
    for days_ago in (10, 2):
        write_ticks(on_timescale, every(1, 600, start=TODAY - days_ago * DAY, first_id=1000 * days_ago))
    retention_jobs.run_policy(on_timescale, f"compress {TICKS}")
    chunks = on_timescale.execute("SELECT range_start, compressed FROM ops.chunks(%s) ORDER BY 1", (TICKS,)).fetchall()
    assert chunks == [(TODAY - 10 * DAY, True), (TODAY - 2 * DAY, False)]
    (ticks,) = [size for size in read_table_sizes(on_timescale) if size.table == TICKS]
    assert (ticks.chunks, ticks.compressed_chunks) == (2, 1)
    assert ticks.before and ticks.after and ticks.before > ticks.after


def test_refresh_policies_build_the_candles_that_no_run_built(on_each_engine: psycopg.Connection) -> None:
    retention_jobs.apply_policies(on_each_engine, DECLARED)
    start = floor_slice(datetime.now(UTC)) - timedelta(hours=30)
    write_ticks(on_each_engine, every(10, 1000, start=start))
    for interval in candles.INTERVALS:
        retention_jobs.run_policy(on_each_engine, f"refresh market_data.candle_partials_{interval}")
    made = read_candles(on_each_engine)
    for interval in ("1s", "30s", "1m", "5m", "1h"):  # the candle of a day is left to the day's end
        assert sum(row[9] for row in made[interval]) == 1000
    on_each_engine.execute("UPDATE market_data.btc_ticks SET price = price + 1000")
    retention_jobs.run_policy(on_each_engine, "refresh market_data.candle_partials_1s")
    assert min(row[4] for row in read_candles(on_each_engine)["1s"]) >= 43_000


def test_plain_postgresql_runs_due_policies_from_the_lowest_level_up_and_drops_last(on_postgres: psycopg.Connection) -> None:
    assert retention_jobs.run_due_policies(on_postgres) == []
    retention_jobs.apply_policies(on_postgres, DECLARED)
    ran = retention_jobs.run_due_policies(on_postgres)
    assert ran == [*(f"refresh market_data.candle_partials_{interval}" for interval in candles.INTERVALS), f"drop {TICKS}"]
    assert retention_jobs.run_due_policies(on_postgres) == []
    on_postgres.execute("UPDATE ops.retention_jobs SET last_run_at = now() - interval '2 hours' WHERE policy ->> 'every' = '3600 seconds'")
    assert retention_jobs.run_due_policies(on_postgres) == ran[:-1]
    on_postgres.execute("UPDATE ops.retention_jobs SET enabled = false, last_run_at = NULL")
    assert retention_jobs.run_due_policies(on_postgres) == []


def test_policies_that_timescaledbs_scheduler_never_ran_are_run(on_timescale: psycopg.Connection) -> None:
    retention_jobs.apply_policies(on_timescale, DECLARED)
    on_timescale.execute("UPDATE ops.retention_jobs SET created_at = now() - interval '1 year', last_run_at = NULL")
    assert retention_jobs.run_due_policies(on_timescale)[-2:] == [f"compress {TICKS}", f"drop {TICKS}"]
    assert statuses_by_name(on_timescale)[f"compress {TICKS}"].last_result == "ok, run outside the scheduler"
    assert retention_jobs.run_due_policies(on_timescale) == []


def test_runs_of_timescaledbs_scheduler_are_seen(on_timescale: psycopg.Connection, server_engine: str) -> None:
    if server_engine != "timescale":
        pytest.skip("TimescaleDB in WebAssembly has no scheduler")
    retention_jobs.apply_policies(on_timescale, DECLARED)
    write_candles(on_timescale, write_ticks(on_timescale, every(1, 600, start=TODAY - 200 * DAY)))
    on_timescale.execute("SELECT _timescaledb_functions.start_background_workers()")

    def have_run(*kinds: str) -> bool:
        statuses = read_policy_statuses(on_timescale, DECLARED)
        return all(status.last_result for status in statuses if status.policy and status.policy.kind in kinds)

    wait_for(lambda: have_run("compress", "refresh"), "the scheduler has run the policies that are due")
    first_drop = statuses_by_name(on_timescale)[f"drop {TICKS}"].next_run_at
    assert first_drop and timedelta(minutes=50) < first_drop - datetime.now(UTC) <= timedelta(hours=1)
    on_timescale.execute("SELECT alter_job(%s, next_start => now())", (job_of(on_timescale, "drop"),))
    wait_for(lambda: have_run("drop"), "the scheduler has dropped what is too old")
    assert {status.failure for status in read_policy_statuses(on_timescale, DECLARED)} == {""}
    assert read_days_of_ticks(on_timescale) == []
    assert statuses_by_name(on_timescale)[f"drop {TICKS}"].last_result == "ok, dropped 1 day(s) of market_data.btc_ticks"
    assert retention_jobs.run_due_policies(on_timescale) == []


def test_a_policy_that_fails_is_recorded_and_the_others_run(on_postgres: psycopg.Connection) -> None:
    retention_jobs.apply_policies(on_postgres, DECLARED)
    on_postgres.execute("ALTER TABLE market_data.candle_partials_30s RENAME TO away")
    ran = retention_jobs.run_due_policies(on_postgres)
    assert f"drop {TICKS}" in ran
    on_postgres.execute("ALTER TABLE market_data.away RENAME TO candle_partials_30s")
    failed = [name for name, status in statuses_by_name(on_postgres).items() if status.failure.startswith("failed: ")]
    assert failed == ["refresh market_data.candle_partials_30s", "refresh market_data.candle_partials_1m"]  # made of the former
