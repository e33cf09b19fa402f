"""Ways to keep a day of landed trades, each in a store of its own kind and by its own documented means.

`bench_stores.py` runs one step of one way in one process: `python compare_stores.py WAY STEP DSN FOLDER STATE OUT DAYS force|`. STATE is the directory
that a way keeps its data in. `load` brings the objects below FOLDER into the store, `read` gives the trades of all days, and `candles` those
of 15 minutes; both write an Arrow file to OUT. It is run by the interpreter of an environment that has the tool, and needs nothing else of
the project for the tools that keep their data themselves.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peak_memory import peak_mb

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

# What a reader of the store gets: the trade, its two times and the figures; order ids are empty in these objects.
COLUMNS = ("trade_id", "event_time", "trade_time", "price", "quantity", "is_market_maker")
CANDLES = ("bucket", "open", "high", "low", "close", "volume", "trade_count")


@dataclass
class Place:
    """Where a way works: the server, the objects of some days, the directory of its own; whether a vanished object may take its rows away."""

    dsn: str
    folder: Path
    state: Path
    days: int
    force: bool


class Way:
    """A way of keeping trades.

    Attributes:
        name: as tables show it.
        modules: imported before time is taken.
        packages: whose versions are told.
        how: its settings, in a sentence.
    """

    name = ""
    modules: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    how = ""

    def __init__(self, place: Place) -> None:
        self.place = place

    def load(self) -> None:
        """Make the store hold what the objects hold."""
        raise NotImplementedError

    def read(self) -> Any:
        """Every trade, in the form in which the tool hands it to Python."""
        raise NotImplementedError

    def candles(self) -> Any:
        """Candles of 15 minutes of trade time."""
        raise NotImplementedError

    def table(self, found: Any) -> pa.Table:
        """What `read` or `candles` returned, as Arrow; time is not taken."""
        import pyarrow as pa

        return found if isinstance(found, pa.Table) else pa.Table.from_pandas(found, preserve_index=False)


# ---- in the table of a PostgreSQL server


class InPostgres(Way):
    """A tool that loads the project's table, which is read through ADBC."""

    tool = ""

    def load(self) -> None:
        from compare_ways import TOOLS

        TOOLS[self.tool].load(self.place.dsn, self.place.folder, self.place.state)

    def read(self) -> pa.Table:
        return self._query(f"SELECT {', '.join(COLUMNS)} FROM market_data.btc_ticks")  # noqa: S608  # our own names

    def candles(self) -> pa.Table:
        return self._query(
            "SELECT date_bin('15 minutes', trade_time, 'epoch') AS bucket, (array_agg(price ORDER BY trade_id))[1] AS open, max(price) AS high, "
            "min(price) AS low, (array_agg(price ORDER BY trade_id DESC))[1] AS close, sum(quantity) AS volume, count(*) AS trade_count "
            "FROM market_data.btc_ticks GROUP BY 1"
        )

    def _query(self, text: str) -> pa.Table:
        from adbc_driver_postgresql import dbapi

        with dbapi.connect(self.place.dsn) as connection, connection.cursor() as cursor:
            cursor.execute(text)
            return cursor.fetch_arrow_table()


class Project(InPostgres):
    name = "**btc_assets**"
    modules = ("bench_load", "compare_ways", "adbc_driver_postgresql.dbapi")
    packages: tuple[str, ...] = ("pgpq", "obstore")
    how = "objects that are new or changed are registered and the slices that they cover replaced, each in a transaction; candles are kept, and made with the load"

    def load(self) -> None:
        from compare_ways import load_project

        from btc_assets.domain.settings import Settings
        from btc_assets.market_data.candles import enabled_intervals, refresh_candles
        from btc_assets.store.database import Store

        window = load_project(self.place.dsn, self.place.folder, self.place.days, force=self.place.force)
        if window is not None and self.place.days > 1:
            with Store(self.place.dsn).connect() as connection:
                for interval in enabled_intervals(Settings()):
                    refresh_candles(connection, interval, window)

    def candles(self) -> pa.Table:
        return self._query(
            "SELECT date_bin('15 minutes', bucket, 'epoch') AS bucket, (array_agg(open ORDER BY first_trade_id))[1] AS open, max(high) AS high, "
            "min(low) AS low, (array_agg(close ORDER BY last_trade_id DESC))[1] AS close, sum(volume) AS volume, "
            "sum(trade_count)::bigint AS trade_count FROM market_data.candles_5m GROUP BY 1"
        )


class DltMerge(InPostgres):
    name, tool = "dlt, merge", "dlt_merge"
    packages: tuple[str, ...] = ("dlt",)
    modules = ("dlt.sources.filesystem", "dlt.destinations", "pyarrow.parquet", "psycopg2", "adbc_driver_postgresql.dbapi")
    how = "new files since the last run, merged by the primary key into PostgreSQL (Arrow, ADBC)"


