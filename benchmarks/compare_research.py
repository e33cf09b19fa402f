"""Ten research tasks, side by side: lines of code and seconds of this client, SQL by psycopg, DuckDB over Parquet, and ArcticDB.

A month of generated trades of two symbols is written to a throw-away store, to Parquet files of a day each, and to an ArcticDB library; a few
trades are left out of each. Each task of each way (`research_tasks.py`) runs in a process of its own, and the ways take turns. Seconds count from
the open store to the result; what the ways return must agree. Lines are those of the function's body, formatted by ruff, without imports.
"""

from __future__ import annotations

import argparse
import inspect
import json
import math
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from itertools import tee
from pathlib import Path

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import research_tasks
from bench_compare import replace_measured
from figures import OURS, Figure, parse, record
from research_tasks import PERP, SPOT, TASKS, WAYS
from rich.console import Console
from throwaway import RECORDS, database, machine

sys.path.insert(0, str(Path(__file__).parents[1]))

from btc_assets.domain.slices import DAY, SLICE, Window
from btc_assets.domain.ticks import TABLE
from btc_assets.market_data.candles import INTERVALS, refresh_candles
from btc_assets.signals.encoders.models import activate_model
from btc_assets.signals.features.compute import SliceFeatures
from btc_assets.signals.features.table import TABLE as FEATURES
from btc_assets.simulation.generate_day import generate_days
from btc_assets.simulation.perpetual import follow_spot
from btc_assets.store.cut import ArrowReplacements
from btc_assets.store.database import Store
from btc_assets.store.migrations import migrate
from btc_assets.store.tables import Target
from btc_assets.store.writers import replace_all
from btc_assets_tests.support.vectors import market_like, registered_model, write_vectors

MARKS = ("<!-- research: begin -->", "<!-- research: end -->")
START = datetime(2024, 1, 1, tzinfo=UTC)
DAYS, DIM, LOST = 31, 64, 7
PATIENCE = 900

_REGISTRY = """
INSERT INTO landing.raw_blobs_5m (bucket_5m, asset, uri, etag, size_bytes, row_count, status, last_modified, loaded_at, loaded_rows)
SELECT bucket_5m, symbol, 'file:///generated', 'etag', 1, count(*), 'registered', now(), now(), count(*)
FROM market_data.btc_ticks GROUP BY bucket_5m, symbol
"""
_FRAMES = """
import json, sys, numpy as np, arcticdb, pyarrow.parquet as pq
from pathlib import Path
folder = Path(sys.argv[1])
library = arcticdb.Arctic(f"lmdb://{folder}/arctic?map_size=40GB").get_library("ticks", create_if_missing=True)
for name in sys.argv[2:]:
    for file in sorted((folder / "parquet" / name).glob("*.parquet")):
        frame = pq.read_table(file).to_pandas().dropna(axis=1, how="all")
        if name == "vectors":
            vectors = np.vstack(frame["embedding"])
            frame = frame[["bucket_5m"]].assign(**{f"d{place}": vectors[:, place] for place in range(vectors.shape[1])})
        for column in frame.columns:
            if column in ("price", "quantity"):
                frame[column] = frame[column].astype(float)
            elif column.endswith(("_time", "_5m")):
                frame[column] = frame[column].dt.tz_localize(None).astype("datetime64[ns]")
        frame = frame.set_index("bucket_5m" if name == "vectors" else "trade_time")
        (library.append if library.has_symbol(name) else library.write)(name, frame)
"""

