"""A restored copy: what it refuses to do. That it holds the right rows is the subject of test_restore_drill.py."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from btc_assets.backup import restored_copy as module
from btc_assets.backup.restored_copy import restored_copy
from btc_assets.domain.errors import UserError
from btc_assets_tests.support.clusters import Cluster

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("backups")]  # they share one cluster


def test_a_copy_that_cannot_be_made_is_refused_and_changes_nothing(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusal(target: datetime | None = None, directory: Path | None = None) -> str:
        with cluster.connect() as live, pytest.raises(UserError) as raised, restored_copy(live, cluster.settings(), target, directory):
            pass
        return str(raised.value)

    data = cluster.data
    if os.geteuid() == 0:
        assert refusal().startswith("PostgreSQL refuses to run as root: run this as the user that owns the cluster")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert refusal(datetime(2100, 1, 1, tzinfo=UTC)) == "2100-01-01 00:00:00 is in the future: name a moment in the past with --to."
    assert refusal(datetime(2020, 1, 1, tzinfo=UTC)).startswith("Nothing older than the end of the first backup can be restored: name a")
    assert (
        refusal(directory=data / "base" / "drill") == f"{data}/base/drill overlaps the live data directory {data}: name another directory."
    )
    assert refusal(directory=cluster.directory).startswith(f"{cluster.directory} overlaps the live data directory")
    assert refusal(directory=cluster.directory / "log") == (
        f"{cluster.directory}/log is not empty: name an empty directory, or one that does not exist yet."
    )
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1 << 30))
    assert refusal(directory=cluster.directory / "tmp").startswith(
        f"{cluster.directory}/tmp has 1.1 GB free, and the copy may need 2.2: free"
    )
    assert list((cluster.directory / "tmp").iterdir()) == []


def test_the_message_that_ended_a_server_is_found_in_its_log(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text(
        "LOG:  starting\nFATAL:  the database system is starting up\nFATAL:  recovery ended before the target\n"
        "FATAL:  the database system is shutting down\n"
    )
    assert module._fatal_message(log) == "recovery ended before the target"
    log.write_text("LOG:  starting\n")
    assert module._fatal_message(log) == "without a message"