class PolarsAdbc(InPostgres):
    name, tool = "Polars", "polars"
    packages: tuple[str, ...] = ("polars", "adbc-driver-postgresql")
    modules = ("polars", "adbc_driver_postgresql.dbapi")
    how = "`scan_parquet`, `write_database` into PostgreSQL by ADBC"


class PandasCsv(InPostgres):
    name, tool = "pandas", "pandas"
    packages: tuple[str, ...] = ("pandas",)
    modules = ("pandas", "psycopg", "pyarrow.dataset", "adbc_driver_postgresql.dbapi")
    how = "`read_parquet`, `to_csv`, COPY into PostgreSQL"


# ---- in files of their own

_OHLCV = "max(price) AS high, min(price) AS low, sum(quantity) AS volume, count(*) AS trade_count"


class DuckDb(Way):
    name = "DuckDB, its own file"
    modules = ("duckdb", "pyarrow")
    packages: tuple[str, ...] = ("duckdb",)
    how = "one transaction: DELETE of the days, INSERT from `read_parquet` of all objects"
    catalog = "store"

    def load(self) -> None:
        connection = self._connect()
        connection.execute(
            "CREATE TABLE IF NOT EXISTS ticks (trade_id BIGINT, event_time TIMESTAMPTZ, trade_time TIMESTAMPTZ, symbol VARCHAR, "
            "price DECIMAL(18,8), quantity DECIMAL(24,12), buyer_order_id BIGINT, seller_order_id BIGINT, is_market_maker BOOLEAN)"
        )
        connection.execute("BEGIN")
        connection.execute(
            "CREATE TEMP TABLE landed AS SELECT trade_id, event_time::TIMESTAMPTZ AS event_time, trade_time::TIMESTAMPTZ AS trade_time, symbol, "
            "price::DECIMAL(18,8) AS price, round(quantity, 8)::DECIMAL(24,12) AS quantity, buyer_order_id::BIGINT AS buyer_order_id, "
            "seller_order_id::BIGINT AS seller_order_id, is_market_maker FROM read_parquet(?)",
            [f"{self.place.folder}/**/*.parquet"],
        )
        connection.execute("DELETE FROM ticks WHERE event_time >= (SELECT date_trunc('day', min(event_time)) FROM landed)")
        connection.execute("INSERT INTO ticks SELECT * FROM landed")
        connection.execute("COMMIT")
        connection.close()

    def read(self) -> pa.Table:
        return self._arrow(f"SELECT {', '.join(COLUMNS)} FROM ticks")  # noqa: S608  # our own names

    def candles(self) -> pa.Table:
        return self._arrow(
            f"SELECT time_bucket(INTERVAL '15 minutes', trade_time) AS bucket, arg_min(price, trade_id) AS open, {_OHLCV}, "  # noqa: S608
            "arg_max(price, trade_id) AS close FROM ticks GROUP BY 1"
        )

    def _arrow(self, text: str) -> pa.Table:
        return self._connect().execute(text).to_arrow_table()

    def _connect(self) -> Any:
        import duckdb

        connection = duckdb.connect(str(self.place.state / "store.duckdb"))
        connection.execute("SET TimeZone = 'UTC'")
        return connection


class DuckLake(DuckDb):
    name = "DuckDB, DuckLake"
    packages: tuple[str, ...] = ("duckdb-extension-ducklake",)
    how = "the same statements on a DuckLake: Parquet files, and a catalog that DuckDB keeps"

    def _connect(self) -> Any:
        import duckdb

        connection = duckdb.connect(config={"extension_directory": _extensions()})
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"LOAD '{next(Path(_extensions()).rglob('ducklake.duckdb_extension'))}'")
        connection.execute(f"ATTACH 'ducklake:{self.place.state}/catalog.ducklake' AS lake (DATA_PATH '{self.place.state}/data')")
        connection.execute("USE lake")
        return connection


def _extensions() -> str:
    import duckdb_extension_ducklake

    return str(Path(duckdb_extension_ducklake.__file__).parent / "extensions")


