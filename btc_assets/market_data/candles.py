"""Candles: the intervals, and refreshing them for a window of slices.

How a candle is put together from partial candles is told in the engine's candles migration under `sql/`.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import psycopg

from btc_assets.domain.errors import TransientError, UserError
from btc_assets.domain.settings import Settings
from btc_assets.domain.slices import SLICE, Window
from btc_assets.ingestion.due import clearing_due_marks
from btc_assets.market_data.keys import candles_key
from btc_assets.store.errors import server_errors

# Each is made of the one before it, so they are refreshed in this order.
INTERVALS = {
    "1s": timedelta(seconds=1),
    "30s": timedelta(seconds=30),
    "1m": timedelta(minutes=1),
    "5m": timedelta(minutes=5),
    "1h": timedelta(hours=1),
    "1d": timedelta(days=1),
}

# Made of ticks, and only where BTC_ASSETS_CANDLES_100MS is set.
OPTIONAL_INTERVALS = {"100ms": timedelta(milliseconds=100)}
WIDTHS = OPTIONAL_INTERVALS | INTERVALS

_REFRESH_ATTEMPTS = 60  # a second apart

COLUMNS = (
    "bucket", "bucket_5m", "symbol", "open", "high", "low", "close", "volume", "quote_volume", "trade_count",
    "taker_buy_volume", "taker_buy_quote_volume", "first_trade_id", "last_trade_id",
)  # fmt: skip


def enabled_intervals(settings: Settings) -> tuple[str, ...]:
    """The intervals that a store with these settings keeps, in the order in which they are refreshed."""
    return (*(OPTIONAL_INTERVALS if settings.candles_100ms else ()), *INTERVALS)


def interval_below(interval: str) -> str | None:
    """The interval that `interval` is made of; None where it is made of ticks."""
    names = list(INTERVALS)
    position = names.index(interval) if interval in INTERVALS else 0
    return names[position - 1] if position else None


def create_optional_candles(connection: psycopg.Connection) -> None:
    """Make what the optional candles are kept in, unless it is there."""
    with server_errors(), connection.transaction():
        for interval, width in OPTIONAL_INTERVALS.items():
            connection.execute("CALL market_data.create_candles(%s, %s)", (interval, width))


def refresh_candles(connection: psycopg.Connection, interval: str, window: Window) -> int:
    """Make the candles again that the ticks of `window` add to; commits day by day.

    Args:
        connection: to the store, in autocommit and not inside a transaction, because TimescaleDB commits as it refreshes.
        interval: a key of `WIDTHS`; the one below it must be fresh.
        window: slices (of event time) whose ticks changed.

    Returns:
        Number of partial candles in the window now.

    Raises:
        UserError: ticks of the window were dropped since they were loaded; nothing was changed.
    """
    with server_errors():
        row = connection.execute("SELECT market_data.dropped_ticks(%s, %s)", (window.start, window.end)).fetchone()
        if row and row[0]:
            raise UserError(
                f"Candles of {interval} cannot be made again from {window}: {row[0]}. Leave that range out, or load its ticks again first "
                "(btc-assets load)."
            )
        lower = interval_below(interval)
        with clearing_due_marks(connection, candles_key(interval), window, below=candles_key(lower) if lower else None):
            return sum(_refresh_day(connection, interval, day) for day in window.days())


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
        except psycopg.errors.LockNotAvailable:  # a policy of TimescaleDB's refreshes the same window
            if attempt + 1 < _REFRESH_ATTEMPTS:
                time.sleep(1)
        finally:
            if not connection.closed:
                connection.execute("SELECT pg_advisory_unlock_all()")  # where it failed half-way
    raise TransientError(
        f"Candles of {interval}, {day}, are being refreshed by another process without end: look at ops status, and repeat."
    )


def outdated(connection: psycopg.Connection, window: Window) -> list[str]:
    """Where candles differ, in any figure, from the ticks or candles that they are made of: a sentence for each interval that does."""
    with server_errors(), connection.transaction():
        rows = connection.execute(
            "SELECT market_data.outdated_candles(name, %s, %s) FROM market_data.candle_levels ORDER BY width", (window.start, window.end)
        ).fetchall()
    return [sentence for (sentence,) in rows if sentence]


def read_candles(connection: psycopg.Connection, interval: str, symbol: str, window: Window) -> list[tuple[Any, ...]]:
    """The candles of a symbol that start in `window`, as rows of `COLUMNS`, ascending."""
    with server_errors(), connection.transaction():
        return connection.execute(
            f"SELECT {', '.join(COLUMNS)} FROM market_data.candles_{interval} "  # noqa: S608  # both are our own constants
            "WHERE symbol = %s AND bucket >= %s AND bucket < %s ORDER BY bucket",
            (symbol, window.start, window.end),
        ).fetchall()


def read_candle_differences(connection: psycopg.Connection, interval: str, window: Window) -> list[str]:
    """Where the candles of a window do not hold exactly the trades, volume and value of its ticks, a sentence each.

    Candles of which ticks are old enough to have been dropped stand for themselves, also where some of them landed again.

    Compared by the window of event time whose ticks they are, so that trades reported late count on both sides; for
    intervals above a slice the window is rounded outwards to them.
    """
    step = max(WIDTHS[interval], SLICE)
    whole = window.widened_to(step)
    rows = connection.execute(
        """
        SELECT tick_bucket, symbol, ticks.trades, ticks.volume, ticks.value, candles.trades, candles.volume, candles.value
        FROM (
            SELECT date_bin(%(step)s, bucket_5m, '1970-01-01 00:00:00+00') AS tick_bucket, symbol,
                   count(*) AS trades, sum(quantity) AS volume, sum(price * quantity) AS value,
                   coalesce(sum(price * quantity) FILTER (WHERE NOT is_market_maker), 0) AS bought
            FROM market_data.btc_ticks WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s GROUP BY 1, 2
        ) AS ticks
        FULL JOIN (
            SELECT tick_bucket, symbol, sum(trade_count) AS trades, sum(volume) AS volume, sum(quote_volume) AS value,
                   sum(taker_buy_quote_volume) AS bought
            FROM market_data.candle_partials_{} WHERE tick_bucket >= %(start)s AND tick_bucket < %(end)s GROUP BY 1, 2
        ) AS candles USING (tick_bucket, symbol)
        WHERE (ticks.trades, ticks.volume, ticks.value, ticks.bought)
            IS DISTINCT FROM (candles.trades, candles.volume, candles.value, candles.bought)
            AND NOT (tick_bucket < ops.drop_horizon('market_data.btc_ticks')
                     AND (ticks.trades IS NULL OR market_data.dropped_ticks(tick_bucket, tick_bucket + %(step)s) IS NOT NULL))
        ORDER BY 1, 2
        """.replace("{}", interval),  # a key of INTERVALS
        {"step": step, "start": whole.start, "end": whole.end},
    ).fetchall()
    return [
        f"{symbol} {bucket:%Y-%m-%dT%H:%MZ}: {ticks or 0} ticks of volume {volume or 0} and value {value or 0}, "
        f"candles of {trades or 0}, {candle_volume or 0} and {candle_value or 0}"
        for bucket, symbol, ticks, volume, value, trades, candle_volume, candle_value in rows
    ]
