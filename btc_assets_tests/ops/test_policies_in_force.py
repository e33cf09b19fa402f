"""Policies in force, compared with their declarations: whatever differs is drift."""

from __future__ import annotations

import psycopg

from btc_assets.domain.settings import Settings
from btc_assets.ops import retention_jobs
from btc_assets.ops.policies import TICKS, declared_policies
from btc_assets_tests.support.policies import DECLARED, read_drift


def job_of(connection: psycopg.Connection, kind: str, table: str = TICKS) -> int:
    row = connection.execute("SELECT job_id FROM ops.policies_in_force() WHERE (kind, hypertable) = (%s, %s)", (kind, table)).fetchone()
    assert row is not None
    return row[0]


def test_another_declaration_is_drift_until_it_is_applied(on_each_engine: psycopg.Connection) -> None:
    retention_jobs.apply_policies(on_each_engine, DECLARED)
    later = declared_policies(Settings(ticks_drop_after_days=30))
    assert read_drift(on_each_engine, later) == {
        "drop market_data.btc_ticks": "the server has after 90 days, 0:00:00 instead of 30 days, 0:00:00: run btc-assets ops apply"
    }
    assert retention_jobs.apply_policies(on_each_engine, later) == ["drop market_data.btc_ticks: applied"]
    assert read_drift(on_each_engine, later) == {}


def test_a_change_on_the_server_is_drift_until_policies_are_applied(on_timescale: psycopg.Connection) -> None:
    retention_jobs.apply_policies(on_timescale, DECLARED)
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
        on_timescale.execute(change.format(job_of(on_timescale, kind)))
        assert read_drift(on_timescale) == {f"{kind} {TICKS}": f"{drift}: run btc-assets ops apply"}, change
        assert retention_jobs.apply_policies(on_timescale, DECLARED) == [f"{kind} {TICKS}: applied"]
        assert read_drift(on_timescale) == {}, change


def test_a_foreign_policy_that_drops_from_a_kept_table_is_drift_and_stays(on_timescale: psycopg.Connection) -> None:
    retention_jobs.apply_policies(on_timescale, DECLARED)
    on_timescale.execute("SELECT add_retention_policy('market_data.candle_partials_1m', interval '1 year')")
    drift = {
        "keep market_data.candle_partials_1m": (
            "market_data.candle_partials_1m must be kept forever, but the server has a policy that drops from it: remove that policy"
        )
    }
    assert read_drift(on_timescale) == drift
    assert retention_jobs.apply_policies(on_timescale, DECLARED) == []
    assert read_drift(on_timescale) == drift


def test_an_undeclared_policy_is_drift_on_the_tables_of_the_store_alone(on_timescale: psycopg.Connection) -> None:
    on_timescale.execute("CREATE TABLE public.mine (at timestamptz NOT NULL); SELECT create_hypertable('public.mine', by_range('at'))")
    retention_jobs.apply_policies(on_timescale, DECLARED)
    for table in ("public.mine", TICKS):
        on_timescale.execute("SELECT add_retention_policy(%s::regclass, interval '1 year')", (table,))
    assert read_drift(on_timescale) == {
        "retention market_data.btc_ticks": "it is not declared: remove it from the server (see timescaledb_information.jobs)"
    }
