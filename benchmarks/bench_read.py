"""Reading a day of ticks back, by this store's reader and by others, beside the server's own COPY of the same columns thrown away.

A generated day is written to a throw-away database: plain PostgreSQL's partition, or on the server that BTC_ASSETS_TEST_DSN names a
hypertable, then the same one compressed. The ways take turns, each in a process of its own, which counts its time from the connection to the
last row, without imports. Beside the wall clock they are counted by core used: rows divided by the CPU seconds of the client and of the
server's processes of that database, which does not depend on what else runs. COPY is read with libpq's `PQgetCopyData`, row by row, and
nothing is made of it; psycopg's `copy()` takes half as long again. pandas.read_sql reads two hours.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urlencode

import psutil
import psycopg
from figures import CEILING, Better, Figure, parse, record, server
from peak_memory import peak_mb
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from rich.console import Console
from rich.table import Table
from throwaway import RECORDS, database, machine

from btc_assets.domain.slices import DAY, Window, from_microseconds, to_microseconds
from btc_assets.domain.ticks import TABLE, TICK_SCHEMA
from btc_assets.simulation.generate_day import generate_days
from btc_assets.store.cut import ArrowReplacements
from btc_assets.store.database import Store, connect
from btc_assets.store.migrations import migrate
from btc_assets.store.parallel_read import Query, stream
from btc_assets.store.tables import Target
from btc_assets.store.writers import replace_all

FIRST_DAY = datetime(2024, 1, 1, tzinfo=UTC)
SYMBOL = "BTCUSDT"
GOAL_COPY, GOAL_FIRST_MS, GOAL_MB = 0.9, 100.0, 150.0
PACKAGES = ("psycopg", "pyarrow", "adbc-driver-postgresql", "connectorx", "pandas", "sqlalchemy")
MEMORY = "memory"

Batches = Iterable[int]  # rows of each batch


class Reading(NamedTuple):
    """What one reading took.

    Attributes:
        rows: that were read.
        wall, first, client, server: seconds: until the last row, until the first batch, of CPU in the client and in the server.
        peak_mb: memory of the client at its peak, above what it held before it connected.
    """

    rows: int
    wall: float
    first: float
    client: float
    peak_mb: float
    server: float = 0.0

    @property
    def rate(self) -> float:
        """Rows a second."""
        return self.rows / self.wall

    @property
    def per_core(self) -> float:
        """Rows a CPU second."""
        return self.rows / (self.client + self.server)


# ---- the ways, each in a process of its own


def select(window: Window) -> str:
    columns = ", ".join(TICK_SCHEMA.names)
    return (  # of our own names and times
        f"SELECT {columns} FROM {TABLE} WHERE symbol = '{SYMBOL}' AND bucket_5m >= '{window.start}' AND bucket_5m < '{window.end}' "  # noqa: S608
        "ORDER BY bucket_5m, symbol, trade_id"
    )


def client(dsn: str, window: Window) -> Batches:
    import btc_assets

    return (len(batch) for batch in btc_assets.connect(dsn).ticks(SYMBOL, window).batches())


def ours(sessions: int) -> Callable[[str, Window], Batches]:
    def read(dsn: str, window: Window) -> Batches:
        query = Query(lambda part: sql.SQL(select(part)), TICK_SCHEMA, window, group_by="bucket_5m", constants={"symbol": SYMBOL})
        return (len(batch) for batch in stream(Store(dsn), query, sessions=sessions))

    return read


def copy(dsn: str, window: Window) -> Batches:
    with connect(dsn) as connection:
        raw = connection.pgconn
        raw.exec_(f"COPY ({select(window)}) TO STDOUT (FORMAT binary)".encode())
        rows = -1  # the end is a message as well
        read = raw.get_copy_data
        while read(0)[0] > 0:
            rows += 1
            if rows == 0:
                yield 0
        while raw.get_result():
            pass
        yield rows


def adbc(dsn: str, window: Window) -> Batches:
    import adbc_driver_postgresql.dbapi

    with adbc_driver_postgresql.dbapi.connect(dsn) as connection, connection.cursor() as cursor:
        cursor.execute(select(window))
        for batch in cursor.fetch_record_batch():
            yield len(batch)


def connectorx(partitions: int) -> Callable[[str, Window], Batches]:
    def read(dsn: str, window: Window) -> Batches:
        import connectorx

        column = "trade_id" if partitions > 1 else None
        number = partitions if partitions > 1 else None
        yield len(connectorx.read_sql(_address(dsn), select(window), return_type="arrow", partition_on=column, partition_num=number))

    return read


def pandas(dsn: str, window: Window) -> Batches:
    import pandas
    import sqlalchemy

    engine = sqlalchemy.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(dsn))
    yield len(pandas.read_sql(select(Window(window.start, window.start + DAY / 12)), engine))


def _address(dsn: str) -> str:
    """A URL that connectorx understands: its host may be the directory of a socket."""
    parts = conninfo_to_dict(dsn)
    user, host = quote(str(parts.get("user", "postgres"))), quote(str(parts["host"]), safe="")
    password = f":{quote(str(parts['password']))}" if "password" in parts else ""
    return f"postgresql://{user}{password}@{host}:{parts.get('port', 5432)}/{parts['dbname']}?{urlencode({'cxprotocol': 'binary'})}"


OURS, ONE_SESSION, COPY, ADBC, PANDAS = (
    "ours: store.ticks(…).batches()",
    "ours, 1 session",
    "COPY, thrown away",
    "ADBC as it comes",
    "pandas.read_sql",
)
CONNECTORX, PARTITIONS = "connectorx", "connectorx, 2 partitions"
WAYS: dict[str, Callable[[str, Window], Batches]] = {
    OURS: client,
    ONE_SESSION: ours(1),
    COPY: copy,
    ADBC: adbc,
    CONNECTORX: connectorx(1),
    PARTITIONS: connectorx(2),
    PANDAS: pandas,
}
IMPORTS = {
    OURS: "btc_assets.client.store",
    ADBC: "adbc_driver_postgresql.dbapi",
    CONNECTORX: "connectorx",
    PARTITIONS: "connectorx",
    PANDAS: "pandas, sqlalchemy",
}


def read_once(way: str, dsn: str, window: Window) -> Reading:
    """In a process of its own: what this way takes."""
    for name in filter(None, IMPORTS.get(way, "").split(", ")):
        __import__(name)
    batches = WAYS[way](dsn, window)
    before = psutil.Process().memory_info().rss / 1e6
    cpu, started, first, rows = time.process_time(), time.perf_counter(), 0.0, 0
    for count in batches:
        first = first or time.perf_counter() - started
        rows += count
    return Reading(rows, time.perf_counter() - started, first, time.process_time() - cpu, peak_mb() - before)


# ---- the bench


@dataclass
class Bench:
    """A throw-away database with generated days in it.

    Attributes:
        dsn: of it.
        connection: to it.
        tables: how its ticks are kept, one after the other; each has what makes the table so, and is measured.
        readings: of each table and way, one a repetition.
    """

    dsn: str
    connection: psycopg.Connection
    readings: dict[str, dict[str, list[Reading]]] = field(default_factory=dict)

    def fill(self, first: datetime, days: int, ticks: int) -> Window:
        """Write days of so many ticks; returns their window."""
        window = Window(first, first + days * DAY)
        self.connection.execute("SELECT market_data.ensure_tick_partitions(%s, %s)", (window.start, window.end))
        batches = (batch for hour in generate_days(first, days, ticks) for batch in hour.to_batches())
        target = Target.of(self.connection, TABLE)
        replace_all(self.connection, target, ArrowReplacements(batches, window, target.slice_column, 65_536))
        self.connection.execute("TRUNCATE market_data.loaded_slices")
        self.connection.execute(RECORDS)
        self.connection.execute("VACUUM ANALYZE")
        return window

    def compress(self) -> None:
        self.connection.execute(
            f"ALTER TABLE {TABLE} SET (timescaledb.enable_columnstore, timescaledb.segmentby = 'symbol', "
            "timescaledb.orderby = 'bucket_5m, trade_id')"
        )
        self.connection.execute("SELECT ops.compress_chunk(name) FROM ops.chunks(%s)", (TABLE,))
        self.connection.execute(f"VACUUM ANALYZE {TABLE}")

    def measure(self, table: str, way: str, window: Window, rows: int) -> None:
        """One repetition of one way.

        Raises:
            SystemExit: it did not read all.
        """
        command = [sys.executable, __file__, "--way", way, self.dsn, str(to_microseconds(window.start)), str(to_microseconds(window.end))]
        with server_cpu(self.connection) as spent:
            answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        reading = Reading(**json.loads(answer))._replace(server=spent())
        if way != PANDAS and reading.rows != rows:
            raise SystemExit(f"{way} read {reading.rows} of {rows} rows")
        self.readings.setdefault(table, {}).setdefault(way, []).append(reading)


@contextmanager
def server_cpu(connection: psycopg.Connection) -> Iterator[Callable[[], float]]:
    """CPU seconds of the server's processes of a database, other than our own session, in what is done inside."""
    name = connection.info.dbname
    seconds: dict[int, float] = {}
    ended = threading.Event()
    own = connection.info.backend_pid
    postmaster = psutil.Process(own).parent()
    assert postmaster is not None
    children = Path(f"/proc/{postmaster.pid}/task/{postmaster.pid}/children")

    def look() -> None:
        for pid in map(int, children.read_text().split()):
            try:
                if pid == own or f" {name} ".encode() not in Path(f"/proc/{pid}/cmdline").read_bytes():
                    continue
                seconds[pid] = sum(psutil.Process(pid).cpu_times()[:2])
            except (OSError, psutil.NoSuchProcess):
                continue

    def watch() -> None:
        while not ended.wait(0.02):
            look()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield lambda: sum(seconds.values())
    finally:
        ended.set()
        watcher.join()


