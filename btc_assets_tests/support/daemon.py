"""Dagster's daemon for tests: evaluates a sensor at a given time and executes the runs that it requests, with a real instance."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from btc_assets.domain.slices import Window, ceil_slice
from btc_assets.landing import arrivals, events
from btc_assets.orchestration import automation
from btc_assets.orchestration.partitions import Partitions
from btc_assets_tests.support.dagster_private import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from btc_assets_tests.support.stores import StoreUnderTest

Requested = tuple[str, Window]  # the job and the slices

QUIET_LOG: dict[str, object] = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class Daemon:
    """The daemon of one sensor.

    The database takes the times at which objects were noticed from its own clock. So `now` starts a little after the real present:
    then everything that a test did lies in the past, and no slice is about to close. If the machine is so busy that the present comes
    near `now` all the same, `now` moves on with the next tick.
    """

    def __init__(self, store: StoreUnderTest, sensor: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self._definitions = store.definitions
        self._partitions = Partitions.of(store.settings)
        self.sensor = self._definitions.resolve_sensor_def(sensor)
        self.now = _after_the_present()
        self.skipped: str | None = None
        self.requests: list[dg.RunRequest] = []
        self._instance = dg.DagsterInstance.ephemeral()
        # As the project sets them for all of Dagster's processes: runs of hundreds of slices are cheap.
        monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "1000")
        monkeypatch.setenv("DAGSTER_EMIT_PARTITION_SUBSET_IN_PLANNED_EVENTS", "true")
        monkeypatch.setattr(automation, "utc_now", lambda: self.now)
        # A tick is complete, however busy the machine is.
        monkeypatch.setattr(arrivals, "LIST_SECONDS", float("inf"))
        monkeypatch.setattr(events, "RECEIVE_SECONDS", float("inf"))

    def forget(self) -> None:
        """Lose Dagster's storage: the runs and everything that sensors have stored."""
        self._instance.dispose()
        self._instance = dg.DagsterInstance.ephemeral()

    def close(self) -> None:
        self._instance.dispose()

    def tick(self) -> list[Requested]:
        """Evaluate the sensor; returns what it requests."""
        if self.now < datetime.now(UTC) + arrivals.QUIET:
            self.now = _after_the_present()
        with dg.build_sensor_context(
            instance=self._instance,
            sensor_name=self.sensor.name,
            definitions=self._definitions,
            resources=self._definitions.resources,
        ) as context:
            evaluated = self.sensor.evaluate_tick(context)
        self.requests, self.skipped = list(evaluated.run_requests or []), evaluated.skip_message
        return [self._read(request) for request in self.requests]

    def tick_after(self, pause: timedelta) -> list[Requested]:
        self.now += pause
        return self.tick()

    def run(self) -> None:
        """Execute the runs that the last tick requested; all must succeed."""
        assert self.attempt() == len(self.requests)

    def attempt(self) -> int:
        """Execute the runs that the last tick requested; returns how many succeeded."""
        succeeded = 0
        for request in self.requests:
            assert request.job_name
            result = self._definitions.resolve_job_def(request.job_name).execute_in_process(
                instance=self._instance, tags=self._tags(request), run_config=QUIET_LOG, raise_on_error=False
            )
            succeeded += result.success
        return succeeded

    def start(self) -> list[str]:
        """Record runs for the requests of the last tick as started, without executing them; returns their ids."""
        return [self.add_run(request.job_name or "", self._tags(request)) for request in self.requests]

    def add_run(self, job: str, tags: dict[str, str], status: dg.DagsterRunStatus = dg.DagsterRunStatus.STARTED) -> str:
        """Record a run without executing it; returns its id."""
        origin = RemoteJobOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("tests"), "tests"), job)
        run = dg.DagsterRun(job, run_id=str(uuid.uuid4()), tags=tags, status=status, remote_job_origin=origin)
        return self._instance.add_run(run).run_id

    def end(self, run: str, how: dg.DagsterEventType) -> None:
        """Record the end of a run."""
        self._instance.report_dagster_event(dg.DagsterEvent(event_type_value=how.value, job_name="ingest"), run_id=run)

    def settle(self, make: Callable[[Window], object], *, most: int = 5) -> list[list[Requested]]:
        """Tick, and materialize what is requested with `make` instead of a run, until nothing is; returns what each tick requested."""
        ticks: list[list[Requested]] = []
        while requests := self.tick_after(timedelta(seconds=30)):
            ticks.append(requests)
            assert len(ticks) <= most, ticks
            for _, window in requests:
                make(window)
        return ticks

    def _tags(self, request: dg.RunRequest) -> dict[str, str]:
        assert request.run_key
        return {**request.tags, "dagster/run_key": request.run_key}

    def _read(self, request: dg.RunRequest) -> Requested:
        assert request.job_name in {job.name for job in self.sensor.jobs}
        slices = self._partitions.tagged_window(request.tags)
        assert slices is not None and request.tags["dagster/sensor_name"] == self.sensor.name
        return request.job_name, slices


def _after_the_present() -> datetime:
    """Two minutes after the next slice begins."""
    return ceil_slice(datetime.now(UTC)) + timedelta(minutes=2)
