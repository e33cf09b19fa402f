"""Ways to bring a day of landed trades into `market_data.btc_ticks`, each as its own documentation shows it.

`bench_compare.py` runs one way in one process: `python compare_ways.py WAY DSN FOLDER STATE` loads the objects below FOLDER and
prints the time and memory used as JSON. STATE is a directory that a way may keep between two runs.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from peak_memory import peak_mb

if TYPE_CHECKING:
    import pyarrow as pa

    from btc_assets.domain.slices import Window

SCHEMA, TABLE = "market_data", "btc_ticks"
KEY = ["bucket_5m", "symbol", "trade_id"]
COLUMNS = [
    *("bucket_5m", "event_time", "trade_time", "symbol", "trade_id", "price", "quantity"),
    *("buyer_order_id", "seller_order_id", "is_market_maker"),
]


def this_project(dsn: str, folder: Path, state: Path) -> None:
    """What a run of `btc_ticks` does: register what landed, then replace the slices with new objects."""
    load_project(dsn, folder)


def load_project(dsn: str, folder: Path, days: int = 1, *, force: bool = False) -> Window | None:
    """Load what is new of some days, with `force` also what lost an object; returns the slices from the first to the last that was due."""
    from bench_load import DAY_START, FEEDS, MARGIN

    from btc_assets.domain.settings import Settings
    from btc_assets.domain.slices import DAY, SLICE, Window
    from btc_assets.landing.registration import RegisterOptions, register_window
    from btc_assets.landing.spool import Spool
    from btc_assets.landing.zone import LandingZone
    from btc_assets.market_data.loading import LoadOptions, TickLoad
    from btc_assets.store.database import Store
    from btc_assets.store.tables import Target
    from btc_assets.store.writers import replace_all

    default, store = Settings.model_fields, Store(dsn)
    zone = LandingZone(folder.as_uri(), concurrency=default["fetch_concurrency"].default)
    spool = Spool()
    with store.connect() as connection:
        register_window(connection, zone, FEEDS, Window(DAY_START, DAY_START + days * DAY), RegisterOptions(MARGIN, spool=spool))
        (first, last), *_ = connection.execute(
            "SELECT min(bucket_5m), max(bucket_5m) FROM landing.slices WHERE state = ANY(%s)",
            (["pending", "stale", *(["source gone"] if force else [])],),
        ).fetchall()
        if first is None:
            return None
        due = Window(first, last + SLICE)
        load = TickLoad(store, zone, FEEDS, due, LoadOptions(default["commit_rows"].default, force=force, spool=spool))
        replace_all(connection, Target.of(connection, f"{SCHEMA}.{TABLE}"), load, writers=default["writers"].default, store=store)
        return due


def this_project_io_manager(dsn: str, folder: Path, state: Path) -> None:
    """What `CopyIOManager` does with an asset that returns an Arrow stream: here, the decoded rows of a file."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from bench_load import FEED, WINDOW

    from btc_assets.domain.settings import Settings
    from btc_assets.landing.decode import decode
    from btc_assets.store.cut import ArrowReplacements
    from btc_assets.store.database import Store
    from btc_assets.store.encode import ENCODE_ROWS
    from btc_assets.store.tables import Target
    from btc_assets.store.writers import replace_all

    default, store = Settings.model_fields, Store(dsn)
    with store.connect() as connection:
        target = Target.of(connection, f"{SCHEMA}.{TABLE}")
        for path in _objects(folder):
            with pq.ParquetFile(path) as file:
                ticks = (
                    rows
                    for batch in file.iter_batches(ENCODE_ROWS)
                    for rows in decode(pa.Table.from_batches([batch]), [FEED]).ticks.to_batches()
                )
                replacements = ArrowReplacements(ticks, WINDOW, target.slice_column, default["commit_rows"].default)
                replace_all(connection, target, replacements, writers=default["writers"].default, store=store)


def pandas_csv(dsn: str, folder: Path, state: Path) -> None:
    """`read_parquet` of the folder, which is faster than of each object, then `to_csv` and COPY."""
    import pandas as pd
    import psycopg
    from psycopg import sql

    frame = pd.read_parquet(folder)
    frame.insert(0, "bucket_5m", pd.to_datetime(frame["event_time"], format="ISO8601").dt.floor("5min"))
    text = io.StringIO()
    frame[COLUMNS].to_csv(text, index=False, header=False)
    text.seek(0)
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(
        sql.Identifier(SCHEMA, TABLE), sql.SQL(", ").join(map(sql.Identifier, COLUMNS))
    )
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor, cursor.copy(statement) as copy:
        while data := text.read(1 << 20):
            copy.write(data)


def polars_adbc(dsn: str, folder: Path, state: Path) -> None:
    """`scan_parquet` of all objects and `write_database` by ADBC, which copies in binary: types must be the table's own."""
    import polars as pl

    time = pl.col("event_time", "trade_time").str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%z", time_unit="us", time_zone="UTC")
    ticks = (
        pl.scan_parquet(folder / "**/*.parquet")
        .with_columns(
            time,
            pl.col("price").cast(pl.Decimal(18, 8)),
            pl.col("quantity").round(8).cast(pl.Decimal(24, 12)),
            pl.col("buyer_order_id", "seller_order_id").cast(pl.Int64),
        )
        .with_columns(bucket_5m=pl.col("event_time").dt.truncate("5m"))
        .select(COLUMNS)
        .collect()
    )
    ticks.write_database(f"{SCHEMA}.{TABLE}", dsn, if_table_exists="append", engine="adbc")


def dlt_append(dsn: str, folder: Path, state: Path) -> None:
    """dlt's fastest way: files that are new since the last run, as Arrow, appended as Parquet by ADBC."""
    _dlt_arrow(dsn, folder, state, "append")


