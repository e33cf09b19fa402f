"""Each use of Dagster's private API does what we need it for. A release of Dagster that moves or changes one fails here."""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationPlanned
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.run_coordinator import QueuedRunCoordinator
from dagster._core.storage.dagster_run import RunOpConcurrency
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.utils import FuturesAwareThreadPoolExecutor
from dagster._daemon import controller
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
from dagster._grpc import server as grpc_server
from dagster._grpc.__generated__ import dagster_api_pb2
from dagster._grpc.constants import GrpcServerCommand
from dagster._grpc.types import CancelExecutionRequest, ExecuteExternalJobArgs, StartRunResult
from dagster_postgres import PostgresEventLogStorage
from dagster_shared.record import replace
from dagster_shared.serdes import deserialize_value, serialize_value

from btc_assets.orchestration import dagster_private as private
from btc_assets.orchestration import spare_processes
from btc_assets.orchestration.deployment import DATABASE_POOL
from btc_assets.orchestration.home import prepare_dagster_home
from btc_assets_tests.orchestration.talkative import DAYS, described, run_day, run_days, talkative
from btc_assets_tests.support.dagster_private import AssetCheckExecutionRecordStatus
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.waiting import wait_for

# ---- WindowCheckResult


@dg.asset_check(asset=talkative, name="window", blocking=True)
def window_check() -> dg.AssetCheckResult:
    return private.WindowCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN, description="why", metadata={"gaps": 2})


def evaluate_window_check(instance: dg.DagsterInstance) -> dg.AssetCheckEvaluation:
    definitions = dg.Definitions([talkative], asset_checks=[window_check])
    job = definitions.resolve_implicit_global_asset_job_def()
    (evaluation,) = job.execute_in_process(
        instance=instance, op_selection=["talkative_window"], raise_on_error=False
    ).get_asset_check_evaluations()
    return evaluation


def test_a_check_finds_the_newest_materialization_without_enumerating_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        run_days(instance)
        newest = run_day(instance)
        monkeypatch.setattr(type(DAYS), "get_partition_keys", lambda *_, **__: pytest.fail("the partitions are enumerated"))
        evaluation = evaluate_window_check(instance)
        assert evaluation.target_materialization_data is not None
        assert evaluation.target_materialization_data.run_id == newest.run_id
        recorded = instance.get_latest_asset_check_evaluation_record(dg.AssetCheckKey(talkative.key, "window"))
        assert recorded is not None


def test_a_check_of_an_asset_without_a_materialization_has_no_target() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert evaluate_window_check(instance).target_materialization_data is None


def test_the_evaluation_has_everything_else_from_the_result() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        evaluation = evaluate_window_check(instance)
    assert (evaluation.check_name, evaluation.asset_key, evaluation.passed) == ("window", talkative.key, False)
    assert (evaluation.severity, evaluation.description, evaluation.blocking) == (dg.AssetCheckSeverity.WARN, "why", True)
    assert evaluation.metadata["gaps"].value == 2


# ---- run_job


def test_a_job_runs_in_this_process_recorded_with_its_tags_and_yields_its_events_as_they_happen() -> None:
    seen: list[str] = []

    @dg.asset
    def numbers() -> None:
        seen.append("executed")

    definitions = dg.Definitions(
        [numbers], jobs=[dg.define_asset_job("count", [numbers], tags={"of the job": "1"})], executor=dg.in_process_executor
    )
    with dg.DagsterInstance.ephemeral() as instance:
        for event in private.run_job(definitions.resolve_job_def("count"), {}, {"of the run": "2"}, instance):
            seen.append(event.event_type_value)
        (run,) = instance.get_runs()
        assert run.is_success and run.tags.items() >= {"of the job": "1", "of the run": "2"}.items()
    ended = dg.DagsterEventType.RUN_SUCCESS.value
    assert seen.index("STEP_START") < seen.index("executed") < seen.index("ASSET_MATERIALIZATION") < seen.index(ended)


# ---- jobs


def origin(job: str) -> RemoteJobOrigin:
    """Where the daemon finds a job."""
    return RemoteJobOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("tests"), "__repository__"), job)


def test_the_type_of_a_job_is_what_define_asset_job_returns() -> None:
    assert isinstance(dg.define_asset_job("any", [talkative]), private.UnresolvedAssetJobDefinition)