def main() -> None:
    if sys.argv[1:2] == ["--way"]:
        _, _, way, dsn, start, end = sys.argv
        print(json.dumps(read_once(way, dsn, Window(from_microseconds(int(start)), from_microseconds(int(end))))._asdict()))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=int, default=3_600_000, help="trades of the day (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions (default: %(default)s)")
    parser.add_argument("--days", type=int, default=100, help="days that are read for the memory (default: %(default)s)")
    parser.add_argument("--day-ticks", type=int, default=36_000, help="trades of each of them (default: %(default)s)")
    args = parse(parser)
    out = Console(width=None if sys.stdout.isatty() else 132)
    with tempfile.TemporaryDirectory(prefix="btc_assets-bench-") as made:
        Path(made).chmod(0o711)
        with database(Path(made)) as (dsn, embedded), Store(dsn).connect() as connection:
            migrate(connection)
            out.print(machine(connection, embedded, *PACKAGES), highlight=False)
            bench = Bench(dsn, connection)
            used = server(connection)
            day = bench.fill(FIRST_DAY, 1, args.ticks)
            days = bench.fill(day.end, args.days, args.day_ticks)
            for table in ("hypertable", "compressed hypertable") if used.engine == "timescale" else ("partition",):
                if table.startswith("compressed"):
                    bench.compress()
                for _ in range(args.repeat):
                    for way in WAYS:
                        bench.measure(table, way, day, args.ticks)
                bench.measure(table, OURS, days, args.days * args.day_ticks)
                bench.readings[table][MEMORY] = [bench.readings[table][OURS].pop()]
                out.print(shown(table, bench.readings[table], args))
    found = [figure for table, readings in bench.readings.items() for figure in figures(table, readings, args)]
    for figure in found:
        if figure.goal is not None:
            reached = "met" if figure.met else "MISSED"
            out.print(f"{figure.name}: {figure.value:.2f} {figure.unit} (goal {figure.goal:g}: {reached})", highlight=False)
    record(args, "read", f"{args.ticks:,} ticks", found, used)


