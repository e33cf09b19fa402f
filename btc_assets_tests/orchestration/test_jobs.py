"""Defining jobs by the keys of their assets."""

from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg
import pytest

from btc_assets.domain.settings import Settings
from btc_assets.orchestration.jobs import asset_key, define_job, define_sliced_jobs
from btc_assets.orchestration.partitions import Partitions


def test_a_key_is_schema_and_table() -> None:
    assert asset_key("market_data/btc_ticks") == dg.AssetKey(["market_data", "btc_ticks"])


def test_a_job_materializes_its_assets_and_runs_their_checks() -> None:
    @dg.asset(key=["a", "one"])
    def one() -> None: ...

    @dg.asset(key=["a", "two"])
    def two() -> None: ...

    @dg.asset_check(asset=one)
    def good() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True)

    definitions = dg.Definitions([one, two], asset_checks=[good], jobs=[define_job("first", ["a/one"], "The first.")])
    job = definitions.resolve_job_def("first")
    assert (job.description, job.asset_layer.executable_asset_keys) == ("The first.", {one.key})
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(instance=instance)
    assert [evaluation.check_name for evaluation in result.get_asset_check_evaluations()] == ["good"]


@pytest.mark.parametrize(("history_start", "names"), [("2023-01-01", ["rebuild", "rebuild_history"]), ("2024-01-01", ["rebuild"])])
def test_a_sliced_job_has_one_for_history_if_there_are_days_of_history(history_start: str, names: list[str]) -> None:
    settings = Settings.model_validate({"partitions_start": datetime(2024, 1, 1, tzinfo=UTC), "history_start": history_start})
    jobs = define_sliced_jobs("rebuild", ["a/one"], ["a/history"], "Rebuild.", Partitions.of(settings))
    assert [job.name for job in jobs] == names
