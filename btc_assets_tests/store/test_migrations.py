"""Migrations: numbered files run once, in order, and never change; a repeatable file runs again when its text changes."""

import shutil
import threading
from pathlib import Path

import psycopg
import pytest

from btc_assets.domain.errors import UserError
from btc_assets.store.engines import engine
from btc_assets.store.migrations import migrate, migration_status
from btc_assets.store.sql_files import SQL_DIR, read_migrations, read_repeatables


@pytest.fixture
def sql_dir(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SQL_DIR, tmp_path / "sql"))


def test_the_second_run_applies_nothing(empty_database: str) -> None:
    with psycopg.connect(empty_database, autocommit=True) as connection:
        assert len(migrate(connection)) == len(migration_status(connection))
        assert migrate(connection) == []
        assert all(state.applied_at and not state.pending and not state.problem for state in migration_status(connection))


def test_status_before_the_first_run_shows_everything_as_not_applied(empty_database: str) -> None:
    with psycopg.connect(empty_database, autocommit=True) as connection:
        assert {(state.applied_at, state.pending) for state in migration_status(connection)} == {(None, True)}


def test_an_edited_migration_is_refused(empty_database: str, sql_dir: Path) -> None:
    with psycopg.connect(empty_database, autocommit=True) as connection:
        migrate(connection, sql_dir)
        edited = sql_dir / "common" / "0002_landing.sql"
        edited.write_text(edited.read_text() + "\n-- one more thought\n")
        with pytest.raises(UserError) as raised:
            migrate(connection, sql_dir)
    assert str(raised.value) == (
        "Migration 0002_landing: its file was edited after it was applied; restore the file as it was applied and put the change into a "
        "new one."
    )


@pytest.fixture
def later_release(sql_dir: Path) -> Path:
    """The files of a later release: one more migration, and a view with one more column."""
    later = Path(shutil.copytree(sql_dir, sql_dir.with_name("later")))
    number = len(read_migrations("postgres", later)) + 1
    (later / "common" / f"{number:04d}_later.sql").write_text("ALTER TABLE landing.raw_blobs_5m ADD COLUMN IF NOT EXISTS later text;")
    view = later / "common" / "repeatable" / "landing.slices.sql"
    view.write_text(view.read_text().replace("\nFROM landing.raw_blobs_5m\n", ",\n    count(later) AS later\nFROM landing.raw_blobs_5m\n"))
    return later


def test_an_older_release_of_the_same_line_leaves_a_newer_schema_as_it_is(empty_database: str, sql_dir: Path, later_release: Path) -> None:
    with psycopg.connect(empty_database, autocommit=True) as connection:
        migrate(connection, sql_dir)
        applied = migrate(connection, later_release)
        states = migration_status(connection, sql_dir)
        assert [state.name for state in states if state.newer] == [applied[0]]
        assert not any(state.pending or state.problem for state in states)
        assert migrate(connection, sql_dir) == []
        assert connection.execute("SELECT count(later) FROM landing.slices").fetchone() == (0,)
        assert migrate(connection, later_release) == []


def test_a_release_of_an_earlier_line_is_refused(empty_database: str, sql_dir: Path, later_release: Path) -> None:
    with psycopg.connect(empty_database, autocommit=True) as connection:
        migrate(connection, later_release)
        connection.execute("UPDATE ops.migrations SET line = line + 1 WHERE version = (SELECT max(version) FROM ops.migrations)")
        with pytest.raises(UserError, match=r"_later: it is of a later line of releases, on which this one does not run; install that rel"):
            migrate(connection, sql_dir)


def test_a_database_of_a_release_that_knew_no_lines_is_of_the_first(empty_database: str) -> None:
    with psycopg.connect(empty_database, autocommit=True) as connection:
        migrate(connection)
        connection.execute("ALTER TABLE ops.migrations DROP COLUMN line")
        assert not any(state.pending or state.problem or state.newer for state in migration_status(connection))
        assert migrate(connection) == []
        assert connection.execute("SELECT DISTINCT line FROM ops.migrations").fetchall() == [(1,)]


def test_a_migration_that_fails_leaves_nothing_behind(empty_database: str, sql_dir: Path) -> None:
    number = len(read_migrations("postgres", sql_dir)) + 1
    (sql_dir / "common" / f"{number:04d}_broken.sql").write_text("CREATE TABLE ops.half (a int); SELECT 1 / 0;")
    with psycopg.connect(empty_database, autocommit=True) as connection:
        with pytest.raises(psycopg.errors.DivisionByZero):
            migrate(connection, sql_dir)
        assert connection.execute("SELECT to_regclass('ops.half'), to_regclass('ops.migrations')").fetchone() == (None, None)


def test_two_at_once_apply_each_migration_once(empty_database: str) -> None:
    applied: list[list[str]] = []

    def run() -> None:
        with psycopg.connect(empty_database, autocommit=True) as connection:
            applied.append(migrate(connection))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(len, applied))[:3] == [0, 0, 0]
    with psycopg.connect(empty_database) as connection:
        name = engine(connection)
    assert sum(map(len, applied)) == len(read_migrations(name)) + len(read_repeatables(name))


