"""A copy of the cluster as it was at a moment, restored beside the live one, and gone without a trace afterwards.

The copy does nothing by itself: it takes connections through a socket that only its own user can reach, writes nothing that
a session asks for, archives nothing, and has no background worker, so that no policy of TimescaleDB runs in it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import FrameType

import psycopg
from psycopg.conninfo import make_conninfo

from btc_assets.backup.backups import Backup, error_line, pgbackrest, read_repository
from btc_assets.domain.errors import UserError
from btc_assets.domain.settings import Settings
from btc_assets.store.database import connect
from btc_assets.store.errors import server_errors

_ROOM = 2 << 30  # bytes: WAL while it is replayed, what recovery adds, and some to spare
_ARCHIVED_SECONDS = 90  # archive-push gives up on a file after a minute

# On the command line, because the cluster's own postgresql.auto.conf is restored with it and would win over a file.
_QUIET = {
    "listen_addresses": "",
    "archive_mode": "off",
    "default_transaction_read_only": "on",
    # Neither TimescaleDB's scheduler nor any other background worker can start.
    "max_worker_processes": "0",
    "timescaledb.max_background_workers": "0",
    "autovacuum": "off",
    "max_wal_senders": "0",
    # Else recovery demands max_connections and the like to be what they are on the live server.
    "hot_standby": "off",
    "max_connections": "10",
    "max_locks_per_transaction": "1024",  # a query over all chunks locks each of them
    "shared_buffers": "128MB",
    "work_mem": "32MB",
    "huge_pages": "off",
    "fsync": "off",  # it is thrown away
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
        backup: what it was restored from.
        target: the moment that was asked for.
        last_commit: when the newest transaction in it was committed; None where none came after the backup.
        bytes: size on disk.
        restore_seconds: how long pgBackRest took to bring the backup back.
        recovery_seconds: how long the server took to replay WAL up to the moment.
    """

    dsn: str
    backup: Backup
    target: datetime
    last_commit: datetime | None
    bytes: int
    restore_seconds: float
    recovery_seconds: float


@dataclass(frozen=True)
class _Cluster:
    """What the live server says of itself."""

    data_directory: Path
    programs: Path
    system_identifier: int
    bytes: int
    tablespaces: int
    preloaded: str
    now: datetime


@contextmanager
def restored_copy(live: psycopg.Connection, settings: Settings, target: datetime | None, directory: Path | None) -> Iterator[RestoredCopy]:
    """Restore the cluster at a moment beside the live one; the copy is removed at the end, also after a failure.

    Args:
        live: to the live server, as a superuser, in autocommit and on the same host.
        settings: that name the stanza, and how pgBackRest is called.
        target: the moment; None: now.
        directory: where to put it, empty or not there yet; None: beside the live data directory.

    Raises:
        UserError: it cannot be restored to that moment or in that place.
    """
    if os.geteuid() == 0:
        raise UserError("PostgreSQL refuses to run as root: run this as the user that the cluster belongs to (sudo -iu postgres).")
    cluster = _read_cluster(live)
    if target and target > cluster.now:
        raise UserError(f"{target:%Y-%m-%d %H:%M:%S} is still to come: name a moment in the past with --to.")
    backup = _backup_before(settings, target)
    with ExitStack() as cleanup:
        place = cleanup.enter_context(_place(cluster, directory))
        data = place / "data"
        _archive_up_to_now(live)
        target = target or cluster.now
        started = time.monotonic()
        _restore(settings, backup, target, data)
        restored = time.monotonic()
        dsn = cleanup.enter_context(_running(live, settings, cluster, place, data))
        recovered = time.monotonic()
        with connect(dsn) as connection:
            row = connection.execute("SELECT system_identifier, pg_last_xact_replay_timestamp() FROM pg_control_system()").fetchone()
        assert row is not None
        if row[0] != cluster.system_identifier:
            raise UserError(
                f"Stanza {settings.backup_stanza} holds backups of another cluster than the one that BTC_ASSETS_DSN names: correct one of them."
            )
        size = sum(file.lstat().st_size for file in data.rglob("*"))
        yield RestoredCopy(dsn, backup, target, row[1], size, restored - started, recovered - restored)


