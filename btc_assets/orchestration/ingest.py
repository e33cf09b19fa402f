"""Running the main job in this process, without the UI."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import DAY, KEY_FORMAT, SLICE, Window, floor_day
from btc_assets.orchestration.dagster_private import run_job
from btc_assets.orchestration.jobs import asset_key
from btc_assets.orchestration.partitions import Partitions, partition_tags


@dataclass(frozen=True)
class IngestOptions:
    """Options of the two assets that load objects: see `RegisterConfig` and `LoadConfig`."""

    force: bool = False
    reread: bool = False


@dataclass
class IngestReport:
    """What a run of the main job did."""

    window: Window
    seconds: float = 0.0
    objects: int = 0
    slices: int = 0
    ticks: int = 0
    checks: int = 0
    failed_checks: dict[str, str] = field(default_factory=dict)

    @property
    def checks_passed(self) -> bool:
        return not self.failed_checks


@dataclass(frozen=True)
class LoadingAssets:
    """The keys of the two assets of a job that take options."""

    registry: str
    ticks: str


def ingest(
    definitions: dg.Definitions, loading: Mapping[str, LoadingAssets], partitions: Partitions, window: Window, options: IngestOptions
) -> IngestReport:
    """Run the job `ingest` over a range of slices, recorded in the instance of DAGSTER_HOME like any other run.

    What lies before the first slice is loaded by `ingest_history`, in whole days.

    Args:
        definitions: with both jobs.
        loading: the assets that take options, by the name of the job.
        partitions: where slices and history meet.
        window: the slices.
        options: of this run.

    Raises:
        UserError: the range starts before the history, or the run failed; the sentence is the failed step's.
    """
    first = partitions.first_slice
    if window.start < min(first, partitions.history_start):
        raise UserError(
            f"The range starts at {window.start:{KEY_FORMAT}}, before the history of this store: set "
            f"BTC_ASSETS_HISTORY_START={window.start:%Y-%m-%d} or earlier."
        )
    report = IngestReport(window)
    runs: list[tuple[str, dict[str, str]]] = []
    if window.start < first:
        days = Window(floor_day(window.start), min(floor_day(window.end - SLICE) + DAY, first))
        report.window = Window(days.start, max(days.end, window.end))
        runs.append(("ingest_history", partition_tags(days, DAY)))
    if window.end > first:
        runs.append(("ingest", partition_tags(Window(max(window.start, first), window.end))))
    started = time.perf_counter()
    with dg.DagsterInstance.get() as instance:
        for name, tags in runs:
            assets = loading[name]
            events = run_job(definitions.resolve_job_def(name), _run_config(assets, options), tags, instance)
            _add_run(report, events, assets)
    report.seconds = time.perf_counter() - started
    return report


def _run_config(assets: LoadingAssets, options: IngestOptions) -> dict[str, object]:
    return {
        "ops": {
            asset_key(assets.registry).to_python_identifier(): {"config": {"reread": options.reread}},
            asset_key(assets.ticks).to_python_identifier(): {"config": {"force": options.force}},
        },
        "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
    }


def _add_run(report: IngestReport, events: Iterable[dg.DagsterEvent], assets: LoadingAssets) -> None:
    """Run a job, by consuming its events, and add what it did to the report."""
    made: dict[dg.AssetKey | None, dg.DagsterEvent] = {}
    failures: list[dg.DagsterEvent] = []
    for event in events:
        if event.is_step_materialization:
            made.setdefault(event.asset_key, event)  # all slices of a range run have the same metadata
        elif event.is_failure:
            failures.append(event)
        elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            _add_check(report, event.asset_check_evaluation_data)
    if failures:
        raise UserError(_failure(failures))
    registered, loaded = (_metadata(made[asset_key(name)]) for name in (assets.registry, assets.ticks))
    report.objects += registered.get("objects_listed", 0)
    report.slices += loaded.get("slices_with_ticks", 0)
    report.ticks += loaded.get("dagster/row_count", 0)


def _metadata(event: dg.DagsterEvent) -> dict[str, Any]:
    return {name: value.value for name, value in event.step_materialization_data.materialization.metadata.items()}


def _add_check(report: IngestReport, evaluation: dg.AssetCheckEvaluation) -> None:
    report.checks += 1
    if not evaluation.passed:
        name = f"{evaluation.asset_key.to_user_string()} {evaluation.check_name}"
        examples = evaluation.metadata.get("examples")
        report.failed_checks[name] = str(examples.value if examples else "").replace("* ", "").split("\n")[0]


def _failure(failures: Sequence[dg.DagsterEvent]) -> str:
    for event in failures:
        if event.is_step_failure:
            return _step_failure(event)
    return "The run failed before its first step: see its log in the Dagster UI."


def _step_failure(event: dg.DagsterEvent) -> str:
    data = event.step_failure_data
    if data.user_failure_data is not None:
        return data.user_failure_data.description or "The step failed without a reason."
    cause = data.error.cause or data.error if data.error else None
    return f"Step {event.step_key} failed: {cause.message.strip() if cause else 'no error was recorded'}"


def last_failure() -> str | None:
    """When and why the newest failed run of the instance in DAGSTER_HOME failed; None if none failed."""
    with dg.DagsterInstance.get() as instance:
        for record in instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]), limit=1):
            failures = instance.get_records_for_run(record.dagster_run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE).records
            events = [failure.event_log_entry.dagster_event for failure in failures]
            ended = f"{datetime.fromtimestamp(record.end_time or 0, UTC):%Y-%m-%d %H:%M:%S}, {record.dagster_run.job_name}"
            return f"{ended}: {_step_failure(events[0]) if events and events[0] else 'see its log in the Dagster UI'}"
    return None