def dlt_merge(dsn: str, folder: Path, state: Path) -> None:
    """The same, merged by the primary key: loaded into a staging table, from where rows replace those of the same key."""
    _dlt_arrow(dsn, folder, state, "merge")


def _dlt_arrow(dsn: str, folder: Path, state: Path, disposition: Literal["append", "merge"]) -> None:
    from dlt.sources.filesystem import read_parquet

    ticks = (_new_files(folder) | read_parquet(chunksize=100_000, use_pyarrow=True)).add_map(_as_ticks).with_name(TABLE)
    ticks.apply_hints(primary_key=KEY, write_disposition=disposition)
    _pipeline(dsn, state).run(ticks, loader_file_format="parquet")


def dlt_rows(dsn: str, folder: Path, state: Path) -> None:
    """dlt with the defaults of its quick example: rows as Python dictionaries, inserted by INSERT VALUES."""
    from dlt.sources.filesystem import read_parquet

    def with_bucket(row: dict[str, Any]) -> dict[str, Any]:
        time = datetime.fromisoformat(row["event_time"])
        return {**row, "bucket_5m": time.replace(minute=time.minute // 5 * 5, second=0, microsecond=0)}

    ticks = (_new_files(folder) | read_parquet()).add_map(with_bucket).with_name(TABLE)
    ticks.apply_hints(
        primary_key=KEY,
        write_disposition="append",
        columns={
            "event_time": {"data_type": "timestamp"},
            "trade_time": {"data_type": "timestamp"},
            "price": {"data_type": "decimal", "precision": 18, "scale": 8},
            "quantity": {"data_type": "decimal", "precision": 24, "scale": 12},
            "buyer_order_id": {"data_type": "bigint"},
            "seller_order_id": {"data_type": "bigint"},
        },
    )
    _pipeline(dsn, state).run(ticks)


def _new_files(folder: Path) -> Any:
    import dlt
    from dlt.sources.filesystem import filesystem

    files = filesystem(bucket_url=folder.as_uri(), file_glob="**/*.parquet")
    files.apply_hints(incremental=dlt.sources.incremental("modification_date"))
    return files


def _pipeline(dsn: str, state: Path) -> Any:
    import dlt

    # It demands the name of a host, also where libpq finds the server's socket by the query. Its own indexes are left out,
    # because a unique one must hold the partition key.
    destination = dlt.destinations.postgres(dsn.replace("@/", "@localhost/"), create_indexes=False)
    return dlt.pipeline("compare", pipelines_dir=str(state), destination=destination, dataset_name=SCHEMA)


def _as_ticks(batch: pa.RecordBatch) -> pa.Table:
    """A batch of the collector's rows in the types of the table."""
    import pyarrow as pa
    import pyarrow.compute as pc

    time = pa.timestamp("us", "UTC")
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    columns["event_time"], columns["trade_time"] = (columns[name].cast(time) for name in ("event_time", "trade_time"))
    columns["price"] = columns["price"].cast(pa.decimal128(18, 8))
    columns["quantity"] = pc.round(columns["quantity"], 8).cast(pa.decimal128(24, 12))
    columns["buyer_order_id"], columns["seller_order_id"] = (
        columns[name].cast(pa.int64()) for name in ("buyer_order_id", "seller_order_id")
    )
    columns["bucket_5m"] = pc.floor_temporal(columns["event_time"], 5, "minute")
    return pa.table({name: columns[name] for name in COLUMNS})


def _objects(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.parquet"))


@dataclass(frozen=True)
class Tool:
    """A way of loading.

    Attributes:
        name: as tables and plots show it.
        load: called with the DSN, the folder of the objects and a directory that is kept between two runs.
        modules: imported before time is taken.
        slow: takes minutes for a day, so once must do.
    """

    name: str
    load: Callable[[str, Path, Path], None]
    modules: tuple[str, ...]
    slow: bool = False


_DLT = ("dlt.sources.filesystem", "dlt.destinations", "pyarrow.parquet", "pyarrow.compute", "psycopg2", "adbc_driver_postgresql.dbapi")
TOOLS = {
    "project": Tool("btc_assets: registered and loaded", this_project, ("bench_load",)),
    "io_manager": Tool("btc_assets: CopyIOManager", this_project_io_manager, ("bench_load",)),
    "polars": Tool("Polars, ADBC", polars_adbc, ("polars", "adbc_driver_postgresql.dbapi")),
    "dlt_append": Tool("dlt, append: Arrow, ADBC", dlt_append, _DLT),
    "dlt_merge": Tool("dlt, merge: Arrow, ADBC", dlt_merge, _DLT),
    "pandas": Tool("pandas, CSV, COPY", pandas_csv, ("pandas", "psycopg", "pyarrow.dataset")),
    "dlt_rows": Tool("dlt, append: its defaults", dlt_rows, _DLT, slow=True),
}
PACKAGES = ("pyarrow", "psycopg", "pgpq", "obstore", "polars", "adbc-driver-postgresql", "dlt", "pandas")


def main() -> None:
    name, dsn, folder, state = sys.argv[1:]
    tool = TOOLS[name]
    for module in tool.modules:
        importlib.import_module(module)
    cpu, started = os.times(), time.perf_counter()
    error = None
    try:
        tool.load(dsn, Path(folder), Path(state))
    except Exception as failure:
        error = f"{type(failure).__name__}: {failure}"
    seconds, after = time.perf_counter() - started, os.times()
    print(json.dumps({"seconds": seconds, "cpu": sum(after[:4]) - sum(cpu[:4]), "peak_mb": peak_mb(), "error": error}))


if __name__ == "__main__":
    main()
