"""Policies as code: declared once, brought into force on either engine, compared, run and recorded."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import dagster as dg
import psycopg
import pytest

from btc_assets.domain.errors import UserError
from btc_assets.domain.settings import Settings
from btc_assets.domain.slices import DAY, KEY_FORMAT, SLICE, Window, floor_day, floor_slice
from btc_assets.market_data import candles
from btc_assets.ops import retention_jobs as jobs
from btc_assets.ops.policies import TICKS, Compress, Drop, Keep, Policy, Refresh, declared_policies
from btc_assets.ops.policies_in_force import PolicyStatus, read_policies_in_force, read_policy_statuses
from btc_assets.ops.reconcile import reconcile
from btc_assets.ops.table_sizes import read_table_sizes
from btc_assets.orchestration.partitions import RANGE_END_TAG, RANGE_START_TAG
from btc_assets.store.engines import engine
from btc_assets_tests.support.databases import read_candles, write_candles, write_ticks
from btc_assets_tests.support.stores import FEEDS, StoreUnderTest
from btc_assets_tests.support.trades import HOUR, NOON, every

DECLARED = declared_policies(Settings())
# The clocks of policies are real ones.
TODAY = floor_day(datetime.now(UTC))


def by_name(connection: psycopg.Connection, policies: tuple[Policy, ...] = DECLARED) -> dict[str, PolicyStatus]:
    return {status.job_name: status for status in read_policy_statuses(connection, policies)}


def problems(connection: psycopg.Connection, policies: tuple[Policy, ...] = DECLARED) -> dict[str, str]:
    return {name: status.drift for name, status in by_name(connection, policies).items() if status.drift}


def days_of_ticks(connection: psycopg.Connection) -> list[datetime]:
    return [
        day for (day,) in connection.execute("SELECT DISTINCT date_trunc('day', bucket_5m, 'UTC') FROM market_data.btc_ticks ORDER BY 1")
    ]


def test_what_is_declared() -> None:
    by_kind: dict[str, list[str]] = {}
    for policy in DECLARED:
        by_kind.setdefault(policy.kind, []).append(policy.table)
    partials = [f"market_data.candle_partials_{interval}" for interval in candles.INTERVALS]
    assert by_kind == {
        "compress": [TICKS], "drop": [TICKS], "refresh": partials, "keep": [*partials, "signals.slice_features", "signals.btc_embeddings", "landing.raw_blobs_5m"],
    }  # fmt: skip
    assert DECLARED[:2] == (
        Compress(TICKS, after=timedelta(days=7), segment_by=("symbol",), order_by=("bucket_5m", "trade_id")),
        Drop(TICKS, after=timedelta(days=90)),
    )


def test_ticks_can_be_kept_for_ever() -> None:
    kinds = {policy.kind for policy in declared_policies(Settings(ticks_drop_after_days="never")) if policy.table == TICKS}  # type: ignore[arg-type]
    assert kinds == {"compress", "keep"}


def test_dropping_ticks_whose_candles_a_policy_still_makes_cannot_be_declared() -> None:
    with pytest.raises(UserError) as raised:
        declared_policies(Settings(ticks_drop_after_days=7))
    assert str(raised.value) == (
        "BTC_ASSETS_TICKS_DROP_AFTER_DAYS=7 would drop ticks whose candles a policy still rebuilds: set 8 or more."
    )


def test_applying_brings_everything_into_force_and_the_second_time_changes_nothing(either: psycopg.Connection) -> None:
    assert set(problems(either).values()) == {"it is not applied yet: run btc-assets ops apply"}
    assert len(jobs.apply_policies(either, DECLARED)) == len(DECLARED)
    assert jobs.apply_policies(either, DECLARED) == []
    assert problems(either) == {}
    states = {status.policy.kind: status.state for status in read_policy_statuses(either, DECLARED) if status.policy}
    compression = "applied" if engine(either) == "timescale" else "not supported"
    assert states == {"compress": compression, "drop": "applied", "refresh": "applied", "keep": "applied"}
    recorded = either.execute("SELECT job_name, hypertable, policy ->> 'kind', state FROM ops.retention_jobs").fetchall()
    assert {row[0] for row in recorded} == {policy.job_name for policy in DECLARED}


def test_another_declaration_is_drift_until_it_is_applied(either: psycopg.Connection) -> None:
    jobs.apply_policies(either, DECLARED)
    later = declared_policies(Settings(ticks_drop_after_days=30))
    assert problems(either, later) == {
        "drop market_data.btc_ticks": "the server has after 90 days, 0:00:00 instead of 30 days, 0:00:00: run btc-assets ops apply"
    }
    assert jobs.apply_policies(either, later) == ["drop market_data.btc_ticks: applied"]
    assert problems(either, later) == {}


def test_a_policy_that_is_not_declared_any_more_is_ended(either: psycopg.Connection) -> None:
    jobs.apply_policies(either, DECLARED)
    kept = declared_policies(Settings(ticks_drop_after_days="never"))  # type: ignore[arg-type]
    assert set(problems(either, kept)) == {"keep market_data.btc_ticks", "drop market_data.btc_ticks"}
    assert set(jobs.apply_policies(either, kept)) == {"keep market_data.btc_ticks: applied", "drop market_data.btc_ticks: removed"}
    assert problems(either, kept) == {}
    assert ("drop", TICKS) not in {(policy.kind, policy.table) for policy in read_policies_in_force(either)}


def job_of(connection: psycopg.Connection, kind: str, table: str = TICKS) -> int:
    row = connection.execute("SELECT job_id FROM ops.policies_in_force() WHERE (kind, hypertable) = (%s, %s)", (kind, table)).fetchone()
    assert row is not None
    return row[0]


def test_what_somebody_changed_on_the_server_is_drift_and_applying_mends_it(on_timescale: psycopg.Connection) -> None:
    jobs.apply_policies(on_timescale, DECLARED)
    for kind, change, drift in (
        ("compress", "SELECT delete_job({})", "the server does not have it"),
        ("drop", "SELECT alter_job({}, scheduled => false)", "the server has enabled False instead of True"),
        ("drop", "SELECT alter_job({}, next_start => 'infinity')", "the server has enabled False instead of True"),
        (
            "compress", "SELECT alter_job({}, schedule_interval => interval '3 days')",
            "the server has every 3 days, 0:00:00 instead of 12:00:00",
        ),
        (
            "compress", "ALTER TABLE market_data.btc_ticks SET (timescaledb.segmentby = 'symbol', timescaledb.orderby = 'trade_id')",
            "the server has order_by ('trade_id', 'bucket_5m DESC') instead of ('bucket_5m', 'trade_id')",
        ),
    ):  # fmt: skip
        on_timescale.execute(change.format(job_of(on_timescale, kind)))  # type: ignore[arg-type]
        assert problems(on_timescale) == {f"{kind} {TICKS}": f"{drift}: run btc-assets ops apply"}, change
        assert jobs.apply_policies(on_timescale, DECLARED) == [f"{kind} {TICKS}: applied"]
        assert problems(on_timescale) == {}, change


def test_a_policy_that_drops_what_is_to_be_kept_is_drift_and_its_owners_to_remove(on_timescale: psycopg.Connection) -> None:
    jobs.apply_policies(on_timescale, DECLARED)
    on_timescale.execute("SELECT add_retention_policy('market_data.candle_partials_1m', interval '1 year')")
    drift = {
        "keep market_data.candle_partials_1m": (
            "market_data.candle_partials_1m must be kept forever, but the server has a policy that drops from it: remove that policy"
        )
    }
    assert problems(on_timescale) == drift
    assert jobs.apply_policies(on_timescale, DECLARED) == []
    assert problems(on_timescale) == drift


def test_a_policy_that_nobody_declared_is_drift_on_the_stores_own_tables(on_timescale: psycopg.Connection) -> None:
    on_timescale.execute("CREATE TABLE public.mine (at timestamptz NOT NULL); SELECT create_hypertable('public.mine', by_range('at'))")
    jobs.apply_policies(on_timescale, DECLARED)
    for table in ("public.mine", TICKS):
        on_timescale.execute("SELECT add_retention_policy(%s::regclass, interval '1 year')", (table,))
    assert problems(on_timescale) == {
        "retention market_data.btc_ticks": "it is not declared: remove it from the server (see timescaledb_information.jobs)"
    }


def test_old_ticks_are_dropped_and_their_candles_stay(either: psycopg.Connection) -> None:
    jobs.apply_policies(either, DECLARED)
    for days_ago in (200, 91, 89, 0):
        write_candles(either, write_ticks(either, every(1, 600, start=TODAY - days_ago * DAY, first_id=1000 * (1 + days_ago))))
    before = read_candles(either)
    jobs.run_policy(either, f"drop {TICKS}")
    assert days_of_ticks(either) == [TODAY - 89 * DAY, TODAY]
    assert read_candles(either) == before
    status = by_name(either)[f"drop {TICKS}"]
    assert (status.last_result, status.failure) == ("ok, dropped 2 day(s) of market_data.btc_ticks", "")
    assert status.last_run_at and datetime.now(UTC) - status.last_run_at < timedelta(minutes=5)


def test_old_ticks_without_their_candles_are_kept_and_it_is_said(either: psycopg.Connection) -> None:
    jobs.apply_policies(either, DECLARED)
    first, second = TODAY - 200 * DAY, TODAY - 100 * DAY
    for day in (first, second):
        write_ticks(either, every(1, 600, start=day, first_id=1 if day == first else 601))
    write_candles(either, Window(first, first + DAY))
    jobs.run_policy(either, f"drop {TICKS}")
    assert days_of_ticks(either) == [second]
    kept = (
        f"kept 1 day(s) of market_data.btc_ticks that are old enough to drop, the first {second:%Y-%m-%d}, whose candles_1s are not "
        f"what they are made of, from {second:%Y-%m-%dT%H:%MZ} on: make them again, then it is dropped"
    )
    assert by_name(either)[f"drop {TICKS}"].failure == kept
    write_candles(either, Window(second, second + DAY))
    jobs.run_policy(either, f"drop {TICKS}")
    assert days_of_ticks(either) == []
    assert by_name(either)[f"drop {TICKS}"].failure == ""


def test_candles_that_differ_from_old_ticks_in_any_figure_keep_them_until_they_are_made_again(either: psycopg.Connection) -> None:
    jobs.apply_policies(either, DECLARED)
    changes = {
        "a price": "UPDATE market_data.btc_ticks SET price = price + 1 WHERE trade_id = 7",
        "a taker side": "UPDATE market_data.btc_ticks SET is_market_maker = NOT is_market_maker WHERE trade_id = 1007",
        "a trade time": "UPDATE market_data.btc_ticks SET trade_time = trade_time - interval '1 minute' WHERE trade_id = 2007",
        "a symbol": "UPDATE market_data.btc_ticks SET symbol = 'ETHUSDT' WHERE trade_id = 3007",
        "a slice emptied": "DELETE FROM market_data.btc_ticks WHERE trade_id BETWEEN 4001 AND 4300",
    }
    windows = [write_ticks(either, every(1, 600, start=TODAY - (200 - i) * DAY, first_id=1 + 1000 * i)) for i in range(len(changes) + 1)]
    for window in windows:
        write_candles(either, window)
    for change in changes.values():
        either.execute(change)  # type: ignore[arg-type]
    either.execute("UPDATE landing.raw_blobs_5m SET loaded_rows = 0 WHERE bucket_5m NOT IN (SELECT bucket_5m FROM market_data.btc_ticks)")
    jobs.run_policy(either, f"drop {TICKS}")
    assert dict(zip(changes, days_of_ticks(either), strict=True)) == {name: w.start for name, w in zip(changes, windows[:-1], strict=True)}
    for window in windows[:-1]:
        write_candles(either, window)
    jobs.run_policy(either, f"drop {TICKS}")
    assert days_of_ticks(either) == []


def test_ticks_that_come_late_for_a_dropped_day_are_dropped_again(either: psycopg.Connection) -> None:
    jobs.apply_policies(either, DECLARED)
    day = TODAY - 200 * DAY
    write_candles(either, write_ticks(either, every(1, 600, start=day)))
    jobs.run_policy(either, f"drop {TICKS}")
    late = write_ticks(either, every(1, 300, start=day))
    write_candles(either, late)
    before = read_candles(either)
    jobs.run_policy(either, f"drop {TICKS}")
    assert by_name(either)[f"drop {TICKS}"].last_result == "ok, dropped 1 day(s) of market_data.btc_ticks"
    assert read_candles(either) == before
    assert before["1d"][0][9] == 600


def test_candles_that_nobody_wants_any_more_keep_no_ticks(either: psycopg.Connection) -> None:
    candles.create_optional_candles(either)
    jobs.apply_policies(either, declared_policies(Settings(candles_100ms=True)))
    write_candles(either, write_ticks(either, every(1, 600, start=TODAY - 200 * DAY)))
    jobs.run_policy(either, f"drop {TICKS}")
    assert len(days_of_ticks(either)) == 1
    jobs.apply_policies(either, DECLARED)
    jobs.run_policy(either, f"drop {TICKS}")
    assert days_of_ticks(either) == []


def test_a_refresh_by_hand_keeps_the_candles_of_dropped_ticks_where_the_server_can(on_timescale: psycopg.Connection) -> None:
    if on_timescale.execute("SELECT 1 FROM pg_settings WHERE name = 'timescaledb.skip_cagg_invalidation'").fetchone() is None:
        pytest.skip("TimescaleDB before 2.28 marks what is dropped as changed, and a refresh by hand erases it")
    jobs.apply_policies(on_timescale, DECLARED)
    write_candles(on_timescale, write_ticks(on_timescale, every(1, 600, start=TODAY - 200 * DAY)))
    before = read_candles(on_timescale)
    jobs.run_policy(on_timescale, f"drop {TICKS}")
    on_timescale.execute("CALL refresh_continuous_aggregate('market_data.candle_partials_1s', NULL, %s)", (TODAY - DAY,))
    assert read_candles(on_timescale) == before


def test_ticks_of_last_week_are_compressed(on_timescale: psycopg.Connection) -> None:
    jobs.apply_policies(on_timescale, DECLARED)
    for days_ago in (10, 2):
        write_ticks(on_timescale, every(1, 600, start=TODAY - days_ago * DAY, first_id=1000 * days_ago))
    jobs.run_policy(on_timescale, f"compress {TICKS}")
    chunks = on_timescale.execute("SELECT range_start, compressed FROM ops.chunks(%s) ORDER BY 1", (TICKS,)).fetchall()
    assert chunks == [(TODAY - 10 * DAY, True), (TODAY - 2 * DAY, False)]
    (ticks,) = [size for size in read_table_sizes(on_timescale) if size.table == TICKS]
    assert (ticks.chunks, ticks.compressed_chunks) == (2, 1)
    assert ticks.before and ticks.after and ticks.before > ticks.after


def test_sizes_are_those_of_ticks_and_every_interval(either: psycopg.Connection) -> None:
    write_candles(either, write_ticks(either, every(1, 600)))
    sizes = {size.table: size for size in read_table_sizes(either)}
    assert sizes.keys() == {TICKS, *(f"market_data.candle_partials_{interval}" for interval in candles.INTERVALS)}
    assert all(size.total > 8192 for size in sizes.values())
    assert sizes[TICKS].chunks == 1


def test_candles_that_no_run_made_are_made_by_the_refresh_policies(either: psycopg.Connection) -> None:
    jobs.apply_policies(either, DECLARED)
    start = floor_slice(datetime.now(UTC)) - timedelta(hours=30)
    write_ticks(either, every(10, 1000, start=start))
    for interval in candles.INTERVALS:
        jobs.run_policy(either, f"refresh market_data.candle_partials_{interval}")
    made = read_candles(either)
    for interval in ("1s", "30s", "1m", "5m", "1h"):  # the candle of a day is left to the day's end
        assert sum(row[9] for row in made[interval]) == 1000
    either.execute("UPDATE market_data.btc_ticks SET price = price + 1000")
    jobs.run_policy(either, "refresh market_data.candle_partials_1s")
    assert min(row[4] for row in read_candles(either)["1s"]) >= 43_000


def test_plain_postgresql_runs_what_is_due_a_level_after_the_one_below_and_dropping_last(on_postgres: psycopg.Connection) -> None:
    assert jobs.run_due_policies(on_postgres) == []
    jobs.apply_policies(on_postgres, DECLARED)
    ran = jobs.run_due_policies(on_postgres)
    assert ran == [*(f"refresh market_data.candle_partials_{interval}" for interval in candles.INTERVALS), f"drop {TICKS}"]
    assert jobs.run_due_policies(on_postgres) == []
    on_postgres.execute("UPDATE ops.retention_jobs SET last_run_at = now() - interval '2 hours' WHERE policy ->> 'every' = '3600 seconds'")
    assert jobs.run_due_policies(on_postgres) == ran[:-1]
    on_postgres.execute("UPDATE ops.retention_jobs SET enabled = false, last_run_at = NULL")
    assert jobs.run_due_policies(on_postgres) == []


def test_what_timescaledbs_scheduler_does_not_come_to_is_run_all_the_same(on_timescale: psycopg.Connection) -> None:
    jobs.apply_policies(on_timescale, DECLARED)
    on_timescale.execute("UPDATE ops.retention_jobs SET created_at = now() - interval '1 year', last_run_at = NULL")
    assert jobs.run_due_policies(on_timescale)[-2:] == [f"compress {TICKS}", f"drop {TICKS}"]
    assert by_name(on_timescale)[f"compress {TICKS}"].last_result == "ok, run outside the scheduler"
    assert jobs.run_due_policies(on_timescale) == []


def test_timescaledbs_scheduler_runs_them_and_it_is_seen(on_timescale: psycopg.Connection, server_engine: str) -> None:
    if server_engine != "timescale":
        pytest.skip("TimescaleDB in WebAssembly has no scheduler")
    jobs.apply_policies(on_timescale, DECLARED)
    write_candles(on_timescale, write_ticks(on_timescale, every(1, 600, start=TODAY - 200 * DAY)))
    on_timescale.execute("SELECT _timescaledb_functions.start_background_workers()")

    def wait_for(*kinds: str) -> None:
        until = time.monotonic() + 60
        while not all(
            status.last_result for status in read_policy_statuses(on_timescale, DECLARED) if status.policy and status.policy.kind in kinds
        ):
            assert time.monotonic() < until, read_policy_statuses(on_timescale, DECLARED)
            time.sleep(0.2)

    wait_for("compress", "refresh")
    first_drop = by_name(on_timescale)[f"drop {TICKS}"].next_run_at
    assert first_drop and timedelta(minutes=50) < first_drop - datetime.now(UTC) <= timedelta(hours=1)
    on_timescale.execute("SELECT alter_job(%s, next_start => now())", (job_of(on_timescale, "drop"),))
    wait_for("drop")
    assert {status.failure for status in read_policy_statuses(on_timescale, DECLARED)} == {""}
    assert days_of_ticks(on_timescale) == []
    assert by_name(on_timescale)[f"drop {TICKS}"].last_result == "ok, dropped 1 day(s) of market_data.btc_ticks"
    assert jobs.run_due_policies(on_timescale) == []


def run_ingest(store: StoreUnderTest, window: Window) -> dg.ExecuteInProcessResult:
    tags = {RANGE_START_TAG: window.start.strftime(KEY_FORMAT), RANGE_END_TAG: (window.end - SLICE).strftime(KEY_FORMAT)}
    with dg.DagsterInstance.ephemeral() as instance:
        return store.definitions.resolve_job_def("ingest").execute_in_process(instance=instance, tags=tags)


def run_all_checks(store: StoreUnderTest) -> dg.ExecuteInProcessResult:
    every_check = dg.define_asset_job("checks", selection=dg.AssetSelection.all_asset_checks())
    definitions = dg.Definitions.merge(store.definitions, dg.Definitions(jobs=[every_check]))
    with dg.DagsterInstance.ephemeral() as instance:
        return definitions.resolve_job_def("checks").execute_in_process(instance=instance)


def failed_checks(result: dg.ExecuteInProcessResult) -> list[str]:
    evaluations = result.get_asset_check_evaluations()
    assert evaluations
    return [evaluation.check_name for evaluation in evaluations if not evaluation.passed]


def test_what_retention_dropped_fails_no_check(store: StoreUnderTest) -> None:
    store.land(every(1, 600))
    assert failed_checks(run_ingest(store, HOUR)) == []
    jobs.apply_policies(store.connection, DECLARED)
    jobs.run_policy(store.connection, f"drop {TICKS}")
    assert days_of_ticks(store.connection) == []
    assert reconcile(store.connection, store.zone(), FEEDS, HOUR, datetime.now(UTC)).counts == {}
    assert failed_checks(run_all_checks(store)) == []
    assert failed_checks(run_ingest(store, Window(NOON, NOON + SLICE))) == []  # half of the dropped ticks are there again


def run_maintain(store: StoreUnderTest, apply: bool = False) -> dg.ExecuteInProcessResult:
    with dg.DagsterInstance.ephemeral() as instance:
        return store.definitions.resolve_job_def("maintain").execute_in_process(
            instance=instance, run_config={"ops": {"ops__retention_jobs": {"config": {"apply": apply}}}}
        )


def test_the_job_maintain_reports_drift_and_mends_it_only_when_asked(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTC_ASSETS_TICKS_DROP_AFTER_DAYS", "never")  # a scheduler may run at once what is applied
    (check,) = run_maintain(store).get_asset_check_evaluations()
    assert not check.passed and "it is not applied yet: run btc-assets ops apply" in str(check.metadata["examples"].value)
    (check,) = run_maintain(store, apply=True).get_asset_check_evaluations()
    assert check.passed
    (materialised,) = run_maintain(store).asset_materializations_for_node("ops__retention_jobs")
    assert materialised.metadata["changed"].value == 0
    states = store.rows("SELECT DISTINCT state FROM ops.retention_jobs")
    assert {state for (state,) in states} <= {"applied", "not supported"}


def test_each_kind_names_its_job_after_itself() -> None:
    names = [policy.job_name for policy in (Compress("a.b"), Drop("a.b"), Refresh("a.b"), Keep("a.b"))]
    assert names == ["compress a.b", "drop a.b", "refresh a.b", "keep a.b"]


def test_a_policy_that_fails_is_recorded_and_the_others_run(on_postgres: psycopg.Connection) -> None:
    jobs.apply_policies(on_postgres, DECLARED)
    on_postgres.execute("ALTER TABLE market_data.candle_partials_30s RENAME TO away")
    ran = jobs.run_due_policies(on_postgres)
    assert f"drop {TICKS}" in ran
    on_postgres.execute("ALTER TABLE market_data.away RENAME TO candle_partials_30s")
    failed = [name for name, status in by_name(on_postgres).items() if status.failure.startswith("failed: ")]
    assert failed == ["refresh market_data.candle_partials_30s", "refresh market_data.candle_partials_1m"]  # made of the former
