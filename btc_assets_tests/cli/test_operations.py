"""The commands `ops` for policies and lost runs."""

from __future__ import annotations

import dagster as dg

from btc_assets.orchestration.home import prepare_dagster_home
from btc_assets_tests.support.command_line import run_command
from btc_assets_tests.support.stores import StoreUnderTest


def test_policies_are_applied_shown_and_run(store: StoreUnderTest) -> None:
    before = run_command("ops", "status")
    assert before.exit_code == 1 and "it is not applied yet: run btc-assets ops apply" in before.output.replace("\n", " ")
    assert "refresh market_data.candle_partials_1m: applied" in run_command("ops", "apply").output
    assert "Everything is in force as declared." in run_command("ops", "apply").output
    assert "drop market_data.btc_ticks: ok, dropped 0 day(s)" in run_command("ops", "run", "drop market_data.btc_ticks").output
    after = run_command("ops", "status")
    assert after.exit_code == 0 and "Kept for ever: candles_1s, candles_30s" in after.output
    nothing = run_command("ops", "run", "keep market_data.candle_partials_1m")
    assert nothing.exit_code == 1 and "There is nothing to run for 'keep market_data.candle_partials_1m'" in nothing.output
    unknown = run_command("ops", "run", "compress everything")
    assert (
        unknown.exit_code == 1 and "There is no policy 'compress everything': name one of compress market_data.btc_ticks" in unknown.output
    )


@dg.asset
def anything() -> None: ...


def test_lost_runs_are_ended_and_named(store: StoreUnderTest) -> None:
    prepare_dagster_home(store.settings)
    with dg.DagsterInstance.get() as instance:
        job = dg.Definitions([anything]).resolve_implicit_global_asset_job_def()
        run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    assert run_command("ops", "end-lost-runs").output == f"Run {run.run_id} was lost.\n"
    assert run_command("ops", "end-lost-runs").output == ""
