"""Every use of Dagster's private API: a lint rule forbids it in all other modules.

Each name says why the public API is not enough. `btc_assets_tests/orchestration/test_dagster_private.py` has a test for each use that
fails if a release of Dagster moves or changes it.
"""

from __future__ import annotations

import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, cast

import dagster as dg
import sqlalchemy
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationPlanned,
    AssetCheckEvaluationTargetMaterializationData,
)
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.definitions.partitions.subset import TimeWindowPartitionsSubset

# The type of what `define_asset_job` returns has no public name.
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.events import ASSET_CHECK_EVENTS, ASSET_EVENTS, AssetMaterializationPlannedData, StepMaterializationData
from dagster._core.execution.api import execute_run_iterator
from dagster._core.execution.context.system import StepExecutionContext
from dagster._core.execution.plan import execute_step

# The classes that dagster.yaml names derive from these, and the public package exports none of them.
from dagster._core.instance.ref import compute_logs_directory
from dagster._core.launcher import CheckRunHealthResult, RunLauncher, WorkerStatus
from dagster._core.loader import LoadingContext
from dagster._core.storage.compute_log_manager import CapturedLogContext, ComputeLogManager
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from dagster._core.storage.event_log import SqlEventLogStorage, SqlEventLogStorageTable
from dagster._core.storage.event_log.base import AssetRecord
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.partition_status_cache import (
    AssetStatusCacheValue,
    get_and_update_asset_status_cache_value,
    get_last_planned_storage_id,
)
from dagster._serdes import ConfigurableClass, ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage, PostgresEventLogStorage
from dagster_shared.record import replace

from btc_assets.domain.slices import DAY, KEY_FORMAT, SLICE
from btc_assets.orchestration.libpq_dialect import one_connection
from btc_assets.orchestration.partition_runs import contiguous_runs

if TYPE_CHECKING:
    from dagster._core.definitions.reconstruct import ReconstructableRepository
    from dagster._core.run_coordinator import SubmitRunContext
    from dagster._daemon.daemon import DaemonIterator

    from btc_assets.orchestration.spare_processes import SpareProcesses

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
    "MaterializedRange",
    "RunLauncher",
    "UnresolvedAssetJobDefinition",
    "WindowCheckResult",
    "WorkerStatus",
    "compute_logs_directory",
    "connect_to_events",
    "dequeue_at_once",
    "run_daemon_command",
    "run_dagster_command",
    "run_job",
    "serve_from_module",
    "start_runs_in",
    "use_compact_event_log",
]

MOST_FAILED_PARTITIONS = 8640  # of an asset, of which a failed run reports each: a month of slices takes some seconds
EVENTS_TABLE = SqlEventLogStorageTable  # SQLAlchemy's table of all events

_LENGTHS = {("*/5 * * * *", KEY_FORMAT): SLICE, ("0 0 * * *", "%Y-%m-%d"): DAY}  # of our partitions, by schedule and format of keys

# Both read the index of (asset_key, dagster_event_type, partition, id) alone, but for the few runs at the end.
_MADE = """
SELECT DISTINCT partition FROM event_logs
WHERE asset_key = :asset AND dagster_event_type = 'ASSET_MATERIALIZATION' AND partition >= :first ORDER BY partition
"""
_PLANNED_AND_NOT_MADE = """
WITH planned AS (
    SELECT partition, max(id) AS id FROM event_logs
    WHERE asset_key = :asset AND dagster_event_type = 'ASSET_MATERIALIZATION_PLANNED' AND partition >= :first GROUP BY partition
), made AS (
    SELECT partition, max(id) AS id FROM event_logs
    WHERE asset_key = :asset AND dagster_event_type = 'ASSET_MATERIALIZATION' AND partition >= :first GROUP BY partition
)
SELECT planned.partition, event_logs.run_id, planned.id
FROM planned LEFT JOIN made USING (partition) JOIN event_logs ON event_logs.id = planned.id WHERE made.id IS NULL OR made.id < planned.id
"""


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


