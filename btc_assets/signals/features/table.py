"""The table `signals.slice_features`: making it from ticks, and reading it back as arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import psycopg
import pyarrow as pa
from psycopg import sql

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE_US, Window, from_microseconds, to_microseconds
from btc_assets.domain.ticks import TABLE as TICKS
from btc_assets.domain.ticks import TIME, int64
from btc_assets.ingestion import due
from btc_assets.signals.features import schema
from btc_assets.signals.features.bars import CHANNELS, STEPS, bars
from btc_assets.signals.features.formulas import FEATURES, features
from btc_assets.signals.features.tick_arrays import TickArrays
from btc_assets.signals.keys import FEATURES as FEATURES_KEY
from btc_assets.store.cut import cut_window
from btc_assets.store.database import Store, identifier
from btc_assets.store.errors import server_errors
from btc_assets.store.read import fetch_table
from btc_assets.store.replace import Replacement, Replacements, Stale

TABLE = "signals.slice_features"

_PART_TICKS = 250_000  # ticks that are in memory at once: about 80 MB with what is computed from them

# A slice without ticks has a row where something was loaded for it: then it is known that nothing was traded.
_SLICES = """
SELECT bucket_5m, sum(coalesce(loaded_rows, 0))::bigint FROM landing.raw_blobs_5m
WHERE asset = %s AND bucket_5m >= %s AND bucket_5m < %s AND loaded_at IS NOT NULL GROUP BY bucket_5m ORDER BY bucket_5m
"""

_LOADED = """
SELECT bucket_5m, asset, max(loaded_at), sum(loaded_rows), count(*) FROM landing.raw_blobs_5m
WHERE bucket_5m >= %s AND bucket_5m < %s AND loaded_at IS NOT NULL GROUP BY bucket_5m, asset ORDER BY bucket_5m, asset
"""


class SliceFeatures(Replacements):
    """The rows of a window of slices, made of its ticks, a part after the other; iterate over it once.

    Args:
        store: read by connections of its own while others write.
        window: the slices.
        symbols: whose.
        progress: told how many slices are committed.

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
        self.slice_rows: dict[datetime, int] = {}  # of committed slices
        self._done = 0

    def __iter__(self) -> Iterator[Replacement]:
        for day in self._window.days():
            yield from self.parts(day)

    def parts(self, day: Window) -> Iterator[Replacement]:
        """The rows of a day or a part of it."""
        with self._store.connect() as connection:
            _require_ticks(connection, day)
            slices = {symbol: _loaded_slices(connection, symbol, day) for symbol in self._symbols}
            ticks: dict[datetime, int] = {}
            for bucket, count in (pair for of_symbol in slices.values() for pair in of_symbol):
                ticks[bucket] = ticks.get(bucket, 0) + count
            for part in cut_window(sorted(ticks.items()), day, _PART_TICKS):
                made, loaded = due.read_due_marks(connection, FEATURES_KEY, part), _loaded(connection, part)
                rows = [_rows(self._store, symbol, part, [b for b, _ in slices[symbol] if b in part]) for symbol in self._symbols]
                yield _Part(self, part, pa.concat_tables(rows), made, loaded)

    def committed(self, replacement: Replacement) -> None:
        self._done += len(replacement.window)
        self._progress(self._done)
        values, counts = np.unique(int64(replacement.rows["bucket_5m"]), return_counts=True)
        self.slice_rows.update((from_microseconds(value), int(count)) for value, count in zip(values, counts, strict=True))


class _Part(Replacement):
    def __init__(self, maker: SliceFeatures, window: Window, rows: pa.Table, made: Sequence[due.DueMark], loaded: object) -> None:
        super().__init__(window, rows)
        self._maker, self._made, self._loaded = maker, made, loaded

    def confirm(self, cursor: psycopg.Cursor) -> None:
        # Another run may have made, and settled, these slices of newer ticks meanwhile.
        if _loaded(cursor, self.window) != self._loaded:
            raise Stale("ticks were loaded while these were read")

    def rebuild(self) -> Iterator[Replacement]:
        return self._maker.parts(self.window)

    def record(self, cursor: psycopg.Cursor) -> None:
        due.clear_due_marks(cursor, FEATURES_KEY, self._made)


