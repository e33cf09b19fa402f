"""Ten things that a researcher does with a month of ticks, each written as the users of four tools would write it.

`compare_research.py` runs one task of one way in one process: `python research_tasks.py WAY TASK DSN FOLDER`. The bodies of the functions
below are the lines of code that it counts: what stands in `__init__` is needed once, and is not counted. FOLDER has the same trades and
vectors as the store, as Parquet files (a file a day) and as an ArcticDB library.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from peak_memory import peak_mb

SPOT, PERP = "BTCUSDT", "BTCUSDT.P"
MONTH, DAY = "2024-01", "2024-01-10"
WEEK = ("2024-01-08", "2024-01-15")
NOON = datetime(2024, 1, 10, 12, tzinfo=UTC)
DOLLARS = 20_000_000

TASKS = {
    "day": "a day of ticks to Polars",
    "candles": "a month of 15-minute candles to pandas",
    "dollar_bars": "dollar bars of a week",
    "joined": "features joined with the next slice's return, a month",
    "export": "a month of ticks to one Parquet file",
    "basis": "closes of two symbols by minute, a day, each as of that minute",
    "gaps": "missing trade ids of a month",
    "vwap": "VWAP by hour, a month",
    "similar": "the ten slices most similar to one",
    "variance": "realised variance of a month, tick by tick, in bounded memory",
}
# What of each result is compared: its number of rows and the sum of these columns.
COMPARED = {
    "day": ("price", "quantity", "trade_id"),
    "candles": ("open", "high", "low", "close", "volume"),
    "dollar_bars": ("close", "volume"),
    "joined": ("trade_count", "volume_imbalance", "next_return"),
    "export": ("price", "quantity", "trade_id"),
    "basis": ("spot", "perp"),
    "gaps": ("first_missing", "last_missing"),
    "vwap": ("vwap",),
    "similar": ("distance",),
    "variance": ("variance",),
}


def dollar_ends(value: np.ndarray) -> list[int]:
    """Where bars of DOLLARS end: with the trade that makes a bar reach them; the next bar begins with nothing."""
    total, ends, done = np.cumsum(value), [], 0.0
    while (end := int(np.searchsorted(total, done + DOLLARS))) < len(total):
        ends.append(end)
        done = total[end]
    return ends


class Client:
    """This project's client."""

    name = "**btc_assets**"
    modules = ("btc_assets.client.store", "polars", "pandas")

    def __init__(self, dsn: str, folder: Path) -> None:
        import btc_assets as btc

        self.store, self.folder = btc.connect(dsn), folder

    def day(self) -> Any:
        return self.store.ticks(SPOT, DAY).polars()

    def candles(self) -> Any:
        return self.store.candles(SPOT, "15m", MONTH).pandas()

    def dollar_bars(self) -> Any:
        return self.store.bars(SPOT, WEEK, clock="dollar", size=DOLLARS).polars()

    def joined(self) -> Any:
        features = self.store.features(SPOT, MONTH, ["bucket_5m", "trade_count", "volume_imbalance"]).polars()
        close = self.store.candles(SPOT, "5m", MONTH, fill=True, decimals="float").polars().sort("bucket")
        close = close.select(bucket_5m="bucket", next_return=(close["close"].shift(-1) / close["close"]).log())
        return features.join(close, on="bucket_5m").drop_nulls()

    def export(self) -> Any:
        self.store.ticks(SPOT, MONTH).to_parquet(self.folder / "out.parquet")
        return self.folder / "out.parquet"

    def basis(self) -> Any:
        wide = self.store.candles([SPOT, PERP], "1m", DAY, fill=True, wide=True).polars()
        return wide.select("bucket", spot=f"close_{SPOT}", perp=f"close_{PERP}").drop_nulls()

    def gaps(self) -> Any:
        return self.store.gaps(MONTH, SPOT).polars()

    def vwap(self) -> Any:
        hours = self.store.candles(SPOT, "1h", MONTH, decimals="float").polars()
        return hours.select("bucket", vwap=hours["quote_volume"] / hours["volume"])

    def similar(self) -> Any:
        return self.store.similar(NOON, 10, exact=True).polars()

    def variance(self) -> Any:
        total, last = 0.0, np.empty(0)
        for batch in self.store.ticks(SPOT, MONTH, ["price"], decimals="float").batches():
            logs = np.concatenate([last, np.log(batch["price"].to_numpy())])
            total, last = total + np.square(np.diff(logs)).sum(), logs[-1:]
        return {"variance": [total]}


