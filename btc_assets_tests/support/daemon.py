"""Dagster's daemon for tests: it evaluates a sensor at a given time and runs what it asks for, with a real instance."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin

from btc_assets.domain.slices import Window, ceil_slice
from btc_assets.orchestration import automation
from btc_assets.orchestration.partitions import Partitions
from btc_assets_tests.support.stores import StoreUnderTest

Asked = tuple[str, Window]  # the job and the slices

QUIETLY: dict[str, object] = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class Daemon:
    """One sensor's daemon.

    The database's clock is a real one and says when things were noticed, so `now` begins a little after the real present:
    whatever a test has done is over, and no slice is about to close.
    """

    def __init__(self, store: StoreUnderTest, sensor: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self._definitions = store.definitions
        self._partitions = Partitions.of(store.settings)
        self.sensor = self._definitions.get_sensor_def(sensor)
        self.now = ceil_slice(datetime.now(UTC)) + timedelta(minutes=2)
        self.skipped: str | None = None
        self.requests: list[dg.RunRequest] = []
        self._instance = dg.DagsterInstance.ephemeral()
        # As the project sets them for all of Dagster's processes: runs of hundreds of slices are cheap.
        monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "1000")
        monkeypatch.setenv("DAGSTER_EMIT_PARTITION_SUBSET_IN_PLANNED_EVENTS", "true")
        monkeypatch.setattr(automation, "present", lambda: self.now)

    def forget(self) -> None:
        """Dagster's storage is lost."""
        self._instance.dispose()
        self._instance = dg.DagsterInstance.ephemeral()

    def close(self) -> None:
        self._instance.dispose()

    def tick(self) -> list[Asked]:
        """Evaluate the sensor; returns what it asks for."""
        with dg.build_sensor_context(
            instance=self._instance,
            sensor_name=self.sensor.name,
            definitions=self._definitions,
            resources=self._definitions.resources,
        ) as context:
            evaluated = self.sensor.evaluate_tick(context)
        self.requests, self.skipped = list(evaluated.run_requests or []), evaluated.skip_message
        return [self._read(request) for request in self.requests]

    def tick_after(self, pause: timedelta) -> list[Asked]:
        self.now += pause
        return self.tick()

    def run(self) -> None:
        """Run what the last tick asked for with Dagster, to its end."""
        assert self.attempt() == len(self.requests)

    def attempt(self) -> int:
        """The same, where runs may fail; returns how many did not."""
        done = 0
        for request in self.requests:
            assert request.job_name
            result = self._definitions.resolve_job_def(request.job_name).execute_in_process(
                instance=self._instance, tags=self._tags(request), run_config=QUIETLY, raise_on_error=False
            )
            done += result.success
        return done

    def start(self) -> list[str]:
        """Have runs of what the last tick asked for under way, without running them; returns their ids."""
        return [self.have_run(request.job_name or "", self._tags(request)) for request in self.requests]

    def have_run(self, job: str, tags: dict[str, str], status: dg.DagsterRunStatus = dg.DagsterRunStatus.STARTED) -> str:
        """A run that somebody started."""
        origin = RemoteJobOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("tests"), "tests"), job)
        run = dg.DagsterRun(job, run_id=str(uuid.uuid4()), tags=tags, status=status, remote_job_origin=origin)
        return self._instance.add_run(run).run_id

    def end(self, run: str, how: dg.DagsterEventType) -> None:
        """A run has come to its end."""
        self._instance.report_dagster_event(dg.DagsterEvent(event_type_value=how.value, job_name="ingest"), run_id=run)

    def settle(self, make: Callable[[Window], object], *, most: int = 5) -> list[list[Asked]]:
        """Tick and make what is asked for, without Dagster, until nothing is; returns what each tick asked for."""
        asked: list[list[Asked]] = []
        while requests := self.tick_after(timedelta(seconds=30)):
            asked.append(requests)
            assert len(asked) <= most, asked
            for _, window in requests:
                make(window)
        return asked

    def _tags(self, request: dg.RunRequest) -> dict[str, str]:
        assert request.run_key
        return {**request.tags, "dagster/run_key": request.run_key}

    def _read(self, request: dg.RunRequest) -> Asked:
        assert request.job_name in {job.name for job in self.sensor.jobs}
        slices = self._partitions.tagged_window(request.tags)
        assert slices is not None and request.tags["dagster/sensor_name"] == self.sensor.name
        return request.job_name, slices