def _read_cluster(live: psycopg.Connection) -> _Cluster:
    with server_errors():
        superuser = live.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()
        if superuser != (True,):
            raise UserError(
                f"{live.info.user} is no superuser: name one in BTC_ASSETS_DSN, such as postgresql://postgres@/btc on the host."
            )
        row = live.execute(
            "SELECT current_setting('data_directory'), (SELECT setting FROM pg_config WHERE name = 'BINDIR'), system_identifier, "
            "(SELECT sum(pg_database_size(oid)) FROM pg_database)::bigint, (SELECT count(*) FROM pg_tablespace) - 2, "
            "current_setting('shared_preload_libraries'), clock_timestamp() FROM pg_control_system()"
        ).fetchone()
    assert row is not None
    cluster = _Cluster(Path(row[0]), Path(row[1]), *row[2:])
    if not os.access(cluster.data_directory, os.R_OK) or not (cluster.programs / "postgres").exists():
        raise UserError(
            f"The data directory {cluster.data_directory} cannot be read here: run this on the server's own host, as the user that "
            "the cluster belongs to (sudo -iu postgres)."
        )
    if cluster.tablespaces:
        raise UserError(f"The cluster has {cluster.tablespaces} tablespace(s), which a drill does not restore: restore it by hand.")
    return cluster


def _backup_before(settings: Settings, target: datetime | None) -> Backup:
    """The newest backup that was finished before the moment."""
    backups = read_repository(settings)[1]
    if not backups:
        raise UserError("There is no backup to restore from: make one (pgbackrest backup).")
    before = [backup for backup in backups if target is None or backup.stopped < target]
    if not before:
        oldest = min(backup.stopped for backup in backups)
        raise UserError(f"Nothing older than the end of the first backup can be restored: name a moment after {oldest:%Y-%m-%d %H:%M:%S}.")
    return before[-1]


def _archive_up_to_now(live: psycopg.Connection) -> None:
    """Have a commit of now archived: recovery knows that it has reached a moment when it sees a commit from after it."""
    with server_errors():
        live.execute("SELECT pg_logical_emit_message(true, 'btc_assets', 'restore drill')")
        row = live.execute("SELECT pg_walfile_name(pg_current_wal_insert_lsn())").fetchone()
        live.execute("SELECT pg_switch_wal()")
        archived: tuple[object, ...] | None = (False,)
        until = time.monotonic() + _ARCHIVED_SECONDS
        while archived != (True,) and time.monotonic() < until:
            time.sleep(0.1)
            archived = live.execute('SELECT left(last_archived_wal, 24) COLLATE "C" >= %s FROM pg_stat_archiver', row).fetchone()
    if archived != (True,):
        raise UserError(f"The present WAL was not archived in {_ARCHIVED_SECONDS} s: see btc-assets ops backup-status for why.")


@contextmanager
def _place(cluster: _Cluster, directory: Path | None) -> Iterator[Path]:
    """An empty directory that is removed with all that is in it, on a disk with room for the cluster."""
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
        raise UserError(f"{place} cannot be used ({error.strerror}): name a directory of yours with --directory.") from None
    try:
        if free < cluster.bytes + _ROOM:
            raise UserError(
                f"{place} has {free / 1e9:.1f} GB free, and the copy may need {(cluster.bytes + _ROOM) / 1e9:.1f}: "
                "free some, or name a directory on another disk with --directory."
            )
        yield place
    finally:
        for part in place.iterdir():
            shutil.rmtree(part) if part.is_dir() else part.unlink()
        if made:
            place.rmdir()


