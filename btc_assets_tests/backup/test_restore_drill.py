"""Restoring: beside the live cluster as a drill, in place after a mistake, and from S3 alone after the host is gone."""

from __future__ import annotations

import csv
import signal
import threading
import time
from datetime import datetime
from decimal import Decimal

import psutil
import psycopg
import pytest

from btc_assets.backup.restore_drill import DAMAGED, DROPPED, Difference, DifferenceRange, compare_copy, merge_differences
from btc_assets.domain.errors import TransientError
from btc_assets.domain.settings import Settings
from btc_assets.domain.slices import DAY, SLICE, Window
from btc_assets.ops import retention_jobs
from btc_assets.ops.policies import declared_policies
from btc_assets.store.database import only_row
from btc_assets.store.migrations import migrate
from btc_assets_tests.support.clusters import ARCHIVE_TIMEOUT, Cluster
from btc_assets_tests.support.databases import write_candles, write_ticks
from btc_assets_tests.support.stores import temporary_database
from btc_assets_tests.support.trades import NOON, every
from btc_assets_tests.support.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("backups")]  # they share one cluster

Digests = dict[tuple[datetime, str], tuple[int, Decimal, str]]


def digests(connection: psycopg.Connection) -> Digests:
    """Rows, quantity and checksum of each slice."""
    rows = connection.execute(
        "SELECT bucket_5m, symbol, count(*), sum(quantity), md5(string_agg(t::text, ',' ORDER BY trade_id)) FROM market_data.btc_ticks AS t "
        "GROUP BY 1, 2"
    )
    return {(bucket, symbol): (count, quantity, checksum) for bucket, symbol, count, quantity, checksum in rows}


def candles(connection: psycopg.Connection) -> list[tuple[object, ...]]:
    return connection.execute("SELECT * FROM market_data.candles_1m ORDER BY symbol, bucket").fetchall()


def moment(connection: psycopg.Connection) -> datetime:
    """Now, by the server; what comes later is committed at least a millisecond later."""
    (at,) = connection.execute("SELECT clock_timestamp()").fetchone() or (None,)
    assert at is not None
    time.sleep(0.002)
    return at


def processes(cluster: Cluster) -> set[int]:
    """The processes that work on a copy."""
    return {p.pid for p in psutil.process_iter(["cmdline"]) if any("restore-drill-" in part for part in p.info["cmdline"] or ())}


def assert_nothing_is_left(cluster: Cluster) -> None:
    wait_for(lambda: processes(cluster) == set(), "no process works on a copy")
    assert list(cluster.directory.glob("restore-drill-*")) == [] and list((cluster.directory / "tmp").iterdir()) == []


@pytest.fixture
def two_days(cluster: Cluster) -> tuple[Digests, list[tuple[object, ...]]]:
    """Ticks and candles of two days in the cluster, and what they are."""
    with cluster.connect() as connection:
        for start in (NOON - DAY, NOON):
            write_candles(connection, write_ticks(connection, every(1, 1800, start=start)))
        return digests(connection), candles(connection)


def damage(connection: psycopg.Connection) -> None:
    """A load of wrong trades over two slices, and a whole day dropped."""
    write_ticks(connection, every(2, 300, start=NOON + SLICE, first_id=5000))
    connection.execute("DROP TABLE market_data.btc_ticks_20240109")