# ---- the event log


@pytest.fixture
def instance(store: StoreUnderTest) -> Iterator[dg.DagsterInstance]:
    """An instance on our storage."""
    prepare_dagster_home(store.settings)
    with dg.DagsterInstance.get() as opened:
        yield opened


def test_our_event_log_is_the_one_of_the_instance(instance: dg.DagsterInstance) -> None:
    assert isinstance(instance.event_log_storage, private.CompactEventLog)


def test_the_table_of_events_can_be_read_by_type_and_time(instance: dg.DagsterInstance) -> None:
    run = run_day(instance)
    table = private.EVENTS_TABLE
    with private.connect_to_events(instance) as connection:
        columns = table.c.id, table.c.run_id, table.c.dagster_event_type, table.c.timestamp
        rows = connection.execute(sqlalchemy.select(*columns).order_by(table.c.id)).all()
    assert [row.dagster_event_type for row in rows] == [
        (entry.dagster_event.event_type_value if entry.dagster_event else None) for entry in instance.all_logs(run.run_id)
    ]
    assert {row.run_id for row in rows} == {run.run_id} and all(row.timestamp for row in rows)


def test_a_range_run_materializes_each_partition_in_order_with_its_own_tags(instance: dg.DagsterInstance, store: StoreUnderTest) -> None:
    run_days(instance)
    records = instance.fetch_materializations(talkative.key, limit=99, ascending=True).records
    assert [record.partition_key for record in records] == [f"2024-01-{day}" for day in range(10, 21)]
    partitions = [record.asset_materialization and record.asset_materialization.partition for record in records]
    assert partitions == [record.partition_key for record in records]
    latest = instance.get_latest_materialization_event(talkative.key)
    assert latest and latest.asset_materialization and latest.asset_materialization.partition == "2024-01-20"
    tagged = store.rows("SELECT event_id FROM dagster.asset_event_tags WHERE key = 'dagster/data_version' ORDER BY event_id")
    assert [event_id for (event_id,) in tagged] == [record.storage_id for record in records]


def test_a_check_of_a_range_is_recorded_once_and_not_for_each_partition(instance: dg.DagsterInstance) -> None:
    run_days(instance)
    (check,) = instance.event_log_storage.get_asset_check_execution_history(dg.AssetCheckKey(talkative.key, "good"), limit=99)
    assert check.status == AssetCheckExecutionRecordStatus.SUCCEEDED and check.partition is None


def stored_events(instance: dg.DagsterInstance) -> list[dict[str, object]]:
    """All events of `described`, and the rows of what else tables say of it, without ids, times and versions."""
    records = instance.fetch_materializations(described.key, limit=99, ascending=True).records
    tables = (
        "SELECT e.*, t.event_id, t.asset_key AS tagged, t.key, t.value, t.event_timestamp FROM event_logs e "
        "LEFT JOIN asset_event_tags t ON t.event_id = e.id WHERE e.asset_key IS NOT NULL ORDER BY e.id"
    )
    with private.connect_to_events(instance) as connection:
        rows = [dict(row) for row in connection.execute(sqlalchemy.text(tables)).mappings()]
        (newest,) = connection.execute(sqlalchemy.text("SELECT last_materialization FROM asset_keys")).scalars()
    events = [json.loads(row.pop("event")) for row in rows] + [json.loads(newest)["event_log_entry"]]
    ids = {record.storage_id for record in records}
    assert ids == {row["id"] for row in rows if row["dagster_event_type"] == "ASSET_MATERIALIZATION"}
    assert json.loads(newest)["storage_id"] == max(ids)
    for event in events:
        assert event.pop("timestamp") > 1.7e9
    changing = {"id", "event_id", "timestamp", "event_timestamp", "run_id", "value"}
    return [*events, *({name: value for name, value in row.items() if name not in changing} for row in rows)]


