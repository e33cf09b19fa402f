"""Computing features from stored ticks, as replacements for rows of `signals.slice_features`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

import numpy as np
import psycopg
import pyarrow as pa
from psycopg import sql

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import Window, from_microseconds, to_microseconds
from btc_assets.domain.ticks import TABLE as TICKS
from btc_assets.domain.ticks import TIME, int64
from btc_assets.ingestion import due
from btc_assets.signals.features import schema
from btc_assets.signals.features.bars import CHANNELS, STEPS
from btc_assets.signals.features.formulas import FEATURES
from btc_assets.signals.features.slice_arrays import SliceArrays
from btc_assets.signals.features.table import TABLE
from btc_assets.signals.features.tick_arrays import TickArrays
from btc_assets.signals.keys import SLICE_FEATURES
from btc_assets.store.cut import cut_window
from btc_assets.store.database import Store, identifier, only_row
from btc_assets.store.errors import server_errors
from btc_assets.store.read import fetch_table
from btc_assets.store.replace import Replacement, Replacements, Stale

_PART_TICKS = 250_000  # ticks in memory at once: about 80 MB with what is computed from them

# A slice without ticks has a row if something was loaded for it: then it is known that nothing was traded.
_SLICES = """
SELECT bucket_5m, sum(coalesce(loaded_rows, 0))::bigint FROM landing.raw_blobs_5m
WHERE asset = %s AND bucket_5m >= %s AND bucket_5m < %s AND loaded_at IS NOT NULL GROUP BY bucket_5m ORDER BY bucket_5m
"""

_TICK_VERSION = """
SELECT bucket_5m, asset, max(loaded_at), sum(loaded_rows), count(*) FROM landing.raw_blobs_5m
WHERE bucket_5m >= %s AND bucket_5m < %s AND loaded_at IS NOT NULL GROUP BY bucket_5m, asset ORDER BY bucket_5m, asset
"""


class SliceFeatures(Replacements):
    """The feature rows of a window, computed from its ticks part by part; iterate over it once.

    Args:
        store: read through separate connections while rows are written.
        window: the slices.
        symbols: to compute features of.
        progress: called with the number of committed slices.

    Attributes:
        slice_rows: rows of each committed slice.

    Raises:
        UserError: ticks of the window were dropped since they were loaded; nothing was changed.
    """

    table = TABLE

    def __init__(
        self,
        store: Store,
        window: Window,
        symbols: Sequence[str],
        progress: Callable[[int], None] = lambda done: None,
    ) -> None:
        self._store, self._window, self._symbols, self._progress = store, window, symbols, progress
        self.slice_rows: dict[datetime, int] = {}
        self._done = 0

    def __iter__(self) -> Iterator[Replacement]:
        for day in self._window.days():
            yield from self.parts(day)

    def parts(self, day: Window) -> Iterator[Replacement]:
        """The rows of a day, or of a part of one."""
        with self._store.connect() as connection:
            _require_ticks(connection, day)
            slices = {symbol: _loaded_slices(connection, symbol, day) for symbol in self._symbols}
            ticks: dict[datetime, int] = {}
            for bucket, count in (pair for of_symbol in slices.values() for pair in of_symbol):
                ticks[bucket] = ticks.get(bucket, 0) + count
            for part in cut_window(sorted(ticks.items()), day, _PART_TICKS):
                slices_due, version = due.read_due_marks(connection, SLICE_FEATURES, part), _read_tick_version(connection, part)
                rows = [_compute_rows(self._store, symbol, part, [b for b, _ in slices[symbol] if b in part]) for symbol in self._symbols]
                yield _Part(self, part, pa.concat_tables(rows), slices_due, version)

    def committed(self, replacement: Replacement) -> None:
        self._done += len(replacement.window)
        self._progress(self._done)
        values, counts = np.unique(int64(replacement.rows["bucket_5m"]), return_counts=True)
        self.slice_rows.update((from_microseconds(value), int(count)) for value, count in zip(values, counts, strict=True))


class _Part(Replacement):
    def __init__(self, source: SliceFeatures, window: Window, rows: pa.Table, slices_due: Sequence[due.DueMark], version: object) -> None:
        super().__init__(window, rows)
        self._source, self._due, self._version = source, slices_due, version

    def confirm(self, cursor: psycopg.Cursor) -> None:
        # Meanwhile another run may have computed these slices from newer ticks, and settled them.
        if _read_tick_version(cursor, self.window) != self._version:
            raise Stale("ticks were loaded while these were read")

    def rebuild(self) -> Iterator[Replacement]:
        return self._source.parts(self.window)

    def record(self, cursor: psycopg.Cursor) -> None:
        due.clear_due_marks(cursor, SLICE_FEATURES, self._due)


def _require_ticks(connection: psycopg.Connection, window: Window) -> None:
    with server_errors():
        (why,) = only_row(connection.execute("SELECT market_data.dropped_ticks(%s, %s)", (window.start, window.end)))
    if why:
        raise UserError(
            f"The features of {window} cannot be computed again: {why.replace('their candles', 'their features')}. Leave that "
            "range out, or load its ticks again first (btc-assets load)."
        )


def _loaded_slices(connection: psycopg.Connection, symbol: str, window: Window) -> list[tuple[datetime, int]]:
    with server_errors():
        return connection.execute(_SLICES, (symbol, window.start, window.end)).fetchall()


def _read_tick_version(connection: psycopg.Connection | psycopg.Cursor, window: Window) -> object:
    """A value that changes in every transaction that loads ticks of the window."""
    return connection.execute(_TICK_VERSION, (window.start, window.end)).fetchall()


def _compute_rows(store: Store, symbol: str, window: Window, slices: Sequence[datetime]) -> pa.Table:
    """The rows of one symbol: for each slice that holds ticks, and for those in `slices` even if they hold none."""
    return features_as_table(
        read_tick_arrays(store, symbol, window, np.array([to_microseconds(bucket) for bucket in slices], np.int64)), symbol
    )


def read_tick_arrays(store: Store, symbol: str, window: Window, starts: np.ndarray) -> TickArrays:
    """The market trades of a symbol in a window by slice, including the slices at `starts` (in microseconds) that hold none."""
    statement = sql.SQL(
        "SELECT bucket_5m, event_time, price::double precision AS price, quantity::double precision AS quantity, is_market_maker "
        "FROM {} WHERE symbol = {} AND bucket_5m >= {} AND bucket_5m < {} "
        "AND market_data.is_market_trade(trade_kind) ORDER BY bucket_5m, trade_id"
    ).format(identifier(TICKS), *map(sql.Literal, (symbol, window.start, window.end)))
    ticks = fetch_table(store, statement)
    return TickArrays.of(ticks, np.union1d(starts, int64(ticks["bucket_5m"])))


def features_as_table(ticks: TickArrays, symbol: str) -> pa.Table:
    """Features and bars of slices as rows of `signals.slice_features`."""
    slices = SliceArrays.of(ticks)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(slices.bars.reshape(-1)), STEPS * len(CHANNELS))
    columns = {
        "bucket_5m": pa.array(slices.times).cast(TIME),
        "symbol": pa.repeat(symbol, len(slices)),
        **{feature.name: pa.array(np.ascontiguousarray(slices.features[:, i])) for i, feature in enumerate(FEATURES)},
        "bars": flat.cast(pa.list_(pa.float32())),
        "feature_schema": pa.repeat(schema.digest(), len(slices)),
    }
    return pa.table(columns)