class MaterializedRange(dg.AssetMaterialization):
    """Materializations of many partitions that differ in nothing but the key: one event in a run, which `CompactEventLog` stores as many.

    Its own partition is the first of them.
    """

    partitions: Sequence[str]

    @classmethod
    def of(cls, first: dg.AssetMaterialization, partitions: Sequence[str]) -> MaterializedRange:
        """The materializations of these partitions, all of them like that of the first one."""
        made: MaterializedRange = cls._make(first)
        made.partitions = partitions
        return made

    def one(self, partition: str) -> dg.AssetMaterialization:
        """The materialization of one of them."""
        return dg.AssetMaterialization._make(self)._replace(partition=partition)


_make_asset_events = execute_step._get_output_asset_events


def _make_few_asset_events(
    asset_key: dg.AssetKey, asset_partitions: Sequence[str], *others: Any
) -> Iterator[dg.AssetMaterialization | dg.AssetObservation]:
    """Dagster's function that makes the events of an output, which makes one for each partition, all of them alike but for the key.

    To make, log, serialize and store these was most of Dagster's time. Only partitions with metadata of their own get events of their own.
    """
    step_context: StepExecutionContext = others[-2]
    if not asset_partitions or not isinstance(step_context.instance.event_log_storage, CompactEventLog):
        yield from _make_asset_events(asset_key, asset_partitions, *others)
        return
    alike: dict[str, list[str]] = {}
    for has_own, group in groupby(asset_partitions, lambda key: bool(step_context.get_asset_metadata(asset_key, key))):
        keys = list(group)
        alike |= {key: [key] for key in keys} if has_own else {keys[0]: keys}
    for event in _make_asset_events(asset_key, list(alike), *others):
        partitions = alike[event.partition or ""]
        if isinstance(event, dg.AssetMaterialization) and len(partitions) > 1:
            event = MaterializedRange.of(event, partitions)
        yield event


execute_step._get_output_asset_events = _make_few_asset_events  # type: ignore[assignment]  # what it only hands on has no names


def _with_range(
    subset: TimeWindowPartitionsSubset, partitions_def: dg.TimeWindowPartitionsDefinition, partition_key_range: dg.PartitionKeyRange
) -> TimeWindowPartitionsSubset:
    """Dagster's method that adds a range to a subset, one key after the other, as it does twice a step."""
    keys = partitions_def.get_partition_keys_in_range(partition_key_range)
    if (
        not subset.is_empty
        or partitions_def.exclusions
        or not (keys and partitions_def.has_partition_key(keys[0]) and partitions_def.has_partition_key(keys[-1]))
    ):
        return subset.with_partition_keys(keys)
    window = dg.TimeWindow(partitions_def.start_time_for_partition_key(keys[0]), partitions_def.end_time_for_partition_key(keys[-1]))
    return TimeWindowPartitionsSubset(subset.partitions_def, len(keys), [window])


TimeWindowPartitionsSubset.with_partition_key_range = _with_range  # type: ignore[assignment, method-assign]  # Dagster's takes any partitions

_RANGE_ROWS = 1000  # of one statement: readers that go by ids do not see those of a transaction before it commits
_STORE_RANGE = sqlalchemy.text("""
WITH stored AS (
    INSERT INTO event_logs (run_id, event, dagster_event_type, timestamp, step_key, asset_key, partition)
    SELECT :run_id, concat(CAST(:before AS text), to_json(made.key), CAST(:after AS text)), :dagster_event_type, :timestamp, :step_key, :asset_key,
        made.key
    FROM unnest(CAST(:partitions AS text[])) WITH ORDINALITY AS made (key, place)
    ORDER BY made.place
    RETURNING id
), tagged AS (
    INSERT INTO asset_event_tags (event_id, asset_key, key, value, event_timestamp)
    SELECT stored.id, :asset_key, tag.key, tag.value, :timestamp
    FROM stored CROSS JOIN unnest(CAST(:tags AS text[]), CAST(:tag_values AS text[])) AS tag (key, value)
)
SELECT max(id) FROM stored
""")


