"""What the store can be restored from, and what is wrong: for a person, for Dagster's check, and for the command."""

from __future__ import annotations

from datetime import timedelta

import dagster as dg
import psycopg
import pytest

from btc_assets.assembly import build_definitions
from btc_assets.backup import pgbackrest, status
from btc_assets.backup.pgbackrest import Backup
from btc_assets.backup.status import BackupStatus, read_backup_status
from btc_assets.backup.wal import read_archiver_status
from btc_assets.domain.errors import UserError
from btc_assets.store.database import only_row
from btc_assets_tests.support.clusters import Cluster
from btc_assets_tests.support.databases import write_ticks
from btc_assets_tests.support.trades import NOON, every
from btc_assets_tests.support.waiting import PATIENCE_SECONDS, wait_for

pytestmark = pytest.mark.xdist_group("backups")  # they share one cluster


def current_status(cluster: Cluster) -> BackupStatus:
    with cluster.connect() as connection:
        return read_backup_status(connection, cluster.settings())


def run_check(cluster: Cluster) -> dg.AssetCheckEvaluation:
    """Run the check `restorable`, by the job that the schedule runs."""
    job = build_definitions(cluster.settings(), patient=False).resolve_job_def("watch_backups")
    with dg.DagsterInstance.ephemeral() as instance:
        (evaluation,) = job.execute_in_process(instance=instance).get_asset_check_evaluations()
    return evaluation


def test_backups_and_archived_wal_are_all_that_a_restore_needs(archived: Cluster) -> None:
    with archived.connect() as connection:
        write_ticks(connection, every(1, 600))
    archived.write_wal(1)
    archived.pgbackrest("backup", "--type=incr")
    archived.wait_until_archived()
    found = current_status(archived)
    first, *_, last = found.backups
    assert found.problems == () and found.wal_age == timedelta(0)
    assert (first.kind, last.kind) == ("full", "incr")
    assert found.restorable_from == first.stopped
    assert found.restorable_to is not None and first.stopped < found.restorable_to <= found.at
    assert first.size > first.stored > last.stored > 0
    assert run_check(archived).passed
    shown = archived.command("ops", "backup-status")
    output = shown.communicate()[0]
    assert shown.returncode == 0 and last.label in output and "It can be restored to any moment from" in output


def test_an_idle_server_is_not_behind(archived: Cluster) -> None:
    archived.write_wal(1)
    archived.wait_until_archived()
    with archived.connect() as connection:
        connection.execute("CHECKPOINT")  # what an idle server writes by itself

        def up_to_date() -> bool:
            found = read_backup_status(connection, archived.settings())
            return found.problems == () and found.wal_age == timedelta(0) and found.wal_waiting == 0

        wait_for(up_to_date, "the status is up to date")


def test_a_hanging_s3_is_a_problem_before_archiving_fails_and_wal_waits_for_it(archived: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    archived.configure(archive_timeout=PATIENCE_SECONDS)
    failures = count_archive_failures(archived)
    with monkeypatch.context() as limits, archived.s3_hangs():
        limits.setattr(status, "WAL_AGE_LIMIT", timedelta(seconds=2))
        limits.setattr(pgbackrest, "_TRY_SECONDS", 0.5)
        archived.write_wal(3)
        wait_for(lambda: oldest_waiting_age(archived) > status.WAL_AGE_LIMIT, "WAL has waited for too long")
        evaluation = run_check(archived)
        assert archived.count_waiting_wal() >= 3
        assert count_archive_failures(archived) == failures
    assert not evaluation.passed
    assert evaluation.metadata["wal_age_seconds"].value == "unknown"  # WAL may be dropped meanwhile, and then none waits
    examples = str(evaluation.metadata["examples"].value)
    assert "* The backup repository cannot be read (\\[FileReadError\\] timeout after 500ms waiting for read from 'localhost:" in examples
    assert "* WAL has been waiting to be archived for" in examples
    archived.configure()
    archived.wait_until_archived()
    assert current_status(archived).problems == ()


def count_archive_failures(cluster: Cluster) -> int:
    with cluster.connect() as connection:
        return int(only_row(connection.execute("SELECT failed_count FROM pg_stat_archiver"))[0])


def oldest_waiting_age(cluster: Cluster) -> timedelta:
    with cluster.connect() as connection:
        wal = read_archiver_status(connection)
    return wal.now - (wal.oldest_waiting or wal.now)


def test_backups_that_stopped_are_a_problem(archived: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "BACKUP_AGE_LIMIT", timedelta(0))
    monkeypatch.setattr(status, "FULL_AGE_LIMIT", timedelta(0))
    first, second = current_status(archived).problems
    assert first.startswith("The last backup is") and first.endswith("old: find out why the daily backup does not run.")
    assert second.startswith("The last full backup is") and second.endswith("old: find out why the weekly backup does not run.")


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"pgbackrest": "no-such-program"}, "pgBackRest cannot be started ([Errno 2] No such file or directory: 'no-such-program'): install it, or correct BTC_ASSETS_PGBACKREST."),
        ({"backup_stanza": "other"}, "The backup repository cannot be read (missing stanza path): check that it can be reached, and BTC_ASSETS_BACKUP_STANZA."),
        ({"backup_stanza": None}, "No backups are set up: name pgBackRest's stanza in BTC_ASSETS_BACKUP_STANZA."),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_a_problem_in_one_sentence(archived: Cluster, changed: dict[str, str | None], sentence: str) -> None:
    with archived.connect() as connection:
        found = read_backup_status(connection, archived.settings().model_copy(update=changed))
    assert found.problems == (sentence,) and found.wal_age is None


def test_a_user_who_may_not_look_is_told_what_to_grant(archived: Cluster) -> None:
    with archived.connect() as connection:
        connection.execute("CREATE ROLE onlooker LOGIN")
        with psycopg.connect(archived.dsn.replace("postgres@", "onlooker@"), autocommit=True) as refused:
            with pytest.raises(UserError) as raised:
                read_backup_status(refused, archived.settings())
            assert str(raised.value) == (
                "onlooker may not read the state of the WAL archive: have a superuser run GRANT pg_monitor TO onlooker."
            )
            connection.execute("GRANT pg_monitor TO onlooker")
            assert read_backup_status(refused, archived.settings()).problems == ()
        connection.execute("DROP ROLE onlooker")


def backup(kind: str, *, damaged: bool = False) -> Backup:
    return Backup(f"20240110-120000{kind[0].upper()}", kind, NOON, NOON, 1, 1, damaged, "000000010000000000000001")


@pytest.mark.parametrize(
    ("backups", "problem"),
    [
        ([], "There is no backup yet: take one (pgbackrest backup)."),
        ([backup("incr")], "There is no full backup any more: take one (pgbackrest backup --type=full)."),
        (
            [backup("full", damaged=True)],
            "The last backup found damaged pages in the cluster: run pgbackrest info --set=20240110-120000F to see where.",
        ),
    ],
    ids=["none", "no full one", "damaged"],
)
def test_backups_that_cannot_be_relied_on_are_a_problem(backups: list[Backup], problem: str) -> None:
    assert list(status._backup_problems(backups, NOON)) == [problem]
