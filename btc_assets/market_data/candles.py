"""Candles: their intervals, refreshing them for a window of slices, reading them, and comparing them with their ticks.

How a candle is merged from partial candles is described in the engine's candles migration under `sql/`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import sql

from btc_assets.domain.errors import TransientError, UserError
from btc_assets.domain.settings import Settings
from btc_assets.domain.slices import KEY_FORMAT, SLICE, Window, floor_day
from btc_assets.ingestion.due import clearing_due_marks, read_due_windows
from btc_assets.market_data.keys import candles_key
from btc_assets.market_data.refresh_ahead import refresh_ahead
from btc_assets.market_data.slice_records import read_unrecorded
from btc_assets.store.database import Store, identifier, only_row
from btc_assets.store.errors import server_errors

# Each interval is built from the one before it, so they are refreshed in this order.
INTERVALS = {
    "1s": timedelta(seconds=1),
    "30s": timedelta(seconds=30),
    "1m": timedelta(minutes=1),
    "5m": timedelta(minutes=5),
    "1h": timedelta(hours=1),
    "1d": timedelta(days=1),
}

# Built from ticks, and only if BTC_ASSETS_CANDLES_100MS is set.
OPTIONAL_INTERVALS = {"100ms": timedelta(milliseconds=100)}
WIDTHS = OPTIONAL_INTERVALS | INTERVALS

_REFRESH_ATTEMPTS = 60  # a second apart

COLUMNS = (
    "bucket", "bucket_5m", "symbol", "open", "high", "low", "close", "volume", "quote_volume", "trade_count",
    "taker_buy_volume", "taker_buy_quote_volume", "first_trade_id", "last_trade_id",
)  # fmt: skip


# What both statements below compare their ticks with, so that they can never mean different candles.
_DIFFER_FROM_CANDLES = """
FULL JOIN (
    SELECT tick_bucket, symbol, sum(trade_count) AS trades, sum(volume) AS volume, sum(quote_volume) AS value,
           sum(taker_buy_volume) AS bought, sum(taker_buy_quote_volume) AS bought_for
    FROM market_data.candle_partials_{} WHERE tick_bucket >= %(start)s AND tick_bucket < %(end)s GROUP BY 1, 2
) AS candles USING (tick_bucket, symbol)
WHERE (ticks.trades, ticks.volume, ticks.value, ticks.bought, ticks.bought_for)
    IS DISTINCT FROM (candles.trades, candles.volume, candles.value, candles.bought, candles.bought_for)
"""

_DIFFERENCES = """
SELECT tick_bucket, symbol, ticks.trades, ticks.volume, ticks.value, candles.trades, candles.volume, candles.value
FROM (
    SELECT date_bin(%(step)s, bucket_5m, '1970-01-01 00:00:00+00') AS tick_bucket, symbol,
           count(*) AS trades, sum(quantity) AS volume, sum(price * quantity) AS value,
           coalesce(sum(quantity) FILTER (WHERE NOT is_market_maker), 0) AS bought,
           coalesce(sum(price * quantity) FILTER (WHERE NOT is_market_maker), 0) AS bought_for
    FROM market_data.btc_ticks WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s AND market_data.is_market_trade(trade_kind)
    GROUP BY 1, 2
) AS ticks
{candles}
    AND NOT (tick_bucket < ops.drop_horizon('market_data.btc_ticks')
             AND (ticks.trades IS NULL OR market_data.dropped_ticks(tick_bucket, tick_bucket + %(step)s) IS NOT NULL))