class ClickHouse(Way):
    name = "chDB, partitions replaced"
    modules = ("chdb.session", "pyarrow")
    packages: tuple[str, ...] = ("chdb", "chdb-core")
    how = "MergeTree, a partition a day: INSERT from `file()` into a table beside it, then REPLACE PARTITION, which is atomic"
    engine = "MergeTree PARTITION BY toYYYYMMDD(event_time)"
    final = ""

    def load(self) -> None:
        session = self._session()
        self._create(session, "ticks")
        session.query("DROP TABLE IF EXISTS store.landed")
        self._create(session, "landed")
        self._insert(session, "landed")
        days = session.query("SELECT DISTINCT toYYYYMMDD(event_time) FROM store.landed", "CSV").bytes().decode().split()
        for day in days:
            session.query(f"ALTER TABLE store.ticks REPLACE PARTITION {day} FROM store.landed")
        session.query("DROP TABLE store.landed SYNC")

    def _create(self, session: Any, table: str) -> None:
        session.query(
            f"CREATE TABLE IF NOT EXISTS store.{table} (trade_id Int64, event_time DateTime64(6, 'UTC'), trade_time DateTime64(6, 'UTC'), "
            "symbol LowCardinality(String), price Decimal(18, 8), quantity Decimal(24, 12), buyer_order_id Nullable(Int64), "
            f"seller_order_id Nullable(Int64), is_market_maker Bool, version DateTime64(3)) ENGINE = {self.engine} ORDER BY (symbol, trade_id)"
        )

    def _insert(self, session: Any, table: str) -> None:
        session.query(
            f"INSERT INTO store.{table} SELECT trade_id, parseDateTime64BestEffort(event_time, 6, 'UTC'), "  # noqa: S608
            "parseDateTime64BestEffort(trade_time, 6, 'UTC'), symbol, toDecimal64(toString(price), 8), toDecimal128(toString(quantity), 12), NULL, NULL, "
            f"is_market_maker, now64(3) FROM file('{self.place.folder}/**/*.parquet', Parquet)"
        )

    def read(self) -> pa.Table:
        return self._session().query(f"SELECT {', '.join(COLUMNS)} FROM store.ticks {self.final}", "ArrowTable")  # noqa: S608

    def candles(self) -> pa.Table:
        return self._session().query(
            f"SELECT toDateTime64(toStartOfInterval(trade_time, INTERVAL 15 MINUTE), 6, 'UTC') AS bucket, argMin(price, trade_id) AS open, {_OHLCV}, "  # noqa: S608
            f"argMax(price, trade_id) AS close FROM store.ticks {self.final} GROUP BY bucket",
            "ArrowTable",
        )

    def _session(self) -> Any:
        from chdb import session

        opened = session.Session(str(self.place.state / "clickhouse"))
        opened.query("CREATE DATABASE IF NOT EXISTS store ENGINE = Atomic")
        return opened


class ClickHouseReplacing(ClickHouse):
    name = "chDB, ReplacingMergeTree"
    packages: tuple[str, ...] = ()
    how = "ReplacingMergeTree by trade id, the newest insert counts: INSERT from `file()`; read with FINAL"
    engine = "ReplacingMergeTree(version)"
    final = "FINAL"

    def load(self) -> None:
        session = self._session()
        self._create(session, "ticks")
        self._insert(session, "ticks")


class ArcticDb(Way):
    name = "ArcticDB"
    modules = ("arcticdb", "pandas", "pyarrow.dataset")
    packages: tuple[str, ...] = ("arcticdb",)
    how = "LMDB; `update` of the days' range with a DataFrame, which makes a new version; prices are floats"

    def load(self) -> None:
        frame = _frame(self.place.folder).set_index("trade_time")
        start = frame.index[0].floor("D") if len(frame) else None
        self._library().update("BTCUSDT", frame, date_range=(start, frame.index[-1].ceil("D")), upsert=True)

    def read(self) -> Any:
        return self._library().read("BTCUSDT").data

    def candles(self) -> Any:
        from arcticdb import QueryBuilder

        wanted = {"open": "first", "high": "max", "low": "min", "close": "last"}
        builder = QueryBuilder().resample("15min")
        builder = builder.agg(
            {**{name: ("price", how) for name, how in wanted.items()}, "volume": ("quantity", "sum"), "trade_count": ("price", "count")}
        )
        return self._library().read("BTCUSDT", query_builder=builder).data

    def table(self, found: Any) -> pa.Table:
        index = "bucket" if "open" in found.columns else "trade_time"
        return super().table(found.rename_axis(index).reset_index())

    def _library(self) -> Any:
        import arcticdb

        return arcticdb.Arctic(f"lmdb://{self.place.state}/arctic?map_size=20GB").get_library("ticks", create_if_missing=True)