class Sql:
    """SQL on the same store by psycopg."""

    name = "SQL, psycopg"
    modules = ("psycopg", "polars", "pandas")

    def __init__(self, dsn: str, folder: Path) -> None:
        import psycopg

        self.connection, self.folder = psycopg.connect(dsn, autocommit=True, options="-c timezone=UTC"), folder

    def day(self) -> Any:
        import polars as pl

        cursor = self.connection.execute(
            "SELECT * FROM market_data.btc_ticks WHERE symbol = 'BTCUSDT' AND bucket_5m >= '2024-01-10' AND bucket_5m < '2024-01-11' "
            "ORDER BY bucket_5m, trade_id"
        )
        return pl.DataFrame(
            cursor.fetchall(), schema=[column.name for column in cursor.description or ()], orient="row", infer_schema_length=None
        )

    def candles(self) -> Any:
        import pandas as pd

        cursor = self.connection.execute(
            "SELECT date_bin('15 minutes', bucket, 'epoch') AS bucket, (array_agg(open ORDER BY bucket))[1] AS open, max(high) AS high, "
            "min(low) AS low, (array_agg(close ORDER BY bucket DESC))[1] AS close, sum(volume) AS volume FROM market_data.candles_5m "
            "WHERE symbol = 'BTCUSDT' AND bucket >= '2024-01-01' AND bucket < '2024-02-01' GROUP BY 1 ORDER BY 1"
        )
        return pd.DataFrame(cursor.fetchall(), columns=[column.name for column in cursor.description or ()])

    def dollar_bars(self) -> Any:
        rows = self.connection.execute(
            "SELECT price::float8, quantity::float8 FROM market_data.btc_ticks WHERE symbol = 'BTCUSDT' AND bucket_5m >= '2024-01-08' "
            "AND bucket_5m < '2024-01-15' ORDER BY bucket_5m, trade_id"
        )
        price, quantity = np.array(rows.fetchall()).T
        ends = np.array(dollar_ends(price * quantity))
        return {"close": price[ends], "volume": np.diff(np.cumsum(quantity)[ends], prepend=0)}

    def joined(self) -> Any:
        import polars as pl

        rows = self.connection.execute(
            "SELECT bucket_5m, trade_count, volume_imbalance, next_return FROM signals.slice_features JOIN (SELECT bucket, symbol, "
            "ln(lead(close) OVER (ORDER BY bucket)::float8 / close::float8) AS next_return FROM market_data.candles_5m WHERE symbol = 'BTCUSDT' "
            "AND bucket >= '2024-01-01' AND bucket < '2024-02-01') AS close ON (bucket_5m, slice_features.symbol) = (bucket, close.symbol) "
            "WHERE next_return IS NOT NULL"
        )
        return pl.DataFrame(rows.fetchall(), schema=["bucket_5m", "trade_count", "volume_imbalance", "next_return"], orient="row")

    def export(self) -> Any:
        schema = pa.schema(
            [
                ("event_time", pa.timestamp("us", "UTC")), ("trade_time", pa.timestamp("us", "UTC")), ("trade_id", pa.int64()),
                ("price", pa.decimal128(18, 8)), ("quantity", pa.decimal128(24, 12)), ("is_market_maker", pa.bool_()),
            ]
        )  # fmt: skip
        with (
            self.connection.transaction(),
            self.connection.cursor("export") as cursor,
            pq.ParquetWriter(self.folder / "out.parquet", schema, compression="zstd") as writer,
        ):
            cursor.execute(
                "SELECT event_time, trade_time, trade_id, price, quantity, is_market_maker FROM market_data.btc_ticks WHERE symbol = 'BTCUSDT' "
                "AND bucket_5m >= '2024-01-01' AND bucket_5m < '2024-02-01' ORDER BY bucket_5m, trade_id"
            )
            while rows := cursor.fetchmany(100_000):
                writer.write_table(pa.table(list(map(list, zip(*rows, strict=True))), schema=schema))
        return self.folder / "out.parquet"

    def basis(self) -> Any:
        import polars as pl

        rows = self.connection.execute(
            "SELECT minute, spot.close, perp.close FROM generate_series('2024-01-10 00:00Z'::timestamptz, '2024-01-10 23:59Z', '1 minute') AS minute "
            "CROSS JOIN LATERAL (SELECT close FROM market_data.candles_1m WHERE symbol = 'BTCUSDT' AND bucket <= minute AND bucket > minute - "
            "interval '1 hour' ORDER BY bucket DESC LIMIT 1) AS spot CROSS JOIN LATERAL (SELECT close FROM market_data.candles_1m WHERE symbol = "
            "'BTCUSDT.P' AND bucket <= minute AND bucket > minute - interval '1 hour' ORDER BY bucket DESC LIMIT 1) AS perp"
        )
        return pl.DataFrame(rows.fetchall(), schema=["bucket", "spot", "perp"], orient="row")

    def gaps(self) -> Any:
        import polars as pl

        rows = self.connection.execute(
            "SELECT before + 1, trade_id - 1 FROM (SELECT trade_id, lag(trade_id) OVER (ORDER BY bucket_5m, trade_id) AS before "
            "FROM market_data.btc_ticks WHERE symbol = 'BTCUSDT' AND bucket_5m >= '2024-01-01' AND bucket_5m < '2024-02-01') AS t "
            "WHERE trade_id > before + 1"
        )
        return pl.DataFrame(rows.fetchall(), schema=["first_missing", "last_missing"], orient="row")

    def vwap(self) -> Any:
        import polars as pl

        rows = self.connection.execute(
            "SELECT bucket, (quote_volume / volume)::float8 FROM market_data.candles_1h WHERE symbol = 'BTCUSDT' AND bucket >= '2024-01-01' "
            "AND bucket < '2024-02-01' ORDER BY bucket"
        )
        return pl.DataFrame(rows.fetchall(), schema=["bucket", "vwap"], orient="row")

    def similar(self) -> Any:
        import polars as pl

        rows = self.connection.execute(
            "SELECT bucket_5m, embedding <=> (SELECT embedding FROM signals.btc_embeddings WHERE bucket_5m = '2024-01-10 12:00Z') AS distance "
            "FROM signals.btc_embeddings WHERE bucket_5m <> '2024-01-10 12:00Z' ORDER BY distance LIMIT 10"
        )
        return pl.DataFrame(rows.fetchall(), schema=["bucket_5m", "distance"], orient="row")

    def variance(self) -> Any:
        total, last = 0.0, np.empty(0)
        with self.connection.transaction(), self.connection.cursor("pass") as cursor:
            cursor.execute(
                "SELECT price::float8 FROM market_data.btc_ticks WHERE symbol = 'BTCUSDT' AND bucket_5m >= '2024-01-01' "
                "AND bucket_5m < '2024-02-01' ORDER BY bucket_5m, trade_id"
            )
            while rows := cursor.fetchmany(100_000):
                logs = np.concatenate([last, np.log(np.array(rows)[:, 0])])
                total, last = total + np.square(np.diff(logs)).sum(), logs[-1:]
        return {"variance": [total]}


