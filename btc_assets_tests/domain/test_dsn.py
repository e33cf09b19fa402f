"""A wrong connection string is found before PostgreSQL sees it, and no message repeats any of it."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from btc_assets.domain.dsn import find_broker_fault, find_fault
from btc_assets.domain.errors import UserError
from btc_assets.domain.settings import PREFIX, load_settings
from btc_assets.store.database import Store, location, prepare_conninfo

PASSWORDS = st.text(st.characters(blacklist_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=8, max_size=20).map(lambda text: f"s3cret{text}")


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://user@host:5432/database",
        "postgres://user@host/database",
        "postgresql:///database",
        "postgresql://",
        "postgresql://user:p%40ss%2F@host/db?sslmode=require&application_name=a",
        "postgresql://user:pa#ss?word@host/db",
        "postgresql://a:1,b:2,c/db?target_session_attrs=read-write",
        "postgresql://user@%2Fvar%2Frun/db",
        "postgresql://user@/db?host=/var/run",
        "postgresql://[::1]:5433/db",
        "postgresql://user@/db?user=me@corp",
        "host=a,b port=1,2 dbname=db password='it''s'",
        "service=btc",
    ],
)
def test_what_libpq_takes_is_right(dsn: str) -> None:
    assert find_fault(dsn) is None


@pytest.mark.parametrize(
    ("dsn", "fault"),
    [
        ("mysql://user@host/db", "it must look like postgresql://"),
        ("btc", "it must look like postgresql://"),
        ("", "it must look like postgresql://"),
        ("postgresql://user:pa/ss@host/db", "must be encoded: write / as %2F"),
        ("postgresql://user:12/34@host/db", "must be encoded: write / as %2F"),
        ("postgresql://user:pa@ss@host/db", "must be encoded: write / as %2F"),
        ("postgresql://user:pa/s?s@host/db", "must be encoded: write / as %2F"),
        ("postgresql://user:pa%ss@host/db", "a % in it does not begin a character"),
        ("postgresql://user:100%@host/db", "a % in it does not begin a character"),
        ("postgresql://user:pa/ss", "a port in it is no number"),
        ("postgresql://host:99999/db", "a port in it is no number"),
        ("postgresql://host/db\npassword=x", "it must be one line"),
    ],
)
def test_what_is_wrong_is_said(dsn: str, fault: str) -> None:
    assert fault in (find_fault(dsn) or "")


@given(PASSWORDS)
@example("s3cretpa/ss")
@example("s3cretpa@ss")
@example("s3cret%")
@example("s3cret'\\ ")
@example("s3cret#?:[]")
def test_no_password_reaches_a_message_however_it_is_written(password: str) -> None:
    quoted = password.replace("\\", "\\\\").replace("'", "\\'")
    for dsn in (
        f"postgresql://user:{password}@host:5432/db",
        f"postgresql://user:{quote(password, safe='')}@host/db",
        f"postgresql://host/db?password={password}",
        f"host=host password={password} dbname=db",
        f"host=host password='{quoted}' dbname=db",
        f"user:{password}@host/db",
        f"postgresql:user:{password}@host/db",
    ):
        shown = [str(find_fault(dsn)), location(dsn), repr(Store(dsn))]
        try:
            prepare_conninfo(dsn)
        except UserError as error:
            shown += [str(error), str(error.__cause__)]
            assert error.__suppress_context__ or error.__context__ is None
        assert not [text for text in shown if "s3cret" in text]


@given(PASSWORDS)
def test_an_encoded_or_quoted_password_is_taken_as_it_is(password: str) -> None:
    from psycopg.conninfo import conninfo_to_dict

    quoted = password.replace("\\", "\\\\").replace("'", "\\'")
    for dsn in (f"postgresql://user:{quote(password, safe='')}@host/db", f"host=host user=user dbname=db password='{quoted}'"):
        assert conninfo_to_dict(prepare_conninfo(dsn))["password"] == password
        assert location(dsn) == "host:5432/db"


@pytest.mark.parametrize(
    ("url", "right"),
    [
        ("redis://:pass@host:6379/0", True),
        ("rediss://host:6379/0?ssl_cert_reqs=required", True),
        ("redis:///0", True),
        ("redis://:p%2Fss@host/0", True),
        ("amqp://host", False),
        ("redis://:s3cret/x@host:6379/0", False),
        ("redis://:s3cret@x@host:6379/0", False),
        ("redis://:s3cret#x@host:6379/0", False),
        ("redis://:s3cret?x@host:6379/0", False),
        ("redis://[s3cret@host/0", False),
        ("redis://host:s3cret/0", False),
    ],
)
def test_the_address_of_a_broker_is_checked_without_repeating_it(url: str, right: bool) -> None:
    fault = find_broker_fault(url)
    assert (fault is None) == right and "s3cret" not in str(fault)


@pytest.mark.parametrize("name", ["DSN", "OWNER_DSN", "DAGSTER_DSN", "WORKERS_BROKER"])
def test_a_wrong_setting_is_named_but_not_repeated(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PREFIX + name, ("redis" if name == "WORKERS_BROKER" else "postgresql") + "://user:s3/cret@host/db")
    with pytest.raises(UserError, match=rf"^{PREFIX}{name} is wrong: .* %2F.*\.$") as raised:
        load_settings()
    assert "cret" not in str(raised.value)