def _require_ticks(connection: psycopg.Connection, window: Window) -> None:
    with server_errors():
        row = connection.execute("SELECT market_data.dropped_ticks(%s, %s)", (window.start, window.end)).fetchone()
    if row and row[0]:
        raise UserError(
            f"The features of {window} cannot be made again: {str(row[0]).replace('their candles', 'their features')}. Leave that range "
            "out, or load its ticks again first (btc-assets load)."
        )


def _loaded_slices(connection: psycopg.Connection, symbol: str, window: Window) -> list[tuple[datetime, int]]:
    with server_errors():
        return connection.execute(_SLICES, (symbol, window.start, window.end)).fetchall()


def _loaded(connection: psycopg.Connection | psycopg.Cursor, window: Window) -> object:
    """What the ticks of a window come from, and when they were loaded; it changes in the transaction that loads them."""
    return connection.execute(_LOADED, (window.start, window.end)).fetchall()


def _rows(store: Store, symbol: str, window: Window, slices: Sequence[datetime]) -> pa.Table:
    """The rows of one symbol: of each slice that holds ticks, and of those in `slices` even if they do not."""
    return features_as_table(read_ticks(store, symbol, window, np.array([to_microseconds(bucket) for bucket in slices], np.int64)), symbol)


def features_as_table(ticks: TickArrays, symbol: str) -> pa.Table:
    """Features and bars of slices as rows of `signals.slice_features`."""
    values, sequence = features(ticks), bars(ticks)
    count = len(ticks.starts)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(sequence.reshape(-1)), STEPS * len(CHANNELS))
    columns = {
        "bucket_5m": pa.array(ticks.starts).cast(TIME),
        "symbol": pa.repeat(symbol, count),
        **{feature.name: pa.array(np.ascontiguousarray(values[:, i])) for i, feature in enumerate(FEATURES)},
        "bars": flat.cast(pa.list_(pa.float32())),
        "feature_schema": pa.repeat(schema.digest(), count),
    }
    return pa.table(columns)


def read_ticks(store: Store, symbol: str, window: Window, starts: np.ndarray) -> TickArrays:
    """The ticks of a symbol in a window, by slice; also of the slices at `starts`, in microseconds, if they hold none."""
    statement = sql.SQL(
        "SELECT bucket_5m, event_time, price::double precision AS price, quantity::double precision AS quantity, is_market_maker "
        "FROM {} WHERE symbol = {} AND bucket_5m >= {} AND bucket_5m < {} ORDER BY bucket_5m, trade_id"
    ).format(identifier(TICKS), *map(sql.Literal, (symbol, window.start, window.end)))
    ticks = fetch_table(store, statement)
    return TickArrays.of(ticks, np.union1d(starts, int64(ticks["bucket_5m"])))


@dataclass(frozen=True)
class StoredSlices:
    """Rows of `signals.slice_features` as arrays, ascending by time.

    Attributes:
        times: start of each slice, int64 [n], microseconds since 1970.
        features: float64 [n, 48], in the order of `FEATURES`.
        bars: float32 [n, 60, 16], in the order of `CHANNELS`.
    """

    times: np.ndarray
    features: np.ndarray
    bars: np.ndarray

    def __len__(self) -> int:
        return len(self.times)

    def feature(self, name: str) -> np.ndarray:
        """One feature of each slice, float64 [n]."""
        return self.features[:, _COLUMNS[name]]

    def where(self, chosen: np.ndarray) -> StoredSlices:
        """The slices that a boolean array or indices choose."""
        return StoredSlices(self.times[chosen], self.features[chosen], self.bars[chosen])

    @property
    def tick_count(self) -> np.ndarray:
        """Ticks of each slice, int64 [n]."""
        return self.feature("trade_count").astype(np.int64)

    @property
    def followed(self) -> np.ndarray:
        """bool [n]: the next row is that of the slice right after this one."""
        return np.append(np.diff(self.times) == SLICE_US, False)[: len(self)]

    @property
    def range(self) -> tuple[datetime, datetime]:
        """Start of the first slice and end of the last."""
        return from_microseconds(self.times[0]), from_microseconds(self.times[-1] + SLICE_US)


