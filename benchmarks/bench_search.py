"""How well and how fast similar slices are found, and how long it takes to embed them.

`--market DAYS` has the whole way measured: features and bars of a generated market are stored, the default encoder is trained on the
first month, all slices are embedded from what is stored (read, computed, written, labelled), and its vectors are searched. Without
it, vectors are generated: of a few hidden states that drift, with noise.

Recall@10 is that of `signals.nearest` against exact search in 1,000 queries, without the query itself; the rate is that of
`signals.similar_slices` as one client calls it, one after the other.
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
import pyarrow as pa
from bench_load import database, machine
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from btc_assets.domain.slices import DAY, SLICE, SLICE_US, Window
from btc_assets.landing.zone import LandingZone
from btc_assets.signals.encoders import models
from btc_assets.signals.encoders.models import Model
from btc_assets.signals.features import table as slice_features
from btc_assets.signals.features.tick_arrays import TickArrays
from btc_assets.signals.search import embeddings, indexes, similar
from btc_assets.simulation.generate_market import generate_market
from btc_assets.store.cut import ArrowReplacements
from btc_assets.store.migrations import migrate
from btc_assets.store.tables import Target
from btc_assets.store.writers import replace_all
from btc_assets_tests.support.vectors import market_like, registered_model, write_vectors

START = datetime(2023, 1, 1, tzinfo=UTC)


def embedded_market(connection: psycopg.Connection, dsn: str, directory: Path, days: int, console: Console) -> Model:
    """A store of a generated market, and the default encoder whose vectors of it are stored."""
    from btc_assets.signals.encoders.optional import require_torch

    require_torch()
    from btc_assets.signals import workflows
    from btc_assets.signals.encoders.artefacts import load

    target = Target.of(connection, slice_features.TABLE)
    started, ticks = time.perf_counter(), 0
    for number, (trades, _) in enumerate(generate_market(START, days)):
        day = Window(START + number * DAY, START + (number + 1) * DAY)
        starts = np.array([int(slice.timestamp()) * 1_000_000 for slice in day.slices()])
        rows = slice_features.features_as_table(TickArrays.of(trades, starts), "BTCUSDT")
        replace_all(connection, target, ArrowReplacements(pa.Table.from_batches(rows.to_batches()), day, "bucket_5m", 65_536))
        ticks += len(trades)
    console.print(f"{288 * days:,} slices of {ticks:,} ticks made and stored in {time.perf_counter() - started:.0f} s")
    zone = LandingZone(directory.as_uri())
    started = time.perf_counter()
    month = START + min(days, 30) * DAY
    model = workflows.train(connection, dsn, zone, directory / "training", kind="rocket-pca", symbol="BTCUSDT", start=START, end=month)
    console.print(f"trained on {model.metrics['slices']:,} slices in {time.perf_counter() - started:.0f} s")
    encoder = load(model.model_id, zone)
    started = time.perf_counter()
    written = embeddings.backfill_embeddings(
        connection, lambda: psycopg.connect(dsn, autocommit=True, options="-c timezone=UTC"), dsn, model, encoder
    )
    seconds = time.perf_counter() - started
    console.print(f"embedded {written:,} stored slices in {seconds:.0f} s: a million in {1e6 * seconds / written / 60:.1f} min")
    return model


def rate(connection: psycopg.Connection, first: datetime, rows: int, queries: int, **options: object) -> tuple[str, str]:
    """Queries a second, and the median of their times in ms."""
    times = []
    for number in np.random.default_rng(1).integers(0, rows, queries).tolist():
        started = time.perf_counter()
        similar(connection, first + number * SLICE, 10, **options)  # type: ignore[arg-type]  # those of `similar`
        times.append(time.perf_counter() - started)
    return f"{queries / sum(times):.0f}", f"{1e3 * statistics.median(times):.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--market", type=int, metavar="DAYS", help="of a generated market, 365 for a year, instead of generated vectors")
    parser.add_argument("--rows", type=int, default=105_120, help="of generated vectors (default: %(default)s, a year of slices)")
    parser.add_argument("--dim", type=int, default=256, help="of generated vectors (default: %(default)s)")
    parser.add_argument("--ways", default="ivfflat vector,ivfflat halfvec,hnsw vector", help="default: %(default)s")
    parser.add_argument("--queries", type=int, default=500, help="default: %(default)s")
    arguments = parser.parse_args()
    console = Console(width=140, highlight=False)
    with (
        tempfile.TemporaryDirectory(prefix="btc_assets-bench-") as directory,
        database(Path(directory)) as (dsn, embedded),
        psycopg.connect(dsn, autocommit=True, options="-c timezone=UTC") as connection,
    ):
        migrate(connection)
        console.print(machine(connection, embedded))
        if arguments.market:
            model = embedded_market(connection, dsn, Path(directory), arguments.market, console)
        else:
            model = registered_model(connection, dim=arguments.dim)
            write_vectors(connection, model, market_like(arguments.rows, arguments.dim), START)
        models.activate_model(connection, model)
        show(connection, model, arguments.ways.split(","), arguments.queries, console)


def show(connection: psycopg.Connection, model: Model, ways: list[str], queries: int, console: Console) -> None:
    rows = indexes.count_vectors(connection, model)
    table = Table(
        "index", "build s", "lists", "effort", "recall@10", "queries/s", "median ms", "size MB", title=f"{rows:,} vectors of {model.dim}"
    )
    for column in table.columns[1:]:
        column.justify = "right"
    last = START + (rows - 1) * SLICE
    for way in ways:
        method, element = way.split()
        plan = indexes.plan_index(model, rows, method=method, element=element)
        if plan is None:
            console.print(f"no index below {indexes.FEWEST_ROWS:,} vectors")
            break
        started = time.perf_counter()
        built = indexes.build_index(connection, model, plan)
        seconds = time.perf_counter() - started
        recall = indexes.measure_recall(connection, model, queries=1000)
        size = connection.execute("SELECT pg_relation_size(format('signals.%%I', %s::text))", (built.index_name,)).fetchone()
        assert size
        table.add_row(
            way, f"{seconds:.1f}", str(built.lists or ""), str(built.effort), f"{recall:.4f}", *rate(connection, START, rows, queries),
            f"{size[0] / 1e6:.0f}",
        )  # fmt: skip
    table.add_row("exact, all", "", "", "", "1", *rate(connection, START, rows, 50, exact=True))
    for name, days in (("a day", 1), ("30 days", 30), ("half", rows / 576)):
        within = Window(START, START + timedelta(microseconds=int(days * 288) * SLICE_US))
        table.add_row(f"exact, {name}", "", "", "", "1", *rate(connection, START, rows, 50, within=within))
    found = right = 0
    for number in range(100):  # nearly all rows lie before these
        query = last - number * 5 * SLICE
        exact = {one.bucket_5m for one in similar(connection, query, before_only=True, exact=True)}
        found += len(exact & {one.bucket_5m for one in similar(connection, query, before_only=True)})
        right += len(exact)
    table.add_row("all before, the last 500 slices", "", "", "", f"{found / right:.4f}")
    console.print(table)


if __name__ == "__main__":
    main()