Taken = dict[str, dict[str, list[dict[str, float]]]]  # of each task and way


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=int, default=300_000, help="trades of each day of each symbol (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=list(TASKS), default=list(TASKS), help="tasks (default: all)")
    parser.add_argument("--apart", help="interpreter of the environment that has ArcticDB and Polars (default: ArcticDB is left out)")
    parser.add_argument("--table", type=Path, help="page whose part between the marks is replaced by what was measured")
    args = parse(parser)
    out = Console(width=None if sys.stdout.isatty() else 132)
    pythons = {way: args.apart if way == "arcticdb" else sys.executable for way in WAYS if way != "arcticdb" or args.apart}
    with tempfile.TemporaryDirectory(prefix="btc_assets-compare-") as made, out.status("a month is written") as status:
        folder = Path(made)
        folder.chmod(0o711)
        with database(folder) as (dsn, embedded), Store(dsn).connect() as connection:
            fill(connection, Store(dsn), folder, args.ticks)
            if args.apart:
                subprocess.run([args.apart, "-c", _FRAMES, str(folder), SPOT, PERP, "vectors"], check=True)
            taken: Taken = {}
            for task in args.only:
                for _ in range(args.repeat):
                    for way, python in pythons.items():
                        status.update(f"{task}, {way}")
                        taken.setdefault(task, {}).setdefault(way, []).append(run(python, way, task, dsn, folder))
                require_equal(task, taken[task])
                out.print(task, {way: round(median(runs, "seconds"), 3) for way, runs in taken[task].items()}, highlight=False)
            caption = f"{machine(connection, embedded, 'pyarrow', 'psycopg', 'polars', 'duckdb')}; {datetime.now(UTC):%Y-%m-%d}."
            size = f"{DAYS} days of {args.ticks:,} trades of each of two symbols"
            record(args, "research", size, figures(taken), connection)
    measured = f"{caption} {size}; medians of {args.repeat}.\n\n{table(taken, list(pythons))}"
    out.print(measured, highlight=False, markup=False, soft_wrap=True)
    if args.table:
        replace_measured(args.table, measured, MARKS)