ORDER BY 1, 2
"""

# Where the same candles differ from what the loads recorded of their slices.
_RECORD_DIFFERENCES = """
SELECT min(tick_bucket), max(tick_bucket)
FROM (
    SELECT date_bin(%(step)s, bucket_5m, '1970-01-01 00:00:00+00') AS tick_bucket, symbol,
           sum(market_trades) AS trades, sum(volume) AS volume, sum(quote_volume) AS value,
           sum(taker_buy_volume) AS bought, sum(taker_buy_quote_volume) AS bought_for
    FROM market_data.loaded_slices WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s
    GROUP BY 1, 2 HAVING sum(market_trades) > 0
) AS ticks
{candles}
"""


def enabled_intervals(settings: Settings) -> tuple[str, ...]:
    """The intervals that a store with these settings keeps, in the order in which they are refreshed."""
    return (*(OPTIONAL_INTERVALS if settings.candles_100ms else ()), *INTERVALS)


def read_levels(connection: psycopg.Connection) -> dict[str, timedelta]:
    """The intervals whose candles a store keeps, the shortest first."""
    with server_errors(), connection.transaction():
        return dict(connection.execute("SELECT name, width FROM market_data.candle_levels ORDER BY width").fetchall())


def interval_below(interval: str) -> str | None:
    """The interval that `interval` is built from; None if it is built from ticks."""
    names = list(INTERVALS)
    position = names.index(interval) if interval in INTERVALS else 0
    return names[position - 1] if position else None


def create_optional_candles(connection: psycopg.Connection) -> None:
    """Create the tables or views of the optional candles, unless they exist."""
    with server_errors(), connection.transaction():
        for interval, width in OPTIONAL_INTERVALS.items():
            connection.execute("CALL market_data.create_candles(%s, %s)", (interval, width))


def refresh_candles(connection: psycopg.Connection, interval: str, window: Window, store: Store | None = None) -> int:
    """Rebuild the candles that the ticks of `window` belong to; commits day by day.

    Args:
        connection: to the store, in autocommit mode and not inside a transaction, because TimescaleDB commits as it refreshes.
        interval: a key of `WIDTHS`; the interval below it must be up to date.
        window: slices (of event time) whose ticks changed.
        store: opens other sessions that help, if they can and if it is worth it; None: none may.

    Returns:
        Number of partial candles in the window.

    Raises:
        UserError: ticks of the window were dropped since they were loaded, or the database has no such candles; nothing was changed.
        TransientError: another process refreshes the window and does not end.
    """
    with server_errors():
        row = connection.execute("SELECT market_data.dropped_ticks(%s, %s)", (window.start, window.end)).fetchone()
        if row and row[0]:
            raise UserError(
                f"Candles of {interval} cannot be rebuilt for {window}: {row[0]}. Leave that range out, or load its ticks again first "
                "(btc-assets load)."
            )
        lower = interval_below(interval)
        with clearing_due_marks(connection, candles_key(interval), window, below=candles_key(lower) if lower else None):
            if store and not lower:
                refresh_ahead(store, connection, interval, window)
            return sum(_refresh_day(connection, interval, day) for day in window.days())


def refresh_due_candles(connection: psycopg.Connection, interval: str, window: Window, store: Store | None = None) -> int:
    """Rebuild the candles of those slices of a window that are due: what a load of the same window did not make itself.

    Arguments, result and errors are those of `refresh_candles`; the result counts what was rebuilt.
    """
    due = read_due_windows(connection, candles_key(interval), window)
    return sum(refresh_candles(connection, interval, some, store) for some in due)


def _refresh_day(connection: psycopg.Connection, interval: str, day: Window) -> int:
    for attempt in range(_REFRESH_ATTEMPTS):
        try:
            row = connection.execute("CALL market_data.refresh_candles(%s, %s, %s)", (interval, day.start, day.end)).fetchone()
            assert row is not None
            return row[0]
        except psycopg.errors.NoDataFound:
            raise UserError(
                f"There are no candles of {interval} in this database: run btc-assets db migrate with the same settings."
            ) from None
        except psycopg.errors.LockNotAvailable:  # a refresh policy of TimescaleDB is at the same window
            if attempt + 1 < _REFRESH_ATTEMPTS:
                time.sleep(1)
        finally:
            if not connection.closed:
                connection.execute("SELECT pg_advisory_unlock_all()")  # a refresh that failed half-way leaves them
    raise TransientError(
        f"Candles of {interval}, {day}, are still being refreshed by another process: look at btc-assets ops status, and run it again."
    )


def find_outdated_candles(connection: psycopg.Connection, window: Window) -> list[str]:
    """A sentence for each interval with candles that differ, in any figure, from the ticks or candles that they are built from."""
    with server_errors(), connection.transaction():
        rows = connection.execute(
            "SELECT market_data.outdated_candles(name, %s, %s) FROM market_data.candle_levels ORDER BY width", (window.start, window.end)
        ).fetchall()
    return [sentence for (sentence,) in rows if sentence]


def read_candles_of(
    connection: psycopg.Connection, interval: str, symbols: Sequence[str], window: Window
) -> dict[str, list[tuple[Any, ...]]]:
    """The candles of symbols that start in `window`: rows of `COLUMNS`, ascending."""
    found: dict[str, list[tuple[Any, ...]]] = {symbol: [] for symbol in symbols}
    with server_errors(), connection.transaction():
        rows = connection.execute(
            f"SELECT symbol, {', '.join(COLUMNS)} FROM market_data.candles_{interval} "  # noqa: S608  # names of our own
            "WHERE symbol = ANY(%s) AND bucket >= %s AND bucket < %s ORDER BY bucket",
            (list(symbols), window.start, window.end),
        ).fetchall()
    for symbol, *candle in rows:
        found[symbol].append(tuple(candle))
    return found


# As the view of a level merges the partial candles of each of its candles; here those of a longer one.
_MERGED = """
SELECT {bucket} AS bucket, symbol,
       (array_agg(open ORDER BY first_trade_id))[1] AS open, max(high) AS high, min(low) AS low,
       (array_agg(close ORDER BY last_trade_id DESC))[1] AS close, sum(volume) AS volume, sum(quote_volume) AS quote_volume,
       sum(trade_count)::bigint AS trade_count, sum(taker_buy_volume) AS taker_buy_volume,
       sum(taker_buy_quote_volume) AS taker_buy_quote_volume, min(first_trade_id) AS first_trade_id, max(last_trade_id) AS last_trade_id,
       max(tick_bucket) AS last_reported
