"""Running the job `ingest` in this process, as `btc-assets load` does."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import DAY, KEY_FORMAT, SLICE, Window, floor_day
from btc_assets.orchestration.checks import read_bullets
from btc_assets.orchestration.dagster_private import run_job
from btc_assets.orchestration.jobs import asset_key
from btc_assets.orchestration.lost_runs import command_tags
from btc_assets.orchestration.partitions import Partitions, partition_tags


@dataclass(frozen=True)
class IngestOptions:
    """Options of the two assets that load objects: `reread` and `new_landing` of the registry's and `force` of the ticks'."""

    force: bool = False
    reread: bool = False
    new_landing: bool = False


@dataclass(frozen=True)
class FailedCheck:
    """A check that failed.

    Attributes:
        window: the slices of its run.
        noun: for its problems, in the plural.
        count: how many there are.
        first: the first of them, a sentence each; all of them but for a long list.
    """

    window: Window
    noun: str
    count: int
    first: list[str]


@dataclass
class IngestReport:
    """Result of a run.

    Attributes:
        window: the slices, including the rest of days of history.
        seconds: that the run took.
        objects: listed in the landing zone, in the folders of the slices and beside them.
        strays: what lies among them and can be no object.
        slices: that have ticks.
        ticks: that were loaded.
        checks: that ran.
        failed_checks: by asset and check.
    """

    window: Window
    seconds: float = 0.0
    objects: int = 0
    strays: int = 0
    slices: int = 0
    ticks: int = 0
    checks: int = 0
    failed_checks: dict[str, FailedCheck] = field(default_factory=dict)

    @property
    def checks_passed(self) -> bool:
        """Whether no check failed."""
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

    Whatever lies before the first slice is loaded by `ingest_history`, in whole days.

    Args:
        definitions: with both jobs.
        loading: the assets that take options, by the name of the job.
        partitions: of the deployment.
        window: the slices.
        options: of this run.

    Raises:
        UserError: the range starts before the history, or the run failed; the sentence is the failed step's.
        KeyboardInterrupt: Ctrl-C ended the run; Dagster has recorded that it failed.
    """
    first = partitions.first_slice
    if window.start < min(first, partitions.history_start):
        raise UserError(
            f"The range starts at {window.start:{KEY_FORMAT}}, before the history of this store: set "
            f"BTC_ASSETS_HISTORY_START={window.start:%Y-%m-%d} or earlier."
        )
    report = IngestReport(window)
    started = time.perf_counter()
    with dg.DagsterInstance.get() as instance:
        for name, part in _split(window, first):
            assets, tags = loading[name], partition_tags(part, DAY if name == "ingest_history" else SLICE)
            report.window = Window(min(report.window.start, part.start), max(report.window.end, part.end))
            events = run_job(definitions.resolve_job_def(name), _run_config(assets, options), tags | command_tags(), instance)
            _add_run(report, events, assets, part)
    report.seconds = time.perf_counter() - started
    return report


def _split(window: Window, first_slice: datetime) -> Iterator[tuple[str, Window]]:
    """The jobs that load a window, each with its part."""
    if window.start < first_slice:
        yield "ingest_history", Window(floor_day(window.start), min(floor_day(window.end - SLICE) + DAY, first_slice))
    if window.end > first_slice:
        yield "ingest", Window(max(window.start, first_slice), window.end)


def _run_config(assets: LoadingAssets, options: IngestOptions) -> dict[str, object]:
    return {
        "ops": {
            asset_key(assets.registry).to_python_identifier(): {"config": {"reread": options.reread, "new_landing": options.new_landing}},
            asset_key(assets.ticks).to_python_identifier(): {"config": {"force": options.force}},
        },
        "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
    }


def _add_run(report: IngestReport, events: Iterable[dg.DagsterEvent], assets: LoadingAssets, window: Window) -> None:
    """Run a job over a window by consuming its events, and add its result to the report."""
    materializations: dict[dg.AssetKey | None, dg.DagsterEvent] = {}
    failures: list[dg.DagsterEvent] = []
    for event in events:
        if event.is_step_materialization:
            materializations.setdefault(event.asset_key, event)  # all slices of a range run have the same metadata
        elif event.is_failure:
            failures.append(event)
        elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            _add_check(report, event.asset_check_evaluation_data, window)
    if any(_interrupted(event) for event in failures):
        raise KeyboardInterrupt
    if failures:
        raise UserError(_run_failure(failures))
    registered, loaded = (_metadata(materializations[asset_key(name)]) for name in (assets.registry, assets.ticks))
    report.objects += registered.get("objects_listed", 0)
    report.strays += registered.get("objects_stray", 0)
    report.slices += loaded.get("slices_with_ticks", 0)
    report.ticks += loaded.get("rows", 0)


def _metadata(event: dg.DagsterEvent) -> dict[str, Any]:
    return {name: value.value for name, value in event.step_materialization_data.materialization.metadata.items()}


def _add_check(report: IngestReport, evaluation: dg.AssetCheckEvaluation, window: Window) -> None:
    report.checks += 1
    if not evaluation.passed:
        name = f"{evaluation.asset_key.to_user_string()} {evaluation.check_name}"
        noun, count = next(iter(evaluation.metadata.items()))  # as `check_result` made it
        assert isinstance(count, dg.IntMetadataValue) and count.value is not None
        problems = evaluation.metadata["examples"]
        assert isinstance(problems, dg.MarkdownMetadataValue)
        report.failed_checks[name] = FailedCheck(window, noun.replace("_", " "), count.value, read_bullets(problems.md_str or ""))


def _interrupted(event: dg.DagsterEvent) -> bool:
    error = event.step_failure_data.error if event.is_step_failure else None
    return error is not None and error.cls_name == dg.DagsterExecutionInterruptedError.__name__


def _run_failure(failures: Sequence[dg.DagsterEvent]) -> str:
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
    """Time, job and sentence of the newest failed run of the instance in DAGSTER_HOME; None if no run failed."""
    with dg.DagsterInstance.get() as instance:
        for record in instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]), limit=1):
            failures = instance.get_records_for_run(record.dagster_run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE).records
            events = [failure.event_log_entry.dagster_event for failure in failures]
            ended = f"{datetime.fromtimestamp(record.end_time or 0, UTC):%Y-%m-%d %H:%M:%S}, {record.dagster_run.job_name}"
            return f"{ended}: {_step_failure(events[0]) if events and events[0] else 'see its log in the Dagster UI'}"
    return None
