"""A store works with the documented roles and whatever their settings are, or says in one sentence what it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from btc_assets.store.migrations import migrate
from btc_assets_tests.support.command_line import run_command
from btc_assets_tests.support.databases import write_ticks
from btc_assets_tests.support.poolers import pooler
from btc_assets_tests.support.roles import role_of_a_test
from btc_assets_tests.support.servers import Server
from btc_assets_tests.support.stores import StoreUnderTest, temporary_database
from btc_assets_tests.support.trades import NOON, every

COMMANDS = (
    ("db", "migrate"), ("db", "status"), ("doctor",), ("status",), ("load", "--from", "2026-02-02T12:00Z", "--to", "2026-02-02T12:10Z"),
    ("ops", "status"), ("ops", "apply"), ("models",), ("similar",), ("candles", "1m"),
)  # fmt: skip


def said(*arguments: str) -> str:
    """What a command prints; it has no traceback."""
    result = run_command(*arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return f"{result.output}exit {result.exit_code}"


def set_for(dsn: str, role: str, **settings: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as admin:
        for name, value in settings.items():
            admin.execute(sql.SQL("ALTER ROLE {} SET {} = {}").format(*map(sql.Identifier, (role, name)), sql.Literal(value)))


@contextmanager
def role_that_owns(dsn: str) -> Iterator[tuple[str, str]]:
    """A role without special rights that owns the database."""
    with role_of_a_test(dsn) as (role, as_role), psycopg.connect(dsn, autocommit=True) as admin:
        name = sql.Identifier(str(conninfo_to_dict(dsn)["dbname"]))
        admin.execute("CREATE EXTENSION IF NOT EXISTS vector")
        (before,) = admin.execute("SELECT current_user").fetchone() or ("",)
        admin.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(name, sql.Identifier(role)))
        try:
            yield role, as_role
        finally:
            admin.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(name, sql.Identifier(before)))


def test_the_documented_roles_load_without_a_database_of_dagsters_own(
    store: StoreUnderTest, server_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.land(every(1, 60, start=NOON))
    with (
        temporary_database(server_dsn) as dsn,
        role_that_owns(dsn) as (owner, as_owner),
        role_of_a_test(dsn) as (loader, as_loader),
    ):
        monkeypatch.setenv("BTC_ASSETS_DSN", as_loader)
        monkeypatch.setenv("BTC_ASSETS_OWNER_DSN", as_owner)
        assert "applied" in run_command("db", "migrate").output
        assert run_command("db", "grant", "--loader", loader).exit_code == 0
        assert "exit 0" in said("load", "--from", f"{NOON:%Y-%m-%dT%H:%MZ}", "--to", f"{NOON:%Y-%m-%d}T23:55Z")
        with psycopg.connect(dsn) as admin:
            count = admin.execute("SELECT count(*) FROM market_data.btc_ticks").fetchone()
            owners = admin.execute("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'dagster'").fetchall()
        assert count == (60,) and owners == [(owner,)]
        assert "Dagster" in said("doctor")


def test_a_loader_alone_is_told_who_may_create_dagsters_tables(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    with role_of_a_test(store.dsn) as (loader, as_loader):
        assert run_command("db", "grant", "--loader", loader).exit_code == 0
        monkeypatch.setenv("BTC_ASSETS_DSN", as_loader)
        text = said("load", "--from", "2026-02-02T12:00Z", "--to", "2026-02-02T12:10Z")
        assert (
            "Error: The user of BTC_ASSETS_DSN may not create Dagster's tables (schema dagster) at " in text
            and "name the owner in BTC_ASSETS_OWNER_DSN, or a database of Dagster's own in BTC_ASSETS_DAGSTER_DSN." in text
        )


def test_a_role_that_may_only_read_gets_one_sentence_from_every_command(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    with role_of_a_test(store.dsn, "LOGIN SUPERUSER") as (role, as_role):
        set_for(store.dsn, role, default_transaction_read_only="on")
        monkeypatch.setenv("BTC_ASSETS_DSN", as_role)
        texts = {command[0]: said(*command) for command in COMMANDS}
    sentence = " takes no writes: name the primary server instead of a standby, and a role without default_transaction_read_only."
    assert sentence in texts["doctor"] and sentence in texts["load"]


def test_a_hot_standby_is_read_and_every_other_command_says_in_one_sentence_that_it_takes_no_writes(
    store: StoreUnderTest, own_server: Server, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    with temporary_database(own_server.dsn) as dsn:
        with psycopg.connect(dsn, autocommit=True) as primary:
            migrate(primary)
            write_ticks(primary, every(1, 60, start=NOON))
            name = primary.info.dbname
        with own_server.standby(tmp_path_factory.mktemp("s")) as standby:
            monkeypatch.setenv("BTC_ASSETS_DSN", make_conninfo(standby, dbname=name))
            texts = {" ".join(command[:2]): said(*command) for command in COMMANDS}
            monkeypatch.setenv("BTC_ASSETS_DSN", make_conninfo(standby, dbname=name, target_session_attrs="read-write"))
            wrong_server = said("status")
    refused = "takes no writes"
    assert {command for command, text in texts.items() if refused in text} >= {"db migrate", "doctor", "load --from", "ops apply"}
    assert all("exit 0" in texts[command] for command in ("db status", "status"))
    assert "is what target_session_attrs asks for (session is read-only)" in wrong_server


def test_roles_with_limits_and_other_styles_load_and_the_doctor_tells(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    store.land(every(1, 60, start=NOON))
    with role_of_a_test(store.dsn, "LOGIN SUPERUSER") as (role, as_role):
        set_for(
            store.dsn, role, statement_timeout="5s", idle_session_timeout="5s", idle_in_transaction_session_timeout="5s",
            lock_timeout="5s", default_transaction_isolation="serializable", timezone="America/Los_Angeles", datestyle="SQL, DMY",
            client_encoding="LATIN1", search_path="pg_catalog",
        )  # fmt: skip
        monkeypatch.setenv("BTC_ASSETS_DSN", as_role)
        assert "exit 0" in said("load", "--from", f"{NOON:%Y-%m-%dT%H:%MZ}", "--to", f"{NOON:%Y-%m-%d}T12:10Z")
        assert store.rows("SELECT count(*) FROM market_data.btc_ticks") == [(60,)]
        doctor = said("doctor")
    assert "session: UTC and without limits in our sessions; others of" in doctor and "statement_timeout = 5000" in doctor


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_in_another_encoding_than_utf8_is_refused_by_migrate(
    store: StoreUnderTest, server_dsn: str, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{conninfo_to_dict(store.dsn)['dbname']}_other"
    with psycopg.connect(server_dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} ENCODING {} LOCALE 'C' TEMPLATE template0").format(sql.Identifier(name), encoding))
        try:
            monkeypatch.setenv("BTC_ASSETS_DSN", make_conninfo(server_dsn, dbname=name))
            assert f"is in {encoding}, which cannot hold every character: create one in UTF-8" in said("db", "migrate")
            for command in COMMANDS:
                said(*command)
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_everything_works_through_a_pooler_in_session_mode(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    store.land(every(1, 60, start=NOON))
    with pooler(store.dsn, "session") as through:
        monkeypatch.setenv("BTC_ASSETS_DSN", through)
        assert "exit 0" in said("load", "--from", f"{NOON:%Y-%m-%dT%H:%MZ}", "--to", f"{NOON:%Y-%m-%d}T12:10Z")
    assert store.rows("SELECT count(*) FROM market_data.btc_ticks") == [(60,)]


def test_a_pooler_in_transaction_mode_is_refused_before_anything_is_written(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    with pooler(store.dsn, "transaction", ignore_startup_parameters="options,extra_float_digits") as through:
        monkeypatch.setenv("BTC_ASSETS_DSN", through)
        for command in COMMANDS:
            assert "set pool_mode = session there for this database" in said(*command)
    assert store.rows("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'") == [(0,)]


@pytest.mark.parametrize(
    ("prepare", "sentence"),
    [
        (lambda dsn: make_conninfo(dsn, host="nowhere.invalid", hostaddr=""), "is not known here: correct it in BTC_ASSETS_DSN"),
        (lambda dsn: make_conninfo(dsn, options="-c nonsense=1"), "refused what the connection asks for"),
        (lambda dsn: make_conninfo(dsn, options="-c statement_timeout=1"), "ended what took longer than a limit allows"),
    ],
    ids=["no such host", "an unknown option", "a limit of one's own"],
)
def test_a_connection_string_that_cannot_work_is_one_sentence(
    store: StoreUnderTest, prepare: Callable[[str], str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BTC_ASSETS_DSN", prepare(make_conninfo(store.dsn)))
    result = run_command("ops", "status")
    assert sentence in result.output and result.exit_code == 1
