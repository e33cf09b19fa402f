"""Features of the ticks that a load has in memory: the rows that `SliceFeatures` makes of stored ticks, to the last bit."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
import pyarrow as pa

from btc_assets.domain.ticks import market_trades
from btc_assets.market_data.derived import Maker, Part
from btc_assets.signals.features.compute import SLICE_WEIGHT, compute_rows
from btc_assets.signals.features.table import TABLE
from btc_assets.signals.keys import SLICE_FEATURES
from btc_assets.store.replace import CreatedAt
from btc_assets.store.tables import Target


class FeaturesOfTicks:
    """Has a load make the features of its slices."""

    def open(self, connection: psycopg.Connection) -> Maker:
        """Every store has the table."""
        return _FeatureMaker(connection)


class _FeatureMaker(Maker):
    created_at = CreatedAt()

    def __init__(self, connection: psycopg.Connection) -> None:
        super().__init__("features", [SLICE_FEATURES], [Target.of(connection, TABLE)], weight=SLICE_WEIGHT)

    def make(self, part: Part) -> Sequence[pa.Table]:
        return [compute_rows(market_trades(part.ticks), part.loaded)]

    def lock(self, cursor: psycopg.Cursor) -> None:
        """Nothing to do: whoever writes features locks the slices of their ticks."""
