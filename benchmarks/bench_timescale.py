"""TimescaleDB as the engine: loading, candles, compression, and corrections of compressed history.

It runs in a throw-away database on the server that BTC_ASSETS_TEST_DSN names. One generated day is loaded by the store
and, already encoded, by the server's own COPY; its candles are refreshed, its chunk is compressed, and slices of the
compressed chunk are replaced. No policy runs in the background.

The user needs the rights to create a database with extensions and to checkpoint, so it is best a superuser; without the right to
write and read files on the server, COPY is fed from this process.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from bench_load import DAY_START, FEED, WINDOW, WRITERS, Bench, Day, Seconds, Way, _timed
from psycopg import sql
from rich.console import Console
from rich.table import Table
from throwaway import database, machine

from btc_assets.domain.errors import UserError
from btc_assets.domain.settings import Settings
from btc_assets.domain.slices import DAY, Window, floor_day
from btc_assets.domain.ticks import PRICE, TABLE, TICK_SCHEMA
from btc_assets.market_data import candles
from btc_assets.simulation.generate_day import generate_day
from btc_assets.simulation.replay import Landed, read_trades
from btc_assets.store.cut import ArrowReplacements
from btc_assets.store.database import identifier
from btc_assets.store.engines import engine, read_facts
from btc_assets.store.errors import server_errors
from btc_assets.store.writers import replace_all

GOAL_LOAD = 0.9  # of the server's own COPY
GOAL_SIZE = 8.0  # times smaller
GOAL_SLICE = 1.0  # seconds, for a slice with changed prices
CHANGED_PRICES = "changed prices, same trade ids"
PACKAGES = ("pyarrow", "psycopg", "pgpq")


class TimescaleBench(Bench):
    """A throw-away database on a TimescaleDB, and one day as a Parquet file."""

    def _land(self, ticks: int, objects: int) -> Landed:
        with pq.ParquetWriter(self.native, TICK_SCHEMA) as writer:
            for hour in generate_day(DAY_START, ticks):
                writer.write_table(hour)
        return Landed(ticks=ticks)

    def row(self, statement: LiteralString, **names: sql.Composable) -> tuple[Any, ...]:
        """The one row of a query."""
        return self.connection.execute(sql.SQL(statement).format(**names)).fetchone() or ()

    def replace(self, ticks: pa.Table, window: Window) -> Seconds:
        """Replace a window's ticks as the store does, up to compressing again what was compressed."""
        with _timed() as seconds:
            replacements = ArrowReplacements(ticks, window, self.target.slice_column, self.commit_rows)
            replace_all(self.connection, self.target, replacements, writers=WRITERS, store=self.store)
        return seconds

    def refresh(self, window: Window) -> Seconds:
        """Refresh every level over a window; seconds of each."""
        seconds = {}
        for interval in candles.INTERVALS:
            with _timed() as level:
                candles.refresh_candles(self.connection, interval, window)
            seconds[interval] = level["all"]
        return seconds

    def content(self) -> tuple[Any, ...]:
        """Number of ticks, sums of their ids and prices; then chunks and rows that are not compressed."""
        chunks = self.connection.execute("SELECT name, compressed FROM ops.chunks(%s)", (TABLE,)).fetchall()
        beside = sum(self.row("SELECT count(*) FROM ONLY {chunk}", chunk=identifier(name))[0] for name, _ in chunks)
        ticks = self.row("SELECT count(*), sum(trade_id), sum(price) FROM market_data.btc_ticks")
        return (*ticks, sum(not compressed for _, compressed in chunks), beside)


def rates(bench: TimescaleBench, repeat: int) -> Table:
    """Load the day by the store and by the server's COPY, in turns."""
    bench.prepare_copy()
    ceiling = "COPY on the server" if bench.on_server else "COPY FROM STDIN (no right to files on the server)"
    ways = {
        "a": Way("a Parquet file, as CopyIOManager does", bench.file_to_rows),
        "c": Way(f"{ceiling}, binary, encoded before", bench.server_copy),
    }
    for _ in range(repeat):
        for way in ways.values():
            bench.measure(way)
    table = Table("", "load", "seconds", "runs", "rows/s", "of (c)", "goal")
    for key, way in ways.items():
        ratio = ways["c"].seconds() / way.seconds()
        goal = _goal(f">= {GOAL_LOAD}", ratio >= GOAL_LOAD) if key == "a" else ""
        table.add_row(key, way.name, *_shown([run["all"] for run in way.runs]), f"{bench.rows / way.seconds():,.0f}", f"{ratio:.2f}", goal)
    return table


