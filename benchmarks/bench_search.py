"""How well and how fast similar slices are found: recall@10 and queries a second, one client.

Vectors are those of the default encoder on a generated market (made by bench_encoders.py --vectors FILE), or generated: of a
few hidden states that drift, with noise. Recall is that of `signals.nearest` against exact search, without
the query itself; the rate is that of `signals.similar_slices` as a client calls it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import psycopg
from bench_load import database, machine
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from btc_assets.migrations import migrate
from btc_assets.signals import indexes, models
from btc_assets.signals.search import similar
from btc_assets.slices import SLICE, Window
from btc_assets_tests.signals.vectors import market_like, registered_model, write_vectors

START = datetime(2023, 1, 1, tzinfo=UTC)
WAYS = (("ivfflat", "vector"), ("ivfflat", "halfvec"), ("hnsw", "vector"), ("hnsw", "halfvec"))


def rate(connection: psycopg.Connection, rows: int, queries: int, **options: object) -> tuple[float, float]:
    """Queries a second, and the median of their times in ms."""
    times = []
    for number in np.random.default_rng(1).integers(0, rows, queries).tolist():
        started = time.perf_counter()
        similar(connection, START + number * SLICE, 10, **options)  # type: ignore[arg-type]
        times.append(time.perf_counter() - started)
    return queries / sum(times), 1e3 * statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=105_120, help="of generated vectors; a year of slices")
    parser.add_argument("--vectors", type=Path, help=".npy file, float32 [n, dim], instead of generated ones")
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--ways", default="ivfflat vector,ivfflat halfvec,hnsw vector,hnsw halfvec")
    parser.add_argument("--queries", type=int, default=500)
    arguments = parser.parse_args()
    vectors = np.load(arguments.vectors) if arguments.vectors else market_like(arguments.rows, arguments.dim)
    console = Console(width=140)
    with (
        tempfile.TemporaryDirectory(prefix="btc_assets-bench-") as directory,
        database(Path(directory)) as (dsn, embedded),
        psycopg.connect(dsn, autocommit=True, options="-c timezone=UTC") as connection,
    ):
        migrate(connection)
        console.print(f"{machine(connection, embedded)}; {len(vectors):,} vectors of {vectors.shape[1]} dimensions", highlight=False)
        model = registered_model(connection, dim=vectors.shape[1])
        models.point_to(connection, model)
        started = time.perf_counter()
        window = write_vectors(connection, model, vectors, START)
        console.print(f"written in {time.perf_counter() - started:.1f} s", highlight=False)
        connection.execute("ANALYZE signals.btc_embeddings")
        table = Table("index", "build s", "lists", "effort", "recall@10", "queries/s", "median ms", "size MB")
        for column in table.columns[1:]:
            column.justify = "right"
        for way in arguments.ways.split(","):
            method, element = way.split()
            plan = indexes.plan(model, len(vectors), method=method, element=element)
            if plan is None:
                console.print(f"no index below {indexes.FEWEST_ROWS:,} vectors")
                break
            started = time.perf_counter()
            built = indexes.build(connection, model, plan)
            seconds = time.perf_counter() - started
            recall = indexes.measure_recall(connection, model, queries=1000)
            speed, median = rate(connection, len(vectors), arguments.queries)
            size = connection.execute("SELECT pg_relation_size(format('signals.%%I', %s::text))", (built.index_name,)).fetchone()
            assert size
            table.add_row(
                way,
                f"{seconds:.1f}",
                str(built.lists or ""),
                str(built.effort),
                f"{recall:.4f}",
                f"{speed:.0f}",
                f"{median:.1f}",
                f"{size[0] / 1e6:.0f}",
            )
        speed, median = rate(connection, len(vectors), 50, exact=True)
        table.add_row("exact", "", "", "", "1", f"{speed:.0f}", f"{median:.1f}", "")
        half = Window(window.start, window.start + (window.end - window.start) / 2 // SLICE * SLICE)
        for name, within in (
            ("1 day", Window(half.end, half.end + timedelta(days=1))),
            ("30 days", Window(half.start, half.start + timedelta(days=30))),
            ("half", half),
        ):
            speed, median = rate(connection, len(vectors), 50, within=within)
            table.add_row(f"exact, {name}", "", "", "", "1", f"{speed:.0f}", f"{median:.1f}", "")
        console.print(table)


if __name__ == "__main__":
    main()
