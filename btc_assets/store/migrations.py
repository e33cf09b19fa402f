"""Bring a database up to date with the files below `sql/`.

Numbered migrations run once, in order. They create tables, indexes and rows, and must never change after they were applied.
Repeatable files hold the current definition of each view, function and procedure. They run after the numbered ones, whenever
their text differs from what was applied last.

Migrations only add, so a release runs on the schema of a later one of the same line: `LINE` is recorded with each migration, and
grows with the first migration that takes something away. A release leaves a newer schema as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psycopg
from psycopg.errors import LockNotAvailable

from btc_assets.domain.errors import TransientError, UserError
from btc_assets.store.engines import engine, read_facts
from btc_assets.store.errors import server_errors
from btc_assets.store.locks import LOCK_WAIT, bound_lock_waits, describe_users_of_tables
from btc_assets.store.sql_files import SQL_DIR, Migration, SqlFile, read_migrations, read_repeatables
from btc_assets.store.tables import ROOMS

LINE = 1

_BOOTSTRAP = """
CREATE SCHEMA IF NOT EXISTS ops;

CREATE TABLE IF NOT EXISTS ops.migrations (
    version    integer     PRIMARY KEY,
    name       text        NOT NULL,
    checksum   text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE ops.migrations IS 'Numbered SQL files that were applied; kept by btc-assets db migrate';
COMMENT ON COLUMN ops.migrations.version IS 'Number of the file';
COMMENT ON COLUMN ops.migrations.name IS 'Name of the file';
COMMENT ON COLUMN ops.migrations.checksum IS 'SHA-256 of its text; a file must not change after it was applied';
COMMENT ON COLUMN ops.migrations.applied_at IS 'When it was applied';
ALTER TABLE ops.migrations ADD COLUMN IF NOT EXISTS line integer NOT NULL DEFAULT 1;
COMMENT ON COLUMN ops.migrations.line IS 'Releases of the same line run on the schemas of each other';

CREATE TABLE IF NOT EXISTS ops.repeatable_migrations (
    name       text        PRIMARY KEY,
    checksum   text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE ops.repeatable_migrations IS 'Repeatable SQL files as they were applied last; kept by btc-assets db migrate';
COMMENT ON COLUMN ops.repeatable_migrations.name IS 'View, function or procedure that the file defines';
COMMENT ON COLUMN ops.repeatable_migrations.checksum IS 'SHA-256 of its text; when the text changes, the file is applied again';
COMMENT ON COLUMN ops.repeatable_migrations.applied_at IS 'When it was last applied';
"""

# Files name the types of extensions without a schema, and a role may have any search path.
_FIX_SEARCH_PATH = """
SELECT set_config('search_path', coalesce(
    (SELECT string_agg(DISTINCT quote_ident(nspname), ', ') FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace
     WHERE extname IN ('vector', 'timescaledb')),
    quote_ident(nullif(current_schema(), 'pg_catalog')), 'public'
), true)
"""
_RECORD_NUMBERED = "INSERT INTO ops.migrations (version, name, checksum, line) VALUES (%s, %s, %s, %s)"
_RECORD_REPEATABLE = """
INSERT INTO ops.repeatable_migrations (name, checksum) VALUES (%s, %s)
ON CONFLICT (name) DO UPDATE SET checksum = excluded.checksum, applied_at = excluded.applied_at
"""
_FORGET_OTHERS = "DELETE FROM ops.repeatable_migrations WHERE name <> ALL (%s)"


@dataclass(frozen=True)
class MigrationState:
    """A file as `btc-assets db status` shows it.

    Attributes:
        name: of the file, without `.sql`.
        applied_at: when it was last applied; None if it never was.
        pending: whether `migrate` will apply it.
        problem: what is wrong with it; empty if file and record agree.
        newer: whether a later release applied it, on whose schema this one runs.
    """

    name: str
    applied_at: datetime | None
    pending: bool
    problem: str = ""
    newer: bool = False


@dataclass(frozen=True)
class _Record:
    name: str
    checksum: str
    applied_at: datetime
    line: int = LINE


def migration_status(connection: psycopg.Connection, directory: Path = SQL_DIR) -> list[MigrationState]:
    """The state of every file: the numbered ones by number, then the repeatable ones in the order in which they are applied.

    Raises:
        UserError: the files are not in order, or the server is not one that the store runs on.
    """
    return [state for _, state in _status(connection, directory)]


def migrate(connection: psycopg.Connection, directory: Path = SQL_DIR) -> list[str]:
    """Apply the pending files, all in one transaction under a lock; none if a later release of the same line has migrated the database.

    Returns:
        The names of the files that were applied, in order.

    Raises:
        UserError: a numbered file was edited or is missing, the server lacks what the store needs, or a right is missing.
    """
    try:
        with server_errors():
            return _migrate(connection, directory)
    except TransientError as error:
        if not isinstance(error.__cause__, LockNotAvailable):
            raise
        user = describe_users_of_tables(connection, ROOMS)
        raise TransientError(
            f"The migration waited {LOCK_WAIT} for a table that {user} is using, and changed nothing: let that transaction end, or end it "
            "with pg_terminate_backend, and run btc-assets db migrate again."
        ) from None


def _migrate(connection: psycopg.Connection, directory: Path) -> list[str]:
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('ops.migrations'))")
        bound_lock_waits(connection)
        connection.execute(_BOOTSTRAP)
        files = _status(connection, directory)
        _require_unchanged(state for _, state in files)
        if any(state.newer for _, state in files):
            return []
        pending = [file for file, state in files if file and state.pending]
        if pending:
            _prepare(connection)
        for file in pending:
            _apply(connection, file)
        connection.execute(_FORGET_OTHERS, ([file.name for file, _ in files if file],))
    return [file.name for file in pending]


def _status(connection: psycopg.Connection, directory: Path) -> list[tuple[SqlFile | None, MigrationState]]:
    engine_name = engine(connection)
    numbered = list(_numbered_status(read_migrations(engine_name, directory), _numbered_records(connection)))
    newer = any(state.newer for _, state in numbered)
    # A numbered migration may have dropped what a repeatable file defines, for example a view on a column that changes its type.
    all_pending = any(state.pending for _, state in numbered)
    records = _repeatable_records(connection)
    repeatable: list[tuple[SqlFile | None, MigrationState]] = []
    for file in read_repeatables(engine_name, directory):
        record = records.get(file.name)
        pending = not newer and (all_pending or record is None or record.checksum != file.checksum)
        repeatable.append((file, MigrationState(file.name, record.applied_at if record else None, pending)))
    return [*numbered, *repeatable]


def _numbered_status(migrations: list[Migration], records: Mapping[int, _Record]) -> Iterator[tuple[SqlFile | None, MigrationState]]:
    files = {migration.version: migration for migration in migrations}
    for version in sorted(files.keys() | records.keys()):
        file, record = files.get(version), records.get(version)
        if record is None:
            yield file, MigrationState(files[version].name, None, pending=True)
        elif file is None and version > max(files, default=0) and record.line == LINE:
            yield file, MigrationState(record.name, record.applied_at, pending=False, newer=True)
        elif file is None:
            problem = "its file is missing" if record.line == LINE else "it is of a later line of releases, on which this one does not run"
            yield file, MigrationState(record.name, record.applied_at, pending=False, problem=problem)
        else:
            edited = record.checksum != file.checksum
            problem = "its file was edited after it was applied" if edited else ""
            yield file, MigrationState(file.name, record.applied_at, pending=False, problem=problem)


def _numbered_records(connection: psycopg.Connection) -> dict[int, _Record]:
    if not _exists(connection, "ops.migrations"):
        return {}
    # Through JSON, because an older release has made the table without the line.
    rows = connection.execute(
        "SELECT version, name, checksum, applied_at, coalesce((to_jsonb(migrations) ->> 'line')::int, 1) FROM ops.migrations"
    ).fetchall()
    return {version: _Record(*record) for version, *record in rows}


def _repeatable_records(connection: psycopg.Connection) -> dict[str, _Record]:
    if not _exists(connection, "ops.repeatable_migrations"):  # an older release set the database up
        return {}
    rows = connection.execute("SELECT name, checksum, applied_at FROM ops.repeatable_migrations").fetchall()
    return {row[0]: _Record(*row) for row in rows}


def _exists(connection: psycopg.Connection, table: str) -> bool:
    return connection.execute("SELECT to_regclass(%s) IS NOT NULL", (table,)).fetchone() == (True,)


def _require_unchanged(states: Iterator[MigrationState]) -> None:
    for state in states:
        if state.problem:
            raise UserError(f"Migration {state.name}: {state.problem}; {migration_advice(state)}.")


def migration_advice(state: MigrationState) -> str:
    """What to do about a file that has a problem."""
    if "later line" in state.problem:
        return "install that release again, or restore a backup from before it"
    return "restore the file as it was applied and put the change into a new one"


def _prepare(connection: psycopg.Connection) -> None:
    """Make sure that the server has what the files rely on."""
    facts = read_facts(connection)
    facts.require_vector()
    if facts.ticks is None:
        facts.require_encoding()
    connection.execute(_FIX_SEARCH_PATH)
    if facts.engine == "timescale":
        connection.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
        engine(connection)  # checks the edition, which the server reports only once the extension exists


def _apply(connection: psycopg.Connection, file: SqlFile) -> None:
    connection.execute(file.text)  # not a literal: a file of this project
    if isinstance(file, Migration):
        connection.execute(_RECORD_NUMBERED, (file.version, file.name, file.checksum, LINE))
    else:
        connection.execute(_RECORD_REPEATABLE, (file.name, file.checksum))
