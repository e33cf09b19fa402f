"""What the repeatable files say is what a database has: in a new one, in one that an older release set up, and after changes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from btc_assets.ops.roles import grant_rights, missing_rights
from btc_assets.store.engines import engine
from btc_assets.store.migrations import migrate
from btc_assets.store.sql_files import read_repeatables
from btc_assets_tests.support.databases import numbered_files
from btc_assets_tests.support.definitions import read_definitions

LAST_WITHOUT_REPEATABLES = 18  # the newest numbered file of the last release that had no repeatable files
LOADER = "loader_of_definitions"

# No file is named after these. market_data.create_candle_view makes the first. The second are views on TimescaleDB only, which are
# continuous aggregates: market_data.create_candle_partials makes them, and nothing can replace them.
MADE_BY_PROCEDURES = re.compile(r"market_data\.(candles|candle_partials)_[0-9]+[a-z]+")


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """The SQL files of the last release without repeatable files."""
    return numbered_files(LAST_WITHOUT_REPEATABLES, tmp_path)


@pytest.fixture(params=["postgres", "timescale"])
def installed(request: pytest.FixtureRequest, release: Path) -> Iterator[psycopg.Connection]:
    """A store that the last release without repeatable files set up, with a role that loads."""
    dsn = request.getfixturevalue("empty_plain" if request.param == "postgres" else "empty_timescale")
    with psycopg.connect(dsn, autocommit=True, options="-c timezone=UTC") as connection:
        migrate(connection, release)
        connection.execute("DROP TABLE ops.repeatable_migrations")
        connection.execute(f"CREATE ROLE {LOADER}")
        try:
            grant_rights(connection, loaders=[LOADER])
            yield connection
        finally:
            connection.execute(f"RESET ROLE; DROP OWNED BY {LOADER}; DROP ROLE {LOADER}")


def test_every_object_has_exactly_one_file(on_each_engine: psycopg.Connection) -> None:
    objects = {name for name in read_definitions(on_each_engine) if not MADE_BY_PROCEDURES.fullmatch(name)}
    assert objects == {file.name for file in read_repeatables(engine(on_each_engine))}


def test_a_file_defines_the_object_that_it_is_named_after_and_no_other(on_each_engine: psycopg.Connection) -> None:
    for file in read_repeatables(engine(on_each_engine)):
        defined = re.findall(r"^CREATE OR REPLACE (?:VIEW|FUNCTION|PROCEDURE) ([a-z_.0-9]+)", file.text, re.MULTILINE)
        assert defined == [file.name]
        assert re.search(rf"^COMMENT ON (VIEW|FUNCTION|PROCEDURE) {re.escape(file.name)}\b", file.text, re.MULTILINE), file.name


def test_applied_again_the_files_change_nothing(on_each_engine: psycopg.Connection) -> None:
    """Not even SECURITY DEFINER, settings, grants and comments, some of which CREATE OR REPLACE resets."""
    before = read_definitions(on_each_engine)
    on_each_engine.execute("UPDATE ops.repeatable_migrations SET checksum = 'of an older text'")
    assert migrate(on_each_engine) == [file.name for file in read_repeatables(engine(on_each_engine))]
    assert read_definitions(on_each_engine) == before


def test_the_files_alone_bring_back_everything_that_was_dropped(on_each_engine: psycopg.Connection) -> None:
    """So each file is complete, and comes after the files that it requires."""
    before = read_definitions(on_each_engine)
    views, routines = (on_each_engine.execute(query).fetchall() for query in (_DROP_VIEWS, _DROP_ROUTINES))
    for (statement,) in [*views, *routines]:
        on_each_engine.execute(statement)
    assert len(read_definitions(on_each_engine)) < 10
    on_each_engine.execute("DELETE FROM ops.repeatable_migrations")
    migrate(on_each_engine)
    assert read_definitions(on_each_engine) == before


# Continuous aggregates stay, for they hold candles; so does what a trigger calls.
_DROP_VIEWS = """
SELECT format('DROP VIEW %s', pg_class.oid::regclass) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE nspname IN ('landing', 'market_data', 'signals', 'ingestion', 'ops') AND relkind = 'v' AND relname !~ '^candle_partials_'
"""
_DROP_ROUTINES = """
SELECT format('DROP ROUTINE %s', pg_proc.oid::regprocedure) FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace
WHERE nspname IN ('landing', 'market_data', 'signals', 'ingestion', 'ops') AND prorettype <> 'trigger'::regtype
"""


@pytest.mark.slow
def test_a_store_that_an_older_release_set_up_becomes_like_a_new_one(installed: psycopg.Connection, request: pytest.FixtureRequest) -> None:
    before = read_definitions(installed)
    migrate(installed)
    after = read_definitions(installed)
    new = read_definitions(request.getfixturevalue(f"on_{engine(installed)}"))
    assert {name: definition.without_grants() for name, definition in after.items()} == {
        name: definition.without_grants() for name, definition in new.items()
    }
    # The roles keep what they were granted, and may use what is new without another `btc-assets db grant`.
    assert {name: after[name].grants for name in before} == {name: definition.grants for name, definition in before.items()}
    installed.execute(f"SET ROLE {LOADER}")
    assert missing_rights(installed) == []
    assert installed.execute("SELECT count(*) FROM ingestion.makeable_slices").fetchone() == (0,)
    assert installed.execute("SELECT landing.is_unsettled('noticed', NULL)").fetchone() == (True,)
    assert installed.execute("SELECT market_data.ensure_tick_partitions(now(), now())").fetchone() is not None


def test_a_level_that_was_added_has_the_view_of_the_others(on_each_engine: psycopg.Connection) -> None:
    on_each_engine.execute("CALL market_data.create_candles('100ms', '100 milliseconds')")
    definitions = read_definitions(on_each_engine)
    added, other = (definitions[f"market_data.candles_{level}"] for level in ("100ms", "1s"))
    assert added.text == other.text.replace("candle_partials_1s", "candle_partials_100ms")
    assert [str(comment).replace("of 100ms", "of 1s") for comment in added.comments] == other.comments
