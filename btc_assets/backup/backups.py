"""Could the store be restored, and to which moments? Asked from pgBackRest and from the server: `btc-assets ops backup-status`."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, LiteralString

import psutil
import psycopg

from btc_assets.domain.durations import age
from btc_assets.domain.errors import UserError
from btc_assets.domain.settings import Settings
from btc_assets.store.errors import server_errors

WAL_AGE_LIMIT = timedelta(minutes=5)  # a WAL file is closed after a minute (archive_timeout) and archived within seconds
WAL_WAITING_LIMIT = 64  # files of 16 MB
BACKUP_AGE_LIMIT = timedelta(hours=26)  # one is made daily
FULL_AGE_LIMIT = timedelta(days=8)  # one is made weekly

_NO_BACKUP = 2  # pgBackRest's status of a repository that is all right, but empty
# pgBackRest tries four times; with its own minute for each, S3 that is down would be four minutes of silence.
_TRY_SECONDS, _ANSWER_SECONDS = 1, 30

# What stands in archive_status: WAL files that are closed, `ready` until archive_command took them, then `done`.
_WAL: LiteralString = """
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
class Backup:
    """One backup in the repository.

    Attributes:
        label: pgBackRest's name of it.
        kind: `full`, `diff` or `incr`.
        started, stopped: when it was made; one can restore to `stopped` and later.
        size: bytes of the cluster.
        stored: bytes that it added to the repository.
        damaged: whether pages were found whose checksum was wrong.
        first_wal: WAL file that restoring it begins with.
    """

    label: str
    kind: str
    started: datetime
    stopped: datetime
    size: int
    stored: int
    damaged: bool
    first_wal: str


