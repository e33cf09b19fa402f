"""The command `dev`: the environment of the user interface."""

from __future__ import annotations

from pathlib import Path

import pytest

from btc_assets.cli.dev import dev_environment
from btc_assets_tests.support.stores import StoreUnderTest


def test_the_ui_backfills_a_week_of_slices_a_run_unless_the_user_says_otherwise(
    store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert dev_environment(store.settings, Path("dagster"))["BTC_ASSETS_BACKFILL_SLICES_PER_RUN"] == str(7 * 288)
    monkeypatch.setenv("BTC_ASSETS_BACKFILL_SLICES_PER_RUN", "288")
    assert dev_environment(store.settings, Path("dagster"))["BTC_ASSETS_BACKFILL_SLICES_PER_RUN"] == "288"


def test_paths_do_not_depend_on_the_working_directory(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTC_ASSETS_HOME", ".btc_assets")
    environment = dev_environment(store.settings, Path("dagster"))
    assert Path(environment["BTC_ASSETS_HOME"]).is_absolute() and Path(environment["DAGSTER_HOME"]).is_absolute()