FROM {partials}{edges}
WHERE symbol = ANY({symbols}) AND bucket >= {start} AND bucket < {end}
GROUP BY 1, 2 ORDER BY 1, 2 LIMIT {limit}
"""


def merge_candles(
    level: str, width: timedelta | Sequence[datetime], symbols: Sequence[str], start: datetime, end: datetime, limit: int | None = None
) -> sql.Composed:
    """The query of candles that whole candles of a level make up, ordered by `bucket` and symbol.

    Args:
        level: of the candles that are merged.
        width: of the candles, which count from 1970-01-01; or the start of each, and the end of the last.
        symbols: whose candles.
        start, end: from the start of the first candle to the end of the last; both are edges of candles of both kinds.
        limit: at most so many rows; None for all.

    Returns:
        Columns of `COLUMNS` without `bucket_5m`, and `last_reported`: the last `tick_bucket` in which a trade of the candle was reported.
    """
    bucket: sql.Composable
    edges: sql.Composable
    if isinstance(width, timedelta):
        bucket = sql.SQL("date_bin({}, bucket, '1970-01-01 00:00:00+00')").format(width)
        edges = sql.SQL("")
    else:
        bucket = sql.SQL("edges.starts[width_bucket(bucket, edges.starts)]")
        edges = sql.SQL(", (SELECT {}::timestamptz[] AS starts) AS edges").format(list(width))
    partials = identifier(f"market_data.candle_partials_{level}")
    return sql.SQL(_MERGED).format(bucket=bucket, partials=partials, edges=edges, symbols=list(symbols), start=start, end=end, limit=limit)


# From the candles of the same day, or else from those of days.
_CLOSES_BEFORE = """
SELECT symbol, coalesce(
    (SELECT close FROM {partials} AS candle WHERE candle.symbol = asked.symbol AND bucket >= {day} AND bucket < {time}
     ORDER BY bucket DESC, last_trade_id DESC LIMIT 1),
    (SELECT close FROM market_data.candle_partials_1d AS candle WHERE candle.symbol = asked.symbol AND bucket < {day}
     ORDER BY bucket DESC, last_trade_id DESC LIMIT 1)
)
FROM unnest({symbols}::text[]) AS asked (symbol)
"""


def read_closes_before(connection: psycopg.Connection, level: str, symbols: Sequence[str], time: datetime) -> dict[str, Decimal | None]:
    """The last price of each symbol before a time, which is an edge of candles of a level; None if it had not traded yet."""
    query = sql.SQL(_CLOSES_BEFORE).format(
        partials=identifier(f"market_data.candle_partials_{level}"), day=floor_day(time), time=time, symbols=list(symbols)
    )
    with server_errors(), connection.transaction():
        return dict(connection.execute(query).fetchall())


def read_candle_differences(connection: psycopg.Connection, interval: str, window: Window) -> list[str]:
    """A sentence for each slice (or longer interval) of a window whose candles hold other trades, volume or value than its market trades.

    Both are compared by the event time of the ticks, so that trades reported late count on the same side; for intervals above a
    slice the window is rounded outward to them. Candles whose ticks are old enough to have been dropped are not compared, even if
    some of these ticks landed again.
    """
    step = max(WIDTHS[interval], SLICE)
    whole = window.widened_to(step)
    with server_errors(), connection.transaction():
        rows = connection.execute(
            _comparison(_DIFFERENCES, interval),
            {"step": step, "start": whole.start, "end": whole.end},
        ).fetchall()
    return [
        f"{symbol} {bucket:{KEY_FORMAT}}: {ticks or 0} ticks of volume {volume or 0} and value {value or 0}, "
        f"candles of {trades or 0}, {candle_volume or 0} and {candle_value or 0}"
        for bucket, symbol, ticks, volume, value, trades, candle_volume, candle_value in rows
    ]


def find_candle_differences(connection: psycopg.Connection, intervals: Sequence[str], window: Window) -> dict[str, list[str]]:
    """The same for several intervals, without a look at the ticks: candles are compared with what the loads recorded.

    Only where they differ, or a slice has no record, are they compared with the ticks themselves.
    """
    widest = max(max(WIDTHS[interval] for interval in intervals), SLICE)
    unrecorded = read_unrecorded(connection, window.widened_to(widest))
    found = {}
    for interval in intervals:
        step = max(WIDTHS[interval], SLICE)
        whole = window.widened_to(step)
        recorded = not any(bucket in whole for bucket in unrecorded)
        doubtful = _find_doubtful(connection, interval, whole, step) if recorded else whole
        found[interval] = read_candle_differences(connection, interval, doubtful) if doubtful else []
    return found


def _comparison(statement: str, interval: str) -> str:
    """A statement that compares ticks with the candles of an interval, which is a key of `WIDTHS`."""
    return statement.replace("{candles}", _DIFFER_FROM_CANDLES).replace("{}", interval)


def _find_doubtful(connection: psycopg.Connection, interval: str, whole: Window, step: timedelta) -> Window | None:
    """The part of a window, rounded outward to the interval, in which candles differ from what was recorded of their slices."""
    with server_errors(), connection.transaction():
        first, last = only_row(
            connection.execute(
                _comparison(_RECORD_DIFFERENCES, interval),
                {"step": step, "start": whole.start, "end": whole.end},
            )
        )
    return Window(first, last + step) if first else None
