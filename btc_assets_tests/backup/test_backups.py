"""Backups: what there is to restore from, and what is amiss, for a person, for alarms and for Dagster."""

from __future__ import annotations

import time
from datetime import timedelta

import boto3
import dagster as dg
import psycopg
import pytest
from moto import mock_aws

from btc_assets.assembly import build_definitions
from btc_assets.backup import backups
from btc_assets.backup.backups import BackupStatus, backup_status, put_metrics
from btc_assets.domain.errors import UserError
from btc_assets_tests.support.clusters import Cluster, wait_for
from btc_assets_tests.support.databases import write_ticks
from btc_assets_tests.support.trades import every

pytestmark = pytest.mark.xdist_group("backups")  # they share one cluster


@pytest.fixture(autouse=True)
def settled(cluster: Cluster) -> None:
    """Everything that was written before is archived."""
    with cluster.connect() as connection:
        wait_for(lambda: waiting(connection) == 0)


def waiting(connection: psycopg.Connection) -> int:
    row = connection.execute("SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'").fetchone()
    assert row is not None
    return row[0]


def status(cluster: Cluster) -> BackupStatus:
    with cluster.connect() as connection:
        return backup_status(connection, cluster.settings())


def write_wal(connection: psycopg.Connection, files: int) -> None:
    for _ in range(files):
        connection.execute("SELECT pg_logical_emit_message(true, 'test', 'a commit')")
        connection.execute("SELECT pg_switch_wal()")


def check_backups(cluster: Cluster) -> dg.AssetCheckEvaluation:
    """What the job of the schedule finds."""
    job = build_definitions(cluster.settings(), patient=False).resolve_job_def("watch_backups")
    with dg.DagsterInstance.ephemeral() as instance:
        (evaluation,) = job.execute_in_process(instance=instance).get_asset_check_evaluations()
    return evaluation


def test_backups_and_archived_wal_are_all_that_a_restore_needs(cluster: Cluster) -> None:
    with cluster.connect() as connection:
        write_ticks(connection, every(1, 600))
        write_wal(connection, 1)
    cluster.pgbackrest("backup", "--type=incr")
    with cluster.connect() as connection:
        wait_for(lambda: waiting(connection) == 0)
    found = status(cluster)
    assert found.problems == () and found.wal_age == timedelta(0)
    assert [backup.kind for backup in found.backups] == ["full", "incr"]
    assert found.restorable_from == found.backups[0].stopped
    assert found.restorable_to is not None and found.backups[0].stopped < found.restorable_to <= found.at
    assert found.backups[0].size > found.backups[0].stored > found.backups[1].stored > 0
    assert check_backups(cluster).passed
    shown = cluster.command("ops", "backup-status")
    output = shown.communicate()[0]
    assert shown.returncode == 0 and found.backups[1].label in output and "It can be restored to any moment from" in output


def test_an_idle_server_is_not_behind(cluster: Cluster) -> None:
    with cluster.connect() as connection:
        write_wal(connection, 1)
        wait_for(lambda: waiting(connection) == 0)
        connection.execute("CHECKPOINT")  # what an idle server writes by itself
        time.sleep(1)

        def up_to_date() -> bool:
            found = backup_status(connection, cluster.settings())
            return found.problems == () and found.wal_age == timedelta(0) and found.wal_waiting == 0

        wait_for(up_to_date)


def test_s3_that_hangs_turns_everything_red_within_seconds_and_wal_waits_for_it(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backups, "WAL_AGE_LIMIT", timedelta(seconds=2))
    monkeypatch.setattr(backups, "_TRY_SECONDS", 0.5)
    with cluster.connect() as connection:
        with cluster.s3_hangs():
            write_wal(connection, 3)
            time.sleep(2.1)
            started = time.monotonic()
            evaluation = check_backups(cluster)
            assert time.monotonic() - started < 10
            assert waiting(connection) >= 3
            assert connection.execute("SELECT failed_count FROM pg_stat_archiver").fetchone() == (0,)
        assert not evaluation.passed
        assert evaluation.metadata["wal_age_seconds"].value == "unknown"  # WAL may be dropped meanwhile, and then none waits
        examples = str(evaluation.metadata["examples"].value)
        assert (
            "* The repository of the backups cannot be read: [FileReadError] timeout after 500ms waiting for read from 'localhost:"
            in examples
        )
        assert "* WAL has been waiting to be archived for" in examples
        wait_for(lambda: waiting(connection) == 0)
    assert status(cluster).problems == ()


