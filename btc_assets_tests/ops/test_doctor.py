"""`btc-assets doctor` looks at everything and says what to do."""

from __future__ import annotations

import shutil
from collections import namedtuple
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from click.testing import CliRunner

from btc_assets.cli.main import main
from btc_assets.domain.settings import load_settings
from btc_assets.ops import doctor
from btc_assets.ops.doctor import Finding, examine
from btc_assets.signals.encoders import models
from btc_assets_tests.support.s3 import Bucket
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import every
from btc_assets_tests.support.vectors import registered_model


def findings() -> dict[str, Finding]:
    return {finding.subject: finding for finding in examine(load_settings())}


def test_a_store_that_is_set_up_has_no_problem(store: StoreUnderTest) -> None:
    store.land(every(1, 60, start=datetime.now(UTC) - timedelta(minutes=10)))
    found = findings()
    assert {
        "server",
        "engine",
        "pgvector",
        "migrations",
        "rights",
        "owner",
        "policies",
        "encoders",
        "server clock",
        "landing zone",
        "Dagster",
        "disk",
    } <= found.keys()
    assert [finding for finding in found.values() if finding.state == "problem"] == []
    assert found["policies"].text.endswith("it is not applied yet: run btc-assets ops apply.")
    assert found["landing zone"].text.endswith(" object(s) in the last hour.") and ": 0 object" not in found["landing zone"].text
    assert "no daemon runs" in found["Dagster"].text


def test_a_model_whose_artefact_is_gone_is_a_problem(store: StoreUnderTest) -> None:
    model = registered_model(store.connection)
    models.activate_model(store.connection, model)
    found = findings()["encoders"]
    assert (found.state, found.text.split(":")[0]) == (
        "problem",
        f"The model {model.model_id} is missing at {store.landing.as_uri().split(':')[0]}",
    )
    assert found.text.endswith("copy its artefact there, or train a model and activate that one.")


def test_the_command_prints_a_line_each_and_ends_with_1_where_there_is_a_problem(store: StoreUnderTest) -> None:
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 0, result.output
    assert any(line.startswith("ok") and "server: PostgreSQL" in line for line in result.output.splitlines())
    store.landing.rmdir()
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 1
    assert "is not a directory: create it, or set BTC_ASSETS_LANDING_URL" in result.output.replace("\n", " ")


def test_a_server_that_is_down_is_the_only_thing_said_of_the_database(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTC_ASSETS_DSN", "postgresql://loader:s3cret@127.0.0.1:1/btc")
    found = findings()
    assert found["server"] == Finding(
        "server", "problem", "PostgreSQL at 127.0.0.1:1/btc cannot be reached: start it, or correct BTC_ASSETS_DSN."
    )
    assert "migrations" not in found and "landing zone" in found
    assert not any("s3cret" in finding.text for finding in found.values())


def test_an_empty_database_needs_migrations(store: StoreUnderTest, empty_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTC_ASSETS_DSN", empty_database)
    assert findings()["migrations"] == Finding("migrations", "problem", "The database is not set up: run btc-assets db migrate.")


def test_rights_that_are_missing_are_named_and_the_rest_is_looked_at(store: StoreUnderTest) -> None:
    with psycopg.connect(store.dsn, autocommit=True) as connection:
        connection.execute("CREATE ROLE reader_of_doctor")
        try:
            connection.execute("GRANT SELECT ON landing.raw_blobs_5m TO reader_of_doctor")
            connection.execute("SET ROLE reader_of_doctor")
            found = {finding.subject: finding for finding in doctor._database(connection, store.settings)}
            rights = found["rights"]
            assert rights.state == "problem"
            assert rights.text.startswith("reader_of_doctor lacks USAGE on schema ") and rights.text.endswith(
                ": have the owner run btc-assets db grant --loader reader_of_doctor."
            )
            assert "INSERT on landing.raw_blobs_5m" in rights.text and "SELECT on landing.raw_blobs_5m" not in rights.text
            assert found["owner"].text.startswith("reader_of_doctor does not own market_data.btc_ticks, market_data.candle_partials_")
            assert found["migrations"].text.startswith("The database user lacks a right (permission denied for schema ops)")
            assert {"engine", "policies", "server disk", "server clock"} <= found.keys()
        finally:
            connection.execute("RESET ROLE")
            connection.execute("DROP OWNED BY reader_of_doctor; DROP ROLE reader_of_doctor")


@pytest.mark.parametrize(("free", "state"), [(500 << 20, "problem"), (5 << 30, "warning"), (50 << 30, "ok")])
def test_a_disk_that_fills_up_is_seen(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch, free: int, state: str) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100 << 30, (100 << 30) - free, free))
    assert findings()["disk"].state == state


@pytest.mark.parametrize(("seconds", "words"), [(90, "90.0 s ahead of this machine"), (-90, "90.0 s behind this machine")])
def test_clocks_that_differ_are_seen(seconds: int, words: str) -> None:
    now = datetime.now(UTC)
    finding = doctor._skew("server clock", now + timedelta(seconds=seconds), now)
    assert finding == Finding("server clock", "problem", f"{words}: let NTP set both.")


def test_the_clock_and_the_listing_of_an_s3_landing_zone_are_looked_at(
    store: StoreUnderTest, s3: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BTC_ASSETS_LANDING_URL", s3.url)
    monkeypatch.setenv("BTC_ASSETS_S3_ENDPOINT", s3.server.endpoint)
    found = findings()
    assert found["landing zone clock"] == Finding("landing zone clock", "ok", "agrees with this machine's.")
    assert found["landing zone"].text.endswith("0 object(s) in the last hour.")
