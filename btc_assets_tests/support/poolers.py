"""PgBouncer before the server of the tests, in any of its modes."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from btc_assets_tests.support.waiting import PATIENCE_SECONDS, free_port, wait_for

PoolMode = Literal["session", "transaction", "statement"]

_CONFIGURATION = """
[databases]
* = {server}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
{more}
"""


@contextmanager
def pooler(dsn: str, mode: PoolMode, **settings: str) -> Iterator[str]:
    """The connection string of a database through PgBouncer; skips the test where that is not installed.

    Args:
        dsn: of the database itself.
        mode: of the pool.
        settings: more lines of its configuration.
    """
    program = shutil.which("pgbouncer")
    if program is None:
        message = "a pooler needs Debian's package pgbouncer"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    parts = conninfo_to_dict(dsn)
    port = free_port()
    server = " ".join(f"{key}={parts[key]}" for key in ("host", "port", "user", "password") if parts.get(key))
    more = "\n".join(f"{name} = {value}" for name, value in settings.items())
    with tempfile.TemporaryDirectory(prefix="btc-pooler-") as name:
        Path(name).chmod(0o755)
        configuration = Path(name) / "pgbouncer.ini"
        configuration.write_text(_CONFIGURATION.format(server=server, port=port, mode=mode, more=more))
        process = subprocess.Popen([*_as_somebody(str(parts.get("host", ""))), program, configuration], stderr=subprocess.DEVNULL)
        through = make_conninfo(dsn, host="127.0.0.1", port=port)
        try:
            wait_for(lambda: _answers(port), "PgBouncer listens")
            yield through
        finally:
            process.terminate()
            process.wait(PATIENCE_SECONDS)


def _answers(port: int) -> bool:
    with suppress(psycopg.OperationalError):
        psycopg.connect(f"host=127.0.0.1 port={port} dbname=pgbouncer user=pgbouncer", autocommit=True).close()
        return True
    return False


def _as_somebody(host: str) -> list[str]:
    """PgBouncer refuses to run as root: run it as the owner of the server's socket, who may be in a directory that only root can enter."""
    if os.geteuid() != 0:
        return []
    user = Path(host).owner() if host.startswith("/") else "nobody"
    group = str(Path(host).stat().st_gid) if host.startswith("/") else "nogroup"
    return [
        "setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--inh-caps=+dac_override", "--ambient-caps=+dac_override",
    ]  # fmt: skip
