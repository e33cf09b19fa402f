"""Comparing a restored copy, to prove that the store can be restored: `btc-assets ops restore-drill`.

The copy is compared with its own registry, which records how many rows each slice was loaded with, and with the live store, whose
slices must be equal unless they were loaded or dropped since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import groupby
from typing import LiteralString, NamedTuple

import psycopg
from psycopg import sql

from btc_assets.backup.digests import checksum, read_digest, stored_columns
from btc_assets.domain.slices import DAY, SLICE, Window, floor_day
from btc_assets.domain.tables import TICKS
from btc_assets.market_data.registry_equality import find_unequal_slices
from btc_assets.store.database import only_row
from btc_assets.store.errors import server_errors
from btc_assets.store.tables import ROOMS

LOADED_SINCE = "loaded since"
DROPPED = "dropped by its policy since"
DAMAGED = "changed, but neither loaded nor dropped by its policy since"

_SLICES: LiteralString = """
SELECT bucket_5m, symbol, coalesce(ticks, 0), coalesce(quantity, 0), coalesce(checksum, '0'), loaded_at
FROM (
    SELECT bucket_5m, symbol, count(*) AS ticks, sum(quantity) AS quantity, {checksum} AS checksum
    FROM market_data.btc_ticks WHERE bucket_5m >= {start} AND bucket_5m < {end} GROUP BY bucket_5m, symbol
) AS stored
FULL JOIN (
    SELECT bucket_5m, asset AS symbol, loaded_at FROM landing.slices WHERE bucket_5m >= {start} AND bucket_5m < {end}
) AS registered USING (bucket_5m, symbol)
"""

_EDGES: LiteralString = """
SELECT least(min(registered), min(stored)), greatest(max(registered), max(stored)) FROM (
    SELECT min(bucket_5m), max(bucket_5m) FROM landing.raw_blobs_5m UNION ALL SELECT min(bucket_5m), max(bucket_5m) FROM market_data.btc_ticks
) AS edges(registered, stored)
"""

# On TimescaleDB, candles are views of tables in its own schema.
_TABLES: LiteralString = """
SELECT format('%%s.%%s', nspname, relname) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE nspname = ANY (%s)
  AND (relkind IN ('r', 'p') AND NOT relispartition OR relkind = 'v' AND relname ~ '^candle_partials_') ORDER BY 1