def test_a_drill_shows_what_a_restore_would_bring_back_and_leaves_nothing_behind(
    cluster: Cluster, two_days: tuple[Digests, list[tuple[object, ...]]]
) -> None:
    with cluster.connect() as connection:
        # A restore cannot repair this: the copy has it too, and contradicts its own registry.
        connection.execute("DELETE FROM market_data.btc_ticks WHERE bucket_5m = %s AND trade_id = 7", (NOON,))
        noted, at = digests(connection), moment(connection)
        damage(connection)
        live = digests(connection)
    report = cluster.directory / "tmp" / "differences.csv"
    drill = cluster.command("ops", "restore-drill", "--to", at.isoformat(), "--report", report, "--keep")
    assert drill.stdout is not None
    lines = []
    for line in drill.stdout:
        lines.append(line)
        if line.startswith("The copy runs until Ctrl-C"):
            with psycopg.connect(line.split("'")[1], autocommit=True, options="-c timezone=UTC") as copy:
                assert (digests(copy), candles(copy)) == (noted, two_days[1])
                with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                    copy.execute("DELETE FROM market_data.btc_ticks")
                (listens, archives) = (
                    copy.execute("SELECT current_setting('listen_addresses'), current_setting('archive_mode')").fetchone() or ()
                )
                assert (listens, archives) == ("", "off")
            drill.send_signal(signal.SIGINT)
    output = "".join(lines)
    assert drill.wait() == 1, output
    with report.open() as file:
        rows = [(row["bucket_5m"], int(row["ticks_then"]), int(row["ticks_now"]), row["why"]) for row in csv.DictReader(file)]
    report.unlink()
    damaged = "changed, but neither loaded nor dropped by its policy since"
    # The day that was dropped; then the two slices with wrong trades. The other four of that day are the same.
    assert rows == [(f"2024-01-09T12:{minute:02}Z", 300, 0, damaged) for minute in range(0, 30, 5)] + [
        (f"2024-01-10T12:{minute:02}Z", 300, 150, "loaded since") for minute in (5, 10)
    ]
    assert "contradiction in the copy BTCUSDT 2024-01-10T12:00Z: loaded, 300 rows by the registry, 299 in the table" in output
    assert "2024-01-09T12:00Z to 2024-01-09T12:30Z" in output and "Compared 3,599 ticks in 12 slices" in output
    assert "6 slices changed for no reason that the store knows of." in output
    assert_nothing_is_left(cluster)
    with cluster.connect() as connection:
        assert digests(connection) == live


def test_an_undamaged_store_passes_the_drill(cluster: Cluster, two_days: tuple[Digests, list[tuple[object, ...]]]) -> None:
    drill = cluster.command("ops", "restore-drill", "--directory", "here")
    output = drill.communicate()[0]
    assert drill.returncode == 0, output
    assert "The copy agrees with its registry, and with the live store wherever nothing was loaded or dropped since." in output
    assert not (cluster.directory / "here").exists()
    assert_nothing_is_left(cluster)


def test_a_drill_that_is_interrupted_during_the_restore_leaves_nothing_behind(cluster: Cluster) -> None:
    drill = cluster.command("ops", "restore-drill")
    wait_for(lambda: processes(cluster) & {child.pid for child in psutil.Process(drill.pid).children()}, "the restore has begun")
    drill.send_signal(signal.SIGTERM)
    assert drill.wait() == 128 + signal.SIGTERM, drill.communicate()[0]
    assert_nothing_is_left(cluster)


def test_ticks_that_a_policy_dropped_since_are_no_damage(on_postgres: psycopg.Connection, plain_server: str) -> None:
    live = on_postgres
    with temporary_database(plain_server) as other, psycopg.connect(other, autocommit=True, options="-c timezone=UTC") as copy:
        migrate(copy)
        for connection in (copy, live):
            write_ticks(connection, every(1, 600))
            connection.execute("UPDATE landing.raw_blobs_5m SET loaded_at = '2024-01-10T13:00Z'")
        live.execute("DELETE FROM market_data.btc_ticks WHERE bucket_5m = %s", (NOON,))
        assert [(each.then, each.now, each.why) for each in compare_copy(copy, live).differences] == [(300, 0, DAMAGED)]
        retention_jobs.apply_policies(live, declared_policies(Settings()))
        found = compare_copy(copy, live)
        assert [(each.then, each.now, each.why) for each in found.differences] == [(300, 0, DROPPED)]
        assert found.damaged == [] and found.contradictions == []
        # The first three say when each was set up and registered.
        assert {each.table for each in found.tables if not each.equal} == {
            "ops.migrations", "ops.repeatable_migrations", "landing.raw_blobs_5m", "ops.retention_jobs",
        }  # fmt: skip


def test_restoring_in_place_after_a_mistake_is_exact(cluster: Cluster, two_days: tuple[Digests, list[tuple[object, ...]]]) -> None:
    with cluster.connect() as connection:
        at = moment(connection)
        damage(connection)
        assert digests(connection) != two_days[0]
        connection.execute("SELECT pg_switch_wal()")
    cluster.stop()
    cluster.pgbackrest("restore", "--delta", "--type=time", f"--target={at:%Y-%m-%d %H:%M:%S.%f}+00", "--target-action=promote")
    cluster.start()
    with cluster.connect() as connection:
        wait_for(lambda: connection.execute("SELECT pg_is_in_recovery()").fetchone() == (False,), "recovery has ended")
        assert (digests(connection), candles(connection)) == two_days
        # As docs/backups.md demands: the checkpointer may have begun to sleep while it was recovery, and would not mind
        # archive_timeout before checkpoint_timeout is over.
        connection.execute("CHECKPOINT")