_COLUMNS = {feature.name: column for column, feature in enumerate(FEATURES)}


def read_features(store: Store, symbol: str, window: Window) -> StoredSlices:
    """The stored slices of a symbol in a window.

    Raises:
        UserError: some were made by another version of the features.
    """
    names = [feature.name for feature in FEATURES]
    statement = sql.SQL(
        "SELECT bucket_5m, {}, vector_send(bars) AS bars, feature_schema FROM {} WHERE symbol = {} AND bucket_5m >= {} AND bucket_5m < {} "
        "ORDER BY bucket_5m"
    ).format(sql.SQL(", ").join(map(sql.Identifier, names)), identifier(TABLE), *map(sql.Literal, (symbol, window.start, window.end)))
    rows = fetch_table(store, statement)
    other = set(rows["feature_schema"].unique().to_pylist()) - {schema.digest()}
    if other:
        raise UserError(
            f"Features of {symbol} in {window} were made by another version of btc_assets ({', '.join(sorted(other))}, this one makes "
            f"{schema.digest()}): materialise signals/slice_features there again."
        )
    return StoredSlices(
        int64(rows["bucket_5m"]),
        np.column_stack([rows[name].to_numpy() for name in names]) if len(rows) else np.empty((0, len(names))),
        _received_vectors(rows["bars"]).reshape(-1, STEPS, len(CHANNELS)),
    )


def read_feature_version(connection: psycopg.Connection | psycopg.Cursor, symbol: str, window: Window) -> object:
    """When each stored slice of a window was made: equal as long as nobody makes one again."""
    return connection.execute(
        "SELECT bucket_5m, created_at FROM signals.slice_features WHERE symbol = %s AND bucket_5m >= %s AND bucket_5m < %s ORDER BY 1",
        (symbol, window.start, window.end),
    ).fetchall()


def _received_vectors(sent: pa.ChunkedArray) -> np.ndarray:
    """What pgvector sends: dimension and zero as big-endian int16, then big-endian float32s; all of one dimension."""
    size = 4 + 4 * STEPS * len(CHANNELS)
    parts = [np.frombuffer(chunk.buffers()[2], np.uint8, len(chunk) * size, _offset(chunk)) for chunk in sent.chunks if len(chunk)]
    if not parts:
        return np.empty((0, STEPS * len(CHANNELS)), np.float32)
    return np.concatenate([part.reshape(-1, size)[:, 4:].copy().view(">f4").astype(np.float32) for part in parts])


def _offset(chunk: pa.Array) -> int:
    return int(np.frombuffer(chunk.buffers()[1], np.int32, 1, chunk.offset * 4)[0])


_DIFFERENCES = """
SELECT bucket_5m, symbol, ticks.trades, ticks.volume, stored.trade_count::bigint, stored.volume
FROM (
    SELECT bucket_5m, symbol, count(*) AS trades, sum(quantity)::double precision AS volume FROM market_data.btc_ticks
    WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s GROUP BY 1, 2
) AS ticks
FULL JOIN (
    SELECT bucket_5m, symbol, trade_count, volume FROM signals.slice_features WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s
) AS stored USING (bucket_5m, symbol)
WHERE (coalesce(ticks.trades, 0) <> coalesce(stored.trade_count, 0) OR abs(coalesce(ticks.volume, 0) - stored.volume) > 1e-9 * stored.volume)
    AND NOT (ticks.trades IS NULL AND bucket_5m < ops.drop_horizon('market_data.btc_ticks'))
ORDER BY 1, 2
"""


def read_feature_differences(connection: psycopg.Connection, window: Window) -> list[str]:
    """Slices whose features do not count the ticks and the volume that the table of ticks holds, a sentence each."""
    with server_errors():
        rows = connection.execute(_DIFFERENCES, {"start": window.start, "end": window.end}).fetchall()
    return [
        f"{symbol} {bucket:%Y-%m-%dT%H:%MZ}: {trades or 0} ticks of volume {volume or 0}, features of {counted or 0} and {sized or 0}"
        for bucket, symbol, trades, volume, counted, sized in rows
    ]