class _StatesOfPartitions(PostgresEventLogStorage):
    """The event log, from which the states of an asset's partitions are read cheaply."""

    def get_asset_status_cache_values(
        self, partitions_defs_by_key: Iterable[tuple[dg.AssetKey, dg.PartitionsDefinition | None]], context: LoadingContext
    ) -> Sequence[AssetStatusCacheValue | None]:
        """The states of partitions that pages show; those that Dagster would read from the whole log are read by two statements.

        Dagster keeps them with the asset, and builds them anew after they are lost or the partitions start elsewhere. It then reads every
        partition that was ever made, also those before the first one, and converts each several times: a minute for a year of slices.
        """
        wanted = list(partitions_defs_by_key)
        records = AssetRecord.blocking_get_many(context, [key for key, _ in wanted])
        known = {record.asset_entry.asset_key: record for record in records if record is not None}
        values: list[AssetStatusCacheValue | None] = []
        for key, definition in wanted:
            if key in known and self._build_status(known[key], definition):
                values.append(get_and_update_asset_status_cache_value(self._instance, key, definition))
            else:
                values += super().get_asset_status_cache_values([(key, definition)], context)
        return values

    def _build_status(self, record: AssetRecord, definition: dg.PartitionsDefinition | None) -> bool:
        """Build the states of an asset's partitions, unless they are there or are none of ours, and store them; returns whether it did."""
        entry = record.asset_entry
        if not isinstance(definition, dg.TimeWindowPartitionsDefinition) or definition.exclusions or definition.end_offset:
            return False
        length = _LENGTHS.get((definition.cron_schedule, definition.fmt))
        identity = definition.get_serializable_unique_identifier()
        if length is None or (entry.cached_status and entry.cached_status.partitions_def_id == identity):
            return False
        if entry.asset_details and entry.asset_details.last_wipe_timestamp:  # a person wiped it: what was before does not count
            return False
        planned = get_last_planned_storage_id(self._instance, entry.asset_key, record)
        newest = max(entry.last_materialization_storage_id or 0, planned)
        if not newest:
            return False
        states = _PartitionStates(definition, length)
        of_the_asset = {"asset": entry.asset_key.to_string(), "first": states.first}
        with self.index_connection() as connection:
            made = connection.execute(sqlalchemy.text(_MADE), of_the_asset).scalars().all()
            pending = {key: (run, id) for key, run, id in connection.execute(sqlalchemy.text(_PLANNED_AND_NOT_MADE), of_the_asset)}
        runs = self._instance.get_runs(dg.RunsFilter(run_ids=list({run for run, _ in pending.values()}))) if pending else []
        failed = {run.run_id for run in runs if run.status == dg.DagsterRunStatus.FAILURE}
        going_on = {run.run_id for run in runs if run.status not in FINISHED_STATUSES}
        value = AssetStatusCacheValue(
            newest,
            identity,
            states.serialize(made),
            states.serialize(sorted(key for key, (run, _) in pending.items() if run in failed)),
            states.serialize(sorted(key for key, (run, _) in pending.items() if run in going_on)),
            min((id for run, id in pending.values() if run in going_on), default=None),
        )
        self.update_asset_cached_status_data(entry.asset_key, value)
        return True


