"""The WAL archive: a gap in it is found, though the server believes that every file is archived."""

from __future__ import annotations

from datetime import timedelta

import pytest

from btc_assets.backup.status import BackupStatus, read_backup_status
from btc_assets.backup.wal import WalGap, _first_gap, _Names
from btc_assets_tests.support.clusters import Cluster
from btc_assets_tests.support.trades import NOON

pytestmark = pytest.mark.xdist_group("backups")  # they share one cluster

NAMES = _Names(per_log=256, timeline="00000002")


def current_status(cluster: Cluster) -> BackupStatus:
    with cluster.connect() as connection:
        return read_backup_status(connection, cluster.settings())


def test_wal_that_pgbackrest_drops_is_a_problem_until_the_next_backup(archived: Cluster) -> None:
    began = current_status(archived).at
    archived.write_wal(1)
    archived.wait_until_archived()
    before = current_status(archived)
    archived.configure(queue_max="1MiB")  # a single file is too much
    archived.write_wal(3)
    archived.wait_until_archived()  # the server believes that all is well
    archived.configure()
    archived.write_wal(1)
    archived.wait_until_archived()
    found = current_status(archived)
    (problem,) = found.problems
    assert "WAL file(s) are missing from the archive" in problem and problem.endswith("can be restored: take a backup now.")
    assert found.restorable_to is not None and before.restorable_to is not None
    for restorable_to in (found.restorable_to, before.restorable_to):  # in S3's whole seconds
        assert began - timedelta(seconds=1) < restorable_to <= before.at
    assert found.wal_age is not None and found.wal_age >= found.at - found.restorable_to
    archived.pgbackrest("backup", "--type=incr")
    assert current_status(archived).problems == ()


def test_files_are_numbered_across_logs() -> None:
    number = NAMES.number("0000000200000001000000FF")
    assert NAMES.name(number) == "0000000200000001000000FF"
    assert NAMES.name(number + 1) == "000000020000000200000000"


def test_the_first_gap_is_found_and_the_moment_before_it() -> None:
    archived = {number: NOON + timedelta(minutes=number) for number in (254, 255, 258, 260)}
    assert _first_gap(archived, 254, 260, NAMES) == WalGap(
        "000000020000000100000000", "000000020000000100000001", 2, NOON + timedelta(minutes=255)
    )
    assert _first_gap(archived, 254, 255, NAMES) is None


def test_a_gap_at_the_backup_itself_reaches_no_moment() -> None:
    gap = _first_gap({}, 7, 7, NAMES)
    assert gap == WalGap("000000020000000000000007", "000000020000000000000007", 1, None)
    assert str(gap) == (
        "1 WAL file(s) are missing from the archive (000000020000000000000007), so nothing later than the last backup can be restored: "
        "take a backup now."
    )
