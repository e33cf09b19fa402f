"""What a store holds, looked up once for each session of a researcher: its symbols and the candles that it keeps."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from datetime import timedelta

from btc_assets.client.ranges import TimeRange, format_moment
from btc_assets.domain.errors import UserError
from btc_assets.market_data.candles import read_levels
from btc_assets.market_data.symbols import StoredSymbol, read_symbols
from btc_assets.store.database import Store


def as_symbols(symbols: object) -> list[str]:
    """One symbol or several, as a list without repetitions, by label.

    Raises:
        UserError: something else is given.
    """
    found = [symbols] if isinstance(symbols, str | bytes) or not isinstance(symbols, Iterable) else list(symbols)
    if wrong := [one for one in found if not isinstance(one, str)]:
        raise UserError(f"{wrong[0]!r} is no symbol: name one by its label, such as 'BTCUSDT'.")
    return sorted({str(one) for one in found})


class Catalog:
    """Symbols and candle intervals of a store; threads may share it.

    What it knows may be out of date, so it looks again before it says that something is not there.

    Args:
        store: the store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._symbols: dict[str, StoredSymbol] = {}
        self._levels: dict[str, timedelta] | None = None

    def symbols(self) -> list[StoredSymbol]:
        """The symbols as they are now."""
        with self._store.connect() as connection:
            found = read_symbols(connection) or read_symbols(connection, registry=True)
        with self._lock:
            self._symbols |= {one.symbol: one for one in found}
        return found

    def levels(self) -> dict[str, timedelta]:
        """The candle intervals that the store keeps, the shortest first."""
        with self._lock:
            if self._levels is None:
                with self._store.connect() as connection:
                    self._levels = read_levels(connection)
            return self._levels

    def require(self, symbols: Sequence[str], range: TimeRange | None = None) -> None:
        """Make sure that the store holds the symbols, and that a range does not end before they begin.

        Raises:
            UserError: it does not hold one of them, or all of the range lies before its first tick.
        """
        if not symbols:
            raise UserError("No symbol is named: name at least one.")
        as_symbols(symbols)
        if not self._holds(symbols, range):
            self.symbols()
        if not self._holds(symbols, range):
            with self._store.connect() as connection:
                found = read_symbols(connection, registry=True)
            with self._lock:
                self._symbols = {one.symbol: _widest(one, self._symbols.get(one.symbol)) for one in found} | {
                    name: one for name, one in self._symbols.items() if name not in {each.symbol for each in found}
                }
        if unknown := [symbol for symbol in symbols if symbol not in self._symbols]:
            known = f"name one of {', '.join(sorted(self._symbols))}" if self._symbols else "load ticks first (btc-assets load)"
            raise UserError(f"There is no symbol {unknown[0]!r} in this store: {known}.")
        if range and not self._holds(symbols, range):
            first = min(self._symbols[symbol].first for symbol in symbols)
            raise UserError(
                f"The range from {range} lies before the first tick of {', '.join(symbols)} at {format_moment(first)}: name a later one."
            )

    def end(self, symbol: str) -> StoredSymbol:
        """A symbol as it is now, with the end of its last slice."""
        self.symbols()
        self.require([symbol])
        return self._symbols[symbol]

    def _holds(self, symbols: Sequence[str], range: TimeRange | None) -> bool:
        known = [self._symbols.get(symbol) for symbol in symbols]
        return all(known) and (range is None or any(one.first < range.end for one in known if one))


def _widest(one: StoredSymbol, other: StoredSymbol | None) -> StoredSymbol:
    if other is None:
        return one
    return StoredSymbol(one.symbol, min(one.first, other.first), max(one.end, other.end), one.slices, one.ticks)
