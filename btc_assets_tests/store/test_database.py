"""A store connects as the right role, in autocommit mode and UTC, and says in one sentence why it cannot."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from btc_assets.domain.errors import TransientError, UserError
from btc_assets.domain.settings import Settings
from btc_assets.store.database import Store, connect, location


def test_a_connection_is_in_autocommit_mode_and_utc_and_names_its_application(database: str) -> None:
    with Store(database, application_name="a test").connect() as connection:
        assert connection.autocommit
        shown = "SELECT current_setting('timezone'), current_setting('application_name')"
        assert connection.execute(shown).fetchone() == ("UTC", "a test")


def test_the_owner_connects_by_its_own_connection_string_if_there_is_one(database: str) -> None:
    def application(store: Store, *, owner: bool) -> str:
        with store.connect(owner=owner) as connection:
            return connection.execute("SHOW search_path").fetchone()[0]  # type: ignore[index]

    owner_dsn = make_conninfo(database, options="-c search_path=of_owner")
    two_roles = Store(database, owner_dsn)
    assert application(two_roles, owner=True) == "of_owner"
    assert application(two_roles, owner=False) == application(Store(database), owner=True) != "of_owner"


def test_options_of_the_connection_string_stay(database: str) -> None:
    with connect(make_conninfo(database, options="-c work_mem=7MB")) as connection:
        assert connection.execute("SELECT current_setting('work_mem'), current_setting('timezone')").fetchone() == ("7MB", "UTC")


def test_an_embedded_store_is_started_by_its_first_connection_and_not_before(database: str) -> None:
    started: list[bool] = []

    def start() -> str:
        started.append(True)
        return database

    store = Store(start)
    assert repr(store) == "Store(embedded)" and not started
    store.connect().close()
    assert started


def test_the_settings_name_the_server() -> None:
    settings = Settings.model_validate({"dsn": "postgresql://loader:s3cret@db:5433/btc", "owner_dsn": "postgresql://owner@db:5433/btc"})
    store = Store.of(settings)
    assert store.dsn == "postgresql://loader:s3cret@db:5433/btc"
    assert repr(store) == "Store(db:5433/btc)"  # without the password


@pytest.mark.parametrize(
    ("changes", "kind", "sentence"),
    [
        ({"user": "nobody_at_all"}, UserError, "refused the user or password: correct them in BTC_ASSETS_DSN."),
        ({"dbname": "none"}, UserError, "has no such database: create it with createdb, or correct BTC_ASSETS_DSN."),
        ({"host": "127.0.0.1", "port": 1}, TransientError, "cannot be reached: start it, or correct BTC_ASSETS_DSN."),
    ],
    ids=["no such user", "no such database", "no server"],
)
def test_a_refused_connection_is_one_sentence(database: str, changes: dict[str, str], kind: type[Exception], sentence: str) -> None:
    dsn = make_conninfo(database, **changes)
    with pytest.raises(kind) as raised:
        connect(dsn)
    assert str(raised.value) == f"PostgreSQL at {location(dsn)} {sentence}"


@pytest.mark.parametrize(
    ("dsn", "place"),
    [
        ("postgresql://loader:s3cret@db:5433/btc", "db:5433/btc"),
        ("postgresql:///btc", "localhost:5432/btc"),
        ("host=/run/postgresql dbname=btc password=s3cret", "/run/postgresql:5432/btc"),
    ],
)
def test_a_location_has_neither_user_nor_password(dsn: str, place: str) -> None:
    assert location(dsn) == place


def test_a_connection_that_is_left_is_closed(database: str) -> None:
    with Store(database).connect() as connection:
        pass
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
