"""Which processes execute runs."""

from __future__ import annotations

import sys

import dagster as dg
import pytest

from btc_assets.domain.errors import UserError
from btc_assets.orchestration.home import prepare_dagster_home
from btc_assets.orchestration.launcher import StoreRunLauncher
from btc_assets_tests.support.stores import StoreUnderTest


def test_without_a_broker_runs_are_processes_of_the_code_location(store: StoreUnderTest) -> None:
    prepare_dagster_home(store.settings)
    with dg.DagsterInstance.get() as instance:
        assert type(instance.run_launcher) is dg.DefaultRunLauncher


def test_a_broker_without_the_packages_of_workers_says_what_to_install(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTC_ASSETS_WORKERS_BROKER", "redis://127.0.0.1:1/0")
    monkeypatch.delitem(sys.modules, "btc_assets.orchestration.workers", raising=False)
    monkeypatch.setitem(sys.modules, "dagster_celery.launcher", None)  # as if it could not be found
    with pytest.raises(
        UserError, match=r"^BTC_ASSETS_WORKERS_BROKER is set, and dagster_celery\S* is not installed: pip install 'btc-assets"
    ):
        StoreRunLauncher.from_config_value(None, {})
