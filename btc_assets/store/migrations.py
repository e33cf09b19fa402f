"""Numbered SQL files, applied once and in order.

A version is one number; its file lies in `sql/common` or, where the engines differ, in `sql/postgres` and
`sql/timescale` both. Applied files are recorded with their checksum and must never change afterwards.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psycopg

from btc_assets.domain.errors import UserError
from btc_assets.store.database import SQL_DIR, server_errors
from btc_assets.store.engines import engine, read_facts

_FILE_NAME = re.compile(r"^(\d{4})_[a-z0-9_]+\.sql$")
_BOOTSTRAP = """
CREATE SCHEMA IF NOT EXISTS ops;
CREATE TABLE IF NOT EXISTS ops.migrations (
    version    integer     PRIMARY KEY,
    name       text        NOT NULL,
    checksum   text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE ops.migrations IS 'SQL files that have been applied; kept by btc-assets db migrate';
COMMENT ON COLUMN ops.migrations.version IS 'Number of the file';
COMMENT ON COLUMN ops.migrations.name IS 'Name of the file';
COMMENT ON COLUMN ops.migrations.checksum IS 'SHA-256 of its text; a file must not change once it is applied';
COMMENT ON COLUMN ops.migrations.applied_at IS 'When it was applied';
"""


@dataclass(frozen=True)
class Migration:
    """One SQL file."""

    version: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True)
class MigrationState:
    """A migration as `btc-assets db status` shows it; `problem` is empty where file and record agree."""

    version: int
    name: str
    applied_at: datetime | None
    problem: str


def read_migrations(engine_name: str, directory: Path = SQL_DIR) -> list[Migration]:
    """The files for one engine, by number.

    Raises:
        UserError: two files have one number, a number is left out, or a file has no number.
    """
    found: dict[int, Migration] = {}
    for path in sorted([*(directory / "common").glob("*.sql"), *(directory / engine_name).glob("*.sql")]):
        match = _FILE_NAME.match(path.name)
        if match is None:
            raise UserError(f"{path} is no migration: name it like 0007_what_it_does.sql.")
        version = int(match[1])
        if version in found:
            raise UserError(f"{path} and {found[version].name} have the same number: give one of them the next free one.")
        found[version] = Migration(version, path.stem, path.read_text())
    for expected, version in enumerate(sorted(found), start=1):
        if version != expected:
            raise UserError(f"Migration {expected:04d} is missing in {directory}: restore it from version control.")
    return [found[version] for version in sorted(found)]


def migration_status(connection: psycopg.Connection, directory: Path = SQL_DIR) -> list[MigrationState]:
    """Every migration, applied or not, and what is wrong with it."""
    files = {m.version: m for m in read_migrations(engine(connection), directory)}
    applied = _applied(connection)
    states = []
    for version in sorted(files.keys() | applied.keys()):
        file, record = files.get(version), applied.get(version)
        problem = ""
        if record and not file:
            problem = "its file is missing"
        elif record and file and record[1] != file.checksum:
            problem = "its file was edited after it was applied"
        states.append(MigrationState(version, file.name if file else record[0], record[2] if record else None, problem))  # type: ignore[index]
    return states


def migrate(connection: psycopg.Connection, directory: Path = SQL_DIR) -> list[str]:
    """Apply what is not applied yet, all in one transaction under a lock, and return the names of those files.

    Raises:
        UserError: a past migration was edited or is missing, the server lacks what the store needs, or a right is missing.
    """
    with server_errors(), connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('ops.migrations'))")
        connection.execute(_BOOTSTRAP)
        for state in migration_status(connection, directory):
            if state.problem:
                raise UserError(
                    f"Migration {state.name} cannot stand: {state.problem}; restore the file as it was applied and put the change "
                    "into a new one."
                )
        applied = _applied(connection)
        pending = [m for m in read_migrations(engine(connection), directory) if m.version not in applied]
        if pending:
            _prepare(connection)
        for migration in pending:
            connection.execute(migration.text)  # not a literal: it is a file of ours
            connection.execute(
                "INSERT INTO ops.migrations (version, name, checksum) VALUES (%s, %s, %s)",
                (migration.version, migration.name, migration.checksum),
            )
    return [migration.name for migration in pending]


def _prepare(connection: psycopg.Connection) -> None:
    """Make sure that the server has what the files take for granted."""
    facts = read_facts(connection)
    facts.require_vector()
    if facts.engine == "timescale":
        connection.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
        engine(connection)  # once more: only now does the server say which edition it is


def _applied(connection: psycopg.Connection) -> dict[int, tuple[str, str, datetime]]:
    if connection.execute("SELECT to_regclass('ops.migrations')").fetchone() == (None,):
        return {}
    rows = connection.execute("SELECT version, name, checksum, applied_at FROM ops.migrations").fetchall()
    return {version: (name, checksum, at) for version, name, checksum, at in rows}