@dataclass(frozen=True)
class BackupStatus:
    """What there is to restore from, and what is wrong with it; what could not be found out is None.

    Attributes:
        at: when it was looked at.
        backups: those in the repository, oldest first.
        restorable_to: newest moment that the archive reaches. What was written since is in WAL that is not archived, if anything was.
        wal_waiting: closed WAL files that are not archived yet.
        wal_age: how long the oldest WAL that should be in the archive has been missing there; zero where nothing is.
        disk_used: percent of the disk that the cluster lies on.
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
        """Oldest moment that one can restore to."""
        return min((backup.stopped for backup in self.backups), default=None)

    @property
    def backup_age(self) -> timedelta | None:
        """Age of the newest backup."""
        return self.at - self.backups[-1].stopped if self.backups else None


@dataclass(frozen=True)
class _Wal:
    """What the server says of its WAL."""

    now: datetime
    archive_mode: str
    data_directory: str
    archive_timeout: int
    segment_bytes: int
    waiting: int
    oldest_waiting: datetime | None
    newest_archived: str | None  # as the server was told
    archived_to: datetime | None


def backup_status(connection: psycopg.Connection, settings: Settings) -> BackupStatus:
    """Ask the server and the repository. What cannot be asked is a problem, not an error, and known within half a minute.

    Args:
        connection: to the store, in autocommit; the user needs `pg_monitor`.
        settings: that name the stanza, and how pgBackRest is called.

    Raises:
        UserError: the server does not let the user look, or no stanza is named.
    """
    wal = _read_wal(connection)
    problems: list[str] = []
    restorable_to = wal.archived_to
    wal_age: timedelta | None = wal.now - wal.oldest_waiting if wal.oldest_waiting else timedelta(0)
    if wal.archive_mode == "off":
        problems.append("The server archives no WAL: set archive_mode = on in postgresql.conf and restart it.")
        restorable_to = wal_age = None
    elif not 0 < wal.archive_timeout <= WAL_AGE_LIMIT.total_seconds():
        problems.append("A quiet server keeps its WAL to itself: set archive_timeout = 60 in postgresql.conf and reload it.")
    backups: tuple[Backup, ...] = ()
    try:
        archive_id, backups = read_repository(settings)
        problems += _backup_problems(backups, wal.now)
        if backups and wal_age is not None and (gap := _read_gap(settings, archive_id, backups[-1], wal)):
            problems.append(str(gap))
            restorable_to = gap.reached
            wal_age = max(wal_age, wal.now - (gap.reached or backups[-1].stopped))
    except UserError as error:
        problems.append(str(error))
        restorable_to = wal_age = None  # pgBackRest drops WAL when too much waits: then none does, and none is archived
    if wal.oldest_waiting and wal.now - wal.oldest_waiting > WAL_AGE_LIMIT:
        problems.append(
            f"WAL has been waiting to be archived for {age(wal.oldest_waiting, wal.now)}: see the server's log and pgBackRest's for why."
        )
    if wal.waiting > WAL_WAITING_LIMIT:
        problems.append(f"{wal.waiting:,} WAL files wait to be archived: when archive-push-queue-max is reached, pgBackRest drops them.")
    return BackupStatus(wal.now, backups, restorable_to, wal.waiting, wal_age, _disk_used(wal.data_directory), tuple(problems))


def _read_wal(connection: psycopg.Connection) -> _Wal:
    try:
        with server_errors():
            row = connection.execute(_WAL).fetchone()
    except UserError as error:
        if isinstance(error.__cause__, psycopg.errors.InsufficientPrivilege):
            user = connection.info.user
            raise UserError(f"{user} may not see which WAL waits: have a superuser run GRANT pg_monitor TO {user}.") from None
        raise
    assert row is not None
    return _Wal(*row)


# ---- the repository


def ask_pgbackrest(settings: Settings, *command: str) -> Any:
    """What a command of pgBackRest says, in JSON.

    Raises:
        UserError: it fails or does not answer in time.
    """
    if settings.backup_stanza is None:
        raise UserError("No backups are set up: name pgBackRest's stanza in BTC_ASSETS_BACKUP_STANZA.")
    try:
        process = subprocess.Popen(
            [*pgbackrest(settings), "--output=json", f"--io-timeout={_TRY_SECONDS}", *command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    except OSError as error:
        raise UserError(f"pgBackRest cannot be started ({error}): install it, or correct BTC_ASSETS_PGBACKREST.") from None
    try:
        output, errors = process.communicate(timeout=_ANSWER_SECONDS)
    except subprocess.TimeoutExpired:
        with suppress(PermissionError):  # of sudo's process, which is root's; it ends by itself
            process.kill()
        raise UserError(f"pgBackRest has not answered in {_ANSWER_SECONDS} s: see whether the repository can be reached.") from None
    if process.returncode:
        raise UserError(f"pgBackRest fails ({error_line(errors or output)}): correct its configuration or BTC_ASSETS_PGBACKREST.")
    return json.loads(output)


def pgbackrest(settings: Settings) -> list[str]:
    """The command line that every call begins with."""
    return [*shlex.split(settings.pgbackrest), f"--stanza={settings.backup_stanza}"]


def error_line(output: str) -> str:
    """The line that says what went wrong."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return next((line for line in lines if "ERROR" in line), lines[0] if lines else "it says nothing")


def read_repository(settings: Settings) -> tuple[str, tuple[Backup, ...]]:
    """Name of the cluster's archive in the repository, and the backups of it, oldest first.

    Raises:
        UserError: the repository cannot be read, or knows no such stanza.
    """
    (stanza,) = ask_pgbackrest(settings, "info")
    status: dict[str, Any] = stanza["repo"][0]["status"] if stanza["repo"] else stanza["status"]
    if status["code"] not in (0, _NO_BACKUP):
        raise UserError(f"The repository of the backups cannot be read: {status['message'].splitlines()[0].rstrip(':')}.")
    cluster = stanza["db"][-1]["id"]
    archive = next(each["id"] for each in stanza["archive"] if each["database"]["id"] == cluster)
    return archive, tuple(_backup(each) for each in stanza["backup"] if each["database"]["id"] == cluster)


def _backup(data: dict[str, Any]) -> Backup:
    started, stopped = (datetime.fromtimestamp(data["timestamp"][edge], UTC) for edge in ("start", "stop"))
    size, stored = data["info"]["size"], data["info"]["repository"]["delta"]
    return Backup(data["label"], data["type"], started, stopped, size, stored, bool(data["error"]), data["archive"]["start"])


