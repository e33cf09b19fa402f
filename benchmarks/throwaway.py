"""Throw-away databases and stores that benchmarks run on, and the machine that they run on. A benchmark never touches a real store."""

from __future__ import annotations

import os
import platform
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

from btc_assets.domain.settings import PREFIX
from btc_assets.store.embedded import embedded_dsn, stop

# What a load records of each slice, for stores whose ticks were written without one.
RECORDS = """
INSERT INTO market_data.loaded_slices
SELECT bucket_5m, symbol, count(*), min(trade_id), max(trade_id), bit_xor(trade_id), count(*), sum(quantity), sum(price * quantity),
       coalesce(sum(quantity) FILTER (WHERE NOT is_market_maker), 0), coalesce(sum(price * quantity) FILTER (WHERE NOT is_market_maker), 0)
FROM market_data.btc_ticks GROUP BY 1, 2
"""


@contextmanager
def database(directory: Path) -> Iterator[tuple[str, bool]]:
    """An empty database: yields its DSN, and whether its server is the embedded one.

    The server is the one that `BTC_ASSETS_TEST_DSN` names, or else the embedded one, with its files in the directory.
    """
    given = os.environ.get("BTC_ASSETS_TEST_DSN")
    home = directory / "home"
    server = given or embedded_dsn(home, "postgres")
    name = f"btc_assets_bench_{uuid.uuid4().hex[:12]}"
    try:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield urlunsplit(urlsplit(server)._replace(path=f"/{name}")), given is None
    finally:
        if given is None:
            stop(home)
        else:
            with psycopg.connect(server, autocommit=True) as connection:
                connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def store() -> Iterator[tuple[Path, bool]]:
    """A store that the settings of this process name: yields a directory for files, and whether its server is the embedded one.

    Every other setting is removed from the environment.
    """
    for name in [name for name in os.environ if name.startswith(PREFIX) and name != f"{PREFIX}TEST_DSN"] + ["DAGSTER_HOME"]:
        os.environ.pop(name, None)
    with tempfile.TemporaryDirectory(prefix="btc_assets-bench-") as made:
        directory = Path(made)
        directory.chmod(0o711)  # the embedded server's user must reach its own directory below it
        with database(directory) as (dsn, embedded):
            os.environ |= {f"{PREFIX}HOME": str(directory / "home"), f"{PREFIX}DSN": dsn}
            yield directory, embedded


def machine(connection: psycopg.Connection, embedded: bool, *packages: str) -> str:
    """A line that says what the figures were measured on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    server = f"PostgreSQL {connection.info.server_version // 10000} ({'embedded' if embedded else 'BTC_ASSETS_TEST_DSN'})"
    return ", ".join(
        [
            f"{cores} cores {platform.machine()}",
            server,
            f"Python {platform.python_version()}",
            *(f"{name} {version(name)}" for name in packages),
        ]
    )
