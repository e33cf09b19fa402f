"""What a store holds, looked up once for each session of a researcher: its symbols and the candles that it keeps."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

import psycopg

from btc_assets.client.ranges import TimeRange, format_moment
from btc_assets.domain.errors import UserError
from btc_assets.market_data.candles import read_levels
from btc_assets.market_data.symbols import StoredSymbol, read_reach, read_symbols
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
        self._reach: dict[str, tuple[datetime, datetime]] = {}  # start of the first slice and end of the last, by symbol
        self._levels: dict[str, timedelta] | None = None

    def symbols(self) -> list[StoredSymbol]:
        """The symbols as they are now, with their counts."""
        with self._store.connect() as connection:
            return read_symbols(connection) or read_symbols(connection, registry=True)

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
        for look in (read_reach, _reach_of_slices, _reach_of_registry):
            if self._holds(symbols, range):
                return
            with self._store.connect() as connection:
                self._remember(look(connection))
        if unknown := [symbol for symbol in symbols if symbol not in self._reach]:
            known = f"name one of {', '.join(sorted(self._reach))}" if self._reach else "load ticks first (btc-assets load)"
            raise UserError(f"There is no symbol {unknown[0]!r} in this store: {known}.")
        if range and not self._holds(symbols, range):
            first = min(self._reach[symbol][0] for symbol in symbols)
            raise UserError(
                f"The range from {range} lies before the first tick of {', '.join(symbols)} at {format_moment(first)}: name a later one."
            )

    def labels(self) -> set[str]:
        """All symbols as they are now, by label."""
        with self._store.connect() as connection:
            return set(read_reach(connection) or _reach_of_slices(connection) or _reach_of_registry(connection))

    def ends(self, symbols: Sequence[str]) -> dict[str, datetime]:
        """Where symbols end as they are now: the ends of their last slices.

        Raises:
            UserError: the store does not hold one of them.
        """
        with self._store.connect() as connection:
            self._remember(read_reach(connection))
        self.require(symbols)
        return {symbol: self._reach[symbol][1] for symbol in symbols}

    def _remember(self, found: Mapping[str, tuple[datetime, datetime]]) -> None:
        with self._lock:
            for symbol, (first, end) in found.items():
                before = self._reach.get(symbol, (first, end))
                self._reach[symbol] = min(first, before[0]), max(end, before[1])

    def _holds(self, symbols: Sequence[str], range: TimeRange | None) -> bool:
        known = [self._reach.get(symbol) for symbol in symbols]
        return all(known) and (range is None or any(reach[0] < range.end for reach in known if reach))


def _reach_of_slices(connection: psycopg.Connection) -> dict[str, tuple[datetime, datetime]]:
    return {one.symbol: (one.first, one.end) for one in read_symbols(connection)}


def _reach_of_registry(connection: psycopg.Connection) -> dict[str, tuple[datetime, datetime]]:
    return {one.symbol: (one.first, one.end) for one in read_symbols(connection, registry=True)}
