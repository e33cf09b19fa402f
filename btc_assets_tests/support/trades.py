"""Trades for tests, made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson
import pyarrow as pa
from hypothesis import strategies as st

from btc_assets.domain.slices import Window, floor_slice, to_microseconds
from btc_assets.domain.ticks import DECODED_SCHEMA, TICK_SCHEMA

NOON = datetime(2024, 1, 10, 12, tzinfo=UTC)
HOUR = Window(NOON, NOON + timedelta(hours=1))


def trade(
    trade_id: int,
    at: datetime,
    *,
    price: str = "42000.5",
    quantity: str = "0.25",
    made: datetime | None = None,
    symbol: str = "BTCUSDT",
    maker: bool = False,
    buyer: int | None = None,
    seller: int | None = None,
    kind: str | None = None,
) -> dict[str, object]:
    """One trade in the columns of the store; `made` (trade time) defaults to `at` (event time)."""
    return {
        "bucket_5m": floor_slice(at), "event_time": at, "trade_time": made or at, "symbol": symbol, "trade_id": trade_id,
        "price": Decimal(price), "quantity": Decimal(quantity), "buyer_order_id": buyer, "seller_order_id": seller,
        "is_market_maker": maker, "trade_kind": kind,
    }  # fmt: skip


def table(trades: Sequence[dict[str, object]]) -> pa.Table:
    """Trades as canonical Arrow."""
    return pa.Table.from_pylist(list(trades), schema=TICK_SCHEMA)


def decoded_table(trades: Sequence[dict[str, object]]) -> pa.Table:
    """Trades as decoded; their event time may be None."""
    return pa.Table.from_pylist(list(trades), schema=DECODED_SCHEMA)


def messages(trades: Sequence[dict[str, Any]]) -> bytes:
    """Trades as the exchange's messages, a line each; without `E` if the event time is None."""
    return b"".join(
        orjson.dumps(
            {
                "E": row["event_time"] and to_microseconds(row["event_time"]), "T": to_microseconds(row["trade_time"]), "s": row["symbol"],
                "t": row["trade_id"], "p": str(row["price"]), "q": str(row["quantity"]), "b": row["buyer_order_id"], "X": row["trade_kind"],
                "a": row["seller_order_id"], "m": row["is_market_maker"],
            }
        )
        + b"\n"
        for row in trades
    )  # fmt: skip


def every(seconds: float, count: int, *, start: datetime = NOON, first_id: int = 1) -> pa.Table:
    """`count` trades, one each `seconds`, with contiguous ids and prices that move."""
    return table(
        [
            trade(first_id + i, start + i * timedelta(seconds=seconds), price=f"{42000 + (i * 7) % 50}.{i % 100:02d}", maker=i % 3 == 0)
            for i in range(count)
        ]
    )


def eight_decimals(most: int) -> st.SearchStrategy[Decimal]:
    """Decimals above zero with eight places, short ones as often as long ones."""
    return st.integers(1, most * 10**8).map(lambda n: n * Decimal("1e-8")) | st.integers(1, most * 100).map(lambda n: Decimal(n) / 100)
