"""An embedded PostgreSQL of a test's own, which may be stopped in any way, and a disk of its own that may be full."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import psycopg
import pytest
from psycopg import sql

from btc_assets.store import embedded
from btc_assets_tests.support.stores import temporary_database


class Server:
    """The server in `home`, started; it ends with this process."""

    def __init__(self, home: Path) -> None:
        self.dsn = embedded.embedded_dsn(home, "postgres")
        self._server = embedded._server(home / "postgres")

    @property
    def user(self) -> str | None:
        """The user of the system that the server runs as; None where that is this process's own."""
        return self._server.system_user

    def restart(self, mode: Literal["fast", "immediate"]) -> None:
        """Stop and start it: `fast` ends all sessions, `immediate` leaves it to recover, as after a crash."""
        command = ["-D", str(self._server.pgdata), "-l", str(self._server.log), "-m", mode, "-w", "restart"]
        # Its output goes nowhere: the new server would keep a pipe open.
        subprocess.run(
            [self._server.bin_path / "pg_ctl", *command], check=True, user=self.user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )


@pytest.fixture(scope="session")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A server that nobody else uses but the tests of one group."""
    return Server(tmp_path_factory.mktemp("own"))


class Disk:
    """A small file system."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._ballast = directory / "ballast"

    def fill(self, leave: int) -> None:
        """Use up all but some bytes of it."""
        self.empty()
        with self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(self.directory).free - leave)

    def empty(self) -> None:
        self._ballast.unlink(missing_ok=True)


@contextmanager
def database_on_a_small_disk(server: Server, megabytes: int = 150) -> Iterator[tuple[str, Disk]]:
    """DSN of an empty database whose tables, though not the server's log, are on a disk of their own, and that disk."""
    with mounted_disk(megabytes) as disk:
        tables = disk.directory / "tables"
        tables.mkdir()
        if server.user:
            shutil.chown(tables, server.user)
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE TABLESPACE small LOCATION {}").format(str(tables)))
            try:
                with temporary_database(server.dsn, tablespace="small") as dsn:
                    yield dsn, disk
            finally:
                connection.execute("DROP TABLESPACE small")


@contextmanager
def mounted_disk(megabytes: int) -> Iterator[Disk]:
    """A file system in memory; a skip where there is no right to mount one."""
    # Not below pytest's own directory, which its user alone can enter.
    with tempfile.TemporaryDirectory(prefix="btc-disk-") as name:
        Path(name).chmod(0o755)
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", name], capture_output=True, text=True)
        if mounted.returncode:
            pytest.skip(f"a disk that may be full needs the right to mount one: {mounted.stderr.strip()}")
        try:
            yield Disk(Path(name))
        finally:
            subprocess.run(["umount", name], check=True)
