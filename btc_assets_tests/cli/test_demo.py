"""The command `demo`: a store of its own for each day and file."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from btc_assets.cli.demo import DemoStore
from btc_assets.domain.settings import load_settings
from btc_assets_tests.support.stores import StoreUnderTest

DAY = datetime(2024, 1, 10, tzinfo=UTC)


@pytest.fixture
def own_environment(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment is as it was after the test, whatever a demo sets."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    return monkeypatch


def test_another_day_number_of_trades_or_file_has_another_store(tmp_path: Path) -> None:
    stores = [DemoStore.of_day(tmp_path, DAY, 500), DemoStore.of_day(tmp_path, DAY, 600), DemoStore.of_file(tmp_path, Path("/a.csv"))]
    assert len({store.name for store in stores}) == 3
    assert DemoStore.of_file(tmp_path, Path("/a.csv")) == stores[2] != DemoStore.of_file(tmp_path, Path("/b.csv"))


def test_a_demo_touches_nothing_of_the_users(store: StoreUnderTest, own_environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    os.environ["BTC_ASSETS_S3_ENDPOINT"] = "http://users.own"
    settings = DemoStore.of_day(tmp_path, DAY, 500).use()
    assert settings.dsn is None and settings.database == "demo_20240110_500" and settings.s3_endpoint is None
    assert settings.landing == (tmp_path / "landing_demo_20240110_500").as_uri()
    assert not (tmp_path / "demo.env").exists()


def test_later_processes_find_the_demo_once_its_partitions_are_known(own_environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    os.environ["BTC_ASSETS_HOME"] = str(tmp_path)
    before = dict(os.environ)
    made = DemoStore.of_day(tmp_path, DAY, 500).use(partitions_start=DAY)
    assert made.first_slice == DAY
    # A later process has none of the variables that the demo set.
    for name in [name for name in os.environ if name.startswith("BTC_ASSETS_")]:
        del os.environ[name]
    os.environ["BTC_ASSETS_HOME"] = before["BTC_ASSETS_HOME"]
    assert load_settings() == made
