"""The engine is found out from the server; what cannot serve is refused in one sentence that says what to do."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from btc_assets.domain.errors import UserError
from btc_assets.store.engines import Engine, ServerFacts, engine, read_facts
from btc_assets.store.migrations import migrate
from btc_assets_tests.support.databases import WasmServer

PLACE = "db.internal:5432/btc"


def facts(
    postgres: int = 17,
    available: str | None = "2.29.2",
    installed: str | None = None,
    *,
    loaded: bool = True,
    license: str | None = None,
    ticks: Engine | None = None,
) -> ServerFacts:
    return ServerFacts(PLACE, postgres, available, installed, loaded, license, "0.8.5", None, ticks)


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        (facts(), "timescale"),
        (facts(available=None, loaded=False), "postgres"),
        (facts(15, "2.28.3", "2.28.3", license="timescale"), "timescale"),
        (facts(16, "2.19.0", "2.19.0", license="timescale"), "timescale"),
        (facts(18, "2.30.0-dev"), "timescale"),
        (facts(ticks="postgres"), "postgres"),
        (facts(ticks="postgres", loaded=False), "postgres"),
    ],
    ids=["TimescaleDB", "none", "2.28 on 15", "the oldest", "a development version", "set up before it came", "set up, not loaded"],
)
def test_the_server_decides(server: ServerFacts, expected: str) -> None:
    assert server.engine == expected


@pytest.mark.parametrize(
    ("server", "sentence"),
    [
        (facts(14, None), f"The server at {PLACE} is PostgreSQL 14: move to 15 or later."),
        (
            facts(loaded=False),
            f"The server at {PLACE} has TimescaleDB but does not load it: add timescaledb to shared_preload_libraries in postgresql.conf and "
            "restart it (or remove the package, to run on plain PostgreSQL).",
        ),
        (
            facts(15, "2.29.0"),
            f"TimescaleDB 2.29.0 at {PLACE} no longer supports PostgreSQL 15: install TimescaleDB 2.28, or move to PostgreSQL 16, 17 or 18.",
        ),
        (facts(16, "2.18.2"), f"TimescaleDB 2.18.2 at {PLACE} is older than 2.19: install a newer one there."),
        (
            facts(16, "2.28.3", "2.14.0"),
            f"TimescaleDB 2.14.0 at {PLACE} is older than 2.19: run ALTER EXTENSION timescaledb UPDATE in a new session.",
        ),
        (
            facts(17, "2.29.2", "2.29.2", license="apache"),
            f"TimescaleDB at {PLACE} is the Apache edition, which has no continuous aggregates, compression or policies: install the Community "
            "edition (package timescaledb-2-postgresql-…, and timescaledb.license = 'timescale' in postgresql.conf).",
        ),
    ],
    ids=["old PostgreSQL", "not preloaded", "PostgreSQL 15 dropped", "old package", "old extension", "Apache edition"],
)
def test_what_cannot_serve_is_refused(server: ServerFacts, sentence: str) -> None:
    with pytest.raises(UserError) as raised:
        _ = server.engine
    assert str(raised.value) == sentence


def test_a_server_that_has_timescaledb_but_does_not_load_it_is_refused_before_anything_is_made(plain_server: str) -> None:
    from btc_assets_tests.support.stores import temporary_database

    with temporary_database(plain_server) as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        # The catalogue as such a server shows it: a view of the same name comes first on the search path.
        connection.execute("CREATE SCHEMA installed")
        connection.execute(
            "CREATE VIEW installed.pg_available_extensions AS "
            "SELECT name, default_version FROM pg_catalog.pg_available_extensions UNION ALL SELECT 'timescaledb', '2.29.2'"
        )
        connection.execute("SET search_path = installed, pg_catalog, public")
        with pytest.raises(UserError, match="has TimescaleDB but does not load it"):
            migrate(connection)
        assert connection.execute("SELECT to_regclass('ops.migrations')").fetchone() == (None,)


@pytest.fixture
def apache(wasm: None) -> Iterator[psycopg.Connection]:
    server = WasmServer(settings=("timescaledb.license=apache",))
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        yield connection
    server.stop()


def test_the_apache_edition_is_refused_and_leaves_nothing_behind(apache: psycopg.Connection) -> None:
    with pytest.raises(UserError, match="is the Apache edition"):
        migrate(apache)
    assert apache.execute(
        "SELECT to_regclass('ops.migrations'), (SELECT count(*) FROM pg_extension WHERE extname = 'timescaledb')"
    ).fetchone() == (None, 0)


def test_a_database_stays_what_its_first_migration_made_it(on_each_engine: psycopg.Connection, request: pytest.FixtureRequest) -> None:
    assert engine(on_each_engine) == read_facts(on_each_engine).ticks == request.node.callspec.params["on_each_engine"]


def test_ticks_lie_in_daily_chunks_with_no_index_but_their_key(on_timescale: psycopg.Connection) -> None:
    dimension = "SELECT column_name, time_interval FROM timescaledb_information.dimensions WHERE hypertable_name = 'btc_ticks'"
    assert [(name, interval.days) for name, interval in on_timescale.execute(dimension)] == [("bucket_5m", 1)]
    indexes = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'market_data' AND tablename = 'btc_ticks'"
    assert [index.partition("USING ")[2] for (index,) in on_timescale.execute(indexes)] == ["btree (bucket_5m, symbol, trade_id)"]


def test_every_level_of_candles_is_a_materialised_continuous_aggregate_on_the_one_below(on_timescale: psycopg.Connection) -> None:
    aggregates = on_timescale.execute(
        "SELECT view_name, materialized_only, view_definition FROM timescaledb_information.continuous_aggregates WHERE view_schema = 'market_data'"
    ).fetchall()
    levels: dict[str, str] = dict(on_timescale.execute("SELECT name, source FROM market_data.candle_levels").fetchall())
    assert {name for name, _, _ in aggregates} == {f"candle_partials_{level}" for level in levels}
    for name, materialized_only, definition in aggregates:
        source = levels[name.removeprefix("candle_partials_")]
        assert materialized_only
        assert f"FROM market_data.{f'candle_partials_{source}' if source else 'btc_ticks'}" in " ".join(definition.split())


@pytest.mark.parametrize(
    ("available", "installed", "sentence"),
    [
        ("0.8.1", None, None),
        ("0.8.1", "0.8.0", None),
        ("0.7.4", None, "pgvector 0.7.4 at db:5432/btc is older than 0.8: install a newer one there."),
        ("0.8.1", "0.7.4", "pgvector 0.7.4 at db:5432/btc is older than 0.8: run ALTER EXTENSION vector UPDATE there."),
    ],
)
def test_pgvector_must_have_iterative_scans(available: str, installed: str | None, sentence: str | None) -> None:
    server = ServerFacts("db:5432/btc", 18, vector_available=available, vector_installed=installed)
    if sentence is None:
        server.require_vector()
        return
    with pytest.raises(UserError) as raised:
        server.require_vector()
    assert str(raised.value) == sentence


@pytest.mark.parametrize(
    ("version", "wrong"), [("2.27.1", False), ("2.28.0", True), ("2.28.2", True), ("2.28.3", False), ("2.30.0-dev", False)]
)
def test_versions_with_known_wrong_results_are_named(version: str, wrong: bool) -> None:
    found = facts(16, version, version, license="timescale").wrong_results
    assert (found is not None and "timescaledb#10221" in found and version in found) == wrong


def test_a_server_without_timescale_has_no_wrong_results() -> None:
    assert facts(available=None, loaded=False).wrong_results is None
    assert facts(16, "2.28.2", "2.28.2", license="timescale", ticks="postgres").wrong_results is None