def test_wal_that_pgbackrest_drops_is_named_until_there_is_a_backup_after_it(cluster: Cluster) -> None:
    with cluster.connect() as connection:
        write_wal(connection, 1)
        wait_for(lambda: waiting(connection) == 0)
        before = status(cluster)
        cluster.configure(queue_max="1MiB")  # every file is too much
        write_wal(connection, 3)
        wait_for(lambda: waiting(connection) == 0)  # all is well, the server thinks
        cluster.configure()
        write_wal(connection, 1)
        wait_for(lambda: waiting(connection) == 0)
    found = status(cluster)
    (problem,) = found.problems
    assert "WAL file(s) are missing in the archive" in problem and problem.endswith("can be restored: make a backup now.")
    assert found.restorable_to is not None and before.restorable_to is not None
    assert abs(found.restorable_to - before.restorable_to) < timedelta(seconds=3)
    assert found.wal_age is not None and found.wal_age >= found.at - found.restorable_to
    cluster.pgbackrest("backup", "--type=incr")
    assert status(cluster).problems == ()


def test_backups_that_are_not_made_any_more_are_named(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backups, "BACKUP_AGE_LIMIT", timedelta(0))
    monkeypatch.setattr(backups, "FULL_AGE_LIMIT", timedelta(0))
    first, second = status(cluster).problems
    assert first.startswith("The last backup is") and first.endswith("old: see why the daily one is not made.")
    assert second.startswith("The last full backup is") and second.endswith("old: see why the weekly one is not made.")


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"pgbackrest": "no-such-program"}, "pgBackRest cannot be started ([Errno 2] No such file or directory: 'no-such-program'): install it, or correct BTC_ASSETS_PGBACKREST."),
        ({"backup_stanza": "other"}, "The repository of the backups cannot be read: missing stanza path."),
        ({"backup_stanza": None}, "No backups are set up: name pgBackRest's stanza in BTC_ASSETS_BACKUP_STANZA."),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_a_problem_in_one_sentence(cluster: Cluster, changed: dict[str, str | None], sentence: str) -> None:
    with cluster.connect() as connection:
        found = backup_status(connection, cluster.settings().model_copy(update=changed))
    assert found.problems == (sentence,) and found.wal_age is None


def test_a_user_who_may_not_look_is_told_what_to_grant(cluster: Cluster) -> None:
    with cluster.connect() as connection:
        connection.execute("CREATE ROLE onlooker LOGIN")
        with psycopg.connect(cluster.dsn.replace("postgres@", "onlooker@"), autocommit=True) as refused:
            with pytest.raises(UserError) as raised:
                backup_status(refused, cluster.settings())
            assert str(raised.value) == "onlooker may not see which WAL waits: have a superuser run GRANT pg_monitor TO onlooker."
            connection.execute("GRANT pg_monitor TO onlooker")
            assert backup_status(refused, cluster.settings()).problems == ()
        connection.execute("DROP ROLE onlooker")


def test_alarms_get_what_is_known_and_silence_where_nothing_is(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "eu-central-1"}.items():
        monkeypatch.setenv(name, value)
    found = status(cluster)
    with cluster.connect() as connection:
        unknown = backup_status(connection, cluster.settings().model_copy(update={"backup_stanza": None}))
    with mock_aws():
        put_metrics(found, "btc", "host-1")
        put_metrics(unknown, "btc", "host-2")
        listed = boto3.client("cloudwatch").list_metrics(Namespace="btc")["Metrics"]
    names = {(metric["Dimensions"][0]["Name"], metric["Dimensions"][0]["Value"], metric["MetricName"]) for metric in listed}
    known = {"WalFilesWaiting", "DataDiskUsedPercent"}
    assert names == {("Host", "host-1", name) for name in known | {"WalArchiveAgeSeconds", "LastBackupAgeSeconds"}} | {
        ("Host", "host-2", name) for name in known
    }
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(UserError, match=r"CloudWatch does not take the metrics \(You must specify a region\.\)"):
        put_metrics(found, "btc", "host-1")
