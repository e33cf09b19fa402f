"""Every use of Dagster's private API: a lint rule forbids it in all other modules.

Each name says why the public API is not enough. `btc_assets_tests/orchestration/test_dagster_private.py` has a test for each use that
fails if a release of Dagster moves or changes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import cast

import dagster as dg
import sqlalchemy
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationPlanned,
    AssetCheckEvaluationTargetMaterializationData,
)
from dagster._core.definitions.job_base import InMemoryJob

# The type of what `define_asset_job` returns has no public name.
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.events import AssetMaterializationPlannedData
from dagster._core.execution.api import execute_run_iterator
from dagster._core.execution.context.system import StepExecutionContext

# The classes that dagster.yaml names derive from these, and the public package exports none of them.
from dagster._core.instance.ref import compute_logs_directory
from dagster._core.launcher import CheckRunHealthResult, RunLauncher, WorkerStatus
from dagster._core.storage.compute_log_manager import CapturedLogContext, ComputeLogManager
from dagster._core.storage.event_log import SqlEventLogStorage, SqlEventLogStorageTable
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._serdes import ConfigurableClass, ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage, PostgresEventLogStorage
from dagster_shared.record import replace

__all__ = [
    "EVENTS_TABLE",
    "MOST_FAILED_PARTITIONS",
    "CapturedLogContext",
    "CheckRunHealthResult",
    "CompactEventLog",
    "ComputeLogManager",
    "ConfigurableClass",
    "ConfigurableClassData",
    "LocalComputeLogManager",
    "RunLauncher",
    "UnresolvedAssetJobDefinition",
    "WindowCheckResult",
    "WorkerStatus",
    "compute_logs_directory",
    "connect_to_events",
    "run_job",
    "use_compact_event_log",
]

MOST_FAILED_PARTITIONS = 8640  # of an asset, of which a failed run reports each: a month of slices takes some seconds
EVENTS_TABLE = SqlEventLogStorageTable  # SQLAlchemy's table of all events


class WindowCheckResult(dg.AssetCheckResult):
    """A check result that finds the asset's newest materialization with one query.

    Dagster finds it through the data versions of *all* partitions and enumerates their keys first: 10 seconds a check for
    three years of slices. The public result has no field for the materialization that was checked.
    """

    def _get_target_materialization_data(
        self, step_context: StepExecutionContext, check_key: dg.AssetCheckKey
    ) -> AssetCheckEvaluationTargetMaterializationData | None:
        newest = step_context.instance.fetch_materializations(check_key.asset_key, limit=1).records
        if not newest:
            return None
        return AssetCheckEvaluationTargetMaterializationData(
            run_id=newest[0].run_id, storage_id=newest[0].storage_id, timestamp=newest[0].timestamp
        )


def run_job(
    job: dg.JobDefinition, run_config: dict[str, object], tags: dict[str, str], instance: dg.DagsterInstance
) -> Iterator[dg.DagsterEvent]:
    """Run a job in this process, recorded in the instance, and yield its events.

    The public `execute_in_process` keeps all events in memory: with ten a slice, those of a month take 200 MB.
    """
    run = instance.create_run_for_job(job, run_config=run_config, tags={**job.run_tags, **tags})
    yield from execute_run_iterator(InMemoryJob(job), run, instance)


def connect_to_events(instance: dg.DagsterInstance) -> AbstractContextManager[sqlalchemy.Connection]:
    """A connection to the tables of an instance's event log; no public function deletes events by their age."""
    return cast(SqlEventLogStorage, instance.event_log_storage).index_connection()


class CompactEventLog(PostgresEventLogStorage):
    """The event log of `dagster-postgres`, cheaper for runs over many partitions.

    For a run over a range, Dagster writes a planned check once per partition, each time with the whole event, although a check
    without partitions is evaluated once for all of them. With our 13 checks of slices, that took two fifths of Dagster's time and a
    third of its tables, and left rows that stay planned forever. Here it is one row. A batch of materializations is one prepared
    statement with many rows instead of a statement with a thousand rows in its text, which took a sixth of the remaining time.
    """

    def store_asset_check_event(self, event: dg.EventLogEntry, event_id: int | None) -> None:
        """Store a planned check as one without partitions."""
        planned = event.dagster_event.event_specific_data if event.dagster_event else None
        if event.dagster_event and isinstance(planned, AssetCheckEvaluationPlanned) and planned.partitions_subset is not None:
            unpartitioned = event.dagster_event._replace(event_specific_data=replace(planned, partitions_subset=None))
            event = event._replace(dagster_event=unpartitioned)
        super().store_asset_check_event(event, event_id)

    def store_event(self, event: dg.EventLogEntry) -> None:
        """Store an event; that of a failed run together with the partitions that it leaves unmade.

        A run over a range plans its partitions in one event. Dagster's pages look for planned events with a partition of their own, so
        "failed" would be 0 and "failed and missing" would select nothing.
        """
        super().store_event(event)
        if event.dagster_event_type == dg.DagsterEventType.RUN_FAILURE:
            for record in self.get_records_for_run(event.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED).records:
                self._plan_unmade_partitions(record.event_log_entry)

    def _plan_unmade_partitions(self, planned: dg.EventLogEntry) -> None:
        event = planned.dagster_event
        plan = event.event_specific_data if event else None
        if event is None or not isinstance(plan, AssetMaterializationPlannedData) or plan.partitions_subset is None:
            return
        unmade = set(plan.partitions_subset.get_partition_keys()) - self._made_partitions(planned.run_id, plan.asset_key)
        if not unmade or len(unmade) > MOST_FAILED_PARTITIONS:
            return
        each = (plan._replace(partition=key, partitions_subset=None) for key in sorted(unmade))
        entries = [planned._replace(dagster_event=event._replace(event_specific_data=one)) for one in each]
        insert = EVENTS_TABLE.insert().returning(EVENTS_TABLE.c.id, sort_by_parameter_order=True)
        with self._connect() as connection:
            ids = connection.execute(insert, [self._event_to_row(entry) for entry in entries]).scalars().all()
        with self.index_transaction() as connection:
            self._store_asset_event(connection, entries[-1], ids[-1])

    def _made_partitions(self, run_id: str, key: dg.AssetKey) -> set[str]:
        made = sqlalchemy.select(EVENTS_TABLE.c.partition).where(
            EVENTS_TABLE.c.run_id == run_id,
            EVENTS_TABLE.c.asset_key == key.to_string(),
            EVENTS_TABLE.c.dagster_event_type == dg.DagsterEventType.ASSET_MATERIALIZATION.value,
        )
        with self.index_connection() as connection:
            return set(connection.execute(made).scalars())

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        """Store a batch of materializations with one prepared statement."""
        if any(event.dagster_event_type != dg.DagsterEventType.ASSET_MATERIALIZATION for event in events):
            super().store_event_batch(events)
            return
        insert = EVENTS_TABLE.insert().returning(EVENTS_TABLE.c.id, sort_by_parameter_order=True)
        with self._connect() as connection:
            ids = connection.execute(insert, [self._event_to_row(event) for event in events]).scalars().all()
        with self.index_transaction() as connection:
            self._store_asset_event_tags(connection, events, ids)
            self._store_asset_event(connection, events[-1], ids[-1])


def use_compact_event_log(storage: DagsterPostgresStorage, postgres_url: str) -> None:
    """Replace the event log of a storage, whose tables exist already, by a `CompactEventLog`."""
    storage._event_log_storage = CompactEventLog(postgres_url, should_autocreate_tables=False)