def refreshes(bench: TimescaleBench, repeat: int, buckets: Iterable[datetime]) -> Table:
    """Make the candles of the day from nothing, then those of single slices of which one tick was changed.

    Raises:
        SystemExit: the candles do not hold what the ticks do.
    """
    day, one = [], []
    partials = {interval: identifier(f"market_data.candle_partials_{interval}") for interval in candles.INTERVALS}
    for _ in range(repeat):
        for level in partials.values():
            bench.connection.execute(sql.SQL("TRUNCATE {}").format(level))
        bench.connection.execute("CHECKPOINT")
        day.append(bench.refresh(WINDOW))
    for bucket in buckets:
        changed = "UPDATE market_data.btc_ticks SET price = price + 1 WHERE (bucket_5m, trade_id) = "
        first = "(SELECT bucket_5m, min(trade_id) FROM market_data.btc_ticks WHERE bucket_5m = %s GROUP BY 1)"
        bench.connection.execute(changed + first, (bucket,))
        one.append(bench.refresh(Window.of_slice(bucket)))
    table = Table("refresh", "partial candles", "the day, from nothing (s)", "runs", "a slice, one tick changed (ms)", "runs")
    ticks = bench.row("SELECT count(*), sum(price * quantity) FROM market_data.btc_ticks")
    for interval, level in partials.items():
        made, *held = bench.row("SELECT count(*), sum(trade_count), sum(quote_volume) FROM {level}", level=level)
        if tuple(held) != ticks:
            raise SystemExit(f"The candles of {interval} hold {held}, the ticks {ticks}")
        table.add_row(interval, f"{made:,}", *_shown([run[interval] for run in day]), *_shown([run[interval] * 1e3 for run in one], 1))
    table.add_row("all", "", *_shown([sum(run.values()) for run in day]), *_shown([sum(run.values()) * 1e3 for run in one], 1))
    return table


def sizes(bench: TimescaleBench, repeat: int, trades: pa.Table | None) -> Table:
    """Load and compress the real trades, where there are any, and then the generated day, which is left there."""
    bench.connection.execute(
        "ALTER TABLE market_data.btc_ticks SET (timescaledb.enable_columnstore, timescaledb.segmentby = 'symbol', "
        "timescaledb.orderby = 'bucket_5m, trade_id')"
    )
    days: dict[str, Callable[[], Seconds]] = {f"{bench.rows:,} generated ticks": bench.file_to_rows}
    if trades is not None:
        times = pc.min_max(trades["bucket_5m"])
        real = Window(floor_day(times["min"].as_py()), floor_day(times["max"].as_py()) + DAY)
        days = {f"{len(trades):,} real ticks of {real.start:%Y-%m-%d}": lambda: bench.replace(trades, real)} | days
    table = Table("compress", "seconds", "runs", "before (MB)", "after (MB)", "ratio", "goal")
    for name, load in days.items():
        runs = []
        for _ in range(repeat):
            bench.clear()
            load()
            bench.connection.execute("CHECKPOINT")
            with _timed() as seconds:
                bench.connection.execute("SELECT ops.compress_chunk(name) FROM ops.chunks(%s)", (TABLE,))
            runs.append(seconds["all"])
        before, after = bench.row("SELECT bytes_before, bytes_after FROM ops.table_sizes() WHERE relation = 'market_data.btc_ticks'")
        goal = _goal(f">= {GOAL_SIZE:.0f}", before / after >= GOAL_SIZE)
        table.add_row(name, *_shown(runs), f"{before / 1e6:.1f}", f"{after / 1e6:.1f}", f"{before / after:.1f}", goal)
    return table