class DuckDb:
    """DuckDB over Parquet files of a day each."""

    name = "DuckDB over Parquet"
    modules = ("duckdb", "polars", "pandas")

    def __init__(self, dsn: str, folder: Path) -> None:
        import duckdb

        self.folder, self.duckdb = folder, duckdb.connect()
        self.duckdb.execute("SET TimeZone = 'UTC'")
        for name in (SPOT, PERP, "vectors"):
            self.duckdb.execute(f"CREATE VIEW \"{name}\" AS FROM read_parquet('{folder}/parquet/{name}/*.parquet')")

    def day(self) -> Any:
        return self.duckdb.sql("FROM BTCUSDT WHERE event_time >= '2024-01-10' AND event_time < '2024-01-11' ORDER BY trade_id").pl()

    def candles(self) -> Any:
        return self.duckdb.sql(
            "SELECT time_bucket(INTERVAL '15 minutes', trade_time) AS bucket, arg_min(price, trade_id) AS open, max(price) AS high, "
            "min(price) AS low, arg_max(price, trade_id) AS close, sum(quantity) AS volume FROM BTCUSDT GROUP BY 1 ORDER BY 1"
        ).df()

    def dollar_bars(self) -> Any:
        week = self.duckdb.sql(
            "SELECT price::DOUBLE AS price, quantity::DOUBLE AS quantity FROM BTCUSDT WHERE event_time >= '2024-01-08' "
            "AND event_time < '2024-01-15' ORDER BY trade_id"
        ).fetchnumpy()
        ends = np.array(dollar_ends(week["price"] * week["quantity"]))
        return {"close": week["price"][ends], "volume": np.diff(np.cumsum(week["quantity"])[ends], prepend=0)}

    def joined(self) -> Any:
        return self.duckdb.sql(
            "SELECT f.*, next_return FROM (SELECT time_bucket(INTERVAL '5 minutes', event_time) AS bucket, count(*) AS trade_count, "
            "sum(CASE WHEN is_market_maker THEN -quantity ELSE quantity END) / sum(quantity) AS volume_imbalance FROM BTCUSDT GROUP BY 1) AS f "
            "JOIN (SELECT bucket, ln(lead(close) OVER (ORDER BY bucket)::DOUBLE / close::DOUBLE) AS next_return FROM (SELECT "
            "time_bucket(INTERVAL '5 minutes', trade_time) AS bucket, arg_max(price, trade_id) AS close FROM BTCUSDT GROUP BY 1)) AS c "
            "ON f.bucket = c.bucket WHERE next_return IS NOT NULL"
        ).pl()

    def export(self) -> Any:
        self.duckdb.execute(f"COPY (FROM BTCUSDT ORDER BY trade_id) TO '{self.folder}/out.parquet' (FORMAT parquet, COMPRESSION zstd)")
        return self.folder / "out.parquet"

    def basis(self) -> Any:
        last = (
            "(FROM \"{}\" WHERE trade_time >= '2024-01-10' AND trade_time < '2024-01-11' "
            "QUALIFY row_number() OVER (PARTITION BY trade_time ORDER BY trade_id DESC) = 1)"
        )
        return self.duckdb.sql(
            "SELECT minute AS bucket, spot.price AS spot, perp.price AS perp FROM (SELECT unnest(generate_series("  # noqa: S608  # our own names
            "TIMESTAMPTZ '2024-01-10 00:00:00+00', "
            f"TIMESTAMPTZ '2024-01-10 23:59:00+00', INTERVAL '1 minute')) AS minute) ASOF JOIN {last.format(SPOT)} AS spot "
            f"ON spot.trade_time < minute + INTERVAL '1 minute' ASOF JOIN {last.format(PERP)} AS perp ON perp.trade_time < minute + INTERVAL '1 minute'"
        ).pl()

    def gaps(self) -> Any:
        return self.duckdb.sql(
            "SELECT before + 1 AS first_missing, trade_id - 1 AS last_missing FROM (SELECT trade_id, lag(trade_id) OVER (ORDER BY trade_id) "
            "AS before FROM BTCUSDT) WHERE trade_id > before + 1"
        ).pl()

    def vwap(self) -> Any:
        return self.duckdb.sql(
            "SELECT time_bucket(INTERVAL '1 hour', trade_time) AS bucket, sum(price * quantity::DOUBLE) / sum(quantity) AS vwap FROM BTCUSDT "
            "GROUP BY 1 ORDER BY 1"
        ).pl()

    def similar(self) -> Any:
        return self.duckdb.sql(
            "SELECT bucket_5m, list_cosine_distance(embedding, (SELECT embedding FROM vectors WHERE bucket_5m = '2024-01-10 12:00:00+00')) AS distance "
            "FROM vectors WHERE bucket_5m <> '2024-01-10 12:00:00+00' ORDER BY distance LIMIT 10"
        ).pl()

    def variance(self) -> Any:
        return self.duckdb.sql(
            "SELECT sum(pow(ln(price::DOUBLE) - ln(before::DOUBLE), 2)) AS variance FROM (SELECT price, lag(price) OVER (ORDER BY trade_id) "
            "AS before FROM BTCUSDT)"
        ).pl()


