"""Load rates, as ratios to what the server's own COPY does with the same rows.

One day of generated ticks is landed as the collector lands it and written as one Parquet file. Every way of loading then
starts from empty tables after a checkpoint; the ways take turns, and the medians of the repetitions are shown.
Rates vary with the load of the machine, ratios within one run hardly do.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from figures import CEILING, Figure, parse, record
from peak_memory import peak_mb
from psycopg import sql
from rich.console import Console
from rich.table import Table
from throwaway import database, machine

from btc_assets.domain.feeds import Feed, Feeds
from btc_assets.domain.settings import Settings
from btc_assets.domain.slices import DAY, Window
from btc_assets.domain.ticks import TABLE, TICK_SCHEMA
from btc_assets.landing.decode import decode
from btc_assets.landing.registration import RegisterOptions, register_window
from btc_assets.landing.spool import Spool
from btc_assets.landing.zone import LandingZone
from btc_assets.market_data.early_load import loading_early
from btc_assets.market_data.loading import LoadOptions, TickLoad
from btc_assets.simulation.batches import BatchLimits, encode_batch
from btc_assets.simulation.generate_day import generate_day
from btc_assets.simulation.replay import Landed, land_trades
from btc_assets.store.cut import ArrowReplacements
from btc_assets.store.database import Store
from btc_assets.store.encode import ENCODE_ROWS
from btc_assets.store.migrations import migrate
from btc_assets.store.tables import Target
from btc_assets.store.writers import replace_all

FEED = Feed("Binance/BTCUSDT", "BTCUSDT", "BTCUSDT")
FEEDS = Feeds([FEED])
DAY_START = datetime(2024, 1, 1, tzinfo=UTC)
WINDOW = Window(DAY_START, DAY_START + DAY)
MARGIN = timedelta(minutes=Settings.model_fields["landing_margin_minutes"].default)
COLUMNS = sql.SQL(", ").join(map(sql.Identifier, TICK_SCHEMA.names))
GOAL_MB = 500
GOAL_FILE = 0.97
WRITERS: int = Settings.model_fields["writers"].default
PACKAGES = ("pyarrow", "psycopg", "pgpq", "obstore", "pandas")

_NEEDED_RIGHTS = ["pg_read_all_settings", "pg_read_server_files", "pg_write_server_files"]
_MAY_USE_FILES = "SELECT bool_and(pg_has_role(role, 'usage')) FROM unnest(%s::text[]) AS role"

Seconds = dict[str, float]  # of each stage of one measurement


@dataclass
class Way:
    """One way of loading the day.

    Attributes:
        name: as the table shows it.
        run: loads the day into empty tables and returns the seconds of its stages.
        runs: what `run` returned, one a repetition.
    """

    name: str
    run: Callable[[], Seconds]
    runs: list[Seconds] = field(default_factory=list)

    def seconds(self) -> float:
        """Median of the repetitions, in seconds."""
        return statistics.median(sum(run.values()) for run in self.runs)

    def stages(self) -> str:
        """Median seconds of each stage, where there is more than one."""
        names = list(self.runs[0])
        if len(names) < 2:
            return ""
        return ", ".join(f"{name} {statistics.median(run[name] for run in self.runs):.1f}" for name in names)


@dataclass(frozen=True)
class Day:
    """A day that is landed: its trades, and about how many collector objects they are."""

    ticks: int
    objects: int
    window: Window = WINDOW


class Bench:
    """A server, a throw-away database on it, and one landed day.

    Args:
        directory: for everything that is written.
        dsn: of the database.
        day: what is landed.
        embedded: whether the server is ours.
        commit_rows: as BTC_ASSETS_COMMIT_ROWS.
        landed: what another bench landed of the day in the same directory; None lands it.
    """

    def __init__(self, directory: Path, dsn: str, day: Day, *, embedded: bool, commit_rows: int, landed: Landed | None = None) -> None:
        self.dsn, self.embedded, self.commit_rows, self.window = dsn, embedded, commit_rows, day.window
        self.store = Store(dsn)
        self.directory = directory
        self.small, self.large = directory / "objects", directory / "file"
        self.native = directory / "native.parquet"
        self.prepared, self.on_server = directory, False  # files in the COPY format, and whether the server writes and reads them
        self.connection = self.store.connect()
        migrate(self.connection)
        self.target = Target.of(self.connection, TABLE)
        self.landed = landed or self._land(day.ticks, day.objects)
        self.rows = day.ticks

    def _land(self, ticks: int, objects: int) -> Landed:
        for folder in (self.small, self.large):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        hours = list(generate_day(self.window.start, ticks))
        landed = land_trades(_zone(self.small), FEED, iter(hours), Landed(), limits=BatchLimits(DAY / timedelta(seconds=1) / objects))
        _zone(self.large).put(*encode_batch(pa.concat_tables(hours), FEED))
        with pq.ParquetWriter(self.native, TICK_SCHEMA) as writer:
            for hour in hours:
                writer.write_table(hour)
        return landed

    def clear(self) -> None:
        """Empty every table and leave nothing dirty behind, so that all measurements start equal."""
        self.connection.execute("TRUNCATE market_data.btc_ticks, landing.raw_blobs_5m, landing.rejected_rows, ingestion.stream_offsets")
        self.connection.execute("SELECT market_data.ensure_tick_partitions(%s, %s)", (self.window.start, self.window.end))
        self.connection.execute("CHECKPOINT")

    def measure(self, way: Way) -> None:
        """One repetition of one way.

        Raises:
            SystemExit: it did not load the whole day.
        """
        self.clear()
        way.runs.append(way.run())
        (count,) = self.connection.execute("SELECT count(*) FROM market_data.btc_ticks").fetchone() or (0,)
        if count != self.rows:
            raise SystemExit(f"{way.name} loaded {count} of {self.rows} rows")

    def objects_to_rows(self, folder: Path, writers: int = WRITERS) -> Seconds:
        """Landed objects to committed rows: the path of the store itself."""
        return _load(self.store, folder, self.window, self.commit_rows, writers)

    def file_to_rows(self, writers: int = WRITERS) -> Seconds:
        """A Parquet file in the table's own types, through what CopyIOManager does with an asset's Arrow stream."""
        with _timed() as seconds, pq.ParquetFile(self.native) as file:
            self._replace(file.iter_batches(ENCODE_ROWS), writers)
        return seconds

    def collector_file_to_rows(self) -> Seconds:
        """The same from the collector's types: times as text, prices as floats."""

        def batches(file: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
            for batch in file.iter_batches(ENCODE_ROWS):
                yield from decode(pa.Table.from_batches([batch]), [FEED]).ticks.to_batches()

        with _timed() as seconds, pq.ParquetFile(self._collector_file()) as file:
            self._replace(batches(file), WRITERS)
        return seconds

    def _replace(self, batches: Iterator[pa.RecordBatch], writers: int) -> None:
        replacements = ArrowReplacements(batches, self.window, self.target.slice_column, self.commit_rows)
        replace_all(self.connection, self.target, replacements, writers=writers, store=self.store)

    def _collector_file(self) -> Path:
        return next(path for path in self.large.rglob("*.parquet"))

    def prepare_copy(self) -> None:
        """Write the day, and each half of it, in the COPY format, in the order of the primary key."""
        self.clear()
        self.file_to_rows()
        (self.on_server,) = self.connection.execute(_MAY_USE_FILES, (_NEEDED_RIGHTS,)).fetchone() or (False,)
        self.prepared = self._server_directory() if self.on_server else self.directory
        start, end = self.window.start, self.window.end
        noon = start + DAY / 2
        for name, window in {"day": self.window, "morning": Window(start, noon), "afternoon": Window(noon, end)}.items():
            select = sql.SQL(
                "SELECT {} FROM market_data.btc_ticks WHERE bucket_5m >= {} AND bucket_5m < {} ORDER BY bucket_5m, symbol, trade_id"
            ).format(COLUMNS, sql.Literal(window.start), sql.Literal(window.end))
            path = self.prepared / f"{name}.bin"
            if self.on_server:
                self.connection.execute(sql.SQL("COPY ({}) TO {} (FORMAT binary)").format(select, sql.Literal(str(path))))
                continue
            with (
                path.open("wb") as file,
                self.connection.cursor().copy(sql.SQL("COPY ({}) TO STDOUT (FORMAT binary)").format(select)) as copy,
            ):
                for piece in copy:
                    file.write(piece)

    def _server_directory(self) -> Path:
        # The server's own directory is the one place where its user can certainly write and read; that of the database goes with it.
        statement = "SELECT current_setting('data_directory') || '/' || pg_relation_filepath('pg_class')"
        return Path(*(self.connection.execute(statement).fetchone() or ())).parent

    def server_copy(self) -> Seconds:
        """The ceiling: the same rows, already encoded, by one COPY in one transaction."""
        with _timed() as seconds:
            self._server_copy(self.connection, "day")
        return seconds

    def server_copies(self) -> Seconds:
        """The same as two halves at once: what two cores can do."""
        with self.store.connect() as other, ThreadPoolExecutor(1) as pool, _timed() as seconds:
            afternoon = pool.submit(self._server_copy, other, "afternoon")
            self._server_copy(self.connection, "morning")
            afternoon.result()
        return seconds

    def _server_copy(self, connection: psycopg.Connection, name: str) -> None:
        path = self.prepared / f"{name}.bin"
        if self.on_server:
            connection.execute(sql.SQL("COPY market_data.btc_ticks ({}) FROM {} (FORMAT binary)").format(COLUMNS, sql.Literal(str(path))))
        else:
            _copy_in(connection, "binary", path.open("rb"))

    def pandas(self) -> Seconds:
        """The usual way: read_parquet, to_csv, COPY."""
        import pandas as pd

        with _timed() as seconds:
            frame = pd.read_parquet(self._collector_file())
            frame.insert(0, "bucket_5m", pd.to_datetime(frame["event_time"], format="ISO8601").dt.floor("5min"))
            text = io.StringIO()
            frame[TICK_SCHEMA.names].to_csv(text, index=False, header=False)
            text.seek(0)
            _copy_in(self.connection, "csv", text)
        return seconds

    def memory(self, folder: Path) -> dict[str, float]:
        """Peak resident memory of a process that loads a folder, in MB, after each of its stages."""
        self.clear()
        done = subprocess.run(
            [sys.executable, __file__, "--measure-memory", str(folder), "--commit-rows", str(self.commit_rows)],
            env={**os.environ, "BENCH_DSN": self.dsn},
            check=True,
            capture_output=True,
            text=True,
        )
        return {name: float(mb) for name, mb in (line.split() for line in done.stdout.splitlines())}


def _copy_in(connection: psycopg.Connection, format: str, file: io.IOBase | io.TextIOBase) -> None:
    statement = sql.SQL("COPY market_data.btc_ticks ({}) FROM STDIN (FORMAT {})").format(COLUMNS, sql.SQL(format))
    with file, connection.transaction(), connection.cursor().copy(statement) as copy:
        while data := file.read(1 << 20):
            copy.write(data)


def _zone(folder: Path) -> LandingZone:
    return LandingZone(folder.as_uri(), concurrency=Settings.model_fields["fetch_concurrency"].default)


def _load(
    store: Store,
    folder: Path,
    window: Window,
    commit_rows: int,
    writers: int = WRITERS,
    after: Callable[[str], None] = lambda stage: None,
) -> Seconds:
    with store.connect() as connection:
        started = time.perf_counter()
        zone = _zone(folder)
        spool = Spool()
        load = TickLoad(store, zone, FEEDS, window, LoadOptions(commit_rows, spool=spool))
        with loading_early(load, MARGIN, writers) as on_settled:
            register_window(connection, zone, FEEDS, window, RegisterOptions(MARGIN, spool=spool, on_settled=on_settled))
        registered = time.perf_counter()
        after("register")
        replace_all(connection, Target.of(connection, TABLE), load, writers=writers, store=store)
        after("load")
        return {"register": registered - started, "load": time.perf_counter() - registered}


@contextmanager
def _timed() -> Iterator[Seconds]:
    seconds: Seconds = {}
    started = time.perf_counter()
    yield seconds
    seconds["all"] = time.perf_counter() - started


def measure_memory(folder: Path, commit_rows: int) -> None:
    """Load a landed folder in this process and print its peak memory, in MB, after each stage."""

    def after(stage: str) -> None:
        print(stage, peak_mb())

    after("import")
    _load(Store(os.environ["BENCH_DSN"]), folder, WINDOW, commit_rows, after=after)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=int, default=3_000_000, help="trades of the day (default: %(default)s)")
    parser.add_argument("--objects", type=int, default=5760, help="collector objects of the day (default: %(default)s, 15 s each)")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions of each way (default: %(default)s)")
    parser.add_argument("--commit-rows", type=int, default=Settings.model_fields["commit_rows"].default, help="default: %(default)s")
    parser.add_argument(
        "--memory-ticks", type=int, default=5_000_000, help="trades of the day for peak memory; 0: skip it (default: %(default)s)"
    )
    parser.add_argument("--no-pandas", action="store_true", help="leave out the slowest way")
    parser.add_argument("--measure-memory", type=Path, help=argparse.SUPPRESS)
    args = parse(parser)
    if args.measure_memory:
        measure_memory(args.measure_memory, args.commit_rows)
        return
    out = Console(width=None if sys.stdout.isatty() else 132)
    with tempfile.TemporaryDirectory(prefix="btc_assets-bench-") as made:
        directory = Path(made)
        directory.chmod(0o711)  # the embedded server's user must reach its own directory below it
        with database(directory) as (dsn, embedded):
            rates(Bench(directory, dsn, Day(args.ticks, args.objects), embedded=embedded, commit_rows=args.commit_rows), args, out)
            if args.memory_ticks:
                day = Day(args.memory_ticks, args.objects)
                memory(Bench(directory, dsn, day, embedded=embedded, commit_rows=args.commit_rows), out)


