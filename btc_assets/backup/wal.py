"""The WAL archive: what the server says about it, and whether the repository holds every file that it should."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import LiteralString

import psycopg

from btc_assets.backup.pgbackrest import Backup, query_pgbackrest
from btc_assets.domain.errors import UserError
from btc_assets.domain.settings import Settings
from btc_assets.store.errors import server_errors

# The directory archive_status has an entry for each closed WAL file: `ready` until archive_command took the file, then `done`.
_STATUS: LiteralString = """
SELECT clock_timestamp(), current_setting('archive_mode'), current_setting('data_directory'),
       (SELECT setting::int FROM pg_settings WHERE name = 'archive_timeout'),
       (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size'),
       count(*) FILTER (WHERE state = 'ready'), min(modification) FILTER (WHERE state = 'ready'),
       greatest(max(files.wal) FILTER (WHERE state = 'done'), max(archiver.wal)),
       coalesce(max(modification) FILTER (WHERE state = 'done'), max(archiver.last_archived_time))
FROM (SELECT substring(last_archived_wal FROM '^[0-9A-F]{24}') COLLATE "C" AS wal, last_archived_time FROM pg_stat_archiver) AS archiver
LEFT JOIN (
    SELECT split_part(name, '.', 1) COLLATE "C" AS wal, split_part(name, '.', 2) AS state, modification FROM pg_ls_archive_statusdir()
    WHERE name ~ '^[0-9A-F]{24}[.](ready|done)$'
) AS files(wal, state, modification) ON true
"""


@dataclass(frozen=True)
class ArchiverStatus:
    """What the server says about its WAL archive.

    Attributes:
        now: the server's time.
        archive_mode, data_directory, archive_timeout: its settings; the timeout in seconds, 0 without.
        segment_bytes: size of a WAL file.
        waiting: closed WAL files that are not archived yet.
        oldest_waiting: when the oldest of them was closed.
        newest_archived: the newest file that archive_command reported as archived.
        archived_to: when that file was reported as archived.
    """

    now: datetime
    archive_mode: str
    data_directory: str
    archive_timeout: int
    segment_bytes: int
    waiting: int
    oldest_waiting: datetime | None
    newest_archived: str | None
    archived_to: datetime | None


def read_archiver_status(connection: psycopg.Connection) -> ArchiverStatus:
    """Ask the server about its WAL archive.

    Raises:
        UserError: the user lacks `pg_monitor`.
    """
    try:
        with server_errors():
            row = connection.execute(_STATUS).fetchone()
    except UserError as error:
        if isinstance(error.__cause__, psycopg.errors.InsufficientPrivilege):
            user = connection.info.user
            raise UserError(f"{user} may not read the state of the WAL archive: have a superuser run GRANT pg_monitor TO {user}.") from None
        raise
    assert row is not None
    return ArchiverStatus(*row)


@dataclass(frozen=True)
class WalGap:
    """WAL files that the server was told are archived, but that the repository does not hold.

    Attributes:
        first, last: names of the first and the last missing file.
        count: how many are missing.
        reached: when the file before the first was archived; None if the backup's own files are missing.
    """

    first: str
    last: str
    count: int
    reached: datetime | None

    def __str__(self) -> str:
        files = self.first if self.count == 1 else f"{self.first} to {self.last}"
        limit = f"{self.reached:%Y-%m-%d %H:%M:%S}" if self.reached else "the last backup"
        return (
            f"{self.count:,} WAL file(s) are missing from the archive ({files}), so nothing later than {limit} can be restored: "
            "take a backup now."
        )


def find_wal_gap(settings: Settings, archive_id: str, backup: Backup, status: ArchiverStatus) -> WalGap | None:
    """Find the first gap in the archive between the newest backup and the newest file that was reported as archived.

    pgBackRest drops WAL when too much of it waits, and still reports it to the server as archived. So this lists the files in
    the repository.
    """
    names = _Names(per_log=(1 << 32) // status.segment_bytes, timeline=(status.newest_archived or backup.first_wal)[:8])
    first, last = names.number(backup.first_wal), names.number(status.newest_archived or backup.first_wal)
    archived = _read_archived(settings, archive_id, names, first, last)
    if names.timeline != backup.first_wal[:8]:  # a restore since the backup began this timeline
        first = min(archived, default=last)
    return _first_gap(archived, first, last, names)


@dataclass(frozen=True)
class _Names:
    """Names of the WAL files of one timeline; each has a number, and every `per_log` files share a folder in the archive."""

    per_log: int
    timeline: str

    def number(self, name: str) -> int:
        return int(name[8:16], 16) * self.per_log + int(name[16:24], 16)

    def name(self, number: int) -> str:
        return f"{self.timeline}{number // self.per_log:08X}{number % self.per_log:08X}"


def _read_archived(settings: Settings, archive_id: str, names: _Names, first: int, last: int) -> dict[int, datetime]:
    """Numbers of the files in the repository, each with the time when it was archived."""
    archived = {}
    for log in range(first // names.per_log, last // names.per_log + 1):
        folder = f"archive/{settings.backup_stanza}/{archive_id}/{names.timeline}{log:08X}"
        for name, entry in query_pgbackrest(settings, "repo-ls", folder).items():
            if re.match(r"[0-9A-F]{24}-", name):
                archived[names.number(name)] = datetime.fromtimestamp(entry["time"], UTC)
    return archived


def _first_gap(archived: dict[int, datetime], first: int, last: int, names: _Names) -> WalGap | None:
    start = next((number for number in range(first, last + 1) if number not in archived), None)
    if start is None:
        return None
    end = next((number for number in range(start, last + 1) if number in archived), last + 1)
    return WalGap(names.name(start), names.name(end - 1), end - start, archived.get(start - 1))
