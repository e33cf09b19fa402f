"""How well and how fast similar slices are found, and how long it takes to embed them.

`--market DAYS` measures the whole way: the features and bars of a generated market are stored, the default encoder is trained on the
first month, all stored slices are embedded (read, computed, written, labeled), and their vectors are searched. Without it, the vectors
are generated from a few drifting hidden states with noise.

Recall@10 is that of `signals.nearest` against exact search in 1,000 queries, without the query itself. The rate is that of
`signals.similar_slices`, called by one client, one query after the other.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import psycopg
import pyarrow as pa
import throwaway
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from btc_assets.domain.settings import load_settings
from btc_assets.domain.slices import DAY, SLICE, SLICE_US, Window, to_microseconds
from btc_assets.landing.zone import LandingZone
from btc_assets.signals.encoders.models import Model, activate_model
from btc_assets.signals.features.compute import features_as_table
from btc_assets.signals.features.table import TABLE
from btc_assets.signals.features.tick_arrays import TickArrays
from btc_assets.signals.search.embeddings import backfill_embeddings
from btc_assets.signals.search.indexes import FEWEST_ROWS, build_index, count_vectors, plan_index
from btc_assets.signals.search.recall import measure_recall
from btc_assets.signals.search.similar import find_similar_slices
from btc_assets.simulation.generate_market import generate_market
from btc_assets.store.cut import ArrowReplacements
from btc_assets.store.database import Store
from btc_assets.store.migrations import migrate
from btc_assets.store.tables import Target
from btc_assets.store.writers import replace_all
from btc_assets_tests.support.vectors import market_like, registered_model, write_vectors

START = datetime(2023, 1, 1, tzinfo=UTC)


def embed_market(connection: psycopg.Connection, store: Store, directory: Path, days: int, console: Console) -> Model:
    """Store a generated market, and embed it with the default encoder."""
    from btc_assets.signals.encoders.torch_extra import require_torch

    require_torch()
    from btc_assets.signals.encoders.artifacts import load_encoder
    from btc_assets.signals.encoders.training import TrainingPlan, train_model

    target = Target.of(connection, TABLE)
    started, ticks = time.perf_counter(), 0
    for number, (trades, _) in enumerate(generate_market(START, days)):
        day = Window(START + number * DAY, START + (number + 1) * DAY)
        starts = np.array([to_microseconds(bucket) for bucket in day.slices()])
        rows = features_as_table(TickArrays.of(trades, starts), "BTCUSDT")
        replace_all(connection, target, ArrowReplacements(pa.Table.from_batches(rows.to_batches()), day, "bucket_5m", 65_536))
        ticks += len(trades)
    console.print(f"{288 * days:,} slices of {ticks:,} ticks computed and stored in {time.perf_counter() - started:.0f} s")
    zone = LandingZone(directory.as_uri())
    started = time.perf_counter()
    plan = TrainingPlan("BTCUSDT", start=START, end=START + min(days, 30) * DAY)
    model = train_model(store, zone, directory / "training", plan)
    console.print(f"trained on {model.metrics['slices']:,} slices in {time.perf_counter() - started:.0f} s")
    encoder = load_encoder(model.model_id, zone)
    started = time.perf_counter()
    written = backfill_embeddings(connection, store, model, encoder)
    seconds = time.perf_counter() - started
    console.print(f"embedded {written:,} stored slices in {seconds:.0f} s: a million in {1e6 * seconds / written / 60:.1f} min")
    return model


def measure_rate(connection: psycopg.Connection, rows: int, queries: int, **options: object) -> tuple[str, str]:
    """Queries per second, and the median of their times in ms."""
    times = []
    for number in np.random.default_rng(1).integers(0, rows, queries).tolist():
        started = time.perf_counter()
        find_similar_slices(connection, START + number * SLICE, 10, **options)  # type: ignore[arg-type]  # those of the function
        times.append(time.perf_counter() - started)
    return f"{queries / sum(times):.0f}", f"{1e3 * statistics.median(times):.1f}"


def add_index_row(table: Table, connection: psycopg.Connection, model: Model, way: str, queries: int) -> None:
    """Build one kind of index and measure it."""
    rows = count_vectors(connection, model)
    method, element = way.split()
    plan = plan_index(model, rows, method=method, element=element)
    assert plan is not None
    started = time.perf_counter()
    built = build_index(connection, model, plan)
    seconds = time.perf_counter() - started
    recall = measure_recall(connection, model, queries=1000)
    size = connection.execute("SELECT pg_relation_size(format('signals.%%I', %s::text))", (built.index_name,)).fetchone()
    assert size
    table.add_row(
        way, f"{seconds:.1f}", str(built.lists or ""), str(built.effort), f"{recall:.4f}", *measure_rate(connection, rows, queries),
        f"{size[0] / 1e6:.0f}",
    )  # fmt: skip


def recall_of_late_queries(connection: psycopg.Connection, rows: int) -> float:
    """Recall of searches among all earlier slices, for queries near the end: nearly all rows lie before them."""
    last = START + (rows - 1) * SLICE
    found = wanted = 0
    for number in range(100):
        query = last - number * 5 * SLICE
        exact = {one.bucket_5m for one in find_similar_slices(connection, query, before_only=True, exact=True)}
        found += len(exact & {one.bucket_5m for one in find_similar_slices(connection, query, before_only=True)})
        wanted += len(exact)
    return found / wanted


def show_searches(connection: psycopg.Connection, model: Model, ways: list[str], queries: int, console: Console) -> None:
    rows = count_vectors(connection, model)
    table = Table(
        "index", "build s", "lists", "effort", "recall@10", "queries/s", "median ms", "size MB", title=f"{rows:,} vectors of {model.dim}"
    )
    for column in table.columns[1:]:
        column.justify = "right"
    if rows < FEWEST_ROWS:
        console.print(f"no index below {FEWEST_ROWS:,} vectors")
        ways = []
    for way in ways:
        add_index_row(table, connection, model, way, queries)
    table.add_row("exact, all", "", "", "", "1", *measure_rate(connection, rows, 50, exact=True))
    for name, days in (("a day", 1), ("30 days", 30), ("half", rows / 576)):
        within = Window(START, START + timedelta(microseconds=int(days * 288) * SLICE_US))
        table.add_row(f"exact, {name}", "", "", "", "1", *measure_rate(connection, rows, 50, within=within))
    table.add_row("all before, the last 500 slices", "", "", "", f"{recall_of_late_queries(connection, rows):.4f}")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--market", type=int, metavar="DAYS", help="a generated market, 365 for a year, instead of generated vectors")
    parser.add_argument("--rows", type=int, default=105_120, help="generated vectors (default: %(default)s, a year of slices)")
    parser.add_argument("--dim", type=int, default=256, help="dimension of generated vectors (default: %(default)s)")
    parser.add_argument("--ways", default="ivfflat vector,ivfflat halfvec,hnsw vector", help="default: %(default)s")
    parser.add_argument("--queries", type=int, default=500, help="default: %(default)s")
    arguments = parser.parse_args()
    console = Console(width=140, highlight=False)
    with throwaway.store() as (directory, embedded), Store.of(load_settings()).connect() as connection:
        migrate(connection)
        console.print(throwaway.machine(connection, embedded))
        if arguments.market:
            model = embed_market(connection, Store.of(load_settings()), directory, arguments.market, console)
        else:
            model = registered_model(connection, dim=arguments.dim)
            write_vectors(connection, model, market_like(arguments.rows, arguments.dim), START)
        activate_model(connection, model)
        show_searches(connection, model, arguments.ways.split(","), arguments.queries, console)


if __name__ == "__main__":
    main()