"""


class _Slice(NamedTuple):
    rows: int
    quantity: Decimal
    checksum: str
    loaded_at: datetime | None  # None if the registry has no load of it

    @property
    def content(self) -> tuple[int, Decimal, str]:
        return self.rows, self.quantity, self.checksum


_NOTHING = _Slice(0, Decimal(0), "0", None)


@dataclass(frozen=True)
class Difference:
    """A slice whose ticks in the restored copy and in the live store differ.

    Attributes:
        bucket_5m, symbol: the slice.
        then, now: its rows in the copy and in the live store.
        why: `LOADED_SINCE`, `DROPPED` or `DAMAGED`.
    """

    bucket_5m: datetime
    symbol: str
    then: int
    now: int
    why: str


@dataclass(frozen=True)
class TableDifference:
    """Number of rows of a table in the copy and in the live store, and whether the rows are equal."""

    table: str
    then: int
    now: int
    equal: bool


@dataclass(frozen=True)
class Comparison:
    """The restored copy compared with its own registry and with the live store.

    Attributes:
        slices, rows: how many slices have ticks in the copy, and how many ticks there are.
        contradictions: slices of the copy that contradict its own registry, a sentence each.
        differences: slices that differ from the live store, by symbol and time.
        tables: every other table.
    """

    slices: int
    rows: int
    contradictions: list[str]
    differences: list[Difference]
    tables: list[TableDifference]

    @property
    def damaged(self) -> list[Difference]:
        """Slices that differ for no reason that the store knows."""
        return [difference for difference in self.differences if difference.why == DAMAGED]


def compare_copy(
    copy: psycopg.Connection, live: psycopg.Connection, progress: Callable[[int, int], None] = lambda done, total: None
) -> Comparison:
    """Compare the copy with its own registry and with the live store, day by day.

    Args:
        copy, live: connections in autocommit mode, with UTC as their time zone.
        progress: called with the number of days compared so far, and of all days.
    """
    slices = rows = 0
    contradictions: list[str] = []
    differences: list[Difference] = []
    with server_errors():
        for connection in (copy, live):
            connection.execute("SET datestyle = 'ISO'")
        (horizon,) = only_row(live.execute("SELECT nullif(ops.drop_horizon(%s), '-infinity')", (TICKS,)))
        days = _days(copy, live)
        for done, day in enumerate(days):
            progress(done, len(days))
            then, now = _read_slices(copy, day), _read_slices(live, day)
            slices += sum(each.rows > 0 for each in then.values())
            rows += sum(each.rows for each in then.values())
            contradictions += [sentence for _, sentence in find_unequal_slices(copy, day, unloaded=False)]
            differences += _differences(then, now, horizon)
        progress(len(days), len(days))
        tables = [_compare_table(copy, live, name) for name in _tables(copy, live)]
    return Comparison(slices, rows, contradictions, sorted(differences, key=lambda each: (each.symbol, each.bucket_5m)), tables)


def _days(*connections: psycopg.Connection) -> list[Window]:
    """The days from the first slice to the last, of both stores together."""
    edges = [edge for connection in connections for edge in connection.execute(_EDGES).fetchone() or () if edge is not None]
    return list(Window(floor_day(min(edges)), floor_day(max(edges)) + DAY).days()) if edges else []


def _read_slices(connection: psycopg.Connection, day: Window) -> dict[tuple[datetime, str], _Slice]:
    statement = sql.SQL(_SLICES).format(
        checksum=checksum(stored_columns(connection, TICKS)), start=sql.Literal(day.start), end=sql.Literal(day.end)
    )
    return {(bucket, symbol): _Slice(*rest) for bucket, symbol, *rest in connection.execute(statement)}


def _differences(
    then: dict[tuple[datetime, str], _Slice], now: dict[tuple[datetime, str], _Slice], horizon: datetime | None
) -> Iterator[Difference]:
    for key in then.keys() | now.keys():
        before, after = then.get(key, _NOTHING), now.get(key, _NOTHING)
        if before.content == after.content:
            continue
        if before.loaded_at != after.loaded_at:
            why = LOADED_SINCE
        elif not after.rows and horizon is not None and key[0] < horizon:
            why = DROPPED
        else:
            why = DAMAGED
        yield Difference(*key, before.rows, after.rows, why)


def _tables(*connections: psycopg.Connection) -> list[str]:
    names = [{name for (name,) in connection.execute(_TABLES, (list(ROOMS),))} for connection in connections]
    return sorted(set.intersection(*names) - {TICKS})


def _compare_table(copy: psycopg.Connection, live: psycopg.Connection, table: str) -> TableDifference:
    then, now = (read_digest(connection, table, stored_columns(connection, table), sql.SQL("true")) for connection in (copy, live))
    return TableDifference(table, then[0], now[0], then == now)


class DifferenceRange(NamedTuple):
    """Contiguous slices of a symbol that differ for the same reason, with their rows in the copy and in the live store."""

    window: Window
    symbol: str
    why: str
    then: int
    now: int


def merge_differences(differences: list[Difference]) -> Iterator[DifferenceRange]:
    """Merge differences, ordered by symbol and time, into ranges of contiguous slices that differ for the same reason."""
    numbered = enumerate(differences)
    for (symbol, why, _), group in groupby(numbered, lambda pair: (pair[1].symbol, pair[1].why, pair[1].bucket_5m - pair[0] * SLICE)):
        members = [difference for _, difference in group]
        window = Window(members[0].bucket_5m, members[-1].bucket_5m + SLICE)
        yield DifferenceRange(window, symbol, why, sum(each.then for each in members), sum(each.now for each in members))
