"""DAGSTER_HOME, and the instance that our dagster.yaml describes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import dagster as dg
import pytest
import yaml

from btc_assets.cli.doctor import examine_dagster
from btc_assets.domain.errors import UserError
from btc_assets.landing.resources import Landing
from btc_assets.orchestration.home import missing_options, prepare_dagster_home
from btc_assets_tests.support.dagster_private import PoolGranularity, QueuedRunCoordinator
from btc_assets_tests.support.stores import StoreUnderTest


def test_dagster_home_is_below_our_own_unless_the_variable_names_another(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    assert prepare_dagster_home(store.settings) == Path(os.environ["DAGSTER_HOME"]) == store.home.parent / "dagster"
    monkeypatch.delenv("DAGSTER_HOME")
    assert prepare_dagster_home(store.settings) == Path(os.environ["DAGSTER_HOME"]) == store.home / "dagster"


def test_a_home_that_cannot_be_written_is_one_sentence(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "/proc/dagster")
    with pytest.raises(UserError, match=r"^DAGSTER_HOME /proc/dagster cannot be written \(.+\): set DAGSTER_HOME or BTC_ASSETS_HOME to a"):
        prepare_dagster_home(store.settings)
    monkeypatch.setenv("BTC_ASSETS_HOME", "/proc/btc_assets")
    monkeypatch.delenv("BTC_ASSETS_LANDING_URL")
    with pytest.raises(
        UserError, match=r"^/proc/btc_assets cannot be written \(.+\): set BTC_ASSETS_HOME to a writable directory, or BTC_"
    ):
        Landing(store.settings).zone()


def test_runs_whose_worker_died_are_retried_twice_and_runs_whose_step_failed_are_not(store: StoreUnderTest) -> None:
    prepare_dagster_home(store.settings)
    with dg.DagsterInstance.get() as instance:
        assert instance.run_retries_enabled and instance.run_retries_max_retries == 2
        assert instance.run_retries_retry_on_asset_or_op_failure is False
        assert instance.run_monitoring_enabled


def test_our_instance_starts_runs_at_once_and_few_at_a_time(store: StoreUnderTest) -> None:
    home = prepare_dagster_home(store.settings)
    assert home == Path(store.home.parent / "dagster")
    with dg.DagsterInstance.get() as instance:
        coordinator = instance.run_coordinator
        assert isinstance(coordinator, QueuedRunCoordinator) and coordinator.dequeue_interval_seconds == 1
        limits = instance.get_concurrency_config()
        assert limits.run_queue_config is not None and limits.run_queue_config.max_concurrent_runs == 4
        assert (limits.pool_config.default_pool_limit, limits.pool_config.pool_granularity) == (2, PoolGranularity.RUN)
        assert instance.get_runs() == []
    assert store.rows("SELECT count(*) FROM dagster.runs") == [(0,)]  # its tables are in the store, beside the rooms


def test_a_dagster_yaml_that_a_person_changed_is_kept(store: StoreUnderTest) -> None:
    home = prepare_dagster_home(store.settings)
    changed = yaml.safe_load((home / "dagster.yaml").read_text()) | {"concurrency": {"runs": {"max_concurrent_runs": 9}}}
    (home / "dagster.yaml").write_text(yaml.safe_dump(changed))
    prepare_dagster_home(store.settings)
    with dg.DagsterInstance.get() as instance:
        limits = instance.get_concurrency_config().run_queue_config
        assert limits is not None and limits.max_concurrent_runs == 9


def test_a_dagster_yaml_of_an_earlier_version_that_nobody_changed_is_updated(store: StoreUnderTest) -> None:
    home = prepare_dagster_home(store.settings)
    file = home / "dagster.yaml"
    current = file.read_text()
    earlier = "telemetry:\n  enabled: false\n"
    file.write_text(f"# btc-assets updates this file while it has this SHA-256: {hashlib.sha256(earlier.encode()).hexdigest()}\n{earlier}")
    prepare_dagster_home(store.settings)
    assert file.read_text() == current
    file.write_text(current.replace("max_concurrent_runs: 4", "max_concurrent_runs: 9"))
    prepare_dagster_home(store.settings)
    assert "max_concurrent_runs: 9" in file.read_text()


def test_a_dagster_yaml_from_before_there_was_a_stamp_is_updated(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    home = prepare_dagster_home(store.settings)
    current, earlier = (home / "dagster.yaml").read_text(), "telemetry:\n  enabled: false\n"
    (home / "dagster.yaml").write_text(earlier)
    prepare_dagster_home(store.settings)
    assert (home / "dagster.yaml").read_text() == earlier  # nobody knows who wrote it
    monkeypatch.setattr("btc_assets.orchestration.home._UNSTAMPED", {hashlib.sha256(earlier.encode()).hexdigest()})
    prepare_dagster_home(store.settings)
    assert (home / "dagster.yaml").read_text() == current


def test_the_doctor_names_the_options_that_an_edited_dagster_yaml_lacks(store: StoreUnderTest) -> None:
    home = prepare_dagster_home(store.settings)
    edited = yaml.safe_load((home / "dagster.yaml").read_text())
    del edited["run_monitoring"]["start_timeout_seconds"], edited["retention"]
    (home / "dagster.yaml").write_text(yaml.safe_dump(edited))
    prepare_dagster_home(store.settings)
    assert missing_options(home) == ["retention", "run_monitoring.start_timeout_seconds"]
    (finding, *_) = [found for found in examine_dagster(store.settings) if "lacks" in found.text]
    assert finding.state == "warning"
    assert "lacks retention, run_monitoring.start_timeout_seconds" in finding.text