class _PartitionStates:
    """Writes sets of partitions as Dagster does, from their keys in order, without converting each.

    Args:
        definition: of the partitions.
        length: of a partition.
    """

    def __init__(self, definition: dg.TimeWindowPartitionsDefinition, length: timedelta) -> None:
        first, last = definition.get_first_partition_window(), definition.get_last_partition_window()
        self._definition, self._length = definition, length
        self._bounds = (first.start, last.start) if first and last else None

    @property
    def first(self) -> str:
        """Key of the first partition; every key is below it if there is none."""
        return self._bounds[0].strftime(self._definition.fmt) if self._bounds else "~"

    def serialize(self, keys: Sequence[str]) -> str:
        """A set of partitions; keys of none are left out."""
        runs = contiguous_runs(keys, *self._bounds, self._length) if self._bounds else []
        windows = [dg.TimeWindow(start, end) for start, end in runs]
        count = sum((end - start) // self._length for start, end in runs)
        return TimeWindowPartitionsSubset(self._definition, count, windows).serialize()


class CompactEventLog(_StatesOfPartitions):
    """The event log of `dagster-postgres`, cheaper for runs over many partitions.

    The rows of a `MaterializedRange` are written by the server from one event.

    For a run over a range, Dagster writes a planned check once per partition, each time with the whole event, although a check
    without partitions is evaluated once for all of them. With our 13 checks of slices, that took two fifths of Dagster's time and a
    third of its tables, and left rows that stay planned forever. Here it is one row.

    Nobody is notified of an event: nothing has listened since Dagster 1.0.

    Args:
        postgres_url: of the database.
        pool: of the runs that write to the store.
    """

    def __init__(self, postgres_url: str, pool: str) -> None:
        super().__init__(postgres_url, should_autocreate_tables=False)
        self._pool = pool
        self._tables: set[str] = set()

    def dispose(self) -> None:
        """Close the connection that is kept; the instance is closed."""
        super().dispose()
        self._engine.dispose()

    def has_table(self, table_name: str) -> bool:
        """Whether a table exists; one that does is looked up once."""
        if table_name not in self._tables and super().has_table(table_name):
            self._tables.add(table_name)
        return table_name in self._tables

    def _has_asset_key_col_on_connection(self, conn: sqlalchemy.Connection, column_name: str) -> bool:
        return True  # our tables are those of this version of Dagster

    def get_concurrency_keys(self) -> set[str]:
        """The pools that have a limit; ours has its default one from the start.

        Dagster's queue gives a pool its default limit when it first sees a run of it. It has read which pools are limited just before, so
        it starts all runs that are queued then.
        """
        limited: set[str] = super().get_concurrency_keys()
        if self._pool not in limited and self._instance.global_op_concurrency_default_limit is not None:
            self.initialize_concurrency_limit_to_default(self._pool)
            limited.add(self._pool)
        return limited

    def store_event(self, event: dg.EventLogEntry) -> None:
        """Store an event; that of a failed run after everything that is to be known of the run by then.

        A run over a range plans its partitions in one event. Dagster's pages look for planned events with a partition of their own, so
        "failed" would be 0 and "failed and missing" would select nothing.

        Dagster itself records that the run has failed only after the event. Its daemon may read the event before that, finds a run that
        has not failed, does not start it again, and never reads the event again.
        """
        if event.dagster_event_type == dg.DagsterEventType.RUN_FAILURE and event.dagster_event is not None:
            for record in self.get_records_for_run(event.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED).records:
                self._plan_unmade_partitions(record.event_log_entry)
            self._instance.run_storage.handle_run_event(event.run_id, event.dagster_event, datetime.fromtimestamp(event.timestamp, UTC))
        self.store_event_batch([event])

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        """Store events in their order."""
        newest: dict[dg.AssetKey, tuple[dg.EventLogEntry, int]] = {}
        for is_range, group in groupby(events, lambda event: _range_of(event) is not None):
            alike = list(group)
            stored = map(self._store_range, alike) if is_range else self._store_events(alike)
            newest |= {key: (event, id_) for event, id_ in stored if (key := _asset_of(event))}
        if newest:
            with self.index_transaction() as connection:
                for event, id_ in newest.values():
                    self._store_asset_event(connection, event, id_)

    def _store_events(self, events: Sequence[dg.EventLogEntry]) -> list[tuple[dg.EventLogEntry, int]]:
        insert = EVENTS_TABLE.insert().returning(EVENTS_TABLE.c.id, sort_by_parameter_order=True)
        with self.index_transaction() as connection:
            ids = connection.execute(insert, [self._event_to_row(event) for event in events]).scalars().all()
            stored = list(zip(events, ids, strict=True))
            if of_assets := [one for one in stored if _asset_of(one[0])]:
                self._store_asset_event_tags(connection, *zip(*of_assets, strict=True))
        for event, id_ in stored:
            if event.dagster_event_type in ASSET_CHECK_EVENTS:
                self.store_asset_check_event(event, id_)
        return stored

    def _store_range(self, entry: dg.EventLogEntry) -> tuple[dg.EventLogEntry, int]:
        """Store the materializations of a range; returns the last one."""
        materializations = _range_of(entry)
        assert materializations is not None
        partitions, here = materializations.partitions, uuid.uuid4().hex
        row = self._event_to_row(_with_materialization(entry, materializations.one(here)))
        before, after = row.pop("event").split(f'"{here}"')
        tags = self._tags_for_asset_event(entry)
        fixed = {**row, "before": before, "after": after, "tags": [*tags], "tag_values": [*tags.values()]}
        for start in range(0, len(partitions), _RANGE_ROWS):
            with self._connect() as connection:
                last = connection.execute(_STORE_RANGE, {**fixed, "partitions": partitions[start : start + _RANGE_ROWS]}).scalar_one()
        return _with_materialization(entry, materializations.one(partitions[-1])), last

    def store_asset_check_event(self, event: dg.EventLogEntry, event_id: int | None) -> None:
        """Store a planned check as one without partitions."""
        planned = event.dagster_event.event_specific_data if event.dagster_event else None
        if event.dagster_event and isinstance(planned, AssetCheckEvaluationPlanned) and planned.partitions_subset is not None:
            unpartitioned = event.dagster_event._replace(event_specific_data=replace(planned, partitions_subset=None))
            event = event._replace(dagster_event=unpartitioned)
        super().store_asset_check_event(event, event_id)

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


def _asset_of(entry: dg.EventLogEntry) -> dg.AssetKey | None:
    """The asset of an event that tables of assets tell of."""
    return entry.dagster_event.asset_key if entry.dagster_event and entry.dagster_event_type in ASSET_EVENTS else None


def _range_of(entry: dg.EventLogEntry) -> MaterializedRange | None:
    data = entry.dagster_event.event_specific_data if entry.dagster_event else None
    materialization = data.materialization if isinstance(data, StepMaterializationData) else None
    return materialization if isinstance(materialization, MaterializedRange) else None


def _with_materialization(entry: dg.EventLogEntry, materialization: dg.AssetMaterialization) -> dg.EventLogEntry:
    assert entry.dagster_event is not None
    data = StepMaterializationData(materialization)
    return entry._replace(dagster_event=entry.dagster_event._replace(event_specific_data=data))


def use_compact_event_log(storage: DagsterPostgresStorage, postgres_url: str, pool: str) -> None:
    """Replace the event log of a storage, whose tables exist already, by a `CompactEventLog`; all parts share one connection."""
    storage._event_log_storage = CompactEventLog(postgres_url, pool)
    engine = one_connection(postgres_url)
    for part in (storage._event_log_storage, storage._run_storage, storage._schedule_storage):
        part._engine = engine


def dequeue_at_once() -> None:
    """Have `dagster-daemon run`, in this process, look at the queue of runs when one is submitted here, and not only at intervals.

    Sensors, schedules and backfills submit in the daemon itself. The interval is an option, in whole seconds, and its loop has no other
    way to be woken.
    """
    from dagster._core.run_coordinator import queued_run_coordinator
    from dagster._daemon import controller
    from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon

    submitted = threading.Event()
    submit = queued_run_coordinator.QueuedRunCoordinator.submit_run

    def submit_and_tell(self: queued_run_coordinator.QueuedRunCoordinator, context: SubmitRunContext) -> dg.DagsterRun:
        run = submit(self, context)
        submitted.set()
        return run

    class PromptQueue(QueuedRunCoordinatorDaemon):
        """The daemon's loop over the queue."""

        def __init__(self, interval_seconds: float) -> None:
            super().__init__(interval_seconds=0)  # it does not wait after an iteration, for the next one begins with that
            self._longest = interval_seconds

        def run_iteration(self, *args: Any, **options: Any) -> DaemonIterator:
            submitted.wait(self._longest)
            submitted.clear()  # before the queue is read
            yield from super().run_iteration(*args, **options)

    vars(controller)["QueuedRunCoordinatorDaemon"] = PromptQueue
    setattr(queued_run_coordinator.QueuedRunCoordinator, "submit_run", submit_and_tell)  # noqa: B010  # a method, to mypy


def run_daemon_command(arguments: Sequence[str]) -> None:
    """Run a command of `dagster-daemon` in this process, which then ends."""
    from dagster._daemon.cli import cli

    cli(list(arguments), prog_name="dagster-daemon", obj={})


def run_dagster_command(arguments: Sequence[str]) -> None:
    """Run a command of `dagster` in this process, which then ends."""
    from dagster._cli import ENV_PREFIX, cli

    cli(list(arguments), prog_name="dagster", auto_envvar_prefix=ENV_PREFIX)


def serve_from_module(module: str) -> None:
    """Have `dagster code-server start`, in this process, start the server that loads the code as `python -m module`.

    It has no option for that.
    """
    from dagster._grpc import server

    vars(server)["get_python_environment_entry_point"] = lambda executable: [executable, "-m", module]


def start_runs_in(make: Callable[[Callable[[], object]], SpareProcesses]) -> None:
    """Have `dagster api grpc`, in this process, start the processes of runs from spare ones.

    Dagster spawns a process for each run, and everything else that it does with it is unchanged: whether it is alive, how it ended, how it
    is told to end. Dagster has no option for how a process is started.

    Args:
        make: the spare processes; it is given what they call to prepare themselves.
    """
    from dagster._grpc import server

    class WarmCodeServer(server.DagsterApiServer):
        """Dagster's server of code, which has taken a multiprocessing context so far."""

        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, **options)  # type: ignore[arg-type]
            self._spare_processes: SpareProcesses | None = None
            if self._loaded_repositories is not None:  # else its code does not load, and every run would fail
                repositories = list(self._loaded_repositories.reconstructables_by_name.values())
                self._spare_processes = make(partial(prepare_for_run, repositories))
                vars(self)["_mp_ctx"] = self._spare_processes

        def ShutdownServer(self, request: object, context: object) -> object:  # type: ignore[override]
            self._stop_spare_processes()  # it lives on until its runs have ended, and starts no others
            return super().ShutdownServer(request, context)  # type: ignore[arg-type]

        def cleanup(self) -> None:
            self._stop_spare_processes()
            super().cleanup()

        def _stop_spare_processes(self) -> None:
            if self._spare_processes is not None:
                self._spare_processes.stop()

    vars(server)["DagsterApiServer"] = WarmCodeServer


def prepare_for_run(repositories: Sequence[ReconstructableRepository]) -> None:
    """Import and build, in a spare process, what a run of any job of these repositories needs."""
    from dagster._core.execution.api import create_execution_plan
    from dagster._grpc import impl  # noqa: F401  # has what the process is told to call

    for repository in repositories:
        definition = repository.get_definition()
        for job in definition.get_all_jobs():
            with suppress(Exception):  # a job that does not resolve fails in its run, which says why
                create_execution_plan(repository.get_reconstructable_job(job.name))
    with suppress(Exception), dg.DagsterInstance.get():  # its modules are what counts: the database may be away
        pass
    sys.stdout.flush()
