"""What a load wrote, for each slice and symbol: `market_data.loaded_slices`, and its comparison with the table of ticks.

A load counts and adds up what it has in memory, so that nothing has to be asked of the table again: checks compare this record with the
registry, the candles and the features. One pass over the ticks proves that the table is still what was recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc

from btc_assets.domain.exact_sums import Units, product_sums, sums, units
from btc_assets.domain.slices import KEY_FORMAT, SLICE, Window
from btc_assets.domain.ticks import MARKET, first_of_slices
from btc_assets.store.database import only_row
from btc_assets.store.errors import server_errors

_COLUMNS = {
    "bucket_5m": "timestamptz", "symbol": "text", "ticks": "bigint", "first_trade_id": "bigint", "last_trade_id": "bigint",
    "trade_ids_xor": "bigint", "market_trades": "bigint", "volume": "numeric", "quote_volume": "numeric", "taker_buy_volume": "numeric",
    "taker_buy_quote_volume": "numeric",
}  # fmt: skip

_CLEAR = "DELETE FROM market_data.loaded_slices WHERE bucket_5m >= %s AND bucket_5m < %s AND symbol <> ALL(%s)"
_INSERT = (
    f"INSERT INTO market_data.loaded_slices ({', '.join(_COLUMNS)}) "  # noqa: S608  # names of our own
    f"SELECT * FROM unnest({', '.join(f'%s::{of}[]' for of in _COLUMNS.values())})"
)

_FIGURES = list(_COLUMNS)[2:]
_SAME = (
    f"SELECT bucket_5m, symbol FROM unnest({', '.join(f'%s::{of}[]' for of in _COLUMNS.values())}) AS ticks ({', '.join(_COLUMNS)}) "  # noqa: S608
    "JOIN market_data.loaded_slices AS record USING (bucket_5m, symbol) "
    f"WHERE ({', '.join(f'ticks.{name}' for name in _FIGURES)}) = ({', '.join(f'record.{name}' for name in _FIGURES)})"
)

Columns = list[list[object]]  # of `_COLUMNS`


def describe_slices(ticks: pa.Table) -> Columns:
    """What there is to record of ticks, for each slice and symbol.

    Args:
        ticks: in the order of the table's key; a slice is in it completely.
    """
    if not len(ticks):
        return [[] for _ in _COLUMNS]
    starts = first_of_slices(ticks)
    ends = np.append(starts[1:], len(ticks)) - 1
    ids = ticks["trade_id"].to_numpy()
    market, price, quantity = _market(ticks), units(ticks["price"]), units(ticks["quantity"])
    if market is not None:
        quantity = quantity.where(market)
    bought = quantity.where(~ticks["is_market_maker"].to_numpy())
    volumes: list[Units] = [
        sums(quantity, starts), product_sums(price, quantity, starts), sums(bought, starts), product_sums(price, bought, starts)
    ]  # fmt: skip
    counts = ends - starts + 1
    return [
        ticks["bucket_5m"].take(starts).to_pylist(),
        ticks["symbol"].take(starts).to_pylist(),
        counts.tolist(),
        ids[starts].tolist(),
        ids[ends].tolist(),
        np.bitwise_xor.reduceat(ids, starts).tolist(),
        (counts if market is None else np.add.reduceat(market.astype(np.int64), starts)).tolist(),
        *(list[object](volume.decimals()) for volume in volumes),
    ]


def _market(ticks: pa.Table) -> np.ndarray | None:
    """Which ticks are part of the market; None if all are."""
    kind = ticks["trade_kind"]
    return None if kind.null_count == len(kind) else pc.fill_null(pc.equal(kind, MARKET), True).to_numpy()


def read_same_slices(cursor: psycopg.Cursor, described: Columns) -> set[tuple[datetime, str]]:
    """Slices, each with a symbol, whose record is what is described by `describe_slices`."""
    return set(cursor.execute(_SAME, described)) if described[0] else set()


def record_slices(cursor: psycopg.Cursor, window: Window, described: Columns, kept_symbols: Sequence[str] = ()) -> None:
    """Record what was written into a window, in the transaction that wrote it.

    Args:
        cursor: in that transaction.
        window: the slices that were replaced.
        described: by `describe_slices`.
        kept_symbols: symbols of which nothing was replaced; their records stay.
    """
    cursor.execute(_CLEAR, (window.start, window.end, list(kept_symbols)))
    if described[0]:
        cursor.execute(_INSERT, described)


# Slices that a former release loaded, or loaded again since; and ticks that were never registered.
_UNRECORDED = """
SELECT blob.bucket_5m FROM landing.raw_blobs_5m AS blob
LEFT JOIN market_data.loaded_slices AS record ON record.bucket_5m = blob.bucket_5m AND record.symbol = blob.asset
WHERE blob.bucket_5m >= %(start)s AND blob.bucket_5m < %(end)s AND blob.loaded_rows > 0
    AND (record.loaded_at IS NULL OR record.loaded_at < blob.loaded_at)