def test_an_edited_repeatable_file_alone_is_applied_again(empty_database: str, sql_dir: Path) -> None:
    with psycopg.connect(empty_database, autocommit=True) as connection:
        migrate(connection, sql_dir)
        edited = sql_dir / "common" / "repeatable" / "ops.drop_horizon.sql"
        edited.write_text(edited.read_text() + "COMMENT ON FUNCTION ops.drop_horizon IS 'In other words';\n")
        (pending,) = [state for state in migration_status(connection, sql_dir) if state.pending]
        assert (pending.name, pending.applied_at is None, pending.problem) == ("ops.drop_horizon", False, "")
        assert migrate(connection, sql_dir) == ["ops.drop_horizon"]
        assert connection.execute("SELECT obj_description('ops.drop_horizon'::regproc)").fetchone() == ("In other words",)
        assert migrate(connection, sql_dir) == []


def test_after_a_numbered_migration_every_repeatable_file_is_applied_again(empty_database: str, sql_dir: Path) -> None:
    """So a numbered file may drop a view to change a column below it, and need not create the view again."""
    with psycopg.connect(empty_database, autocommit=True) as connection:
        migrate(connection, sql_dir)
        name = f"{len(read_migrations('postgres', sql_dir)) + 1:04d}_wider"
        (sql_dir / "common" / f"{name}.sql").write_text(
            "DROP VIEW landing.slices; ALTER TABLE landing.raw_blobs_5m ALTER loaded_rows TYPE numeric;"
        )
        repeatables = [file.name for file in read_repeatables(engine(connection), sql_dir)]
        assert [state.name for state in migration_status(connection, sql_dir) if state.pending] == [name, *repeatables]
        assert migrate(connection, sql_dir) == [name, *repeatables]
        assert connection.execute("SELECT count(*) FROM landing.slices").fetchone() == (0,)


def test_a_repeatable_file_that_is_removed_is_forgotten(empty_database: str, sql_dir: Path) -> None:
    """An older release that still has the file applies it again, and the newer one after it."""
    with psycopg.connect(empty_database, autocommit=True) as connection:
        migrate(connection)
        (sql_dir / "common" / "repeatable" / "signals.drop_embeddings_table.sql").unlink()
        assert migrate(connection, sql_dir) == []
        assert migrate(connection) == ["signals.drop_embeddings_table"]


def test_a_repeatable_file_that_fails_leaves_everything_as_it_was(empty_database: str, sql_dir: Path) -> None:
    with psycopg.connect(empty_database, autocommit=True) as connection:
        migrate(connection, sql_dir)
        for name, text in {"ops.drop_horizon": "SELECT 1", "signals.fill_labels": "SELECT 1 / 0"}.items():
            (sql_dir / "common" / "repeatable" / f"{name}.sql").write_text(text)
        with pytest.raises(psycopg.errors.DivisionByZero):
            migrate(connection, sql_dir)
        assert [state.name for state in migration_status(connection, sql_dir) if state.pending] == [
            "ops.drop_horizon",
            "signals.fill_labels",
        ]


def test_every_table_view_and_column_explains_itself(database: str) -> None:
    with psycopg.connect(database) as connection:
        silent = connection.execute(
            """
            SELECT c.oid::regclass::text, a.attname
            FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
            LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
            WHERE n.nspname IN ('landing', 'market_data', 'ingestion', 'ops', 'signals') AND c.relkind IN ('r', 'p', 'v')
              AND NOT c.relispartition AND (obj_description(c.oid) IS NULL OR col_description(c.oid, a.attnum) IS NULL)
            """
        ).fetchall()
    assert silent == []


def test_a_server_without_pgvector_is_refused(empty_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with psycopg.connect(empty_database, autocommit=True) as connection:
        # The catalogue as a server without the package shows it: a view of the same name comes first on the search path.
        connection.execute("CREATE SCHEMA bare")
        connection.execute(
            "CREATE VIEW bare.pg_available_extensions AS SELECT * FROM pg_catalog.pg_available_extensions WHERE name <> 'vector'"
        )
        connection.execute("SET search_path = bare, pg_catalog, public")
        with pytest.raises(UserError) as raised:
            migrate(connection)
        major = connection.info.server_version // 10000
        assert connection.execute("SELECT to_regclass('ops.migrations')").fetchone() == (None,)
    assert str(raised.value).endswith(
        f"has no pgvector: install it there (Debian and Ubuntu: apt-get install postgresql-{major}-pgvector) and run btc-assets db migrate again."
    )


def test_a_user_without_the_right_is_told_which(empty_database: str) -> None:
    with psycopg.connect(empty_database, autocommit=True) as connection:
        role = f"reader_{connection.info.dbname[-6:]}"
        connection.execute(f"CREATE ROLE {role}")
        try:
            connection.execute(f"SET ROLE {role}")
            with pytest.raises(
                UserError,
                match=r"^The database user lacks a right \(permission denied for database .*\): have the owner run btc-assets db grant, or name the owner in BTC_ASSETS_OWNER_DSN\.$",
            ):
                migrate(connection)
        finally:
            connection.execute("RESET ROLE")
            connection.execute(f"DROP ROLE {role}")


def test_a_role_whose_search_path_is_the_catalog_alone_migrates(empty_database: str) -> None:
    with psycopg.connect(empty_database, autocommit=True, options="-c search_path=pg_catalog") as connection:
        assert migrate(connection)
        assert connection.execute("SHOW search_path").fetchone() == ("pg_catalog",)
