"""Reading rows of a data set from a store."""

from __future__ import annotations

from dataclasses import dataclass, replace

import psycopg
import pyarrow as pa
from psycopg import sql

from btc_assets.domain.slices import MICROSECOND, SLICE, Window
from btc_assets.domain.ticks import TIME, int64
from btc_assets.market_data.candles import WIDTHS
from btc_assets.signals.datasets.doubts import read_doubts
from btc_assets.signals.datasets.plan import Plan, Split
from btc_assets.signals.datasets.rows import make_rows
from btc_assets.signals.datasets.targets import NO_PRICES, Prices, Target
from btc_assets.signals.features.table import fetch_features, read_stored_slices
from btc_assets.store.database import Store, identifier
from btc_assets.store.errors import server_errors
from btc_assets.store.packed import fetch_packed

_PRICES = pa.schema([pa.field("ends", TIME, nullable=False), pa.field("close", pa.float64(), nullable=False)])


@dataclass(frozen=True)
class RowSource:
    """Reads the rows of a plan; another process may get it, because it consists of text and numbers.

    Attributes:
        dsn: of the store.
        plan: what the rows consist of.
    """

    dsn: str
    plan: Plan

    def __repr__(self) -> str:
        return f"RowSource({self.plan})"  # the connection string may hold a password

    def read(self, window: Window) -> pa.Table:
        """The rows of a window, as `make_rows` returns them.

        Raises:
            UserError: another version computed features of the window.
            TransientError: the server went away.
        """
        plan, reached, interval, prices = self.plan, window, None, NO_PRICES
        if isinstance(plan.target, Target):
            reached = Window.covering(window.start, window.end - SLICE + plan.reach * MICROSECOND)
            interval = plan.target.interval(plan.target_after)
        beyond = Window(window.start, reached.end + SLICE)  # the slice after the last tells whether trades are missing before it
        with Store(self.dsn, read_only=True).connect() as connection, server_errors(), connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")  # features, candles and doubts are of one moment
            features = fetch_features(connection, plan.symbol, window, plan.features, bars=bool(plan.channels))
            later = read_stored_slices(connection, plan.symbol, window.end, reached.end)
            if interval:
                prices = _fetch_prices(connection, plan.symbol, interval, reached)
            doubts = read_doubts(connection, plan.symbol, beyond, interval=interval, contiguous=plan.contiguous)
        return make_rows(plan, window, features, later, prices, doubts)


@dataclass(frozen=True)
class PartSource:
    """Reads the rows of a part of a data set.

    Attributes:
        rows: of both parts.
        split: of the data set if this is what trains, whose rows keep clear of what is tested; None if this is what is tested.
    """

    rows: RowSource
    split: Split | None

    def read(self, window: Window) -> pa.Table:
        """The rows of a window; raises like `RowSource.read`."""
        return self.keep(self.rows.read(window))

    def keep(self, rows: pa.Table) -> pa.Table:
        """Those of rows that belong to the part."""
        return rows.filter(pa.array(self.split.keeps(self.rows.plan, int64(rows["bucket_5m"])))) if self.split else rows

    def complete(self) -> PartSource:
        """The same without incomplete rows."""
        return replace(self, rows=replace(self.rows, plan=replace(self.rows.plan, mask=False)))


def _fetch_prices(connection: psycopg.Connection, symbol: str, interval: str, window: Window) -> Prices:
    """The closes of a window's candles, and of those of the slice before it."""
    statement = sql.SQL(
        "SELECT bucket + make_interval(secs => {width}) AS ends, close FROM {view} "
        "WHERE symbol = {symbol} AND bucket >= {start} AND bucket < {end} ORDER BY bucket"
    ).format(
        width=sql.Literal(WIDTHS[interval].total_seconds()), view=identifier(f"market_data.candles_{interval}"), symbol=sql.Literal(symbol),
        start=sql.Literal(window.start - SLICE), end=sql.Literal(window.end),
    )  # fmt: skip
    rows = fetch_packed(connection, statement, _PRICES)
    return Prices(int64(rows["ends"]), rows["close"].to_numpy())
