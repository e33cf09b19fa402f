"""Each reason for which a server or a pooler refuses a connection has its true sentence; only what is not there is to be started."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from btc_assets.domain.errors import TransientError, UserError
from btc_assets.store.database import connect
from btc_assets.store.refusals import refusal
from btc_assets_tests.support.poolers import pooler
from btc_assets_tests.support.roles import role_of_a_test

REFUSED = 'connection to server at "10.0.0.1", port 5432 failed: FATAL:  {}'


@pytest.fixture
def admin(database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


def test_a_role_without_a_connection_left_is_not_told_to_start_the_server(database: str) -> None:
    with role_of_a_test(database, "LOGIN CONNECTION LIMIT 1") as (_, dsn), connect(dsn), pytest.raises(TransientError) as raised:
        connect(dsn)
    assert "has no connection left (too many connections for role " in str(raised.value) and "start it" not in str(raised.value)


def test_a_role_that_may_not_log_in_or_connect_is_told_so(database: str, admin: psycopg.Connection) -> None:
    with role_of_a_test(database, "NOLOGIN") as (role, dsn):
        with pytest.raises(UserError, match=r"refused the user or password: correct them in BTC_ASSETS_DSN\.$"):
            connect(dsn)
        admin.execute(sql.SQL("ALTER ROLE {} LOGIN").format(sql.Identifier(role)))
        name = sql.Identifier(str(conninfo_to_dict(database)["dbname"]))
        admin.execute(sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(name))
        with pytest.raises(
            UserError, match=r"refused the user \(permission denied for database .*\): have the owner run btc-assets db grant"
        ):
            connect(dsn)


def test_a_database_that_takes_no_connections_is_told_so(database: str, server_dsn: str) -> None:
    with psycopg.connect(server_dsn, autocommit=True) as elsewhere:
        name = sql.Identifier(str(conninfo_to_dict(database)["dbname"]))
        elsewhere.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
        with pytest.raises(UserError, match=r"takes no connections now \(database \".*\" is not currently accepting connections\): allow"):
            connect(database)
        elsewhere.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))


def test_a_server_that_may_not_be_written_is_not_what_a_connection_string_asks_for(database: str, admin: psycopg.Connection) -> None:
    with pytest.raises(TransientError, match=r"is what target_session_attrs asks for \(server is not in hot standby mode\): promote one"):
        connect(make_conninfo(database, target_session_attrs="standby"))


def test_the_first_of_several_hosts_that_answers_is_taken(database: str) -> None:
    parts = conninfo_to_dict(database)
    dsn = make_conninfo(
        database, host=f"127.0.0.1,{parts['host']}", port=f"1,{parts.get('port') or 5432}", target_session_attrs="read-write"
    )
    with connect(dsn) as connection:
        assert connection.info.dbname == parts["dbname"]
    with pytest.raises(TransientError, match=r"^PostgreSQL at 127\.0\.0\.1,127\.0\.0\.1:1,2/\S+ cannot be reached: start it, or correct"):
        connect(make_conninfo(database, host="127.0.0.1,127.0.0.1", port="1,2"))


def test_a_pooler_that_is_full_or_knows_no_such_database_is_told_so(database: str) -> None:
    with (
        pooler(database, "session", max_client_conn="1") as through,
        psycopg.connect(through),
        pytest.raises(TransientError, match=r"has no connection left \(no more connections allowed \(max_client_conn\)\)"),
    ):
        connect(through)


@pytest.mark.parametrize(
    ("words", "kind", "sentence"),
    [
        ("sorry, too many clients already", TransientError, "has no connection left"),
        ("remaining connection slots are reserved for roles with the SUPERUSER attribute", TransientError, "has no connection left"),
        ("unsupported startup parameter: extra_float_digits", UserError, "refused what the connection asks for"),
        ("the database system is starting up", TransientError, "is not ready"),
        ("the database system is shutting down", TransientError, "is not ready"),
        ("the database system is in recovery mode", TransientError, "is not ready"),
        ("the database system is not accepting connections", UserError, "takes no connections now"),
        ('no pg_hba.conf entry for host "10.0.0.2", user "u", database "d", no encryption', UserError, "admits no such user"),
        ('password authentication failed for user "u"', UserError, "refused the user or password"),
        ('database "none" does not exist', UserError, "has no such database"),
        ("terminating connection due to idle-session timeout", UserError, "ended what took longer than a limit allows"),
        ("terminating connection due to administrator command", TransientError, "refused the connection (terminating"),
        ("es sind bereits zu viele Clients verbunden", TransientError, "refused the connection (es sind bereits"),
    ],
)
def test_the_words_of_a_server_become_their_sentence(words: str, kind: type[UserError], sentence: str) -> None:
    error = refusal("postgresql://u@10.0.0.1/d", "10.0.0.1:5432/d", REFUSED.format(words), "BTC_ASSETS_OWNER_DSN")
    assert type(error) is kind and sentence in str(error)
    assert "start it" not in str(error) and str(error).count(". ") == 0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('could not translate host name "db" to address: Name or service not known', "is not known here"),
        ("connection timeout expired", "did not answer in time"),
        ("server does not support SSL, but SSL was required", "agree on no encrypted connection"),
        ('connection to server on socket "/x/.s.PGSQL.5432" failed: No such file or directory\n\tIs the server running', "start it"),
        ("something else", "cannot be reached (something else): start it"),
    ],
)
def test_what_stands_between_has_its_sentence_too(text: str, sentence: str) -> None:
    assert sentence in str(refusal("host=db", "db:5432/", text, "BTC_ASSETS_DSN"))


def test_no_password_is_in_the_words_of_a_server() -> None:
    error = refusal("postgresql://u:s3cret@h/d", "h:5432/d", REFUSED.format('weird "s3cret" thing'), "BTC_ASSETS_DSN")
    assert "s3cret" not in str(error) and "***" in str(error)
