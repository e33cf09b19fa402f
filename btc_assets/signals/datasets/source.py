"""Reading rows of a data set from a store."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from psycopg import sql

from btc_assets.domain.slices import MICROSECOND, SLICE, Window
from btc_assets.domain.ticks import int64
from btc_assets.market_data.candles import WIDTHS
from btc_assets.signals.datasets.doubts import read_doubts
from btc_assets.signals.datasets.plan import Plan
from btc_assets.signals.datasets.rows import make_rows
from btc_assets.signals.datasets.targets import NO_PRICES, Prices, Target
from btc_assets.signals.features.table import fetch_features
from btc_assets.store.database import Store, identifier
from btc_assets.store.read import fetch_table


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
        store, plan = Store(self.dsn), self.plan
        features = fetch_features(store, plan.symbol, window, plan.features, bars=bool(plan.channels))
        reached, interval, prices, later = window, None, NO_PRICES, np.empty(0, np.int64)
        if isinstance(plan.target, Target):
            reached = Window.covering(window.start, window.end - SLICE + plan.reach * MICROSECOND)
            interval = plan.target.interval(plan.target_after)
            prices = _fetch_prices(store, plan.symbol, interval, reached)
            later = int64(fetch_features(store, plan.symbol, Window(window.end, reached.end), [])["bucket_5m"])
        with store.connect() as connection:
            beyond = Window(window.start, reached.end + SLICE)  # the slice after the last tells whether trades are missing before it
            doubts = read_doubts(connection, plan.symbol, beyond, interval=interval, contiguous=plan.contiguous)
        return make_rows(plan, window, features, later, prices, doubts)


def _fetch_prices(store: Store, symbol: str, interval: str, window: Window) -> Prices:
    """The closes of a window's candles, and of those of the slice before it."""
    rows = fetch_table(
        store,
        sql.SQL(
            "SELECT bucket + make_interval(secs => {width}) AS ends, close::double precision AS close FROM {view} "
            "WHERE symbol = {symbol} AND bucket >= {start} AND bucket < {end} ORDER BY bucket"
        ).format(
            width=sql.Literal(WIDTHS[interval].total_seconds()), view=identifier(f"market_data.candles_{interval}"), symbol=sql.Literal(symbol),
            start=sql.Literal(window.start - SLICE), end=sql.Literal(window.end),
        ),
    )  # fmt: skip
    return Prices(int64(rows["ends"]), rows["close"].to_numpy())