def fill(connection: psycopg.Connection, store: Store, folder: Path, ticks: int) -> None:
    """Write the same month everywhere: the store with its candles, features and vectors, and Parquet files."""
    migrate(connection)
    month = Window(START, START + DAYS * DAY)
    connection.execute("SELECT market_data.ensure_tick_partitions(%s, %s)", (month.start, month.end))
    target = Target.of(connection, TABLE)
    spot, other = tee(generate_days(START, DAYS, ticks))
    for name, hours in ((SPOT, map(without_some, spot)), (PERP, follow_spot(other, PERP))):
        (folder / "parquet" / name).mkdir(parents=True)
        for number in range(DAYS):
            day = pa.concat_tables([next(hours) for _ in range(24)])
            pq.write_table(
                day.drop_columns(["symbol", "bucket_5m"]), folder / "parquet" / name / f"{number:02}.parquet", compression="zstd"
            )
            replace = ArrowReplacements(day, Window(START + number * DAY, START + (number + 1) * DAY), "bucket_5m", 65_536)
            if name == SPOT:
                replace_all(connection, target, replace)
            else:
                replace_other(connection, day)
    for statement in (RECORDS, _REGISTRY, "VACUUM ANALYZE"):
        connection.execute(statement)
    for interval in INTERVALS:
        refresh_candles(connection, interval, month)
    replace_all(connection, Target.of(connection, FEATURES), SliceFeatures(store, month, (SPOT,)))
    vectors = market_like(DAYS * (DAY // SLICE), DIM)
    model = registered_model(connection, dim=DIM)
    write_vectors(connection, model, vectors, START)
    activate_model(connection, model)
    (folder / "parquet/vectors").mkdir()
    times = pa.array([START + number * SLICE for number in range(len(vectors))], pa.timestamp("us", "UTC"))
    lists = pa.array(list(vectors), pa.list_(pa.float32()))
    pq.write_table(pa.table({"bucket_5m": times, "embedding": lists}), folder / "parquet/vectors/all.parquet")
    connection.execute("VACUUM ANALYZE")


def replace_other(connection: psycopg.Connection, day: pa.Table) -> None:
    """Write the day of a second symbol beside the first: a replacement would take the slices of both."""
    from btc_assets.store.encode import encode_rows

    encoded = encode_rows(day, Target.of(connection, TABLE))
    columns = ", ".join(encoded.columns)
    with connection.cursor().copy(f"COPY {TABLE} ({columns}) FROM STDIN (FORMAT binary)".encode()) as copy:
        for buffer in encoded.buffers:
            copy.write(buffer)


def without_some(ticks: pa.Table) -> pa.Table:
    """An hour of ticks without a few of them, for there to be gaps."""
    middle = len(ticks) // 2
    return pa.concat_tables([ticks.slice(0, middle), ticks.slice(middle + LOST)])


def run(python: str, way: str, task: str, dsn: str, folder: Path) -> dict[str, float]:
    """A task of a way, in a process of its own."""
    (folder / "out.parquet").unlink(missing_ok=True)
    command = [python, str(Path(research_tasks.__file__)), way, task, dsn, str(folder)]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=PATIENCE).stdout
    found: dict[str, float] = json.loads(answer.splitlines()[-1])
    return found


def require_equal(task: str, runs: dict[str, list[dict[str, float]]]) -> None:
    """Require that all ways found the same.

    Raises:
        SystemExit: they did not.
    """
    found = {way: np.array(each["summary"]) for way, ran in runs.items() for each in ran}
    expected = next(iter(found.values()))
    for way, values in found.items():
        if len(values) != len(expected) or not np.allclose(values, expected, rtol=1e-6, atol=1e-6):
            raise SystemExit(f"{TASKS[task]}: {way} found {values.tolist()}, not {expected.tolist()}")


def lines_of(way: str, task: str) -> int:
    """Lines of code of a task: of the function's body, without imports."""
    body = inspect.getsource(getattr(WAYS[way], task)).splitlines()[1:]
    return sum(bool(line.strip()) and not line.strip().startswith(("import ", "from ", "#")) for line in body)


def median(runs: list[dict[str, float]], what: str) -> float:
    return statistics.median(run[what] for run in runs)


def table(taken: Taken, ways: list[str]) -> str:
    """Markdown: lines, seconds and memory of each task; the fastest in bold."""
    rows = [f"| | {' | '.join(f'{WAYS[way].name}: lines, seconds, MB' for way in ways)} |", "|---" * (len(ways) + 1) + "|"]
    for task, runs in taken.items():
        fastest = min(runs, key=lambda way: median(runs[way], "seconds"))
        cells = []
        for way in ways:
            seconds = f"{median(runs[way], 'seconds'):.2f}"
            cells.append(f"{lines_of(way, task)}, {f'**{seconds}**' if way == fastest else seconds}, {median(runs[way], 'peak_mb'):,.0f}")
        rows.append(f"| {TASKS[task]} | {' | '.join(cells)} |")
    if len(taken) == len(TASKS):
        totals = [
            f"{sum(lines_of(way, task) for task in taken)}, {sum(median(runs[way], 'seconds') for runs in taken.values()):.1f},"
            for way in ways
        ]
        rows.append(f"| all | {' | '.join(totals)} |")
    return "\n".join(rows)


def figures(taken: Taken) -> list[Figure]:
    """What is recorded: seconds of each task, of ours and of the others, and the geometric mean of ours in times of theirs."""
    found = [
        Figure.of(TASKS[task], [each["seconds"] for each in ran], "s", who=OURS if way == "client" else WAYS[way].name)
        for task, runs in taken.items()
        for way, ran in runs.items()
    ]
    for way in next(iter(taken.values())).keys() - {"client"}:
        ratios = [math.log(median(runs["client"], "seconds") / median(runs[way], "seconds")) for runs in taken.values()]
        found.append(Figure(f"all tasks (geometric mean), in times of {WAYS[way].name}", math.exp(statistics.mean(ratios))))
    return found


if __name__ == "__main__":
    main()
