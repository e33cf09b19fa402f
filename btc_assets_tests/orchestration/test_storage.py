"""Dagster's storage: found by the settings, and named by class in dagster.yaml files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import boto3
import dagster as dg
import psycopg
import pytest
import sqlalchemy
from dagster_aws.s3 import S3ComputeLogManager
from psycopg import sql

from btc_assets.domain.settings import Settings
from btc_assets.orchestration.dagster_private import CompactEventLog
from btc_assets.orchestration.home import prepare_dagster_home
from btc_assets.orchestration.libpq_dialect import LibpqDialect, libpq_url, one_connection
from btc_assets.orchestration.storage_address import storage_addresses
from btc_assets_tests.orchestration.talkative import run_day
from btc_assets_tests.support.s3 import Bucket
from btc_assets_tests.support.stores import StoreUnderTest

# As version 0.1 wrote it: installed hosts still have this file.
OLD_DAGSTER_YAML = """
storage:
  custom:
    module: btc_assets.ops.dagster_storage
    class: StoreStorage
compute_logs:
  module: btc_assets.ops.dagster_storage
  class: StoreComputeLogs
run_launcher:
  module: btc_assets.ops.run_launcher
  class: StoreRunLauncher
telemetry:
  enabled: false
"""


def test_an_instance_starts_from_a_dagster_yaml_that_names_the_old_modules(store: StoreUnderTest) -> None:
    home = prepare_dagster_home(store.settings)
    (home / "dagster.yaml").write_text(OLD_DAGSTER_YAML)
    with dg.DagsterInstance.get() as instance:
        run = run_day(instance)
        assert isinstance(instance.event_log_storage, CompactEventLog)
        assert type(instance.run_launcher) is dg.DefaultRunLauncher
    assert store.rows("SELECT run_id, status FROM dagster.runs") == [(run.run_id, "SUCCESS")]
    assert any("a line of output" in path.read_text() for path in home.rglob("*.out"))


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"dsn": "postgresql://loader@db/btc"}, ["BTC_ASSETS_DSN"]),
        ({"dsn": "postgresql://loader@db/btc", "owner_dsn": "postgresql://owner@db/btc"}, ["BTC_ASSETS_OWNER_DSN", "BTC_ASSETS_DSN"]),
        (
            {"dsn": "postgresql://loader@db/btc", "owner_dsn": "postgresql://o@db/btc", "dagster_dsn": "postgresql://d@db/runs"},
            ["BTC_ASSETS_DAGSTER_DSN"],
        ),
    ],
    ids=["in the store", "in the store, of its owner", "elsewhere"],
)
def test_the_settings_say_where_the_storage_may_be(settings: dict[str, str], found: list[str]) -> None:
    made = Settings.model_validate(settings)
    assert [address.setting for address in storage_addresses(made)] == found
    for address in storage_addresses(made):
        assert address.dsn == getattr(made, address.setting.removeprefix("BTC_ASSETS_").lower()).get_secret_value()


@pytest.mark.parametrize(
    "conninfo",
    [
        "postgresql://u:p%40s%2Fs@db:5433/btc?application_name=a",
        r"host=/run/a,db port=1,2 password='a\'b @:/?#%' options='-c work_mem=7MB'",
    ],
    ids=["URL", "pairs"],
)
def test_the_url_for_sqlalchemy_keeps_the_whole_connection_string_and_never_shows_it(conninfo: str) -> None:
    url = sqlalchemy.make_url(libpq_url(conninfo, "dagster"))
    assert LibpqDialect().create_connect_args(url) == ([conninfo], {"search_path": "dagster"})
    assert repr(url) == "postgresql+btc_assets://libpq:***@?search_path=dagster"


def read_session(engine: sqlalchemy.Engine) -> tuple[int, str]:
    """The server's process of the engine's connection, and whether its commits wait for the disk."""
    with engine.connect() as connection:
        process, commit = connection.execute(sqlalchemy.text("SELECT pg_backend_pid(), current_setting('synchronous_commit')")).one()
        return process, commit


@pytest.fixture
def engine(store: StoreUnderTest) -> Iterator[sqlalchemy.Engine]:
    kept = one_connection(libpq_url(store.dsn, "public"))
    yield kept
    kept.dispose()


def test_a_connection_is_kept_and_its_commits_do_not_wait_for_the_disk(engine: sqlalchemy.Engine) -> None:
    first = read_session(engine)
    assert first[1] == "off" and read_session(engine) == first


def test_a_connection_that_the_server_ended_is_opened_anew(engine: sqlalchemy.Engine, store: StoreUnderTest) -> None:
    ended, _ = read_session(engine)
    assert store.rows(f"SELECT pg_terminate_backend({ended}, 60000)") == [(True,)]
    assert read_session(engine)[0] != ended


def test_a_forked_process_opens_a_connection_of_its_own(engine: sqlalchemy.Engine) -> None:
    parents, _ = read_session(engine)
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.write(writer, str(read_session(engine)[0]).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    assert int(os.read(reader, 20)) not in (0, parents)
    assert read_session(engine)[0] == parents


def test_a_role_that_may_not_create_schemas_opens_a_storage_that_exists(store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    home = prepare_dagster_home(store.settings)
    with dg.DagsterInstance.get() as instance:
        run_day(instance)
    with store.connect() as connection:
        connection.execute("CREATE ROLE dagster_user LOGIN")
        connection.execute("GRANT USAGE ON SCHEMA dagster TO dagster_user")
        connection.execute("GRANT ALL ON ALL TABLES IN SCHEMA dagster TO dagster_user")
        connection.execute("GRANT ALL ON ALL SEQUENCES IN SCHEMA dagster TO dagster_user")
        try:
            dsn = psycopg.conninfo.make_conninfo(store.dsn, user="dagster_user")
            with psycopg.connect(dsn) as limited, pytest.raises(psycopg.errors.InsufficientPrivilege):
                limited.execute("CREATE SCHEMA other")
            parts = psycopg.conninfo.conninfo_to_dict(dsn)
            url = f"postgresql://dagster_user@/{parts['dbname']}?host={parts['host']}" if str(parts["host"]).startswith("/") else None
            monkeypatch.setenv("BTC_ASSETS_DAGSTER_DSN", url or store.dsn.replace(store.connection.info.user, "dagster_user"))
            with dg.DagsterInstance.get() as instance:
                assert len(instance.get_runs()) == 1
        finally:
            connection.execute(sql.SQL("DROP OWNED BY dagster_user"))
            connection.execute("DROP ROLE dagster_user")
    assert home.exists()


def test_the_output_of_steps_goes_to_the_bucket_that_the_settings_name(
    store: StoreUnderTest, s3: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BTC_ASSETS_COMPUTE_LOGS_URL", f"{s3.url}/dagster")
    monkeypatch.setenv("BTC_ASSETS_S3_ENDPOINT", s3.server.endpoint)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it may have the credentials of another test
    prepare_dagster_home(store.settings)
    with dg.DagsterInstance.get() as instance:
        assert isinstance(instance.compute_log_manager, S3ComputeLogManager)
        run_day(instance)
    listed = s3.server.client().list_objects_v2(Bucket=s3.server.bucket, Prefix=f"{s3.prefix}/dagster/")["Contents"]
    bodies = [s3.server.client().get_object(Bucket=s3.server.bucket, Key=one["Key"])["Body"].read() for one in listed]
    assert any(b"a line of output" in body for body in bodies)


def test_without_a_bucket_the_output_of_steps_goes_to_dagster_home(store: StoreUnderTest) -> None:
    home = prepare_dagster_home(store.settings)
    with dg.DagsterInstance.get() as instance:
        run_day(instance)
        assert any("a line of output" in path.read_text() for path in Path(home).rglob("*.out"))