def corrections(bench: TimescaleBench, buckets: Iterable[datetime]) -> Table:
    """Replace slices of the compressed chunk by others and in the end by what they were.

    Raises:
        SystemExit: they are not, or something is not compressed.
    """
    before = bench.content()
    runs: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)  # rows and seconds
    for bucket in buckets:
        ticks = pq.read_table(bench.native, filters=[("bucket_5m", "=", bucket)])
        raised = pc.add(ticks["price"], pa.scalar(Decimal(1), PRICE)).cast(PRICE)
        changed = ticks.set_column(ticks.column_names.index("price"), TICK_SCHEMA.field("price"), raised)
        for change, content in {
            "the same rows": ticks,
            CHANGED_PRICES: changed,
            "half of the trades removed": changed.take(list(range(0, len(changed), 2))),
            "the removed ones back: half of the keys new": changed,
            "emptied": changed.slice(0, 0),
            "filled again: all keys new": ticks,
        }.items():
            bench.connection.execute("CHECKPOINT")
            runs[change].append((len(content), bench.replace(content, Window.of_slice(bucket))["all"]))
    after = bench.content()
    if after != before or any(after[-2:]):
        raise SystemExit(f"Count, sums, and what is not compressed, were {before} before slices were replaced, and are {after}")
    table = Table("replace a compressed slice", "rows", "seconds", "runs", "goal")
    for change, of_change in runs.items():
        rows, seconds = (list(values) for values in zip(*of_change, strict=True))
        goal = _goal(f"<= {GOAL_SLICE:.0f}", statistics.median(seconds) <= GOAL_SLICE) if change == CHANGED_PRICES else ""
        table.add_row(change, f"{statistics.median(rows):,.0f}", *_shown(seconds), goal)
    return table


def _goal(text: str, met: bool) -> str:
    return f"{text}: {'met' if met else 'MISSED'}"


def _shown(runs: list[float], digits: int = 2) -> tuple[str, str]:
    return f"{statistics.median(runs):.{digits}f}", f"{min(runs):.{digits}f} to {max(runs):.{digits}f}"


def require_timescale() -> None:
    """Raise SystemExit, with one sentence, if there is no server or it is not TimescaleDB."""
    server = os.environ.get("BTC_ASSETS_TEST_DSN")
    if not server:
        raise SystemExit("Set BTC_ASSETS_TEST_DSN to a server with TimescaleDB, on which a database may be created and dropped.")
    try:
        with psycopg.connect(server) as connection:
            found = engine(connection)
    except psycopg.Error as error:
        raise SystemExit(f"The server that BTC_ASSETS_TEST_DSN names cannot be reached: {str(error).splitlines()[0]}")
    if found != "timescale":
        raise SystemExit(f"The server that BTC_ASSETS_TEST_DSN names is of the engine {found}: name one that has TimescaleDB.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=int, default=3_000_000, help="trades of the day (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions of what concerns the whole day (default: %(default)s)")
    parser.add_argument("--slices", type=int, default=5, help="slices that are changed, over the day (default: %(default)s)")
    parser.add_argument("--commit-rows", type=int, default=Settings.model_fields["commit_rows"].default, help="default: %(default)s")
    parser.add_argument("--trades", type=Path, help="a file of real trades to compress as well, in any landing format")
    args = parser.parse_args()
    every = list(WINDOW.slices())
    buckets = every[len(every) // args.slices // 2 :: len(every) // args.slices][: args.slices]
    out = Console(width=None if sys.stdout.isatty() else 132)
    try:
        require_timescale()
        trades = pa.concat_tables(read_trades(args.trades, FEED, Landed())) if args.trades else None
        with server_errors(), tempfile.TemporaryDirectory(prefix="btc_assets-bench-") as made, database(Path(made)) as (dsn, _):
            bench = TimescaleBench(Path(made), dsn, Day(args.ticks, 0), embedded=True, commit_rows=args.commit_rows)
            out.print(
                f"{bench.rows:,} ticks; commits of {bench.commit_rows:,} rows; medians of {args.repeat}, of {args.slices} where it is slices\n"
                f"{machine(bench.connection, False, *PACKAGES)}, TimescaleDB {read_facts(bench.connection).timescale_installed}",
                highlight=False,
            )
            out.print(rates(bench, args.repeat))
            out.print(refreshes(bench, args.repeat, buckets))
            out.print(sizes(bench, args.repeat, trades))
            out.print(corrections(bench, buckets))
    except UserError as error:
        raise SystemExit(str(error))


if __name__ == "__main__":
    main()
