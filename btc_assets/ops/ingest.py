"""Running the main job in this process, for those who want no UI."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from btc_assets.errors import UserError
from btc_assets.ops.dagster_home import prepare_dagster_home
from btc_assets.slices import KEY_FORMAT, SLICE, Window

if TYPE_CHECKING:
    import dagster as dg


@dataclass
class IngestReport:
    """What a run of the main job did."""

    window: Window
    seconds: float
    objects: int = 0
    slices: int = 0
    ticks: int = 0
    candles: int = 0
    checks: int = 0
    failed_checks: dict[str, str] = field(default_factory=dict)

    @property
    def checks_passed(self) -> bool:
        return not self.failed_checks


def ingest(window: Window, *, force: bool = False, reread: bool = False) -> IngestReport:
    """Run the job `ingest` over a range of slices, recorded in Dagster's instance like any other run.

    Raises:
        UserError: the run failed; the sentence is the failed step's.
    """
    from btc_assets.settings import settings

    first = settings().first_slice
    if window.start < first:
        raise UserError(
            f"The range starts at {window.start:{KEY_FORMAT}}, before the first slice {first:{KEY_FORMAT}}: set "
            f"BTC_ASSETS_PARTITIONS_START={window.start:{KEY_FORMAT}} or earlier."
        )
    prepare_dagster_home()
    import dagster as dg

    from btc_assets.definitions import defs
    from btc_assets.failures import impatient
    from btc_assets.market_data.assets import candle_assets
    from btc_assets.partitions import RANGE_END_TAG, RANGE_START_TAG

    started = time.perf_counter()
    with dg.DagsterInstance.get() as instance, impatient():
        result = defs.resolve_job_def("ingest").execute_in_process(
            instance=instance,
            raise_on_error=False,
            tags={RANGE_START_TAG: window.start.strftime(KEY_FORMAT), RANGE_END_TAG: (window.end - SLICE).strftime(KEY_FORMAT)},
            run_config={
                "ops": {
                    "landing__raw_blobs_5m": {"config": {"reread": reread}},
                    "market_data__btc_ticks": {"config": {"force": force}},
                },
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            },
        )
    if not result.success:
        raise UserError(_failure(result))
    report = IngestReport(window, time.perf_counter() - started)
    for key in (dg.AssetKey(["landing", "raw_blobs_5m"]), dg.AssetKey(["market_data", "btc_ticks"])):
        metadata = _metadata(result, key)
        report.objects = metadata.get("objects_listed", report.objects)
        report.ticks = metadata.get("dagster/row_count", report.ticks)
        report.slices = metadata.get("slices_with_ticks", report.slices)
    for evaluation in result.get_asset_check_evaluations():
        report.checks += 1
        if not evaluation.passed:
            name = f"{evaluation.asset_key.to_user_string()} {evaluation.check_name}"
            examples = evaluation.metadata.get("examples")
            report.failed_checks[name] = str(examples.value if examples else "").replace("* ", "").split("\n")[0]
    for asset in candle_assets:
        report.candles += _metadata(result, asset.key).get("dagster/row_count", 0)
    return report


def _metadata(result: dg.ExecuteInProcessResult, key: dg.AssetKey) -> dict[str, Any]:
    """Of one materialisation; all slices of a range run carry the same."""
    for event in result.all_events:
        if event.is_step_materialization and event.asset_key == key:
            return {name: value.value for name, value in event.step_materialization_data.materialization.metadata.items()}
    return {}


def _failure(result: dg.ExecuteInProcessResult) -> str:
    for event in result.all_node_events:
        if event.is_step_failure:
            return _step_failure(event)
    return "The run failed before its first step: see its log in the Dagster UI."


def _step_failure(event: dg.DagsterEvent) -> str:
    data = event.step_failure_data
    if data.user_failure_data is not None:
        return data.user_failure_data.description or "The step failed without saying why."
    cause = data.error.cause or data.error if data.error else None
    return f"Step {event.step_key} failed: {cause.message.strip() if cause else 'no error was recorded'}"


def last_failure() -> str | None:
    """When the newest failed run ended, and what it died of; None where none failed."""
    prepare_dagster_home()
    import dagster as dg

    with dg.DagsterInstance.get() as instance:
        for record in instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]), limit=1):
            failures = instance.get_records_for_run(record.dagster_run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE).records
            events = [failure.event_log_entry.dagster_event for failure in failures]
            ended = f"{datetime.fromtimestamp(record.end_time or 0, UTC):%Y-%m-%d %H:%M:%S}, {record.dagster_run.job_name}"
            return f"{ended}: {_step_failure(events[0]) if events and events[0] else 'see its log in the Dagster UI'}"
    return None