class Nautilus(Way):
    name = "nautilus_trader, Parquet catalog"
    modules = ("nautilus_trader.persistence.catalog", "nautilus_trader.persistence.wranglers", "pandas", "pyarrow.dataset")
    packages: tuple[str, ...] = ("nautilus-trader",)
    how = "`delete_data_range` of the days, then `write_data`; one time a trade (that of the trade); candles by pandas, because the catalog has only stored bars"

    def load(self) -> None:
        from nautilus_trader.model.data import TradeTick
        from nautilus_trader.persistence.wranglers import TradeTickDataWrangler

        frame = _frame(self.place.folder).rename(columns={"is_market_maker": "buyer_maker"}).set_index("trade_time")
        ticks = TradeTickDataWrangler(_instrument()).process(frame[["price", "quantity", "trade_id", "buyer_maker"]])
        catalog = self._catalog()
        start, end = frame.index[0].floor("D"), frame.index[-1].ceil("D")
        catalog.delete_data_range(TradeTick, str(_instrument().id), start, end)
        catalog.write_data(ticks)

    def read(self) -> Any:
        return self._catalog().trade_ticks([str(_instrument().id)])

    def candles(self) -> Any:
        trades = self._trades(self.read())
        price = trades.set_index("trade_time").sort_index(kind="stable")
        bars = price["price"].resample("15min").ohlc()
        bars["volume"], bars["trade_count"] = price["quantity"].resample("15min").sum(), price["price"].resample("15min").count()
        return bars[bars["trade_count"] > 0].rename_axis("bucket").reset_index()

    def table(self, found: Any) -> pa.Table:
        return super().table(self._trades(found) if isinstance(found, list) else found)

    def _trades(self, ticks: list[Any]) -> pd.DataFrame:
        import pandas as pd
        from nautilus_trader.model.enums import AggressorSide

        return pd.DataFrame(
            {
                "trade_id": [int(str(tick.trade_id)) for tick in ticks],
                "trade_time": pd.to_datetime([tick.ts_event for tick in ticks], utc=True),
                "price": [float(tick.price) for tick in ticks],
                "quantity": [float(tick.size) for tick in ticks],
                "is_market_maker": [tick.aggressor_side == AggressorSide.SELLER for tick in ticks],
            }
        )

    def _catalog(self) -> Any:
        from nautilus_trader.persistence.catalog import ParquetDataCatalog

        return ParquetDataCatalog(str(self.place.state / "catalog"))


def _instrument() -> Any:
    """BTCUSDT with eight decimals."""
    from nautilus_trader.model.currencies import BTC, USDT
    from nautilus_trader.model.identifiers import InstrumentId, Symbol, Venue
    from nautilus_trader.model.instruments import CurrencyPair
    from nautilus_trader.model.objects import Price, Quantity

    return CurrencyPair(
        instrument_id=InstrumentId(Symbol("BTCUSDT"), Venue("BINANCE")),
        raw_symbol=Symbol("BTCUSDT"),
        base_currency=BTC,
        quote_currency=USDT,
        price_precision=8,
        size_precision=8,
        price_increment=Price(1e-8, 8),
        size_increment=Quantity(1e-8, 8),
        ts_event=0,
        ts_init=0,
    )


def _frame(folder: Path) -> pd.DataFrame:
    """All objects as a DataFrame, in the order of trades."""
    import pandas as pd

    frame = pd.read_parquet(folder)
    for name in ("event_time", "trade_time"):
        frame[name] = pd.to_datetime(frame[name], format="ISO8601").astype("datetime64[ns, UTC]")
    return frame[list(COLUMNS)].sort_values(["trade_time", "trade_id"])


WAYS: dict[str, type[Way]] = {
    "project": Project,
    "dlt": DltMerge,
    "polars": PolarsAdbc,
    "pandas": PandasCsv,
    "clickhouse": ClickHouse,
    "clickhouse_replacing": ClickHouseReplacing,
    "duckdb": DuckDb,
    "ducklake": DuckLake,
    "arcticdb": ArcticDb,
    "nautilus": Nautilus,
}


def main() -> None:
    name, step, dsn, folder, state, out, days, force = sys.argv[1:]
    way = WAYS[name](Place(dsn, Path(folder), Path(state), int(days), force == "force"))
    for module in way.modules:
        importlib.import_module(module)
    print("begins", flush=True)  # so that it can be killed half-way
    work: Callable[[], Any] = getattr(way, step)
    cpu, started = os.times(), time.perf_counter()
    error = found = None
    try:
        found = work()
    except Exception as failure:
        error = f"{type(failure).__name__}: {failure}"
    seconds, after = time.perf_counter() - started, os.times()
    took = {"seconds": seconds, "cpu": sum(after[:4]) - sum(cpu[:4]), "peak_mb": peak_mb(), "error": error}
    if found is not None:
        _write(way.table(found), Path(out))
    print(json.dumps(took), flush=True)


def _write(table: pa.Table, path: Path) -> None:
    import pyarrow as pa

    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


if __name__ == "__main__":
    main()