def _backup_problems(backups: tuple[Backup, ...], now: datetime) -> list[str]:
    if not backups:
        return ["There is no backup yet: make one (pgbackrest backup)."]
    problems = []
    if now - backups[-1].stopped > BACKUP_AGE_LIMIT:
        problems.append(f"The last backup is {age(backups[-1].stopped, now)} old: see why the daily one is not made.")
    full = max((backup.stopped for backup in backups if backup.kind == "full"), default=None)
    if full is None or now - full > FULL_AGE_LIMIT:
        problems.append(f"The last full backup is {age(full, now) if full else 'gone'} old: see why the weekly one is not made.")
    if backups[-1].damaged:
        problems.append(f"The last backup ({backups[-1].label}) found damaged pages in the cluster: see pgbackrest info --set for where.")
    return problems


# ---- whether the archive is whole


@dataclass(frozen=True)
class _Gap:
    """WAL that the server was told is archived, and that is not in the repository.

    Attributes:
        first, last: its files.
        count: how many they are.
        reached: when the file before the first was archived; None where not even the backup's own is there.
    """

    first: str
    last: str
    count: int
    reached: datetime | None

    def __str__(self) -> str:
        files = self.first if self.count == 1 else f"{self.first} to {self.last}"
        to = f"{self.reached:%Y-%m-%d %H:%M:%S}" if self.reached else "the last backup"
        return f"{self.count:,} WAL file(s) are missing in the archive ({files}), so nothing later than {to} can be restored: make a backup now."


def _read_gap(settings: Settings, archive_id: str, backup: Backup, wal: _Wal) -> _Gap | None:
    """The first gap in the archive between the newest backup and what the server was told is archived.

    pgBackRest tells the server so of WAL that it drops, and nobody else; it is asked for the files themselves.
    """
    per_log = (1 << 32) // wal.segment_bytes
    last, first = wal.newest_archived or backup.first_wal, backup.first_wal
    start, end, timeline = _number(first, per_log), _number(last, per_log), last[:8]
    there: dict[int, datetime] = {}
    for log in range(start // per_log, end // per_log + 1):
        folder = f"{timeline}{log:08X}"
        for name, entry in ask_pgbackrest(settings, "repo-ls", f"archive/{settings.backup_stanza}/{archive_id}/{folder}").items():
            if re.match(r"[0-9A-F]{24}-", name):
                there[_number(name, per_log)] = datetime.fromtimestamp(entry["time"], UTC)
    if timeline != first[:8]:  # restored since: this timeline begins somewhere behind the backup
        start = min(there, default=end)
    missing = [number for number in range(start, end + 1) if number not in there]
    if not missing:
        return None
    run = next((i for i in range(1, len(missing)) if missing[i] != missing[0] + i), len(missing))
    names = [f"{timeline}{number // per_log:08X}{number % per_log:08X}" for number in (missing[0], missing[run - 1])]
    return _Gap(names[0], names[1], run, there.get(missing[0] - 1))


def _number(name: str, per_log: int) -> int:
    """Position of a WAL file in its timeline."""
    return int(name[8:16], 16) * per_log + int(name[16:24], 16)


def _disk_used(directory: str) -> float | None:
    return psutil.disk_usage(directory).percent if Path(directory).exists() else None


# ---- metrics


def put_metrics(status: BackupStatus, namespace: str, host: str) -> None:
    """Put what alarms watch into CloudWatch. What is not known is not put: an alarm takes silence for bad news.

    Args:
        status: what was found.
        namespace: of the metrics.
        host: value of their one dimension, `Host`.

    Raises:
        UserError: CloudWatch does not take them.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    values: list[tuple[str, float | timedelta | None, str]] = [
        ("WalArchiveAgeSeconds", status.wal_age, "Seconds"),
        ("WalFilesWaiting", status.wal_waiting, "Count"),
        ("LastBackupAgeSeconds", status.backup_age, "Seconds"),
        ("DataDiskUsedPercent", status.disk_used, "Percent"),
    ]
    data = [
        {
            "MetricName": name, "Dimensions": [{"Name": "Host", "Value": host}], "Timestamp": status.at, "Unit": unit,
            "Value": value.total_seconds() if isinstance(value, timedelta) else value,
        }
        for name, value, unit in values if value is not None
    ]  # fmt: skip
    try:
        client = boto3.client("cloudwatch", config=Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 2}))
        client.put_metric_data(Namespace=namespace, MetricData=data)
    except (BotoCoreError, ClientError) as error:
        raise UserError(f"CloudWatch does not take the metrics ({error}): see the AWS region and credentials, and the endpoint.") from None
