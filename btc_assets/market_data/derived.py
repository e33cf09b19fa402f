"""What else a load makes of the ticks of a part while they are in memory, and commits with them: candles, features.

Parts hold whole slices of all symbols, so whatever is made of single slices is exact. Rooms above this one hand theirs in through
`LoadOptions`, because `market_data` imports nothing of them.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import psycopg
import pyarrow as pa

from btc_assets.domain.slices import Window
from btc_assets.ingestion.due import mark_due, settle
from btc_assets.store.encode import EncodedRows, encode_rows
from btc_assets.store.errors import server_errors
from btc_assets.store.replace import CreatedAt, replace_rows
from btc_assets.store.tables import Target


@dataclass(frozen=True)
class Part:
    """Slices that are loaded together.

    Attributes:
        window: the slices.
        ticks: all rows that the table will hold of them, in the order of its key; none of `kept_symbols`.
        loaded: slices, each with a symbol, that something is loaded for, even if that holds no tick.
        kept_symbols: symbols of which nothing is replaced.
    """

    window: Window
    ticks: pa.Table
    loaded: Collection[tuple[datetime, str]]
    kept_symbols: Sequence[str] = ()


class Maker(ABC):
    """Makes rows of the ticks of parts, in the thread that prepares them.

    Args:
        name: of what is made, for people.
        assets: keys of the assets whose slices are made by it.
        targets: the tables that it writes.
        weight: how many ticks take as much memory as what is made of one slice and symbol.

    Attributes:
        created_at: how the tables keep that column, if they have it.
    """

    created_at: CreatedAt | None = None

    def __init__(self, name: str, assets: Sequence[str], targets: Sequence[Target], *, weight: int = 0) -> None:
        self.name, self.assets, self.targets, self.weight = name, assets, targets, weight

    @abstractmethod
    def make(self, part: Part) -> Sequence[pa.Table] | None:
        """The rows of each table; None if something else has to make them, this time."""

    @abstractmethod
    def lock(self, cursor: psycopg.Cursor) -> None:
        """Keep others from writing these tables until the transaction ends. The slices of the ticks are locked already."""


class Derivation(Protocol):
    """Something that may be made of ticks."""

    def open(self, connection: psycopg.Connection) -> Maker | None:
        """What makes it in this store; None if something else has to."""


@dataclass
class Makers:
    """All that is made of the ticks of a load.

    Attributes:
        seconds: spent for each, in all threads together.
    """

    makers: Sequence[Maker] = ()
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _counting: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __bool__(self) -> bool:
        """Whether anything is made."""
        return bool(self.makers)

    @classmethod
    def open(cls, derivations: Sequence[Derivation], connection: psycopg.Connection) -> Makers:
        """Those that make something in this store."""
        with server_errors():
            found = [derivation.open(connection) for derivation in derivations]
        return cls([maker for maker in found if maker])

    @property
    def weight(self) -> int:
        """How many ticks take as much memory as what is made of one slice and symbol."""
        return sum(maker.weight for maker in self.makers)

    def make(self, part: Part) -> DerivedRows:
        """What is written with the ticks of a part, encoded."""
        encoded: list[tuple[Maker, list[EncodedRows]]] = []
        for maker in self.makers:
            with self._timed(maker):
                made = maker.make(part)
                if made is not None:
                    encoded.append((maker, [encode_rows(rows, target) for rows, target in zip(made, maker.targets, strict=True)]))
        return DerivedRows(self, part.window, part.kept_symbols, encoded)

    def write(self, cursor: psycopg.Cursor, rows: DerivedRows) -> None:
        """Replace the rows of the part, in the transaction that replaces its ticks."""
        for maker, of_maker in rows.encoded:
            with self._timed(maker):
                maker.lock(cursor)
                for target, encoded in zip(maker.targets, of_maker, strict=True):
                    replace_rows(cursor, target, rows.window, encoded, rows.kept_symbols, maker.created_at)

    def mark(self, cursor: psycopg.Cursor, followers: Sequence[str], rows: DerivedRows) -> None:
        """Mark the part due for the followers of ticks that were not made, and no longer due for those that were.

        A slice that was due before stays so if it holds symbols of which nothing is replaced: it may be due because of them.
        """
        made = [asset for maker, _ in rows.encoded for asset in maker.assets]
        mark_due(cursor, [asset for asset in followers if asset not in made], rows.window)
        if not rows.kept_symbols:
            settle(cursor, made, rows.window)

    @contextmanager
    def _timed(self, maker: Maker) -> Iterator[None]:
        started = time.perf_counter()
        yield
        with self._counting:
            self.seconds[maker.name] += time.perf_counter() - started


@dataclass(frozen=True)
class DerivedRows:
    """What was made of the ticks of a part: for each maker that made something, the rows of each of its tables."""

    makers: Makers
    window: Window
    kept_symbols: Sequence[str]
    encoded: Sequence[tuple[Maker, Sequence[EncodedRows]]] = field(repr=False)

    def write(self, cursor: psycopg.Cursor) -> None:
        """See `Makers.write`."""
        self.makers.write(cursor, self)

    def mark(self, cursor: psycopg.Cursor, followers: Sequence[str]) -> None:
        """See `Makers.mark`."""
        self.makers.mark(cursor, followers, self)
