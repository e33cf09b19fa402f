"""Reading the table `signals.slice_features`: its slices as arrays, what it covers, and where it disagrees with the ticks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

import numpy as np
import psycopg
import pyarrow as pa
from psycopg import sql

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import KEY_FORMAT, SLICE, Window, ceil_slice, floor_slice, to_microseconds
from btc_assets.domain.ticks import TIME, int64
from btc_assets.market_data.slice_records import read_unrecorded
from btc_assets.signals.features import schema
from btc_assets.signals.features.bars import CHANNELS, STEPS
from btc_assets.signals.features.formulas import FEATURES
from btc_assets.signals.features.slice_arrays import SliceArrays
from btc_assets.store.database import Store, identifier, only_row
from btc_assets.store.errors import server_errors
from btc_assets.store.packed import fetch_packed
from btc_assets.store.read import fetch_table

TABLE = "signals.slice_features"


def read_features(store: Store, symbol: str, window: Window) -> SliceArrays:
    """The stored slices of a symbol in a window.

    Raises:
        UserError: another version of the features computed some of them.
    """
    names = [feature.name for feature in FEATURES]
    rows = fetch_table(store, _select(symbol, window, names, bars=True))
    require_schema(rows["feature_schema"].unique().to_pylist(), symbol, window)
    return SliceArrays(int64(rows["bucket_5m"]), feature_matrix(rows, names), decode_bars(rows))


def fetch_features(connection: psycopg.Connection, symbol: str, window: Window, names: Sequence[str], *, bars: bool = False) -> pa.Table:
    """Some features of the stored slices of a symbol in a window, in order of time.

    Args:
        connection: to the store.
        symbol: whose.
        window: the slices; a year at most with bars.
        names: of the features.
        bars: also fetch the bars, as `decode_bars` takes them.

    Returns:
        A table with `bucket_5m`, the features as float64, and `bars` as pgvector sends them.

    Raises:
        UserError: another version of the features computed some of them.
    """
    fields = [pa.field("bucket_5m", TIME, nullable=False), pa.field("feature_schema", pa.string(), nullable=False)]
    fields += [pa.field(name, pa.float64(), nullable=False) for name in names]
    fields += [pa.field("bars", pa.binary(), nullable=False)] if bars else []
    rows = fetch_packed(connection, _select(symbol, window, names, bars=bars), pa.schema(fields))
    require_schema(rows["feature_schema"].unique().to_pylist(), symbol, window)
    return rows.drop_columns(["feature_schema"])


def _select(symbol: str, window: Window, names: Sequence[str], *, bars: bool) -> sql.Composed:
    columns = [*map(sql.Identifier, ["bucket_5m", "feature_schema", *names]), *([sql.SQL("vector_send(bars) AS bars")] if bars else [])]
    return sql.SQL("SELECT {} FROM {} WHERE symbol = {} AND bucket_5m >= {} AND bucket_5m < {} ORDER BY bucket_5m").format(
        sql.SQL(", ").join(columns), identifier(TABLE), *map(sql.Literal, (symbol, window.start, window.end))
    )


def require_schema(found: Iterable[str], symbol: str, where: object) -> None:
    """Make sure that this version computed features, of which `found` are the digests; `where` is their range.

    Raises:
        UserError: another version computed some of them.
    """
    if other := set(found) - {schema.digest()}:
        raise UserError(
            f"Another version of btc_assets computed features of {symbol} in {where} ({', '.join(sorted(other))}; this version computes "
            f"{schema.digest()}): materialize signals/slice_features for that range again."
        )


def read_stored_slices(connection: psycopg.Connection, symbol: str, start: datetime, end: datetime) -> np.ndarray:
    """Starts of the stored slices of a symbol from `start` up to, not including, `end`: µs, ascending."""
    with server_errors(), connection.transaction():
        rows = connection.execute(
            "SELECT bucket_5m FROM signals.slice_features WHERE symbol = %s AND bucket_5m >= %s AND bucket_5m < %s ORDER BY 1",
            (symbol, start, end),
        ).fetchall()
    return np.array([to_microseconds(bucket) for (bucket,) in rows], np.int64)


def feature_matrix(rows: pa.Table, names: Sequence[str]) -> np.ndarray:
    """Columns of a table as float64 [n, len(names)]."""
    return np.column_stack([rows[name].to_numpy() for name in names]) if len(rows) and names else np.empty((len(rows), len(names)))


def decode_bars(rows: pa.Table) -> np.ndarray:
    """The bars of slices that were fetched: float32 [n, 60, 16].

    Pgvector sends the dimension and a zero as big-endian int16, then big-endian float32 values.
    """
    sent = rows["bars"]
    size = 4 + 4 * STEPS * len(CHANNELS)
    parts = [np.frombuffer(chunk.buffers()[2], np.uint8, len(chunk) * size, _first_byte(chunk)) for chunk in sent.chunks if len(chunk)]
    if not parts:
        return np.empty((0, STEPS, len(CHANNELS)), np.float32)
    flat = np.concatenate([part.reshape(-1, size)[:, 4:].copy().view(">f4").astype(np.float32) for part in parts])
    return flat.reshape(-1, STEPS, len(CHANNELS))


def _first_byte(chunk: pa.Array) -> int:
    return int(np.frombuffer(chunk.buffers()[1], np.int32, 1, chunk.offset * 4)[0])


def read_feature_version(connection: psycopg.Connection | psycopg.Cursor, symbol: str, window: Window) -> object:
    """A value that changes whenever features of a slice of the window do."""
    return connection.execute(
        "SELECT bucket_5m, created_at FROM signals.slice_features WHERE symbol = %s AND bucket_5m >= %s AND bucket_5m < %s ORDER BY 1",
        (symbol, window.start, window.end),
    ).fetchall()


def read_stored_window(connection: psycopg.Connection, symbol: str, start: datetime | None, end: datetime | None) -> Window:
    """From the slice of `start` to that of `end`; by default, from the first stored slice to the last.

    Raises:
        UserError: no slice of the symbol is stored.
    """
    with server_errors(), connection.transaction():
        (oldest, newest) = only_row(
            connection.execute("SELECT min(bucket_5m), max(bucket_5m) FROM signals.slice_features WHERE symbol = %s", (symbol,))
        )
    if oldest is None:
        raise UserError(f"No features of {symbol} are stored: load ticks first (btc-assets load).")
    return Window(floor_slice(start) if start else oldest, ceil_slice(end) if end else newest + SLICE)


_DIFFERENCES = """
SELECT bucket_5m, symbol, ticks.trades, ticks.volume, stored.trade_count::bigint, stored.volume
FROM (
    SELECT bucket_5m, symbol, count(*) AS trades, sum(quantity)::double precision AS volume FROM market_data.btc_ticks
    WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s AND market_data.is_market_trade(trade_kind) GROUP BY 1, 2
) AS ticks
FULL JOIN (
    SELECT bucket_5m, symbol, trade_count, volume FROM signals.slice_features WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s
) AS stored USING (bucket_5m, symbol)
WHERE (coalesce(ticks.trades, 0) <> coalesce(stored.trade_count, 0) OR abs(coalesce(ticks.volume, 0) - stored.volume) > 1e-9 * stored.volume)
    AND NOT (ticks.trades IS NULL AND bucket_5m < ops.drop_horizon('market_data.btc_ticks'))