UNION
SELECT bucket FROM generate_series(%(start)s, %(last)s, interval '5 minutes') AS bucket
WHERE NOT EXISTS (SELECT FROM market_data.loaded_slices WHERE bucket_5m = bucket)
    AND EXISTS (SELECT FROM market_data.btc_ticks WHERE bucket_5m = bucket AND bucket_5m >= %(start)s AND bucket_5m < %(end)s)
ORDER BY 1
"""


def read_unrecorded(connection: psycopg.Connection, window: Window) -> list[datetime]:
    """Slices of a window of which the record does not say what was loaded last: their ticks must be read."""
    with server_errors(), connection.transaction():
        rows = connection.execute(_UNRECORDED, {"start": window.start, "end": window.end, "last": window.end - SLICE}).fetchall()
    return [bucket for (bucket,) in rows]


# Each product is computed once. The planner shares the pass among processes: nothing in it may be unsafe for that.
_DIFFERENCES = """
SELECT bucket_5m, symbol, stored.ticks, stored.bought + stored.sold, stored.bought_for + stored.sold_for,
       record.ticks, record.volume, record.quote_volume
FROM (
    SELECT bucket_5m, symbol, count(*) AS ticks, min(trade_id) AS first, max(trade_id) AS last, bit_xor(trade_id) AS ids,
           count(*) FILTER (WHERE market_data.is_market_trade(trade_kind)) AS trades,
           coalesce(sum(quantity) FILTER (WHERE NOT is_market_maker AND market_data.is_market_trade(trade_kind)), 0) AS bought,
           coalesce(sum(quantity) FILTER (WHERE is_market_maker AND market_data.is_market_trade(trade_kind)), 0) AS sold,
           coalesce(sum(price * quantity) FILTER (WHERE NOT is_market_maker AND market_data.is_market_trade(trade_kind)), 0) AS bought_for,
           coalesce(sum(price * quantity) FILTER (WHERE is_market_maker AND market_data.is_market_trade(trade_kind)), 0) AS sold_for
    FROM market_data.btc_ticks WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s GROUP BY bucket_5m, symbol
) AS stored
FULL JOIN (SELECT * FROM market_data.loaded_slices WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s) AS record
USING (bucket_5m, symbol)
WHERE (stored.ticks, first, last, ids, trades, bought + sold, bought_for + sold_for, bought, bought_for) IS DISTINCT FROM (
    record.ticks, first_trade_id, last_trade_id, trade_ids_xor, market_trades, volume, quote_volume, taker_buy_volume, taker_buy_quote_volume
)
ORDER BY 1, 2
"""


# Days of a window that nobody analyzed since they were made, as a load leaves them.
_WITHOUT_STATISTICS = """
SELECT name FROM ops.chunks('market_data.btc_ticks') JOIN pg_class ON pg_class.oid = to_regclass(name)
WHERE range_start < %s AND range_end > %s AND reltuples < 0
"""


def _sample(connection: psycopg.Connection, window: Window) -> None:
    """Tell the planner how many ticks and slices the days of a window have, from 3,000 rows each, unless it knows or may not be told.

    It takes a new day for a handful of rows otherwise, and does not share the pass over millions among processes.
    """
    for (name,) in connection.execute(_WITHOUT_STATISTICS, (window.end, window.start)).fetchall():
        with suppress(psycopg.errors.LockNotAvailable), connection.transaction():
            connection.execute("SET LOCAL lock_timeout = '1s'")
            connection.execute("SET LOCAL default_statistics_target = 10")
            connection.execute(f"ANALYZE {name} (bucket_5m, symbol)")  # ops.chunks quotes it; a role that may not only gets a warning


def read_record_differences(connection: psycopg.Connection, window: Window) -> list[tuple[datetime, str, str]]:
    """Slices and symbols of which the table of ticks holds something else than was loaded, each with a sentence.

    One pass over the ticks. A slice without a record is among them; one whose ticks retention has dropped is not.
    """
    with server_errors():
        _sample(connection, window)
    with server_errors(), connection.transaction():
        connection.execute("SET LOCAL jit = off")  # compiling takes longer than it saves
        rows = connection.execute(_DIFFERENCES, {"start": window.start, "end": window.end}).fetchall()
        (horizon,) = only_row(connection.execute("SELECT nullif(ops.drop_horizon('market_data.btc_ticks'), '-infinity')"))
    return [
        (
            bucket,
            symbol,
            f"{symbol} {bucket:{KEY_FORMAT}}: {ticks or 0} ticks of volume {volume or 0:f} and value {value or 0:f} in the table, "
            f"{loaded or 0}, {loaded_volume or 0:f} and {loaded_value or 0:f} were loaded",
        )
        for bucket, symbol, ticks, volume, value, loaded, loaded_volume, loaded_value in rows
        if not (ticks is None and horizon and bucket < horizon)
    ]