def rates(bench: Bench, args: argparse.Namespace, out: Console) -> None:
    """Measure every way and print rates and ratios."""
    landed = bench.landed
    packages = [name for name in PACKAGES if name != "pandas" or not args.no_pandas]
    out.print(
        f"{bench.rows:,} ticks, landed as {landed.objects:,} objects of {landed.bytes / landed.objects / 1e3:.0f} kB; "
        f"commits of {bench.commit_rows:,} rows, {WRITERS} at once; medians of {args.repeat}\n{machine(bench.connection, bench.embedded, *packages)}",
        highlight=False,
    )
    ceiling = "COPY on the server" if bench.on_server else "COPY FROM STDIN"
    ways = {
        "a": Way(f"{landed.objects:,} objects, registered and loaded", lambda: bench.objects_to_rows(bench.small)),
        "a1": Way("same, written in one session", lambda: bench.objects_to_rows(bench.small, 1)),
        "b": Way("a Parquet file, as CopyIOManager does", bench.file_to_rows),
        "b1": Way("same, written in one session", lambda: bench.file_to_rows(1)),
        "b2": Way("same, in the collector's types", bench.collector_file_to_rows),
        "b3": Way("same, as one object, registered and loaded", lambda: bench.objects_to_rows(bench.large)),
        "c": Way(f"{ceiling}, binary, encoded before", bench.server_copy),
        "c2": Way("same, two halves at once", bench.server_copies),
        "d": Way("pandas: to_csv, COPY", bench.pandas),
    }
    if args.no_pandas:
        del ways["d"]
    bench.prepare_copy()
    with out.status("") as status:
        for repetition in range(args.repeat):
            for key, way in ways.items():
                status.update(f"{repetition + 1} of {args.repeat}: ({key}) {way.name}")
                bench.measure(way)
    table = Table("", "way", "seconds", "rows/s", "of (c)", *(["of (d)"] if "d" in ways else []), "stages (s)", "runs (s)")
    for key, way in ways.items():
        totals = [sum(run.values()) for run in way.runs]
        table.add_row(
            key,
            way.name,
            f"{way.seconds():.2f}",
            f"{bench.rows / way.seconds():,.0f}",
            *(f"{ways[other].seconds() / way.seconds():.2f}" for other in ("c", "d") if other in ways),
            way.stages(),
            f"{min(totals):.1f} to {max(totals):.1f}",
        )
    out.print(table)
    record(args, "load", f"{bench.rows:,} trades, {landed.objects:,} objects", figures(ways), bench.connection)