def shown(table: str, readings: dict[str, list[Reading]], args: argparse.Namespace) -> Table:
    """Medians of each way."""
    shown = Table("", "k rows/s", "k rows a CPU second", "client µs a row", "server µs a row", "first batch (ms)", "peak (MB)")
    shown.title = f"{args.ticks:,} ticks in a {table}, medians of {args.repeat}"
    for way, runs in readings.items():

        def median(value: Callable[[Reading], float], runs: Sequence[Reading] = runs) -> float:
            return statistics.median(map(value, runs))

        shown.add_row(
            f"ours, {args.days} days of {args.day_ticks:,}" if way == MEMORY else way,
            f"{median(lambda one: one.rate / 1e3):.0f}",
            f"{median(lambda one: one.per_core / 1e3):.0f}",
            f"{median(lambda one: one.client / one.rows * 1e6):.2f}",
            f"{median(lambda one: one.server / one.rows * 1e6):.2f}",
            f"{median(lambda one: one.first * 1e3):.0f}",
            f"{median(lambda one: one.peak_mb):.0f}",
        )
    return shown


def figures(table: str, readings: dict[str, list[Reading]], args: argparse.Namespace) -> list[Figure]:
    """The goals, and rates of all ways."""

    def ratio(what: str, others: Sequence[str], value: Callable[[Reading], float], goal: float | None) -> Figure:
        values = [value(mine) / max(value(readings[other][number]) for other in others) for number, mine in enumerate(readings[OURS])]
        return Figure.of(f"{table}: {what}", values, "times", goal, "more")

    def rate(way: str, who: str, value: Callable[[Reading], float], what: str, better: Better = "more") -> Figure:
        return Figure.of(f"{table}: {what}", [value(one) for one in readings[way]], "k rows/s", None, better, who)

    peak = max(one.peak_mb for one in [*readings[OURS], *readings[MEMORY]])
    found = [
        ratio("a row a CPU second, of COPY thrown away", [COPY], lambda one: one.per_core, GOAL_COPY),
        ratio("rows/s, of ADBC as it comes", [ADBC], lambda one: one.rate, 2),
        ratio("rows/s, of connectorx", [CONNECTORX], lambda one: one.rate, 3),
        ratio("rows/s, of connectorx in 2 partitions", [PARTITIONS], lambda one: one.rate, None),
        ratio("rows/s, of pandas.read_sql", [PANDAS], lambda one: one.rate, 10),
        Figure.of(f"{table}: first batch", [one.first * 1e3 for one in readings[OURS]], "ms", GOAL_FIRST_MS),
        Figure(f"{table}: peak memory, a day and {args.days} days of {args.day_ticks:,}", peak, "MB", GOAL_MB),
    ]
    for way in WAYS:
        who = {OURS: "ours", COPY: CEILING}.get(way, way)
        found.append(rate(way, who, lambda one: one.rate / 1e3, "rows/s"))
        found.append(rate(way, who, lambda one: one.per_core / 1e3, "rows a CPU second"))
    return found


if __name__ == "__main__":
    main()
