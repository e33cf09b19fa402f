"""Dagster's private API as far as tests need it: to record runs and backfills as the daemon and the user interface do, and to read their states."""

from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.definitions.selector import PartitionRangeSelector, PartitionsByAssetSelector, PartitionsSelector
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.instance.config import PoolGranularity
from dagster._core.launcher import LaunchRunContext, WorkerStatus
from dagster._core.loader import LoadingContextForTest
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.run_coordinator import QueuedRunCoordinator
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.partition_status_cache import AssetStatusCacheValue
from dagster._core.storage.tags import BACKFILL_ID_TAG, POOL_TAG_PREFIX, WILL_RETRY_TAG
from dagster._core.workspace.context import WorkspaceProcessContext as DaemonWorkspace
from dagster._core.workspace.load_target import EmptyWorkspaceTarget, ModuleTarget
from dagster._daemon.monitoring.run_monitoring import execute_run_monitoring_iteration
from dagster._daemon.types import DaemonHeartbeat
from dagster_postgres import PostgresEventLogStorage

__all__ = [
    "BACKFILL_ID_TAG",
    "NOT_FINISHED_STATUSES",
    "POOL_TAG_PREFIX",
    "WILL_RETRY_TAG",
    "AssetCheckExecutionRecordStatus",
    "AssetStatusCacheValue",
    "BulkActionStatus",
    "DaemonHeartbeat",
    "DaemonWorkspace",
    "EmptyWorkspaceTarget",
    "JobPythonOrigin",
    "LaunchRunContext",
    "LoadingContextForTest",
    "ModuleCodePointer",
    "ModuleTarget",
    "PartitionBackfill",
    "PartitionRangeSelector",
    "PartitionsByAssetSelector",
    "PartitionsSelector",
    "PoolGranularity",
    "PostgresEventLogStorage",
    "QueuedRunCoordinator",
    "RegisteredCodeLocationOrigin",
    "RemoteJobOrigin",
    "RemoteRepositoryOrigin",
    "RepositoryPythonOrigin",
    "WorkerStatus",
    "execute_run_monitoring_iteration",
]