def _restore(settings: Settings, backup: Backup, target: datetime, data: Path) -> None:
    data.mkdir(mode=0o700)
    command = [
        *pgbackrest(settings), f"--pg1-path={data}", f"--set={backup.label}", "--type=time", f"--target={target:%Y-%m-%d %H:%M:%S.%f}+00",
        "--target-action=promote", "--archive-mode=off", "--log-level-console=off", "--log-level-stderr=error", "restore",
    ]  # fmt: skip
    with _child(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        errors = process.communicate()[1].decode(errors="replace")
    if process.returncode:
        raise UserError(f"pgBackRest cannot restore {backup.label} ({error_line(errors)}): see its log.")


@contextmanager
def _running(live: psycopg.Connection, settings: Settings, cluster: _Cluster, place: Path, data: Path) -> Iterator[str]:
    """The server on the restored data, once it has recovered; gives the DSN."""
    # A path of its own, because the name of a socket is 107 characters at most. Nobody else can enter it.
    with tempfile.TemporaryDirectory(prefix="restore-drill-") as sockets:
        hba, empty, log = place / "pg_hba.conf", place / "empty.conf", place / "server.log"
        hba.write_text("local all all trust\n")
        empty.touch()
        # One file after the other: the background process that fetches ahead would take the lock of the live archiver.
        fetch = shlex.join([*pgbackrest(settings), f"--pg1-path={data}", "--no-archive-async", "archive-get"]).replace("%", "%%")
        configuration = _QUIET | {
            "config_file": str(empty), "hba_file": str(hba), "ident_file": str(empty), "unix_socket_directories": sockets,
            "restore_command": f'{fetch} %f "%p"',
            # Without its library there is no reading of compressed chunks.
            "shared_preload_libraries": "timescaledb" if "timescaledb" in cluster.preloaded else "",
        }  # fmt: skip
        options = [part for name, value in configuration.items() for part in ("-c", f"{name}={value}")]
        user, database = live.info.user, live.info.dbname
        dsn = make_conninfo(host=sockets, port=5432, user=user, dbname=database)
        with (
            log.open("wb") as output,
            _child([str(cluster.programs / "postgres"), "-D", str(data), *options], stdout=output, stderr=output) as process,
        ):
            while not _answers(dsn):
                if process.poll() is not None:
                    raise UserError(
                        f"The restored server ended before it had recovered ({_fatal(log)}): see btc-assets ops backup-status for missing WAL."
                    )
                time.sleep(0.1)
            yield dsn


def _answers(dsn: str) -> bool:
    """Whether the server takes connections; until it has recovered, it does not."""
    try:
        psycopg.connect(dsn, connect_timeout=10).close()
    except psycopg.OperationalError:
        return False
    return True


def _fatal(log: Path) -> str:
    """What a server that ended said last, apart from what it said to those who wanted to connect."""
    said = [line.partition("FATAL:")[2].strip() for line in log.read_text(errors="replace").splitlines() if "FATAL:" in line]
    return next((message for message in reversed(said) if not message.startswith("the database system is")), "without a message")


@contextmanager
def _child(command: list[str], stdout: object, stderr: object) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own, so that Ctrl-C reaches us alone; it has ended when this has."""
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, start_new_session=True)  # type: ignore[call-overload]
    except OSError as error:
        raise UserError(f"{command[0]} cannot be started ({error.strerror}): install it, or correct BTC_ASSETS_PGBACKREST.") from None
    try:
        yield process
    finally:
        for ending, seconds in ((signal.SIGINT, 20), (signal.SIGQUIT, 5), (signal.SIGKILL, 5)):  # PostgreSQL's fast and immediate shutdown
            with suppress(subprocess.TimeoutExpired, ProcessLookupError):
                if process.poll() is None:
                    os.killpg(process.pid, ending)
                    process.wait(seconds)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let a signal that would end the process at once end it as Ctrl-C does: with everything cleaned up."""

    def stop(number: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)  # cleaning up is not to be interrupted
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