def test_a_range_run_stores_what_dagster_itself_would_store(
    instance: dg.DagsterInstance, store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own functions make an event of each partition, and its own log of events writes them."""
    run_days(instance, described)
    (ours,) = instance.get_runs()
    mine = json.dumps(stored_events(instance)).replace(ours.run_id, "run")
    store.connection.execute("TRUNCATE dagster.event_logs, dagster.asset_event_tags, dagster.asset_keys")
    monkeypatch.setattr("dagster._core.execution.plan.execute_step._get_output_asset_events", private._make_asset_events)
    for name in ("store_event", "store_event_batch"):
        monkeypatch.setattr(private.CompactEventLog, name, getattr(PostgresEventLogStorage, name))
    run_days(instance, described)
    (theirs, _) = instance.get_runs()
    dagsters = json.dumps(stored_events(instance)).replace(theirs.run_id, "run")
    assert dagsters.count("ASSET_MATERIALIZATION") > 22  # one a day, in the text of the event and beside it
    versions = re.compile(r"[0-9a-f]{64}")  # hashes of the run's id
    assert versions.sub("version", mine) == versions.sub("version", dagsters)


def test_partitions_that_differ_in_their_key_alone_are_one_event_and_one_statement(instance: dg.DagsterInstance) -> None:
    executed: list[str] = []
    assert isinstance(instance.event_log_storage, private.CompactEventLog)
    listen = sqlalchemy.event.listen
    listen(instance.event_log_storage._engine, "before_cursor_execute", lambda *event: executed.append(event[2]))
    run_days(instance)
    assert len([statement for statement in executed if "unnest" in statement]) == 1
    assert len(executed) < 60
    events = [entry for entry in instance.all_logs(instance.get_runs()[0].run_id) if entry.dagster_event]
    assert len([event for event in events if event.dagster_event_type == dg.DagsterEventType.ASSET_MATERIALIZATION]) == 11


def test_a_range_longer_than_a_statement_is_stored_in_order(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private, "_RANGE_ROWS", 4)
    run_days(instance)
    records = instance.fetch_materializations(talkative.key, limit=99, ascending=True).records
    assert [record.partition_key for record in records] == [f"2024-01-{day}" for day in range(10, 21)]


def test_a_storage_other_than_ours_gets_an_event_for_each_partition() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        run_days(instance)
        assert len(instance.fetch_materializations(talkative.key, limit=99).records) == 11


def test_no_more_runs_of_the_pool_than_its_limit_begin_also_when_the_queue_is_looked_at_for_the_first_time(
    instance: dg.DagsterInstance,
) -> None:
    pools = RunOpConcurrency(root_key_counts={DATABASE_POOL: 1}, has_unconstrained_root_nodes=False, all_pools={DATABASE_POOL})
    for _ in range(4):
        instance.add_run(
            dg.DagsterRun(
                "any", str(uuid.uuid4()), status=dg.DagsterRunStatus.QUEUED, remote_job_origin=origin("any"), run_op_concurrency=pools
            )
        )
    queue = QueuedRunCoordinatorDaemon(interval_seconds=1)

    def begin() -> int:
        return len(queue._get_runs_to_dequeue(instance, instance.get_concurrency_config(), fixed_iteration_time=None))

    assert [begin(), begin()] == [2, 2]  # as dagster.yaml says
    instance.event_log_storage.set_concurrency_slots(DATABASE_POOL, 3)  # a person sets it
    assert [begin(), begin()] == [3, 3]


def test_all_parts_of_the_storage_use_one_connection_which_a_closed_instance_closes(store: StoreUnderTest) -> None:
    opened: list[object] = []
    connections = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dagster' AND datname = current_database()"
    prepare_dagster_home(store.settings)
    with dg.DagsterInstance.get() as instance:
        assert isinstance(instance.event_log_storage, private.CompactEventLog)
        sqlalchemy.event.listen(instance.event_log_storage._engine, "connect", lambda *connection: opened.append(connection))
        run_days(instance)
        instance.get_daemon_statuses()
        instance.all_instigator_state()
        assert len(opened) <= 2  # a second one where tables are looked up for the first time
        wait_for(lambda: store.rows(connections) == [(1,)])
    wait_for(lambda: store.rows(connections) == [(0,)])


def test_the_partitions_that_a_failed_run_over_a_range_leaves_unmade_are_shown_as_failed_until_they_are_made(
    instance: dg.DagsterInstance,
) -> None:
    @dg.asset(name="talkative", partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
    def fails() -> None:
        raise ValueError("this one fails")

    run_day(instance)
    with pytest.raises(ValueError, match="this one fails"):
        run_days(instance, fails)
    days = [f"2024-01-{day:02}" for day in range(8, 23)]

    def failed() -> list[str]:
        statuses = instance.get_status_by_partition(talkative.key, days, DAYS)
        return [day for day, status in (statuses or {}).items() if status is not None and status.value == "FAILED"]

    assert failed() == days[2:13]
    run_day(instance)
    assert failed() == days[3:13]
    run_days(instance)
    assert failed() == []


def test_whoever_reads_that_a_run_failed_finds_that_it_has(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    log = instance.event_log_storage
    run = instance.add_run(dg.DagsterRun("any", str(uuid.uuid4()), status=dg.DagsterRunStatus.STARTED))
    store = log.store_event_batch
    found: list[tuple[dg.DagsterEventType | None, dg.DagsterRun | None]] = []

    def store_and_read(events: list[dg.EventLogEntry]) -> None:
        store(events)
        found.extend((event.dagster_event_type, instance.get_run_by_id(event.run_id)) for event in events)

    monkeypatch.setattr(log, "store_event_batch", store_and_read)
    instance.report_run_failed(run)
    ((type_, read),) = found
    assert type_ == dg.DagsterEventType.RUN_FAILURE and read is not None and read.status == dg.DagsterRunStatus.FAILURE
    (record,) = instance.get_run_records(dg.RunsFilter(run_ids=[run.run_id]))
    assert record.end_time is not None and record.dagster_run.tags["dagster/will_retry"] == "true"


@pytest.mark.parametrize("last", ["2024-01-09", "2024-01-10", "2024-01-20", "2034-01-20"])
def test_a_range_of_partitions_is_the_subset_of_its_keys(last: str) -> None:
    key_range = dg.PartitionKeyRange("2024-01-10", last)
    keys = DAYS.get_partition_keys_in_range(key_range)
    empty, later = DAYS.empty_subset(), DAYS.empty_subset().with_partition_keys(["2024-01-15", "2024-02-01"])
    for subset in (empty, later):
        assert subset.with_partition_key_range(DAYS, key_range) == subset.with_partition_keys(keys)
        assert subset.with_partition_key_range(partitions_def=DAYS, partition_key_range=key_range) == subset.with_partition_keys(keys)


# ---- records


def test_a_record_is_replaced_field_by_field() -> None:
    planned = AssetCheckEvaluationPlanned(asset_key=talkative.key, check_name="good")
    assert replace(planned, check_name="other") == AssetCheckEvaluationPlanned(asset_key=talkative.key, check_name="other")


# ---- classes in dagster.yaml


def test_output_of_steps_is_kept_below_dagster_home() -> None:
    assert Path(private.compute_logs_directory("/home/dagster")) == Path("/home/dagster/storage")


@pytest.mark.parametrize("base", [private.RunLauncher, private.ComputeLogManager])
def test_a_class_that_dagster_yaml_names_may_choose_another_one(store: StoreUnderTest, base: type) -> None:
    from btc_assets.orchestration.launcher import StoreRunLauncher
    from btc_assets.orchestration.storage import StoreComputeLogs

    (named,) = (named for named in (StoreRunLauncher, StoreComputeLogs) if issubclass(named, base))
    data = private.ConfigurableClassData(named.__module__, named.__name__, "{}")
    chosen: object = data.rehydrate(as_type=base)
    assert isinstance(chosen, base) and not isinstance(chosen, named)
    assert isinstance(chosen, private.ConfigurableClass) and chosen.inst_data == data


def test_the_health_of_a_worker_has_a_status_and_a_message() -> None:
    health = private.CheckRunHealthResult(private.WorkerStatus.NOT_FOUND, "gone")
    assert (health.status, health.msg) == (private.WorkerStatus.NOT_FOUND, "gone")
    assert {"RUNNING", "NOT_FOUND", "FAILED", "SUCCESS", "UNKNOWN"} <= set(private.WorkerStatus.__members__)


# ---- the code server

CODE = """
import time
import dagster as dg

@dg.op
def tell() -> None: ...

@dg.job
def told() -> None:
    tell()

@dg.op
def wait() -> None:
    time.sleep(3600)

@dg.job
def waits() -> None:
    wait()

defs = dg.Definitions(jobs=[told, waits])
"""


def test_a_server_of_code_takes_the_processes_of_its_runs_from_spare_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "code.py").write_text(CODE)
    monkeypatch.setattr(spare_processes, "_REPLACE_AFTER", 0.0)
    monkeypatch.setattr(grpc_server, "DagsterApiServer", grpc_server.DagsterApiServer)  # put back at the end
    made: list[spare_processes.SpareProcesses] = []

    def make(prepare: object) -> spare_processes.SpareProcesses:
        assert callable(prepare)
        made.append(spare_processes.SpareProcesses(1, prepare, lambda: None))
        return made[0]

    private.start_runs_in(make)
    server = grpc_server.DagsterApiServer(
        server_termination_event=threading.Event(),
        logger=logging.getLogger("test"),
        server_threadpool_executor=FuturesAwareThreadPoolExecutor(),
        loadable_target_origin=LoadableTargetOrigin(executable_path=sys.executable, python_file=str(tmp_path / "code.py")),
    )
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:

        def run(job: str) -> str:
            """Have the server run a job in a process that is ready; returns the id of the run."""
            wait_for(lambda: made[0].ready, "a process is ready")
            (spare,) = made[0].ready
            run_id = instance.add_run(dg.DagsterRun(job, run_id=str(uuid.uuid4()), remote_job_origin=origin(job))).run_id
            arguments = ExecuteExternalJobArgs(job_origin=origin(job), run_id=run_id, instance_ref=instance.get_ref())
            reply = server.StartRun(dagster_api_pb2.StartRunRequest(serialized_execute_run_args=serialize_value(arguments)), None)
            assert deserialize_value(reply.serialized_start_run_result, StartRunResult).success
            wait_for(lambda: "STEP_START" in events(run_id), "its step begins")
            assert any(f"(pid: {spare})" in entry.message for entry in instance.all_logs(run_id))
            return run_id

        def events(run_id: str) -> set[str]:
            return {str(entry.get_dagster_event().event_type_value) for entry in instance.all_logs(run_id)}

        told = run("told")
        wait_for(lambda: "PIPELINE_SUCCESS" in events(told), "it ends")
        endless = run("waits")
        cancel = serialize_value(CancelExecutionRequest(run_id=endless))
        server.CancelExecution(dagster_api_pb2.CancelExecutionRequest(serialized_cancel_execution_request=cancel), None)
        wait_for(lambda: "PIPELINE_FAILURE" in events(endless), "it is ended")
    server._server_termination_event.set()
    server.cleanup()
    assert made[0].ready == []


def test_the_server_that_loads_the_code_is_started_from_our_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_server, "get_python_environment_entry_point", None)  # put back at the end
    started: list[list[str]] = []
    monkeypatch.setattr(grpc_server, "open_ipc_subprocess", lambda arguments, **_: started.append(arguments))
    monkeypatch.setattr(grpc_server, "wait_for_grpc_server", lambda *_, **__: None)
    private.serve_from_module("some.module")
    grpc_server.open_server_process(None, None, "a.sock", GrpcServerCommand.API_GRPC)
    assert started[0][:5] == [sys.executable, "-m", "some.module", "api", "grpc"]


# ---- the daemon


def test_the_queue_of_runs_is_looked_at_when_a_run_is_submitted_and_at_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller, "QueuedRunCoordinatorDaemon", None)  # put back at the end
    monkeypatch.setattr(QueuedRunCoordinator, "submit_run", lambda self, context: context)
    looked: list[float] = []

    def look(*_: object) -> Iterator[None]:
        looked.append(time.monotonic())
        yield

    monkeypatch.setattr(QueuedRunCoordinatorDaemon, "run_iteration", look)
    private.dequeue_at_once()
    loop = vars(controller)["QueuedRunCoordinatorDaemon"](interval_seconds=3600).core_loop(None, threading.Event())
    submit = threading.Timer(0.2, QueuedRunCoordinator.submit_run, [None, "a run"])
    submit.start()
    while not looked:
        next(loop)  # waits for the run, and not for an hour
    submit.join()
    rare = vars(controller)["QueuedRunCoordinatorDaemon"](interval_seconds=0).core_loop(None, threading.Event())
    while len(looked) < 3:
        next(rare)
