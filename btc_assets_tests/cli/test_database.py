"""The commands `db`."""

from __future__ import annotations

import psycopg
import pytest

from btc_assets.store.migrations import migration_status
from btc_assets_tests.support.command_line import run_command
from btc_assets_tests.support.stores import StoreUnderTest


def test_migrations_are_applied_and_shown(store: StoreUnderTest, empty_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTC_ASSETS_DSN", empty_database)
    assert "not yet" in run_command("db", "status").output
    with psycopg.connect(empty_database) as connection:
        count = len(migration_status(connection))
    assert f"applied {count} migration(s)" in run_command("db", "migrate").output
    assert "up to date" in run_command("db", "migrate").output
    assert "not yet" not in run_command("db", "status").output


def test_a_database_that_a_later_release_migrated_is_used_as_it_is(store: StoreUnderTest) -> None:
    store.connection.execute("INSERT INTO ops.migrations (version, name, checksum) VALUES (9999, '9999_later', 'x')")
    migrated = run_command("db", "migrate")
    assert migrated.exit_code == 0
    assert "a later release migrated it, up to 9999_later; this release runs on it, and nothing was applied." in migrated.output
    assert "migrations: a later release applied 1 more, up to 9999_later; this release runs on them." in run_command("doctor").output
    status = run_command("db", "status")
    assert status.exit_code == 0 and "by a later" in status.output  # the table may break the words after it


def test_the_connection_string_is_printed_for_other_clients(store: StoreUnderTest) -> None:
    assert run_command("db", "dsn").output == f"{store.dsn}\n"


def test_without_an_embedded_server_there_is_nothing_to_stop(store: StoreUnderTest) -> None:
    assert run_command("db", "stop").output == "The embedded server is not running.\n"


def test_grant_needs_a_role(store: StoreUnderTest) -> None:
    result = run_command("db", "grant")
    assert result.exit_code == 2 and "Name at least one role with --loader or --reader." in result.output
