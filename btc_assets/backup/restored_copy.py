"""A copy of the cluster as it was at a moment, restored beside the live one and removed afterwards.

The copy is inert: it takes connections only through a socket that its own user can reach, its sessions are read-only, it archives
nothing, and it has no background worker, so no policy of TimescaleDB runs in it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from btc_assets.backup.child_process import child_process
from btc_assets.backup.live_cluster import LiveCluster, archive_until_now, read_live_cluster
from btc_assets.backup.pgbackrest import Backup, error_line, pgbackrest_command, read_repository
from btc_assets.domain.errors import UserError
from btc_assets.domain.settings import Settings
from btc_assets.store.database import connect, only_row

_SPARE_BYTES = 2 << 30  # for WAL while it is replayed, and for what recovery adds

# On the command line, because the cluster's own postgresql.auto.conf is restored with it and would win over a file.
_INERT = {
    "listen_addresses": "",
    "archive_mode": "off",
    "default_transaction_read_only": "on",
    # Neither TimescaleDB's scheduler nor any other background worker can start.
    "max_worker_processes": "0",
    "timescaledb.max_background_workers": "0",
    "autovacuum": "off",
    "max_wal_senders": "0",
    # With hot_standby on, recovery demands that max_connections and others are at least those of the live server.
    "hot_standby": "off",
    "max_connections": "10",
    "max_locks_per_transaction": "1024",  # a query over all chunks locks each of them
    "shared_buffers": "128MB",
    "work_mem": "32MB",
    "huge_pages": "off",
    "fsync": "off",  # the copy is thrown away
    "full_page_writes": "off",
    "ssl": "off",
    "logging_collector": "off",
    "log_destination": "stderr",
}


@dataclass(frozen=True)
class RestoredCopy:
    """A running copy.

    Attributes:
        dsn: how to connect to it.
        backup: the backup that it was restored from.
        target: the moment that it was restored to.
        last_commit: when its newest transaction was committed; None if none was committed after the backup.
        bytes: size on disk.
        restore_seconds: how long pgBackRest took to restore the backup.
        recovery_seconds: how long the server took to replay WAL up to the moment.
    """

    dsn: str
    backup: Backup
    target: datetime
    last_commit: datetime | None
    bytes: int
    restore_seconds: float
    recovery_seconds: float


@contextmanager
def restored_copy(live: psycopg.Connection, settings: Settings, target: datetime | None, directory: Path | None) -> Iterator[RestoredCopy]:
    """Restore the cluster beside the live one; the copy is removed at the end of the block, also after a failure.

    Args:
        live: to the live server, as a superuser, in autocommit mode and on the same host.
        settings: they name the stanza and the command that runs pgBackRest.
        target: the moment to restore to; None restores to now.
        directory: where to put the copy, empty or not there yet; None puts it beside the live data directory.

    Raises:
        UserError: the cluster cannot be restored to that moment or in that directory.
    """
    if os.geteuid() == 0:
        raise UserError("PostgreSQL refuses to run as root: run this as the user that owns the cluster (sudo -iu postgres).")
    cluster = read_live_cluster(live)
    if target and target > cluster.now:
        raise UserError(f"{target:%Y-%m-%d %H:%M:%S} is in the future: name a moment in the past with --to.")
    backup = _newest_backup_before(target, read_repository(settings).backups)
    with ExitStack() as cleanup:
        place = cleanup.enter_context(_scratch_directory(cluster, directory))
        archive_until_now(live)
        target = target or cluster.now
        started = time.monotonic()
        data = _restore(settings, backup, target, place)
        restored = time.monotonic()
        dsn = cleanup.enter_context(_running_server(live, settings, cluster, data))
        recovered = time.monotonic()
        last_commit = _read_last_commit(dsn, cluster, settings)
        size = sum(file.lstat().st_size for file in data.rglob("*"))
        yield RestoredCopy(dsn, backup, target, last_commit, size, restored - started, recovered - restored)


def _newest_backup_before(target: datetime | None, backups: tuple[Backup, ...]) -> Backup:
    """The newest backup that was finished before the moment."""
    if not backups:
        raise UserError("There is no backup to restore from: take one (pgbackrest backup).")
    before = [backup for backup in backups if target is None or backup.stopped < target]
    if not before:
        oldest = min(backup.stopped for backup in backups)
        raise UserError(f"Nothing older than the end of the first backup can be restored: name a moment after {oldest:%Y-%m-%d %H:%M:%S}.")
    return before[-1]


@contextmanager
def _scratch_directory(cluster: LiveCluster, directory: Path | None) -> Iterator[Path]:
    """An empty directory on a disk with room for the cluster; its contents are removed at the end, and it too if we made it."""
    live = cluster.data_directory.resolve()
    made = directory is None or not directory.exists()
    place = directory.resolve() if directory else live.parent / f"restore-drill-{os.getpid()}"
    if place == live or live in place.parents or place in live.parents:
        raise UserError(f"{place} overlaps the live data directory {live}: name another directory.")
    try:
        place.mkdir(mode=0o700, exist_ok=not made)
        if any(place.iterdir()):
            raise UserError(f"{place} is not empty: name an empty directory, or one that does not exist yet.")
        free = shutil.disk_usage(place).free
    except OSError as error:
        raise UserError(f"{place} cannot be used ({error.strerror}): name another directory with --directory.") from None
    try:
        if free < cluster.bytes + _SPARE_BYTES:
            raise UserError(
                f"{place} has {free / 1e9:.1f} GB free, and the copy may need {(cluster.bytes + _SPARE_BYTES) / 1e9:.1f}: "
                "free some, or name a directory on another disk with --directory."
            )
        yield place
    finally:
        for part in place.iterdir():
            shutil.rmtree(part) if part.is_dir() else part.unlink()
        if made:
            place.rmdir()


def _restore(settings: Settings, backup: Backup, target: datetime, place: Path) -> Path:
    """Restore the data directory of the copy, and return it."""
    data = place / "data"
    data.mkdir(mode=0o700)
    command = [
        *pgbackrest_command(settings), f"--pg1-path={data}", f"--set={backup.label}", "--type=time",
        f"--target={target:%Y-%m-%d %H:%M:%S.%f}+00", "--target-action=promote", "--archive-mode=off", "--log-level-console=off",
        "--log-level-stderr=error", "restore",
    ]  # fmt: skip
    with child_process(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        errors = process.communicate()[1].decode(errors="replace")
    if process.returncode:
        raise UserError(f"pgBackRest cannot restore {backup.label} ({error_line(errors)}): see its log.")
    return data


@contextmanager
def _running_server(live: psycopg.Connection, settings: Settings, cluster: LiveCluster, data: Path) -> Iterator[str]:
    """A server on the restored data that has recovered; yields its DSN."""
    # A path of its own, because the path of a socket has 107 characters at most. No other user can enter it.
    with tempfile.TemporaryDirectory(prefix="restore-drill-") as sockets:
        dsn = make_conninfo(host=sockets, port=5432, user=live.info.user, dbname=live.info.dbname)
        configuration = _configuration(settings, cluster, data, sockets)
        options = [part for name, value in configuration.items() for part in ("-c", f"{name}={value}")]
        log = data.with_name("server.log")
        with (
            log.open("wb") as output,
            child_process([str(cluster.programs / "postgres"), "-D", str(data), *options], stdout=output, stderr=output) as process,
        ):
            while not _accepts_connections(dsn):
                if process.poll() is not None:
                    raise UserError(
                        f"The restored server ended before it had recovered ({_fatal_message(log)}): run btc-assets ops backup-status "
                        "to see whether WAL is missing."
                    )
                time.sleep(0.1)
            yield dsn


def _configuration(settings: Settings, cluster: LiveCluster, data: Path, sockets: str) -> dict[str, str]:
    """The settings of the server on the restored data; the files that they name are written beside the data."""
    hba, empty = data.with_name("pg_hba.conf"), data.with_name("empty.conf")
    hba.write_text("local all all trust\n")
    empty.touch()
    # Without archive-async: the background process that prefetches WAL would take the lock of the live archiver.
    fetch = shlex.join([*pgbackrest_command(settings), f"--pg1-path={data}", "--no-archive-async", "archive-get"]).replace("%", "%%")
    return _INERT | {
        "config_file": str(empty),
        "hba_file": str(hba),
        "ident_file": str(empty),
        "unix_socket_directories": sockets,
        "restore_command": f'{fetch} %f "%p"',
        # Compressed chunks cannot be read without its library.
        "shared_preload_libraries": "timescaledb" if "timescaledb" in cluster.preloaded else "",
    }


def _accepts_connections(dsn: str) -> bool:
    """Whether the server accepts connections, which it does once it has recovered."""
    try:
        psycopg.connect(dsn, connect_timeout=10).close()
    except psycopg.OperationalError:
        return False
    return True


def _fatal_message(log: Path) -> str:
    """The last fatal message in the log of a server, except those that refuse a connection during recovery."""
    messages = [line.partition("FATAL:")[2].strip() for line in log.read_text(errors="replace").splitlines() if "FATAL:" in line]
    return next((message for message in reversed(messages) if not message.startswith("the database system is")), "without a message")


def _read_last_commit(dsn: str, cluster: LiveCluster, settings: Settings) -> datetime | None:
    """When the newest transaction of the copy was committed.

    Raises:
        UserError: it is a copy of another cluster.
    """
    with connect(dsn) as connection:
        identifier, last_commit = only_row(
            connection.execute("SELECT system_identifier, pg_last_xact_replay_timestamp() FROM pg_control_system()")
        )
    if identifier != cluster.system_identifier:
        raise UserError(
            f"Stanza {settings.backup_stanza} holds backups of another cluster than the one that BTC_ASSETS_DSN names: correct one of them."
        )
    return last_commit
