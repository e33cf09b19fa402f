"""A store that all tests of the client read: two symbols, an hour and a half of trades, their candles, the features and vectors of one; nobody writes to it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pyarrow as pa
import pytest

import btc_assets as btc
from btc_assets.domain.feeds import Feeds
from btc_assets.domain.settings import load_settings
from btc_assets.domain.slices import floor_slice
from btc_assets.signals.encoders.models import activate_model
from btc_assets.signals.features.compute import SliceFeatures
from btc_assets.signals.features.table import TABLE
from btc_assets.store.database import Store
from btc_assets.store.tables import Target
from btc_assets.store.writers import replace_all
from btc_assets_tests.support.databases import write_candles, write_ticks
from btc_assets_tests.support.stores import temporary_copy
from btc_assets_tests.support.trades import NOON, table, trade
from btc_assets_tests.support.vectors import market_like, registered_model, write_vectors

SPOT, FUTURE = "BTCUSDT", "BTCUSDT.P"
MODEL, OTHER_MODEL, DIM = "rocket-pca-0000000000000001", "tcn-0000000000000002", 8
VECTORS = market_like(18, DIM, states=3)

# A load writes these with the ticks.
_RECORD = """
INSERT INTO market_data.loaded_slices
SELECT bucket_5m, symbol, count(*), min(trade_id), max(trade_id), bit_xor(trade_id), count(*), sum(quantity), sum(price * quantity),
       coalesce(sum(quantity) FILTER (WHERE NOT is_market_maker), 0), coalesce(sum(price * quantity) FILTER (WHERE NOT is_market_maker), 0)
FROM market_data.btc_ticks GROUP BY 1, 2
"""


class Market:
    """A store with trades: its connection string, and the rows of its tick table in the order of the key."""

    def __init__(self, dsn: str, rows: list[dict[str, Any]]) -> None:
        self.dsn, self.rows = dsn, rows

    def of(self, symbol: str) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["symbol"] == symbol]


def _trades(symbol: str, seed: int, seconds: float) -> list[dict[str, Any]]:
    """An hour and a half around noon: quiet minutes, times within a slice that step back, and trades that are reported late."""
    chance = random.Random(seed)
    rows, at = [], NOON - timedelta(minutes=30)
    for trade_id in range(1, int(5400 / seconds)):
        at += timedelta(microseconds=chance.randrange(1, int(2e6 * seconds)))
        if NOON + timedelta(minutes=10) < at < NOON + timedelta(minutes=17):
            continue  # nobody trades; the ids are missing, too
        late = timedelta(microseconds=chance.choice([0, 350, 20_000, 900_000, 4_000_000]))
        price, quantity = Decimal(chance.randrange(4_190_000_000, 4_210_000_000)) / 10**5, Decimal(chance.randrange(1, 10**8)) / 10**8
        rows.append(
            trade(
                trade_id, at + late, made=at, price=f"{price}", quantity=f"{quantity}", symbol=symbol, maker=chance.random() < 0.5,
                buyer=chance.choice([None, 2**60 + trade_id]),
            )
        )  # fmt: skip
    return sorted(rows, key=lambda row: (floor_slice(row["event_time"]), row["trade_id"]))


@pytest.fixture(scope="session")
def market(server_dsn: str, template: str) -> Iterator[Market]:
    rows = _trades(SPOT, 1, 1.5) + _trades(FUTURE, 2, 4)
    with temporary_copy(server_dsn, template) as dsn:
        with psycopg.connect(dsn, autocommit=True, options="-c timezone=UTC") as connection:
            window = write_ticks(
                connection, pa.concat_tables([table([row for row in rows if row["symbol"] == one]) for one in (SPOT, FUTURE)])
            )
            write_candles(connection, window)
            connection.execute(_RECORD)
            replace_all(connection, Target.of(connection, TABLE), SliceFeatures(Store(dsn), window, (SPOT,)))
            write_vectors(connection, model := registered_model(connection, MODEL, dim=DIM), VECTORS, window.start, missing=(2,))
            write_vectors(connection, registered_model(connection, OTHER_MODEL, dim=3), market_like(18, 3, states=3), window.start)
            activate_model(connection, model)
        yield Market(dsn, rows)


@pytest.fixture(scope="session")
def client(market: Market) -> btc.ClientStore:
    """That store, opened."""
    return open_market(market.dsn)


def open_market(dsn: str) -> btc.ClientStore:
    """That store by another connection string; its settings name both symbols."""
    feeds = Feeds.parse(f"a=BTCUSDT, b=BTCUSDT:{FUTURE}")
    return btc.connect(dsn, settings=load_settings().model_copy(update={"landing_feeds": feeds}), latency=timedelta(seconds=90))
