"""Computing rows of `signals.slice_features`: from ticks that a load has in memory, and from stored ones, as replacements."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime

import numpy as np
import psycopg
import pyarrow as pa
from psycopg import sql

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import Window, from_microseconds
from btc_assets.domain.ticks import TABLE as TICKS
from btc_assets.domain.ticks import TIME, first_of_slices, int64
from btc_assets.ingestion import due
from btc_assets.landing.sources import read_other_symbols
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
from btc_assets.store.replace import CreatedAt, Replacement, Replacements, Stale

_PART_TICKS = 250_000  # ticks in memory at once: about 80 MB with what is computed from them
SLICE_WEIGHT = 16  # ticks that take as much memory as a row of features and bars, which has 4 kB

# A slice without ticks has a row if something was loaded for it: then it is known that nothing was traded.
_SLICES = """
SELECT bucket_5m, asset, sum(coalesce(loaded_rows, 0))::bigint FROM landing.raw_blobs_5m
WHERE asset = ANY(%s) AND bucket_5m >= %s AND bucket_5m < %s AND loaded_at IS NOT NULL GROUP BY bucket_5m, asset ORDER BY bucket_5m, asset
"""

# The record of a load has its time also where it changed nothing that the registry or the ticks' figures tell.
_TICK_VERSION = """
SELECT blob.bucket_5m, asset, max(blob.loaded_at), sum(loaded_rows), count(*), max(record.loaded_at) FROM landing.raw_blobs_5m AS blob
LEFT JOIN market_data.loaded_slices AS record ON record.bucket_5m = blob.bucket_5m AND record.symbol = asset
WHERE blob.bucket_5m >= %s AND blob.bucket_5m < %s AND blob.loaded_at IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2
"""


class SliceFeatures(Replacements):
    """The feature rows of a window, computed from its ticks part by part; iterate over it once.

    Args:
        store: read through separate connections while rows are written.
        window: the slices.
        symbols: to compute features of; the rows of others stay as they are.
        only_due: only the slices that are due, which a load of the same run did not make itself.
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
        *,
        only_due: bool = False,
    ) -> None:
        self._store, self._window, self._symbols, self._progress = store, window, list(symbols), progress
        self._only_due = only_due
        self.slice_rows: dict[datetime, int] = {}
        self._done = 0

    def __iter__(self) -> Iterator[Replacement]:
        for day in self._days():
            yield from self.parts(day)

    def parts(self, day: Window) -> Iterator[Replacement]:
        """The rows of a day, or of a part of one."""
        with self._store.connect() as connection:
            _require_ticks(connection, day)
            slices = _read_loaded_slices(connection, self._symbols, day)
            weights: dict[datetime, int] = {}
            for bucket, _, count in slices:
                weights[bucket] = weights.get(bucket, 0) + count + SLICE_WEIGHT
            for part in cut_window(sorted(weights.items()), day, _PART_TICKS):
                with server_errors(), connection.transaction(), connection.cursor() as cursor:
                    kept = read_other_symbols(cursor, part, self._symbols)
                slices_due, version = due.read_due_marks(connection, SLICE_FEATURES, part), _read_tick_version(connection, part)
                ticks = _fetch_market_trades(self._store, self._symbols, part)
                rows = compute_rows(ticks, {(bucket, symbol) for bucket, symbol, _ in slices if bucket in part})
                yield _Part(self, part, rows, kept, slices_due, version)

    def _days(self) -> Iterator[Window]:
        if not self._only_due:
            yield from self._window.days()
            return
        with self._store.connect() as connection:
            found = due.read_due_windows(connection, SLICE_FEATURES, self._window)
        for window in found:
            yield from window.days()

    def committed(self, replacement: Replacement) -> None:
        self._done += len(replacement.window)
        self._progress(self._done)
        values, counts = np.unique(int64(replacement.rows["bucket_5m"]), return_counts=True)
        self.slice_rows.update((from_microseconds(value), int(count)) for value, count in zip(values, counts, strict=True))