def test_when_the_host_is_gone_no_more_is_lost_than_what_one_archive_timeout_holds(cluster: Cluster) -> None:
    committed: list[tuple[int, float, str]] = []  # the slice, when it was committed, and the WAL file that was written to then
    gone = threading.Event()

    def load() -> None:
        """A slice eight times in an archive_timeout, which fill no WAL file before it is over."""
        try:
            with cluster.connect() as connection:
                while not gone.is_set():
                    number = len(committed)
                    write_ticks(connection, every(1, 300, start=NOON + 2 * DAY + number * SLICE))
                    (file,) = only_row(connection.execute("SELECT pg_walfile_name(pg_current_wal_insert_lsn())"))
                    committed.append((number, time.time(), file))
                    time.sleep(ARCHIVE_TIMEOUT / 8)
        except (psycopg.OperationalError, TransientError):
            return  # as everything else

    def archived() -> int:
        with cluster.connect() as connection:
            (count,) = connection.execute("SELECT archived_count FROM pg_stat_archiver").fetchone() or (0,)
        return int(count)

    before = archived()
    loader = threading.Thread(target=load)
    loader.start()
    wait_for(lambda: archived() >= before + 2, "two more WAL files are archived")
    time.sleep(ARCHIVE_TIMEOUT * 0.9)  # the worst moment: the next file is almost due
    killed = time.time()
    cluster.kill()
    gone.set()
    loader.join()
    waiting = len(list((cluster.data / "pg_wal" / "archive_status").glob("*.ready")))
    cluster.wipe()
    for name in ("data", "spool", "lock"):
        cluster.run("mkdir", "-m", "700", cluster.directory / name)
    cluster.pgbackrest("restore", "--type=default")
    cluster.start()
    with cluster.connect() as connection:
        wait_for(lambda: connection.execute("SELECT pg_is_in_recovery()").fetchone() == (False,), "recovery has ended")
        restored = {bucket for bucket, _ in digests(connection)}
        assert connection.execute(
            "SELECT count(*) FROM landing.slices WHERE loaded_rows <> 300 AND bucket_5m >= %s", (NOON + 2 * DAY,)
        ).fetchone() == (0,)
    kept = sum(NOON + 2 * DAY + number * SLICE in restored for number, _, _ in committed)
    lost = committed[kept:]
    assert {NOON + 2 * DAY + number * SLICE for number, _, _ in lost}.isdisjoint(restored)  # all that is lost is the end
    seconds = killed - min((at for _, at, _ in lost), default=killed)
    print(
        f"{len(committed)} slices were committed, {kept} of them restored; the host lost {seconds:.1f} s "
        f"(archive_timeout {ARCHIVE_TIMEOUT} s, {waiting} files on their way to S3)"
    )
    assert kept > 0
    # What is lost was in the file that was being written, which the server closes after archive_timeout, and in those that waited.
    assert len({file for _, _, file in lost}) <= waiting + 1


def test_contiguous_differences_of_one_reason_are_merged() -> None:
    differences = [
        *(Difference(NOON + n * SLICE, "BTCUSDT", 10, n, DAMAGED) for n in range(3)),
        Difference(NOON + 3 * SLICE, "BTCUSDT", 10, 0, DROPPED),
        Difference(NOON + 5 * SLICE, "BTCUSDT", 10, 0, DROPPED),
        Difference(NOON + 6 * SLICE, "ETHUSDT", 10, 0, DROPPED),
    ]
    assert list(merge_differences(differences)) == [
        DifferenceRange(Window(NOON, NOON + 3 * SLICE), "BTCUSDT", DAMAGED, 30, 3),
        DifferenceRange(Window.of_slice(NOON + 3 * SLICE), "BTCUSDT", DROPPED, 10, 0),
        DifferenceRange(Window.of_slice(NOON + 5 * SLICE), "BTCUSDT", DROPPED, 10, 0),
        DifferenceRange(Window.of_slice(NOON + 6 * SLICE), "ETHUSDT", DROPPED, 10, 0),
    ]
