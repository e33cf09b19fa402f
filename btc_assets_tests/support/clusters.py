"""A PostgreSQL cluster that pgBackRest backs up to a real S3 server over verified TLS.

PostgreSQL and pgBackRest are packages of the system, with the settings of our hosts except for faster archiving. Servers run as the user
postgres, because PostgreSQL refuses to run as root. Debian 12 has no pgvector, so the store in this cluster has no `signals`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest

from btc_assets.domain.settings import Settings
from btc_assets.store import migrations, sql_files
from btc_assets.store.database import only_row
from btc_assets_tests.support.s3 import S3Server, running_s3
from btc_assets_tests.support.waiting import wait_for

ARCHIVE_TIMEOUT = int(os.environ.get("DRILL_ARCHIVE_TIMEOUT", "2"))  # seconds; 60 on a host of ours

# Python may be in the home directory of root, which another user needs a capability to enter.
_AS_POSTGRES = [
    "setpriv",
    "--reuid=postgres",
    "--regid=postgres",
    "--init-groups",
    "--inh-caps=+dac_override",
    "--ambient-caps=+dac_override",
]
_USER = "postgres" if os.geteuid() == 0 else None

_PGBACKREST = """
[global]
repo1-type=s3
repo1-path=/btc
repo1-s3-bucket={s3.bucket}
repo1-s3-endpoint=localhost
repo1-storage-host=localhost
repo1-storage-port={s3.tls_port}
repo1-storage-ca-file={directory}/ca.pem
repo1-s3-region=us-east-1
repo1-s3-uri-style=path
repo1-s3-key={s3.key}
repo1-s3-key-secret={s3.secret}
repo1-bundle=y
repo1-cipher-type=aes-256-cbc
repo1-cipher-pass=a passphrase of the tests
repo1-retention-full=2
compress-type=zst
process-max=2
start-fast=y
archive-async=y
# Its processes exclude each other: the first push after a recovery may find the last get still at work, and wait this long.
archive-timeout={archive_timeout}
archive-push-queue-max={queue_max}
spool-path={directory}/spool
log-path={directory}/log
lock-path={directory}/lock

