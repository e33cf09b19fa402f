"""A session is in UTC, UTF-8 and ISO whatever the environment, the role, the database or a pooler says; one that is shared is refused."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import psycopg
import pytest
import sqlalchemy
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from btc_assets.domain.errors import UserError
from btc_assets.orchestration.libpq_dialect import libpq_url
from btc_assets.store.database import Store, connect, only_row, prepare_conninfo
from btc_assets.store.read import fetch_table
from btc_assets.store.sessions import opening_statement, role_settings
from btc_assets_tests.support.poolers import pooler
from btc_assets_tests.support.roles import role_of_a_test

NEEDED = {
    "TimeZone": "UTC", "client_encoding": "UTF8", "DateStyle": "ISO, MDY", "IntervalStyle": "postgres", "bytea_output": "hex",
    "extra_float_digits": "1", "standard_conforming_strings": "on", "default_transaction_isolation": "read committed",
    "statement_timeout": "0", "lock_timeout": "0", "idle_in_transaction_session_timeout": "0", "idle_session_timeout": "0",
}  # fmt: skip
# Each otherwise than it must be.
WRONG = {
    "TimeZone": "America/Los_Angeles", "client_encoding": "LATIN1", "DateStyle": "German", "IntervalStyle": "iso_8601",
    "bytea_output": "escape", "extra_float_digits": "-4", "standard_conforming_strings": "off",
    "default_transaction_isolation": "serializable", "statement_timeout": "1min", "lock_timeout": "2min",
    "idle_in_transaction_session_timeout": "3min", "idle_session_timeout": "4min",
}  # fmt: skip
SHOWN = sql.SQL("SELECT {}").format(sql.SQL(", ").join(sql.SQL("current_setting({}) AS {}").format(n, sql.Identifier(n)) for n in NEEDED))

Shown = Callable[[str], dict[str, str]]


def by_psycopg(dsn: str) -> dict[str, str]:
    with connect(dsn) as connection:
        return dict(zip(NEEDED, only_row(connection.execute(SHOWN)), strict=True))


def by_arrow(dsn: str) -> dict[str, str]:
    return fetch_table(Store(dsn), SHOWN).to_pylist()[0]


def by_dagster(dsn: str) -> dict[str, str]:
    engine = sqlalchemy.create_engine(libpq_url(prepare_conninfo(dsn), "pg_catalog"))
    with engine.connect() as connection:
        return dict(connection.execute(sqlalchemy.text(SHOWN.as_string(None))).mappings().one())


@pytest.fixture(params=[by_psycopg, by_arrow, by_dagster])
def shown(request: pytest.FixtureRequest) -> Shown:
    return request.param


def test_the_environment_of_libpq_does_not_change_what_a_session_means(
    database: str, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGTZ", "Asia/Tokyo")
    monkeypatch.setenv("PGDATESTYLE", "SQL, DMY")
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    monkeypatch.setenv("PGOPTIONS", "-c extra_float_digits=-3 --intervalstyle=sql_standard")
    assert shown(database) == NEEDED


@pytest.mark.parametrize("target", ["role", "database"])
def test_settings_of_the_role_and_of_the_database_do_not_change_what_a_session_means(database: str, shown: Shown, target: str) -> None:
    with role_of_a_test(database) as (role, dsn):
        of = sql.SQL("ROLE {}").format(sql.Identifier(role))
        if target == "database":
            of = sql.SQL("DATABASE {}").format(sql.Identifier(str(conninfo_to_dict(database)["dbname"])))
        with psycopg.connect(database, autocommit=True) as admin:
            for name, value in WRONG.items():
                admin.execute(sql.SQL("ALTER {} SET {} = {}").format(of, sql.Identifier(name), value))
        assert shown(dsn) == NEEDED
        with connect(dsn) as connection:
            assert set(role_settings(connection)) == WRONG.keys() - {"client_encoding"}


def test_times_numbers_and_bytes_of_a_role_with_other_styles_are_read_as_they_are(database: str) -> None:
    values = "SELECT '2026-02-01T00:00:00.123456Z'::timestamptz, 0.1::float8 + 0.2::float8, '1 day 2 h'::interval, '\\xff00'::bytea, 'é–数'"
    with role_of_a_test(database) as (role, dsn):
        with psycopg.connect(database, autocommit=True) as admin:
            for name, value in WRONG.items():
                admin.execute(sql.SQL("ALTER ROLE {} SET {} = {}").format(*map(sql.Identifier, (role, name)), value))
        with connect(dsn) as connection:
            time, number, interval, raw, text = connection.execute(values).fetchone()  # type: ignore[misc]
    assert time == dt.datetime(2026, 2, 1, 0, 0, 0, 123456, dt.UTC) and time.utcoffset() == dt.timedelta(0)
    assert (number, interval, raw, text) == (0.1 + 0.2, dt.timedelta(days=1, hours=2), b"\xff\x00", "é–数")


@pytest.mark.parametrize("options", ["-c statement_timeout=7s -c work_mem=7MB", "-cstatement_timeout=7s --work-mem=7MB"])
def test_options_of_the_connection_string_are_joined_with_ours(database: str, shown: Shown, options: str) -> None:
    dsn = make_conninfo(database, options=f"{options} -c timezone=Asia/Tokyo -c lock_timeout=3s")
    assert shown(dsn) == NEEDED | {"statement_timeout": "7s", "lock_timeout": "3s"}
    with connect(dsn) as connection:
        assert connection.execute("SHOW work_mem").fetchone() == ("7MB",)


def test_a_session_that_a_pooler_gives_to_one_client_is_like_any_other(database: str, shown: Shown) -> None:
    with pooler(database, "session") as through:
        assert shown(through) == NEEDED


@pytest.mark.parametrize("size", [1, 20])
@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_a_session_that_others_use_as_well_is_refused_and_left_as_it_was(database: str, mode: str, size: int) -> None:
    with (
        pooler(database, mode, default_pool_size=str(size), ignore_startup_parameters="options") as through,  # type: ignore[arg-type]
        closing(psycopg.connect(through, autocommit=True)) as other,
    ):
        before = other.execute(SHOWN).fetchone()
        with pytest.raises(UserError, match=r"^PostgreSQL at \S+ is behind a pooler that gives every transaction another session, .*\.$"):
            connect(through)
        assert other.execute(SHOWN).fetchone() == before


def test_a_busy_pooler_that_shares_sessions_is_found_out_as_well(database: str) -> None:
    with pooler(database, "transaction") as through, holding_transactions(through, 3), pytest.raises(UserError, match="behind a pooler"):
        connect(through)


@contextmanager
def holding_transactions(dsn: str, count: int) -> Iterator[None]:
    """Other clients of a pooler, each in a transaction."""
    clients = [psycopg.connect(dsn) for _ in range(count)]
    for client in clients:
        client.execute("SELECT 1")
    try:
        yield
    finally:
        for client in clients:
            client.close()


def test_the_last_session_of_a_pooler_is_ours_alone_although_it_has_no_other_to_compare(database: str) -> None:
    with pooler(database, "session", default_pool_size="1") as through, connect(through) as connection:
        assert connection.execute("SHOW timezone").fetchone() == ("UTC",)


def test_startup_options_that_a_pooler_refuses_are_named(database: str) -> None:
    with (
        pooler(database, "session") as through,
        pytest.raises(
            UserError,
            match=r"^PostgreSQL at \S+, or a pooler before it, refused what the connection asks for \(unsupported startup parameter: options\): "
            r"correct `options` in BTC_ASSETS_DSN and PGOPTIONS\.$",
        ),
    ):
        connect(make_conninfo(through, options="-c work_mem=7MB"))


@pytest.mark.parametrize(
    ("role_has", "options", "shown_path"),
    [
        ("pg_catalog", None, "pg_catalog, public"),
        ("''", None, '"", public'),
        ("public, other", None, "public, other"),
        ("pg_catalog", "-c search_path=mine", "mine"),
    ],
)
def test_extensions_are_found_although_a_role_does_not_look_for_them(
    database: str, role_has: str, options: str | None, shown_path: str
) -> None:
    with role_of_a_test(database) as (role, dsn):
        with psycopg.connect(database, autocommit=True) as admin:
            admin.execute(f"ALTER ROLE {role} SET search_path = {role_has}")
        with connect(make_conninfo(dsn, options=options)) as connection:
            assert connection.execute("SHOW search_path").fetchone() == (shown_path,)


def test_opening_a_session_is_one_statement(database: str) -> None:
    with psycopg.connect(database) as connection:
        process, _ = only_row(connection.execute(opening_statement(database)))
        assert process == connection.info.backend_pid
        assert dict(zip(NEEDED, only_row(connection.execute(SHOWN)), strict=True)) == NEEDED