def figures(ways: Mapping[str, Way]) -> list[Figure]:
    """What is recorded: ratios of rates within each repetition."""

    def of(key: str, ceiling: str) -> list[float]:
        return [sum(top.values()) / sum(run.values()) for run, top in zip(ways[key].runs, ways[ceiling].runs, strict=True)]

    return [
        Figure.of("a file through CopyIOManager, of the rate of two at once", of("b", "c2"), goal=GOAL_FILE, better="more"),
        Figure.of("a file through CopyIOManager, of the rate of one COPY", of("b", "c"), better="more"),
        Figure.of("a file through CopyIOManager, of the rate of one COPY", of("c2", "c"), better="more", who=CEILING),
        Figure.of("landed objects without Dagster, of the rate of one COPY", of("a", "c"), better="more"),
        Figure.of("landed objects without Dagster, of the rate of one COPY", of("c2", "c"), better="more", who=CEILING),
    ]


def memory(bench: Bench, out: Console) -> None:
    """Measure and print the peak memory of loading a day, the server's not included."""
    table = Table("peak memory (MB)", "after import", "after register", "after load", "goal")
    for name, folder in ((f"{bench.landed.objects:,} objects", bench.small), ("one object", bench.large)):
        peak = bench.memory(folder)
        goal = f"< {GOAL_MB}: {'met' if peak['load'] < GOAL_MB else 'MISSED'}"
        table.add_row(f"{bench.rows:,} ticks, {name}", *(f"{peak[stage]:.0f}" for stage in ("import", "register", "load")), goal)
    out.print(table)


if __name__ == "__main__":
    main()
