"""Running pgBackRest, and reading what its repository holds."""

from __future__ import annotations

import json
import shlex
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from btc_assets.domain.errors import UserError
from btc_assets.domain.settings import Settings

_EMPTY = 2  # pgBackRest's status of a repository that is intact and has no backup
# pgBackRest tries four times. With its default timeout of a minute for each, four minutes would pass while S3 is down.
_TRY_SECONDS, _ANSWER_SECONDS = 1, 30


@dataclass(frozen=True)
class Backup:
    """One backup in the repository.

    Attributes:
        label: pgBackRest's name for it.
        kind: `full`, `diff` or `incr`.
        started, stopped: when it was taken. The cluster can be restored to `stopped` and later.
        size: bytes of the cluster.
        stored: bytes that it added to the repository.
        damaged: whether it found pages with a wrong checksum.
        first_wal: the WAL file that restoring it begins with.
    """

    label: str
    kind: str
    started: datetime
    stopped: datetime
    size: int
    stored: int
    damaged: bool
    first_wal: str

    @classmethod
    def of(cls, data: dict[str, Any]) -> Backup:
        """A backup as `pgbackrest info` describes it."""
        return cls(
            label=data["label"],
            kind=data["type"],
            started=datetime.fromtimestamp(data["timestamp"]["start"], UTC),
            stopped=datetime.fromtimestamp(data["timestamp"]["stop"], UTC),
            size=data["info"]["size"],
            stored=data["info"]["repository"]["delta"],
            damaged=bool(data["error"]),
            first_wal=data["archive"]["start"],
        )


@dataclass(frozen=True)
class Repository:
    """The repository: the name of the cluster's WAL archive in it, and the cluster's backups, oldest first."""

    archive_id: str
    backups: tuple[Backup, ...]


def pgbackrest_command(settings: Settings) -> list[str]:
    """The command line that every call of pgBackRest begins with."""
    return [*shlex.split(settings.pgbackrest), f"--stanza={settings.backup_stanza}"]


def query_pgbackrest(settings: Settings, *command: str) -> Any:
    """Run a command of pgBackRest and return its JSON output.

    Raises:
        UserError: pgBackRest fails or does not answer in time.
    """
    if settings.backup_stanza is None:
        raise UserError("No backups are set up: name pgBackRest's stanza in BTC_ASSETS_BACKUP_STANZA.")
    try:
        process = subprocess.Popen(
            [*pgbackrest_command(settings), "--output=json", f"--io-timeout={_TRY_SECONDS}", *command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    except OSError as error:
        raise UserError(f"pgBackRest cannot be started ({error}): install it, or correct BTC_ASSETS_PGBACKREST.") from None
    try:
        output, errors = process.communicate(timeout=_ANSWER_SECONDS)
    except subprocess.TimeoutExpired:
        with suppress(PermissionError):  # sudo runs as root; it ends by itself
            process.kill()
        raise UserError(f"pgBackRest has not answered in {_ANSWER_SECONDS} s: check whether its repository can be reached.") from None
    if process.returncode:
        raise UserError(f"pgBackRest fails ({error_line(errors or output)}): correct its configuration or BTC_ASSETS_PGBACKREST.")
    return json.loads(output)


def error_line(output: str) -> str:
    """The line of a program's output that says what went wrong."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return next((line for line in lines if "ERROR" in line), lines[0] if lines else "without a message")


def read_repository(settings: Settings) -> Repository:
    """Ask pgBackRest what the repository holds.

    Raises:
        UserError: the repository cannot be read, or has no such stanza.
    """
    (stanza,) = query_pgbackrest(settings, "info")
    status: dict[str, Any] = stanza["repo"][0]["status"] if stanza["repo"] else stanza["status"]
    if status["code"] not in (0, _EMPTY):
        reason = status["message"].splitlines()[0].rstrip(":")
        raise UserError(f"The backup repository cannot be read ({reason}): check that it can be reached, and BTC_ASSETS_BACKUP_STANZA.")
    cluster = stanza["db"][-1]["id"]
    archive = next(each["id"] for each in stanza["archive"] if each["database"]["id"] == cluster)
    return Repository(archive, tuple(Backup.of(each) for each in stanza["backup"] if each["database"]["id"] == cluster))
