"""The owner maintains the tables, the loader writes rows, the reader reads, and no role can do more."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from click.testing import CliRunner, Result

from btc_assets.cli.main import main
from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE, Window
from btc_assets.ops.database_findings import examine_database
from btc_assets.ops.doctor import examine_store
from btc_assets.ops.roles import _limit_idle_transactions, grant_rights, missing_rights, schemas_open_to_all
from btc_assets.store.tables import ROOMS
from btc_assets_tests.store.test_compressed import compress
from btc_assets_tests.support.databases import write_ticks
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import NOON, every
from btc_assets_tests.support.vectors import registered_model

LOADER, READER = "loader_of_roles", "reader_of_roles"


@pytest.fixture
def roles(store: StoreUnderTest) -> Iterator[None]:
    """A loader and a reader that can log in and have their rights."""
    store.connection.execute(f"CREATE ROLE {LOADER} LOGIN; CREATE ROLE {READER} LOGIN")
    try:
        granted = command("db", "grant", "--loader", LOADER, "--reader", READER)
        assert granted.output == f"{LOADER} may load.\n{READER} may read.\n"
        yield
    finally:
        store.connection.execute(f"DROP OWNED BY {LOADER}, {READER}; DROP ROLE {LOADER}, {READER}")


def command(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def as_role(dsn: str, role: str) -> str:
    parts = urlsplit(dsn)
    return urlunsplit(parts._replace(netloc=f"{role}@{parts.netloc.rpartition('@')[2]}"))


def login(role: str, store: StoreUnderTest) -> psycopg.Connection:
    return psycopg.connect(as_role(store.dsn, role), autocommit=True)


def tables(connection: psycopg.Connection, kinds: str = "rpv") -> list[str]:
    """Tables, partitioned tables and views of the store."""
    found = connection.execute(
        "SELECT format('%%s.%%s', nspname, relname) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace "
        "WHERE nspname = ANY (%s) AND relkind = ANY (%s)",
        (list(ROOMS), list(kinds)),
    )
    return [name for (name,) in found]


@pytest.mark.slow
def test_the_loader_takes_slices_from_the_landing_zone_to_candles_and_features(
    store: StoreUnderTest, roles: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.land(every(1, 600))
    for variable, dsn in {"OWNER_DSN": store.dsn, "DAGSTER_DSN": store.dsn, "DSN": as_role(store.dsn, LOADER)}.items():
        monkeypatch.setenv(f"BTC_ASSETS_{variable}", dsn)
    loaded = command("load", "--from", f"{NOON:%Y-%m-%dT%H:%MZ}", "--to", f"{NOON + 2 * SLICE:%Y-%m-%dT%H:%MZ}")
    assert loaded.exit_code == 0, loaded.output
    assert store.rows("SELECT count(*) FROM market_data.btc_ticks") == [(600,)]
    assert store.rows("SELECT sum(trade_count) FROM market_data.candles_1h") == [(600,)]
    assert store.rows("SELECT count(*) FROM signals.slice_features") == [(2,)]
    assert {"rights": "ok", "owner": "ok"}.items() <= {finding.subject: finding.state for finding in examine_store(store.settings)}.items()


@pytest.mark.parametrize(
    "statement", ["DROP TABLE {}", "TRUNCATE {}", "ALTER TABLE {} ADD COLUMN mine integer", "CREATE INDEX ON {} ((1))"]
)
def test_the_loader_cannot_drop_empty_or_change_a_table(store: StoreUnderTest, roles: None, statement: str) -> None:
    with login(LOADER, store) as connection:
        for name in tables(store.connection, "rp"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.format(name))


@pytest.mark.parametrize("role", [LOADER, READER])
def test_neither_can_create_tables(store: StoreUnderTest, roles: None, role: str) -> None:
    with login(role, store) as connection:
        for room in (*ROOMS, "public"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"CREATE TABLE {room}.mine ()")


def test_the_reader_reads_everything_and_writes_nothing(store: StoreUnderTest, roles: None) -> None:
    store.land(every(1, 600))
    store.ingest(Window(NOON, NOON + 2 * SLICE))
    with login(READER, store) as connection:
        for name in tables(store.connection):
            connection.execute(f"SELECT * FROM {name}")
        for name in tables(store.connection, "rp"):
            for statement in ("INSERT INTO {} DEFAULT VALUES", "DELETE FROM {}", "TRUNCATE {}"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement.format(name))
        assert connection.execute("SELECT count(*) FROM market_data.btc_ticks").fetchone() == (600,)
        assert connection.execute("SELECT sum(trade_count) FROM market_data.candles_1m").fetchone() == (600,)
        for function in ("market_data.ensure_tick_partitions(now(), now())", "ops.drop_chunk('market_data.btc_ticks', now(), now())"):
            with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.NoDataFound)):
                connection.execute(f"SELECT {function}")


def test_tables_that_are_created_later_are_granted_too(store: StoreUnderTest, roles: None) -> None:
    store.connection.execute("CREATE TABLE landing.later (); CREATE TABLE market_data.later ()")
    with login(LOADER, store) as loader, login(READER, store) as reader:
        model = registered_model(loader)
        loader.execute("DELETE FROM landing.later")
        loader.execute(f"DELETE FROM {model.table}")
        for name in ("landing.later", "market_data.later", model.table):
            reader.execute(f"SELECT * FROM {name}")


def test_the_loader_writes_into_compressed_history(on_timescale: psycopg.Connection) -> None:
    window = write_ticks(on_timescale, every(1, 600))
    compress(on_timescale)
    on_timescale.execute(f"CREATE ROLE {LOADER}")
    try:
        grant_rights(on_timescale, loaders=[LOADER])
        on_timescale.execute(f"SET ROLE {LOADER}")
        assert missing_rights(on_timescale) == []
        write_ticks(on_timescale, every(0.5, 1200), window)
        on_timescale.execute("SELECT ops.compress_chunk(name) FROM ops.chunks('market_data.btc_ticks')")
        assert on_timescale.execute("SELECT count(*) FROM market_data.btc_ticks").fetchone() == (1200,)
        for statement in ("DROP TABLE market_data.btc_ticks", "SELECT drop_chunks('market_data.btc_ticks', older_than => now())"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                on_timescale.execute(statement)
    finally:
        on_timescale.execute(f"RESET ROLE; DROP OWNED BY {LOADER}; DROP ROLE {LOADER}")


def test_a_role_that_does_not_exist_is_named(store: StoreUnderTest) -> None:
    refused = command("db", "grant", "--reader", "nobody_of_roles")
    assert refused.exit_code == 1
    assert " ".join(refused.output.split()).endswith(
        "There is no role 'nobody_of_roles' on the server: create it there (createuser), then grant again."
    )


def test_a_transaction_that_a_reader_leaves_open_ends_after_ten_minutes(store: StoreUnderTest, roles: None) -> None:
    with login(READER, store) as reader, login(LOADER, store) as loader:
        assert reader.execute("SHOW idle_in_transaction_session_timeout").fetchone() == ("10min",)
        assert loader.execute("SHOW idle_in_transaction_session_timeout").fetchone() == ("0",)


def test_a_limit_that_an_administrator_set_stays(store: StoreUnderTest, roles: None) -> None:
    store.connection.execute(
        f"ALTER ROLE {READER} IN DATABASE {store.connection.info.dbname} SET idle_in_transaction_session_timeout = '1h'"
    )
    assert grant_rights(store.connection, readers=[READER]) == []
    with login(READER, store) as reader:
        assert reader.execute("SHOW idle_in_transaction_session_timeout").fetchone() == ("1h",)


def test_an_owner_who_may_not_set_the_limit_gets_the_statement_for_it(store: StoreUnderTest) -> None:
    name = store.connection.info.dbname
    store.connection.execute("CREATE ROLE owner_of_idle LOGIN; CREATE ROLE reader_of_idle")
    try:
        store.connection.execute(f"GRANT CREATE ON DATABASE {name} TO owner_of_idle")
        store.connection.execute("SET ROLE owner_of_idle")
        with store.connection.transaction():
            (statement,) = _limit_idle_transactions(store.connection, "reader_of_idle")
        store.connection.execute("RESET ROLE")
        store.connection.execute(statement)
    finally:
        store.connection.execute("RESET ROLE")
        store.connection.execute("DROP OWNED BY owner_of_idle, reader_of_idle; DROP ROLE owner_of_idle, reader_of_idle")


def test_nothing_is_granted_while_everybody_may_create_functions_beside_those_of_the_extensions(store: StoreUnderTest) -> None:
    store.connection.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    sentence = (
        "Everybody may create functions in the schema public, where the functions of the owner look for those of the extensions: run "
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC there as a superuser."
    )
    with pytest.raises(UserError) as raised:
        grant_rights(store.connection, readers=["pg_monitor"])
    assert str(raised.value) == sentence
    found = {finding.subject: finding for finding in examine_database(store.connection, store.settings)}
    assert (found["extensions"].state, found["extensions"].text) == ("problem", sentence)
    store.connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    assert schemas_open_to_all(store.connection) == []
