"""Whether the store can be restored, and to which moments: `btc-assets ops backup-status`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import psutil
import psycopg

from btc_assets.backup.pgbackrest import Backup, read_repository
from btc_assets.backup.wal import ArchiverStatus, WalGap, find_wal_gap, read_archiver_status
from btc_assets.domain.durations import format_age
from btc_assets.domain.errors import UserError
from btc_assets.domain.settings import Settings

WAL_AGE_LIMIT = timedelta(minutes=5)  # a WAL file is closed after a minute (archive_timeout) and archived within seconds
WAL_WAITING_LIMIT = 64  # files of 16 MB
BACKUP_AGE_LIMIT = timedelta(hours=26)  # backups are taken daily
FULL_AGE_LIMIT = timedelta(days=8)  # full backups are taken weekly


@dataclass(frozen=True)
class BackupStatus:
    """What the store can be restored from, and what is wrong with it. None stands for what could not be found out.

    Attributes:
        at: when the server and the repository were asked.
        backups: the backups in the repository, oldest first.
        restorable_to: the newest moment that the archive reaches. Later commits are in WAL that is not archived yet.
        wal_waiting: closed WAL files that are not archived yet.
        wal_age: how long the oldest WAL file has been missing from the archive; zero if none is.
        disk_used: percent of the disk that holds the cluster.
        problems: a sentence each.
    """

    at: datetime
    backups: tuple[Backup, ...]
    restorable_to: datetime | None
    wal_waiting: int
    wal_age: timedelta | None
    disk_used: float | None
    problems: tuple[str, ...]

    @property
    def restorable_from(self) -> datetime | None:
        """The oldest moment that the store can be restored to."""
        return min((backup.stopped for backup in self.backups), default=None)

    @property
    def backup_age(self) -> timedelta | None:
        """Age of the newest backup."""
        return self.at - self.backups[-1].stopped if self.backups else None


def read_backup_status(connection: psycopg.Connection, settings: Settings) -> BackupStatus:
    """Ask the server and the repository.

    A repository that does not answer is a problem, not an error, and is reported within half a minute.

    Args:
        connection: to the store, in autocommit mode; its user needs `pg_monitor`.
        settings: they name the stanza and the command that runs pgBackRest.

    Raises:
        UserError: the server does not let the user look.
    """
    wal = read_archiver_status(connection)
    problems = [*_setting_problems(wal)]
    backups: tuple[Backup, ...] = ()
    gap: WalGap | None = None
    archive_known = wal.archive_mode != "off"
    try:
        repository = read_repository(settings)
        backups = repository.backups
        problems += _backup_problems(backups, wal.now)
        if backups and archive_known:
            gap = find_wal_gap(settings, repository.archive_id, backups[-1], wal)
    except UserError as error:
        problems.append(str(error))
        archive_known = False  # while the repository fails, pgBackRest may drop WAL; then none waits, and none is archived
    if gap:
        problems.append(str(gap))
    problems += _waiting_problems(wal)
    restorable_to, wal_age = _archive_reach(wal, backups, gap) if archive_known else (None, None)
    return BackupStatus(wal.now, backups, restorable_to, wal.waiting, wal_age, _disk_used(wal.data_directory), tuple(problems))


def _archive_reach(wal: ArchiverStatus, backups: Sequence[Backup], gap: WalGap | None) -> tuple[datetime | None, timedelta]:
    """The newest moment in the archive, and the age of the oldest WAL that it lacks."""
    waited = wal.now - wal.oldest_waiting if wal.oldest_waiting else timedelta(0)
    if gap is None:
        return wal.archived_to, waited
    return gap.reached, max(waited, wal.now - (gap.reached or backups[-1].stopped))


def _setting_problems(wal: ArchiverStatus) -> Iterator[str]:
    if wal.archive_mode == "off":
        yield "The server does not archive its WAL: set archive_mode = on in postgresql.conf and restart it."
    elif not 0 < wal.archive_timeout <= WAL_AGE_LIMIT.total_seconds():
        yield "The server archives WAL too late when it is idle: set archive_timeout = 60 in postgresql.conf and reload it."


def _backup_problems(backups: Sequence[Backup], now: datetime) -> Iterator[str]:
    if not backups:
        yield "There is no backup yet: take one (pgbackrest backup)."
        return
    newest = backups[-1]
    if now - newest.stopped > BACKUP_AGE_LIMIT:
        yield f"The last backup is {format_age(newest.stopped, now)} old: find out why the daily backup does not run."
    full = max((backup.stopped for backup in backups if backup.kind == "full"), default=None)
    if full is None:
        yield "There is no full backup any more: take one (pgbackrest backup --type=full)."
    elif now - full > FULL_AGE_LIMIT:
        yield f"The last full backup is {format_age(full, now)} old: find out why the weekly backup does not run."
    if newest.damaged:
        yield f"The last backup found damaged pages in the cluster: run pgbackrest info --set={newest.label} to see where."


def _waiting_problems(wal: ArchiverStatus) -> Iterator[str]:
    if wal.oldest_waiting and wal.now - wal.oldest_waiting > WAL_AGE_LIMIT:
        age = format_age(wal.oldest_waiting, wal.now)
        yield f"WAL has been waiting to be archived for {age}: look for the cause in the logs of the server and of pgBackRest."
    if wal.waiting > WAL_WAITING_LIMIT:
        yield (
            f"{wal.waiting:,} WAL files wait to be archived: find the cause before pgBackRest drops them, which it does at "
            "archive-push-queue-max."
        )


def _disk_used(directory: str) -> float | None:
    return psutil.disk_usage(directory).percent if Path(directory).exists() else None