[btc]
pg1-path={directory}/data
pg1-socket-path={directory}
"""

_POSTGRES = """
listen_addresses = ''
unix_socket_directories = '{directory}'
archive_mode = on
archive_timeout = {timeout}
archive_command = 'pgbackrest --config={directory}/pgbackrest.conf --stanza=btc archive-push %p'
wal_compression = on
track_commit_timestamp = on
timezone = 'UTC'
shared_buffers = 32MB
"""


class Cluster:
    """A cluster in a directory, with a stanza `btc` in the bucket of an S3 server."""

    def __init__(self, directory: Path, programs: Path, s3: S3Server) -> None:
        self.directory, self.data, self.s3 = directory, directory / "data", s3
        self._programs = programs
        self.dsn = f"postgresql://postgres@/postgres?host={directory}"
        assert s3.certificate is not None and s3.process is not None
        self._s3_process = s3.process
        shutil.copy(s3.certificate, directory / "ca.pem")
        self.configure()
        self.run(programs / "initdb", "-D", self.data, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync")
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(_POSTGRES.format(directory=directory, timeout=ARCHIVE_TIMEOUT))

    def configure(self, queue_max: str = "4GiB", archive_timeout: int = 5) -> None:
        """Write pgBackRest's configuration.

        Args:
            queue_max: of waiting WAL, beyond which pgBackRest drops it.
            archive_timeout: seconds after which archiving a WAL file fails.
        """
        text = _PGBACKREST.format(directory=self.directory, s3=self.s3, queue_max=queue_max, archive_timeout=archive_timeout)
        (self.directory / "pgbackrest.conf").write_text(text)

    def run(self, *command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program as the user of the cluster."""
        return subprocess.run(
            command,
            user=_USER,
            group=_USER,
            extra_groups=[] if _USER else None,
            cwd=self.directory,
            check=check,
            capture_output=True,
            text=True,
        )

    def pgbackrest(self, *command: str) -> None:
        self.run("pgbackrest", f"--config={self.directory}/pgbackrest.conf", "--stanza=btc", *command)

    def settings(self) -> Settings:
        """The settings of a process that may call pgBackRest as the user of the cluster, as sudo allows it on a host."""
        program = [*(_AS_POSTGRES if _USER else []), "pgbackrest", f"--config={self.directory}/pgbackrest.conf"]
        return Settings(dsn=self.dsn, backup_stanza="btc", pgbackrest=" ".join(program))

    def start(self) -> None:
        log = self.directory / "postgres.log"
        try:
            self.run(self._programs / "pg_ctl", "-D", self.data, "-l", log, "-w", "start")
        except subprocess.CalledProcessError as error:
            raise RuntimeError(f"the cluster does not start: {error.stdout}{log.read_text()[-3000:]}") from error

    def stop(self) -> None:
        self.run(self._programs / "pg_ctl", "-D", self.data, "-m", "fast", "-w", "stop", check=False)

    def kill(self) -> None:
        """Kill every process of the server at once."""
        import psutil

        server = psutil.Process(int((self.data / "postmaster.pid").read_text().split()[0]))
        for process in [server, *server.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def wipe(self) -> None:
        """Remove what the host of a killed server holds; nothing is left but the backups in S3."""
        for name in ("data", "spool", "lock"):
            shutil.rmtree(self.directory / name, ignore_errors=True)
        for path in self.directory.glob(".s.PGSQL.*"):
            path.unlink()

    def connect(self) -> psycopg.Connection:
        return psycopg.connect(self.dsn, autocommit=True, options="-c timezone=UTC")

    def write_wal(self, files: int) -> None:
        """Commit something and close the WAL file, several times."""
        with self.connect() as connection:
            for _ in range(files):
                connection.execute("SELECT pg_logical_emit_message(true, 'test', 'a commit')")
                connection.execute("SELECT pg_switch_wal()")

    def count_waiting_wal(self) -> int:
        """Number of closed WAL files that are not archived yet."""
        with self.connect() as connection:
            (count,) = only_row(connection.execute("SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'"))
        return int(count)

    def wait_until_archived(self) -> None:
        """Wait until no WAL file waits to be archived."""
        wait_for(lambda: self.count_waiting_wal() == 0, "all WAL is archived")

    @contextmanager
    def s3_hangs(self) -> Iterator[None]:
        """Until the end of the block, S3 accepts connections but does not answer."""
        self._s3_process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._s3_process.send_signal(signal.SIGCONT)

    def command(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Start `btc-assets` as the user of the cluster."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("BTC_ASSETS_")} | {
            "BTC_ASSETS_DSN": self.dsn, "BTC_ASSETS_BACKUP_STANZA": "btc",
            "BTC_ASSETS_PGBACKREST": f"pgbackrest --config={self.directory}/pgbackrest.conf",
            "TMPDIR": str(self.directory / "tmp"), "COLUMNS": "200",
        }  # fmt: skip
        return subprocess.Popen(
            [*(_AS_POSTGRES if _USER else []), sys.executable, "-m", "btc_assets.cli", *arguments],
            env=environment, cwd=self.directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip


_ABOUT_SIGNALS = {
    "0014_slice_features", "0015_embeddings", "0016_definer_functions", "0028_model_data", "0029_encoder_kinds", "0030_times_of_change"
}  # fmt: skip


def make_tables_without_signals(connection: psycopg.Connection) -> None:
    """Apply the numbered migrations but those that need pgvector."""
    connection.execute(migrations._BOOTSTRAP)
    for file in sql_files.read_migrations("postgres"):
        if file.name not in _ABOUT_SIGNALS:
            connection.execute(file.text.replace("CREATE EXTENSION IF NOT EXISTS vector;", ""))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster with an empty store, backed up once."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    missing = [name for name in ("pgbackrest", "openssl", "setpriv") if shutil.which(name) is None] + ([] if versions else ["postgresql"])
    if missing:
        message = f"backups need Debian's packages pgbackrest, postgresql, openssl and util-linux; absent: {', '.join(missing)}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    # Not below pytest's directory, which only its user can enter.
    with tempfile.TemporaryDirectory(prefix="btc-cluster-") as name, tempfile.TemporaryDirectory(prefix="btc-s3-") as s3_directory:
        directory = Path(name)
        for part in ("spool", "log", "lock", "tmp"):
            (directory / part).mkdir()
        if _USER:
            for path in (directory, *directory.iterdir()):
                shutil.chown(path, _USER, _USER)
        with running_s3(Path(s3_directory), "backups", tls=True) as s3:
            made = Cluster(directory, versions[-1].parent, s3)
            made.start()
            try:
                made.pgbackrest("stanza-create")
                with made.connect() as connection:
                    make_tables_without_signals(connection)
                made.pgbackrest("backup", "--type=full")
                yield made
            finally:
                made.stop()