class ArcticDb:
    """ArcticDB; prices are floats, because its columns are NumPy's."""

    name = "ArcticDB"
    modules = ("arcticdb", "polars", "pandas")

    def __init__(self, dsn: str, folder: Path) -> None:
        import arcticdb

        self.folder, self.library = folder, arcticdb.Arctic(f"lmdb://{folder}/arctic").get_library("ticks")

    def day(self) -> Any:
        import pandas as pd
        import polars as pl

        range = (pd.Timestamp("2024-01-10"), pd.Timestamp("2024-01-11") - pd.Timedelta(1, "ns"))
        return pl.from_pandas(self.library.read(SPOT, date_range=range).data, include_index=True)

    def candles(self) -> Any:
        from arcticdb import QueryBuilder

        prices = {name: ("price", how) for name, how in {"open": "first", "high": "max", "low": "min", "close": "last"}.items()}
        builder = QueryBuilder().resample("15min").agg({**prices, "volume": ("quantity", "sum")})
        return self.library.read(SPOT, query_builder=builder).data

    def dollar_bars(self) -> Any:
        import pandas as pd

        range = (pd.Timestamp("2024-01-08"), pd.Timestamp("2024-01-15") - pd.Timedelta(1, "ns"))
        week = self.library.read(SPOT, date_range=range, columns=["price", "quantity"]).data
        price, quantity = week["price"].to_numpy(), week["quantity"].to_numpy()
        ends = np.array(dollar_ends(price * quantity))
        return {"close": price[ends], "volume": np.diff(np.cumsum(quantity)[ends], prepend=0)}

    def joined(self) -> Any:
        ticks = self.library.read(SPOT, columns=["event_time", "price", "quantity", "is_market_maker"]).data
        signed = ticks["quantity"].where(~ticks["is_market_maker"], -ticks["quantity"])
        slices = ticks.assign(signed=signed).groupby(ticks["event_time"].dt.floor("5min"))
        found = slices.agg(trade_count=("price", "size"), signed=("signed", "sum"), volume=("quantity", "sum"))
        close = ticks["price"].resample("5min").last().dropna()
        found["volume_imbalance"] = found["signed"] / found["volume"]
        return found.assign(next_return=np.log(close.shift(-1) / close)).dropna()

    def export(self) -> Any:
        self.library.read(SPOT).data.to_parquet(self.folder / "out.parquet", compression="zstd")
        return self.folder / "out.parquet"

    def basis(self) -> Any:
        import pandas as pd

        range = (pd.Timestamp("2024-01-10"), pd.Timestamp("2024-01-11") - pd.Timedelta(1, "ns"))
        minutes = pd.date_range("2024-01-10", periods=1440, freq="1min")
        found = {
            name: self.library.read(symbol, date_range=range, columns=["price"]).data for name, symbol in (("spot", SPOT), ("perp", PERP))
        }
        closes = {name: ticks["price"].resample("1min").last().reindex(minutes).ffill() for name, ticks in found.items()}
        return pd.DataFrame(closes).dropna()

    def gaps(self) -> Any:
        ids = self.library.read(SPOT, columns=["trade_id"]).data["trade_id"].to_numpy()
        before = np.flatnonzero(np.diff(ids) > 1)
        return {"first_missing": ids[before] + 1, "last_missing": ids[before + 1] - 1}

    def vwap(self) -> Any:
        from arcticdb import QueryBuilder, col

        builder = QueryBuilder().apply("value", col("price") * col("quantity"))
        builder = builder.resample("1h").agg({"value": "sum", "quantity": "sum"})
        hours = self.library.read(SPOT, query_builder=builder).data
        return hours.assign(vwap=hours["value"] / hours["quantity"])

    def similar(self) -> Any:
        vectors = self.library.read("vectors").data
        distance = 1 - vectors @ vectors.loc["2024-01-10 12:00"]
        return distance.drop(distance.index[distance.index == "2024-01-10 12:00"]).nsmallest(10).to_frame("distance")

    def variance(self) -> Any:
        import pandas as pd

        total, last = 0.0, np.empty(0)
        for day in pd.date_range("2024-01-01", "2024-01-31"):
            range = (day, day + pd.Timedelta("1D") - pd.Timedelta(1, "ns"))
            logs = np.concatenate([last, np.log(self.library.read(SPOT, date_range=range, columns=["price"]).data["price"].to_numpy())])
            total, last = total + np.square(np.diff(logs)).sum(), logs[-1:]
        return {"variance": [total]}


WAYS: dict[str, type[Client | Sql | DuckDb | ArcticDb]] = {"client": Client, "sql": Sql, "duckdb": DuckDb, "arcticdb": ArcticDb}


def summary(task: str, found: Any) -> list[float]:
    """What is compared of a result: number of rows, then the sum of each column."""
    if isinstance(found, Path):
        table = pq.read_table(found, columns=list(COMPARED[task]))
    elif isinstance(found, dict):
        table = pa.table(found)
    else:
        table = found.to_arrow() if hasattr(found, "to_arrow") else pa.Table.from_pandas(found)
    return [float(len(table)), *(float(pc.sum(pc.cast(table[name], pa.float64())).as_py() or 0) for name in COMPARED[task])]


def main() -> None:
    way, task, dsn, folder = sys.argv[1:]
    for name in WAYS[way].modules:
        importlib.import_module(name)
    tool = WAYS[way](dsn, Path(folder))
    started = time.perf_counter()
    found = getattr(tool, task)()
    seconds, peak = time.perf_counter() - started, peak_mb()
    print(json.dumps({"seconds": seconds, "peak_mb": peak, "summary": summary(task, found)}), flush=True)


if __name__ == "__main__":
    main()
