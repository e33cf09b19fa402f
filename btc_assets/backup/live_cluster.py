"""The live cluster, as far as a restore drill beside it must know it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psycopg

from btc_assets.domain.errors import UserError
from btc_assets.store.database import only_row
from btc_assets.store.errors import server_errors

_ARCHIVE_SECONDS = 90  # archive-push gives up on a file after a minute


@dataclass(frozen=True)
class LiveCluster:
    """What the live server says about itself.

    Attributes:
        data_directory: of the cluster.
        programs: directory of the server's programs.
        system_identifier: the same in every copy of the cluster.
        bytes: size of all databases.
        tablespaces: how many there are besides PostgreSQL's own.
        preloaded: its `shared_preload_libraries`.
        now: its time.
    """

    data_directory: Path
    programs: Path
    system_identifier: int
    bytes: int
    tablespaces: int
    preloaded: str
    now: datetime


def read_live_cluster(live: psycopg.Connection) -> LiveCluster:
    """Ask the live server about itself, and check that it can be restored beside itself.

    Raises:
        UserError: the user is no superuser, the server runs on another host, or it has tablespaces.
    """
    with server_errors():
        superuser = live.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()
        if superuser != (True,):
            raise UserError(
                f"{live.info.user} is no superuser: name one in BTC_ASSETS_DSN, such as postgresql://postgres@/btc on the host."
            )
        data_directory, programs, *rest = only_row(
            live.execute(
                "SELECT current_setting('data_directory'), (SELECT setting FROM pg_config WHERE name = 'BINDIR'), system_identifier, "
                "(SELECT sum(pg_database_size(oid)) FROM pg_database)::bigint, (SELECT count(*) FROM pg_tablespace) - 2, "
                "current_setting('shared_preload_libraries'), clock_timestamp() FROM pg_control_system()"
            )
        )
    cluster = LiveCluster(Path(data_directory), Path(programs), *rest)
    if not os.access(cluster.data_directory, os.R_OK) or not (cluster.programs / "postgres").exists():
        raise UserError(
            f"The data directory {cluster.data_directory} cannot be read here: run this on the server's own host, as the user that "
            "owns the cluster (sudo -iu postgres)."
        )
    if cluster.tablespaces:
        raise UserError(f"The cluster has {cluster.tablespaces} tablespace(s), which a drill cannot restore: restore it by hand.")
    return cluster


def archive_until_now(live: psycopg.Connection) -> None:
    """Commit something and wait until it is archived: recovery stops at a moment only when it sees a commit from after it.

    Raises:
        UserError: the WAL was not archived in time.
    """
    with server_errors():
        live.execute("SELECT pg_logical_emit_message(true, 'btc_assets', 'restore drill')")
        wal_file = live.execute("SELECT pg_walfile_name(pg_current_wal_insert_lsn())").fetchone()
        live.execute("SELECT pg_switch_wal()")
        until = time.monotonic() + _ARCHIVE_SECONDS
        while time.monotonic() < until:
            time.sleep(0.1)
            archived = live.execute('SELECT left(last_archived_wal, 24) COLLATE "C" >= %s FROM pg_stat_archiver', wal_file).fetchone()
            if archived == (True,):
                return
    raise UserError(f"The current WAL was not archived in {_ARCHIVE_SECONDS} s: run btc-assets ops backup-status to see why.")