ORDER BY 1, 2
"""


def read_feature_differences(connection: psycopg.Connection, window: Window) -> list[str]:
    """Slices whose features count other market trades or another volume than the table of ticks holds; one sentence per slice."""
    with server_errors():
        rows = connection.execute(_DIFFERENCES, {"start": window.start, "end": window.end}).fetchall()
    return [
        f"{symbol} {bucket:{KEY_FORMAT}}: {trades or 0} ticks of volume {volume or 0}, features of {counted or 0} and {sized or 0}"
        for bucket, symbol, trades, volume, counted, sized in rows
    ]


# The same against what the loads recorded.
_RECORD_DIFFERENCES = """
SELECT min(bucket_5m), max(bucket_5m)
FROM (
    SELECT bucket_5m, symbol, market_trades, volume::double precision AS volume FROM market_data.loaded_slices
    WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s
) AS loaded
FULL JOIN (
    SELECT bucket_5m, symbol, trade_count, volume FROM signals.slice_features WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s
) AS stored USING (bucket_5m, symbol)
WHERE coalesce(market_trades, 0) <> coalesce(stored.trade_count, 0)
    OR abs(coalesce(loaded.volume, 0) - coalesce(stored.volume, 0)) > 1e-9 * coalesce(stored.volume, 0)
"""


def find_feature_differences(connection: psycopg.Connection, window: Window) -> list[str]:
    """The same without a look at the ticks: features are compared with what the loads recorded.

    Only where they differ, or a slice has no record, are they compared with the ticks themselves.
    """
    if not read_unrecorded(connection, window):
        with server_errors(), connection.transaction():
            first, last = only_row(connection.execute(_RECORD_DIFFERENCES, {"start": window.start, "end": window.end}))
        if first is None:
            return []
        window = Window(first, last + SLICE)
    return read_feature_differences(connection, window)
