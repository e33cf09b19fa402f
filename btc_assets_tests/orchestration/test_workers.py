"""Workers: what a worker needs before it starts. The runs that workers execute are tested end to end."""

from __future__ import annotations

import pytest
import yaml

from btc_assets.domain.errors import UserError
from btc_assets.orchestration.home import prepare_dagster_home
from btc_assets_tests.support.stores import StoreUnderTest

pytest.importorskip("dagster_celery", reason="workers need btc-assets[workers]")

from btc_assets.orchestration.workers import work


def test_a_worker_whose_dagster_yaml_has_no_run_launcher_says_what_to_do(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTC_ASSETS_WORKERS_BROKER", "redis://127.0.0.1:1/0")
    home = prepare_dagster_home(store.settings)
    config = yaml.safe_load((home / "dagster.yaml").read_text())
    del config["run_launcher"]
    (home / "dagster.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match=r"dagster\.yaml in .* starts runs without workers: give it the section `run_launcher`"):
        work(store.settings, "w", 1)


def test_a_worker_without_a_broker_says_what_to_set(store: StoreUnderTest) -> None:
    with pytest.raises(UserError, match="set BTC_ASSETS_WORKERS_BROKER"):
        work(store.settings, "w", 1)
