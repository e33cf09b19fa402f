"""The store that the examples of the documentation and the notebooks run on: two generated days of a spot market and its perpetual.

Nothing changes it: it is made once for all tests of a process. docs/quickstart.md tells readers what it holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import tee
from pathlib import Path

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from btc_assets.domain.feeds import LINEAR, Feed, Feeds
from btc_assets.domain.slices import DAY, Window
from btc_assets.signals.features.derivation import FeaturesOfTicks
from btc_assets.simulation.batches import BatchLimits
from btc_assets.simulation.generate_market import generate_market
from btc_assets.simulation.perpetual import follow_spot
from btc_assets.simulation.replay import Landed, land_trades
from btc_assets_tests.support.stored_slices import activate, train
from btc_assets_tests.support.stores import FEED, StoreUnderTest, temporary_copy

START = datetime(2024, 1, 10, tzinfo=UTC)
TWO_DAYS = Window(START, START + 2 * DAY)
PERPETUAL = Feed("Binance/UM/BTCUSDT", "BTCUSDT", "BTCUSDT.P", LINEAR, "contiguous")
BOTH = Feeds([FEED, PERPETUAL])
GAP = datetime(2024, 1, 11, 13, 35, tzinfo=UTC)  # the slice in which trades of the spot market were lost
_LOST = 5


@pytest.fixture(scope="session")
def docs_home(server_dsn: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreUnderTest]:
    """The store itself; use `docs_store`, which points the process at it."""
    home = tmp_path_factory.mktemp("docs_store")
    landing = home / "landing"
    landing.mkdir()
    with temporary_copy(server_dsn, template) as dsn, psycopg.connect(dsn, autocommit=True, options="-c timezone=UTC") as connection:
        store = StoreUnderTest(dsn, home, landing, connection, derivations=(FeaturesOfTicks(),))
        spot, other = tee(table for table, _ in generate_market(START, 2, slice_ticks=40))
        limits = BatchLimits(seconds=900.0)
        land_trades(store.zone(), FEED, map(_with_gap, spot), Landed(), limits=limits)
        land_trades(store.zone(), PERPETUAL, follow_spot(other, PERPETUAL.label), Landed(), limits=limits)
        store.register(TWO_DAYS, feeds=BOTH)
        store.load(TWO_DAYS, feeds=BOTH)
        store.refresh(TWO_DAYS)
        activate(store, train(store))
        yield store


@pytest.fixture
def docs_store(docs_home: StoreUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StoreUnderTest:
    """The store of the examples, for reading alone; the process's settings point at it, and its working directory is empty."""
    monkeypatch.chdir(tmp_path)
    for name, value in docs_environment(docs_home).items():
        monkeypatch.setenv(name, value)
    return docs_home


def docs_environment(store: StoreUnderTest) -> dict[str, str]:
    """The variables that point a process at the store."""
    return {
        "BTC_ASSETS_HOME": str(store.home / "home"),
        "BTC_ASSETS_DSN": store.dsn,
        "BTC_ASSETS_LANDING_URL": store.landing.as_uri(),
        "BTC_ASSETS_LANDING_FEEDS": ",".join(map(str, BOTH)),
        "BTC_ASSETS_PARTITIONS_START": f"{START:%Y-%m-%d}",
    }


def _with_gap(ticks: pa.Table) -> pa.Table:
    """Ticks without a few of the trades in the middle of one slice."""
    inside = pc.equal(ticks["bucket_5m"], pa.scalar(GAP, ticks["bucket_5m"].type))
    first = pc.index(inside, True).as_py()
    if first < 0:
        return ticks
    return pa.concat_tables([ticks.slice(0, first + _LOST), ticks.slice(first + 2 * _LOST)])
