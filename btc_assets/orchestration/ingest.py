"""Running the main job in this process, for those who want no UI."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import DAY, KEY_FORMAT, SLICE, Window, floor_day
from btc_assets.orchestration.home import prepare_dagster_home

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

    What lies before the first slice is loaded by `ingest_history`, in whole days.

    Raises:
        UserError: the run failed; the sentence is the failed step's.
    """
    from btc_assets.domain.settings import settings

    first, oldest = settings().first_slice, settings().history_start
    if window.start < min(first, oldest):
        raise UserError(
            f"The range starts at {window.start:{KEY_FORMAT}}, before the history of this store: set "
            f"BTC_ASSETS_HISTORY_START={window.start:%Y-%m-%d} or earlier."
        )
    prepare_dagster_home()
    from btc_assets.market_data import candles
    from btc_assets.orchestration.partitions import partition_tags
    from btc_assets.store.database import connect
    from btc_assets.store.tables import count_rows

    report = IngestReport(window, 0.0)
    started = time.perf_counter()
    if window.start < first:
        days = Window(floor_day(window.start), min(floor_day(window.end - SLICE) + DAY, first))
        report.window = Window(days.start, max(days.end, window.end))
        _run(
            report,
            "ingest_history",
            partition_tags(days, DAY),
            ("landing/raw_blobs_history", "market_data/btc_ticks_history"),
            force,
            reread,
        )
    if window.end > first:
        slices = partition_tags(Window(max(window.start, first), window.end))
        _run(report, "ingest", slices, ("landing/raw_blobs_5m", "market_data/btc_ticks"), force, reread)
    report.seconds = time.perf_counter() - started
    with connect(autocommit=True) as connection:
        for interval in candles.enabled(settings()):
            report.candles += sum(count_rows(connection, f"market_data.candles_{interval}", report.window, time_column="bucket").values())
    return report


def _run(report: IngestReport, job: str, tags: dict[str, str], assets: tuple[str, str], force: bool, reread: bool) -> None:
    """Run a job and add to the report what it did."""
    import dagster as dg
    from dagster._core.definitions.job_base import InMemoryJob
    from dagster._core.execution.api import execute_run_iterator

    from btc_assets.definitions import defs
    from btc_assets.orchestration.failures import impatient

    registry, ticks = (dg.AssetKey(asset.split("/")) for asset in assets)
    definition = defs.resolve_job_def(job)
    run_config = {
        "ops": {
            registry.to_python_identifier(): {"config": {"reread": reread}},
            ticks.to_python_identifier(): {"config": {"force": force}},
        },
        "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
    }
    made: dict[dg.AssetKey | None, dg.DagsterEvent] = {}
    failures: list[dg.DagsterEvent] = []
    with dg.DagsterInstance.get() as instance, impatient():
        run = instance.create_run_for_job(definition, run_config=run_config, tags={**definition.run_tags, **tags})
        # Not `execute_in_process`, which keeps all events: with ten a slice, a month of them is 200 MB.
        for event in execute_run_iterator(InMemoryJob(definition), run, instance):
            if event.is_step_materialization:
                made.setdefault(event.asset_key, event)  # all slices of a range run carry the same metadata
            elif event.is_failure:
                failures.append(event)
            elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
                _add_check(report, event.asset_check_evaluation_data)
    if failures:
        raise UserError(_failure(failures))
    for asset in (registry, ticks):
        metadata: dict[str, Any] = {
            name: value.value for name, value in made[asset].step_materialization_data.materialization.metadata.items()
        }
        report.objects += metadata.get("objects_listed", 0)
        report.slices += metadata.get("slices_with_ticks", 0)
        report.ticks += metadata.get("dagster/row_count", 0) if asset == ticks else 0


def _add_check(report: IngestReport, evaluation: dg.AssetCheckEvaluation) -> None:
    report.checks += 1
    if not evaluation.passed:
        name = f"{evaluation.asset_key.to_user_string()} {evaluation.check_name}"
        examples = evaluation.metadata.get("examples")
        report.failed_checks[name] = str(examples.value if examples else "").replace("* ", "").split("\n")[0]


def _failure(failures: list[dg.DagsterEvent]) -> str:
    for event in failures:
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
