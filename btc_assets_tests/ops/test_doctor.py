"""The doctor examines everything and says what to do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from btc_assets.cli.doctor import examine_dagster
from btc_assets.domain.settings import load_settings
from btc_assets.ops.doctor import examine_store
from btc_assets.ops.findings import Finding
from btc_assets.signals.encoders import models
from btc_assets_tests.support.s3 import Bucket
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import every
from btc_assets_tests.support.vectors import registered_model


def findings() -> dict[str, Finding]:
    settings = load_settings()
    return {finding.subject: finding for finding in examine_store(settings, lambda: examine_dagster(settings))}


def test_a_store_that_is_set_up_has_no_problem(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTC_ASSETS_PARTITIONS_START", f"{datetime.now(UTC) - timedelta(days=30):%Y-%m-%d}")
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


def test_a_model_whose_artifact_is_gone_is_a_problem(store: StoreUnderTest) -> None:
    model = registered_model(store.connection)
    models.activate_model(store.connection, model)
    found = findings()["encoders"]
    assert (found.state, found.text.split(":")[0]) == (
        "problem",
        f"The model {model.model_id} is missing at {store.landing.as_uri().split(':')[0]}",
    )
    assert found.text.endswith("copy its artifact there, or train a model and activate that one.")


def test_a_server_that_is_down_is_the_only_finding_about_the_database(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_the_clock_and_the_listing_of_an_s3_landing_zone_are_examined(
    store: StoreUnderTest, s3: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BTC_ASSETS_LANDING_URL", s3.url)
    monkeypatch.setenv("BTC_ASSETS_S3_ENDPOINT", s3.server.endpoint)
    found = findings()
    assert found["landing zone clock"] == Finding("landing zone clock", "ok", "agrees with this machine's.")
    assert found["landing zone"].text.endswith("0 object(s) in the last hour.")
