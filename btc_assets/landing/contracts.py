"""Coins or contracts: a quantity in contracts would be taken for coins, and every volume made of it would be wrong.

An inverse contract is worth an amount of the quote currency, such as 100 USD. Its dumps tell coins as `base_qty` beside the contracts in
`qty`. Dumps of other markets tell `quote_qty`, which is price times quantity, so that one can be checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from decimal import Decimal
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from btc_assets.domain.feeds import Feed
from btc_assets.landing.convert import plain_array, python_value
from btc_assets.landing.raw import ObjectRejected

BASE_QUANTITIES = ("base_qty", "baseQty")  # names of columns of coins
QUOTE_QUANTITIES = ("quote_qty", "quoteQty")  # names of columns of price times quantity

_SAMPLE = 200  # rows of a table that are looked at
_TOLERANCE = Decimal("0.01")  # a product is rounded, but never by so much; contracts are wrong by a factor


class _Trade(NamedTuple):
    price: Decimal
    quantity: Decimal
    product: Decimal


def require_coins(raw: pa.Table, price: pa.Array, quantity: pa.Array, usable: np.ndarray) -> None:
    """Raise ObjectRejected if a column that should hold price times quantity holds something else in most rows.

    Args:
        raw: rows as they landed, of one object.
        price: of each row.
        quantity: of each row.
        usable: which rows have both.
    """
    for name in set(QUOTE_QUANTITIES) & set(raw.column_names):
        trades = _sample(plain_array(raw[name]), price, quantity, np.flatnonzero(usable))
        if len(trades) > 1 and len({trade.product for trade in trades}) == 1:
            continue  # it is filled with one value, which tells nothing
        if 2 * sum(_is_product(trade) for trade in trades) >= len(trades):
            continue
        size = _contract_size(trades)
        if size is not None:
            raise ObjectRejected(
                f"its quantities are contracts of {size:f} of an inverse contract, and its column {name} (the fourth, without a header line) "
                "holds their coins: add a header line in which that column is base_qty"
            )
        raise ObjectRejected(
            f"its column {name} (the fourth, without a header line) is not price times quantity, so the quantities may be contracts: "
            "name the column of coins base_qty in the header line, or correct it"
        )


def reject_contracts(feeds: Sequence[Feed], columns: Sequence[str]) -> frozenset[str]:
    """The labels of feeds whose quantities are contracts, if no column tells the coins.

    Raises:
        ObjectRejected: these are all feeds.
    """
    inverse = frozenset(feed.label for feed in feeds if feed.is_inverse)
    if not inverse or set(BASE_QUANTITIES) & set(columns):
        return frozenset()
    if len(inverse) == len(feeds):
        raise ObjectRejected(
            f"the quantities of {', '.join(sorted(inverse))} are contracts of an inverse contract, and no column base_qty tells their coins: "
            "land it with that column, as in the exchange's dumps"
        )
    return inverse


def _sample(product: pa.Array, price: pa.Array, quantity: pa.Array, rows: np.ndarray) -> list[_Trade]:
    trades = []
    for i in rows[:: max(len(rows) // _SAMPLE, 1)].tolist():
        with suppress(ArithmeticError):  # it is no number, and nobody asked for it
            value = Decimal(str(python_value(product[i])).strip()[:40])
            if value.is_finite():
                trades.append(_Trade(price[i].as_py(), quantity[i].as_py(), value))
    return trades


def _is_product(trade: _Trade) -> bool:
    last_place = Decimal(1).scaleb(min(int(trade.product.as_tuple().exponent), 0))
    return abs(trade.price * trade.quantity - trade.product) <= last_place + _TOLERANCE * abs(trade.product)


def _contract_size(trades: Sequence[_Trade]) -> Decimal | None:
    """The size of the contract, rounded to a plain number, if the products are coins of contracts of one size; else None."""
    sizes = sorted(trade.product * trade.price / trade.quantity for trade in trades)
    middle = sizes[len(sizes) // 2]
    if middle <= 0:
        return None
    size = Decimal(f"{middle:.2g}").normalize()
    near = sum(
        abs(each - size) <= _TOLERANCE * size + trade.price / trade.quantity * Decimal("1e-8")
        for each, trade in zip((trade.product * trade.price / trade.quantity for trade in trades), trades, strict=True)
    )
    return size if 2 * near > len(trades) and 1 <= size <= 100_000 else None