class _Part(Replacement):
    created_at = CreatedAt()
    lock_table = TICKS  # so that a load, which writes features as well, and this never write the same slice

    def __init__(
        self,
        source: SliceFeatures,
        window: Window,
        rows: pa.Table,
        kept_symbols: Collection[str],
        slices_due: Sequence[due.DueMark],
        version: object,
    ) -> None:
        super().__init__(window, rows, kept_symbols)
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


def _read_loaded_slices(connection: psycopg.Connection, symbols: Sequence[str], window: Window) -> list[tuple[datetime, str, int]]:
    with server_errors():
        return connection.execute(_SLICES, (symbols, window.start, window.end)).fetchall()


def _read_tick_version(connection: psycopg.Connection | psycopg.Cursor, window: Window) -> object:
    """A value that changes in every transaction that loads ticks of the window."""
    return connection.execute(_TICK_VERSION, (window.start, window.end)).fetchall()


def read_tick_arrays(store: Store, symbol: str, window: Window, starts: np.ndarray) -> TickArrays:
    """The market trades of a symbol in a window by slice, including the slices at `starts` (in microseconds) that hold none."""
    ticks = _fetch_market_trades(store, [symbol], window)
    return TickArrays.of(ticks, np.union1d(starts, int64(ticks["bucket_5m"])))


def _fetch_market_trades(store: Store, symbols: Sequence[str], window: Window) -> pa.Table:
    """The market trades of symbols in a window, in the order of the key, as `TickArrays` takes them."""
    statement = sql.SQL(
        "SELECT bucket_5m, event_time, symbol, price::double precision AS price, quantity::double precision AS quantity, is_market_maker "
        "FROM {} WHERE symbol = ANY({}) AND bucket_5m >= {} AND bucket_5m < {} "
        "AND market_data.is_market_trade(trade_kind) ORDER BY bucket_5m, symbol, trade_id"
    ).format(identifier(TICKS), *map(sql.Literal, (list(symbols), window.start, window.end)))
    return fetch_table(store, statement)


def compute_rows(ticks: pa.Table, slices: Collection[tuple[datetime, str]]) -> pa.Table:
    """Rows of `signals.slice_features`: of each slice and symbol that has market trades, and of those in `slices` even if they have none.

    Args:
        ticks: market trades of any symbols in the order of the key, with the columns that `TickArrays` takes.
        slices: starts of slices, with symbols.
    """
    first = first_of_slices(ticks)
    traded = list(zip(*(ticks[name].take(first).to_pylist() for name in ("bucket_5m", "symbol")), strict=True))
    keys = [*traded, *sorted(set(slices).difference(traded))]
    arrays = SliceArrays.of(TickArrays.of_symbols(ticks, first, empty=len(keys) - len(traded)))
    buckets, symbols = zip(*keys, strict=True) if keys else ((), ())
    return _as_table(pa.array(buckets, TIME), pa.array(symbols, pa.string()), arrays)


def features_as_table(ticks: TickArrays, symbol: str) -> pa.Table:
    """Features and bars of slices of one symbol as rows of `signals.slice_features`."""
    slices = SliceArrays.of(ticks)
    return _as_table(pa.array(slices.times).cast(TIME), pa.repeat(symbol, len(slices)), slices)


def _as_table(buckets: pa.Array, symbols: pa.Array, slices: SliceArrays) -> pa.Table:
    flat = pa.FixedSizeListArray.from_arrays(pa.array(slices.bars.reshape(-1)), STEPS * len(CHANNELS))
    columns = {
        "bucket_5m": buckets,
        "symbol": symbols,
        **{feature.name: pa.array(np.ascontiguousarray(slices.features[:, i])) for i, feature in enumerate(FEATURES)},
        "bars": flat.cast(pa.list_(pa.float32())),
        "feature_schema": pa.repeat(schema.digest(), len(slices)),
    }
    return pa.table(columns)
