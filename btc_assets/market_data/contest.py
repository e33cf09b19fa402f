"""Contests: which version of a trade counts, when slices that are not loaded together hold versions of it.

A trade has one slice. When a part is built, the versions in other slices that the registry knows of are read as well, and rows that
do not count are left out. When it is written, slices that hold a version which does not count any more, or miss one that counts
now, become work to do. The locks of those slices are held, so two loads of neighboring slices see what the other one did.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import NamedTuple

import numpy as np
import orjson
import psycopg
import pyarrow as pa
import pyarrow.compute as pc

from btc_assets.domain.objects import ObjectVersion
from btc_assets.domain.slices import Window, to_microseconds
from btc_assets.domain.ticks import CONTENT, DECODED_SCHEMA, Versions, choose_versions, contradict, int64
from btc_assets.landing.reading import count_by_slice
from btc_assets.landing.registry import record_ids, withdraw_loaded
from btc_assets.landing.rivals import (
    IdRange,
    Leaving,
    Rival,
    find_slices_to_give_back,
    hold_registered,
    ids_of,
    merge,
    read_final_slices,
    read_leaving,
    read_rivals,
)
from btc_assets.landing.sources import Source, SourceKey
from btc_assets.market_data.source_rows import SourceReader, SourceRows
from btc_assets.store.errors import server_errors

_MIN, _MAX = -(2**63), 2**63 - 1
_EXAMPLES = 10  # of conflicts that are kept for a slice and symbol

_CLEAR_CONFLICTS = "DELETE FROM market_data.conflicting_trades WHERE bucket_5m >= %s AND bucket_5m < %s"
_INSERT_CONFLICTS = "INSERT INTO market_data.conflicting_trades (bucket_5m, symbol, conflicts, examples) VALUES (%s, %s, %s, %s)"

_STORED_COLUMNS = ("bucket_5m", "event_time", "trade_time", "symbol", "trade_id", "price", "quantity", "is_market_maker")
_STORED = """
SELECT tick.bucket_5m, event_time, trade_time, symbol, trade_id, price, quantity, is_market_maker
FROM unnest(%(buckets)s::timestamptz[], %(assets)s::text[], %(first)s::bigint[], %(last)s::bigint[]) AS held (bucket_5m, asset, first, last)
JOIN market_data.btc_ticks AS tick
    ON tick.bucket_5m = held.bucket_5m AND tick.symbol = held.asset AND tick.trade_id BETWEEN held.first AND held.last
WHERE tick.bucket_5m >= %(start)s AND tick.bucket_5m <= %(end)s
"""


@dataclass(frozen=True)
class Field:
    """What the registry knows of a part and its rivals, under no lock.

    Attributes:
        window: the slices of the part.
        sources: what the part will consist of.
        ids: of these sources.
        leaving: versions whose ticks the part removes.
        rivals: what may hold versions of the same trades.
        gone, dropped: the rivals' slices that keep what they hold, whatever else there is: an object that they were loaded from is gone,
            or retention dropped their ticks.
    """

    window: Window
    sources: Sequence[Source]
    ids: Sequence[IdRange]
    leaving: Sequence[Leaving]
    rivals: Sequence[Rival]
    gone: frozenset[datetime]
    dropped: frozenset[datetime]

    @property
    def final(self) -> frozenset[datetime]:
        return self.gone | self.dropped

    @cached_property
    def weak_ids(self) -> list[IdRange]:
        """The ids of the part's sources that have rows without an event time."""
        weak = (one for one in self.sources if one.event_times != one.row_count)
        return merge((IdRange(one.asset, *(one.trade_ids or (_MIN, _MAX))) for one in weak), gap=0)

    @classmethod
    def read(cls, cursor: psycopg.Cursor, window: Window, sources: Sequence[Source], rows: SourceRows) -> Field:
        """What the registry knows now.

        Args:
            cursor: to the store.
            window: of the part.
            sources: of the part.
            rows: of the part; only looked at if the registry does not know their ids.
        """
        ids = ids_of(sources)
        if any(source.trade_ids is None for source in sources):
            ids = merge([*ids, *(IdRange(symbol, *bounds) for symbol, bounds in bounds_by_symbol(rows.ticks).items())])
        return cls._read(cursor, window, sources, ids)

    @classmethod
    def _read(cls, cursor: psycopg.Cursor, window: Window, sources: Sequence[Source], ids: Sequence[IdRange]) -> Field:
        leaving = read_leaving(cursor, window)
        rivals = read_rivals(cursor, window, merge([*ids, *(one.ids for one in leaving)]) if leaving else ids)
        gone, dropped = read_final_slices(cursor, [one.source.bucket_5m for one in rivals if one.loaded])
        return cls(window, sources, ids, leaving, rivals, gone, dropped)

    def again(self, cursor: psycopg.Cursor) -> Field:
        """The same, as it is now."""
        return self._read(cursor, self.window, self.sources, self.ids)

    def holds(self, cursor: psycopg.Cursor) -> bool:
        """Whether the same versions are there; if so, they stay registered until the transaction ends."""

        def there(field: Field) -> tuple[object, ...]:
            return field.leaving, [one.source.key for one in field.rivals if one.registered], field.gone, field.dropped

        return hold_registered(cursor, [one.source for one in self.rivals if one.registered]) and there(self.again(cursor)) == there(self)


class Conflicts(NamedTuple):
    """The versions in a slice that contradict the version that counts: how many, and the first of them."""

    bucket_5m: datetime
    symbol: str
    versions: int
    examples: list[dict[str, object]]


class Contest:
    """A part and its rivals.

    Args:
        field: what the registry knew when the part was read.
        rows: of the part, in the order of the table's key.
        rivals: versions of the same trades in other slices; `SourceRows` of objects, and rows of slices that keep what they hold.

    Attributes:
        kept: the rows that count.
        duplicates: how many do not.
        conflicts: those of them that contradict the version that counts.
    """

    def __init__(self, field: Field, rows: SourceRows, rivals: Sequence[SourceRows] = ()) -> None:
        self.field, self._rows = field, rows
        own = len(rows.ticks)
        ticks = pa.concat_tables([rows.ticks, *(one.ticks for one in rivals)]) if rivals else rows.ticks
        found = choose_versions(ticks, self._ranks(ticks, own) if rivals else None).lost
        lost = Versions(*(positions[found.rows < own] for positions in found))
        self.duplicates = len(lost.rows)
        self.kept, self.conflicts = rows, list[Conflicts]()
        self._lost: dict[tuple[str, int], datetime] = {}
        if not self.duplicates:
            return
        keep = np.ones(own, bool)
        keep[lost.rows] = False
        self.kept = rows.filter(keep)
        self._note_winners(ticks, Versions(*(positions[lost.chosen >= own] for positions in lost)))
        self._note_conflicts(ticks, [rows, *rivals], lost)

    @property
    def conflicting(self) -> int:
        """How many versions contradict the version that counts."""
        return sum(one.versions for one in self.conflicts)

    def record(self, cursor: psycopg.Cursor) -> set[datetime]:
        """Record what follows from the contest, in the transaction that wrote the part; slices of rivals are locked.

        Returns:
            Other slices that have to be loaded again.
        """
        field = self.field
        cursor.execute(_CLEAR_CONFLICTS, (field.window.start, field.window.end))
        if self.conflicts:
            cursor.executemany(_INSERT_CONFLICTS, [(*one[:3], orjson.dumps(one.examples).decode()) for one in self.conflicts])
        record_ids(cursor, self._unknown_ids())
        if not field.rivals:
            return set()
        now = field.again(cursor)
        outdated = self._find_wrong_slices(cursor, now) | (find_slices_to_give_back(cursor, field.leaving) - now.final)
        outdated = {bucket for bucket in outdated if bucket not in field.window}
        withdraw_loaded(cursor, sorted(outdated))
        return outdated

    def _find_wrong_slices(self, cursor: psycopg.Cursor, now: Field) -> set[datetime]:
        """Loaded slices of rivals that hold a version that does not count, or miss one that does."""
        loaded = [one for one in now.rivals if one.loaded and one.source.bucket_5m not in now.final]
        stored = read_stored(cursor, loaded, bounds_by_symbol(self._rows.ticks))
        slices = {one.source.bucket_5m for one in loaded}
        own = ids_by_symbol(self._rows.ticks)
        stands = {
            (bucket, symbol, trade_id)
            for bucket, symbol, trade_id in zip(*(stored[name].to_pylist() for name in ("bucket_5m", "symbol", "trade_id")), strict=True)
            if _contains(own[symbol], trade_id)
        }
        wrong = {bucket for bucket, symbol, trade_id in stands if self._lost.get((symbol, trade_id)) != bucket}
        return wrong | {bucket for key, bucket in self._lost.items() if bucket in slices and (bucket, *key) not in stands}

    def _unknown_ids(self) -> list[tuple[Source, IdRange, int]]:
        """The ids of sources of which the registry does not know them."""
        unknown = {source.key: source for source in self.field.sources if source.trade_ids is None}
        if not unknown:
            return []
        counted = count_by_slice(self._rows.ticks, self._rows.owner).to_pylist()
        by_key = {SourceKey(row["bucket_5m"], row["symbol"], self._rows.versions[row["object"]]): row for row in counted}
        found = [(source, by_key[key]) for key, source in unknown.items()]
        return [(source, IdRange(source.asset, row["first_trade_id"], row["last_trade_id"]), row["event_times"]) for source, row in found]

    def _ranks(self, ticks: pa.Table, own: int) -> np.ndarray:
        """What a slice keeps that no load replaces counts before everything else."""
        final = np.array([to_microseconds(bucket) for bucket in self.field.final], np.int64)
        rank = np.ones(len(ticks), np.int8)
        rank[own:] = ~np.isin(int64(ticks["bucket_5m"])[own:], final)
        return rank

    def _note_winners(self, ticks: pa.Table, elsewhere: Versions) -> None:
        """Remember in which slices the versions stand that count, for trades that the part leaves out."""
        symbols, ids = (ticks[name].take(elsewhere.rows).to_pylist() for name in ("symbol", "trade_id"))
        buckets = ticks["bucket_5m"].take(elsewhere.chosen).to_pylist()
        self._lost = dict(zip(zip(symbols, ids, strict=True), buckets, strict=True))

    def _note_conflicts(self, ticks: pa.Table, parts: Sequence[SourceRows], lost: Versions) -> None:
        differs = contradict(ticks, *lost)
        if not differs.any():
            return
        rows, chosen = lost.rows[differs], lost.chosen[differs]
        keys = ticks.select(["bucket_5m", "symbol"]).take(rows)
        found: dict[tuple[datetime, str], list[int]] = {}
        for i, key in enumerate(zip(keys["bucket_5m"].to_pylist(), keys["symbol"].to_pylist(), strict=True)):
            found.setdefault(key, []).append(i)
        uris = _Uris(parts)
        for (bucket, symbol), positions in sorted(found.items()):
            examples = [_example(ticks, uris, int(chosen[i]), int(rows[i])) for i in positions[:_EXAMPLES]]
            self.conflicts.append(Conflicts(bucket, symbol, len(positions), examples))


class _Uris:
    """The object of each row, by its position in several tables one after the other."""

    def __init__(self, parts: Sequence[SourceRows]) -> None:
        self._parts = parts

    def __getitem__(self, row: int) -> str:
        for part in self._parts:
            if row < len(part.ticks):
                return part.versions[part.owner[row]].uri
            row -= len(part.ticks)
        raise IndexError(row)


def _example(ticks: pa.Table, uris: _Uris, chosen: int, other: int) -> dict[str, object]:
    """Two versions of a trade, as JSON."""

    def version(row: int) -> dict[str, object]:
        values = ticks.select(CONTENT).slice(row, 1).to_pylist()[0]
        return {
            "uri": uris[row],
            "trade_time": values["trade_time"].isoformat(),
            "price": f"{values['price'].normalize():f}",
            "quantity": f"{values['quantity'].normalize():f}",
            "is_market_maker": values["is_market_maker"],
        }

    return {"trade_id": ticks["trade_id"][other].as_py(), "counts": version(chosen), "contradicts": version(other)}


def ids_by_symbol(ticks: pa.Table) -> dict[str, np.ndarray]:
    """The trade ids of each symbol, sorted."""
    symbols = pc.unique(ticks["symbol"]).to_pylist()
    if len(symbols) == 1:
        return {symbols[0]: np.sort(ticks["trade_id"].to_numpy())}
    return {symbol: np.sort(ticks["trade_id"].filter(pc.equal(ticks["symbol"], symbol)).to_numpy()) for symbol in symbols}


def bounds_by_symbol(ticks: pa.Table) -> dict[str, tuple[int, int]]:
    """The lowest and the highest trade id of each symbol."""
    return {symbol: (int(ids[0]), int(ids[-1])) for symbol, ids in ids_by_symbol(ticks).items()}


def _contains(ids: np.ndarray, trade_id: int) -> bool:
    at = int(np.searchsorted(ids, trade_id))
    return at < len(ids) and bool(ids[at] == trade_id)


def read_stored(cursor: psycopg.Cursor, rivals: Iterable[Rival], bounds: Mapping[str, tuple[int, int]]) -> pa.Table:
    """What the table holds of rivals' ids in their slices, within the ids of a part; in `DECODED_SCHEMA`."""
    held = sorted(
        {
            (one.source.bucket_5m, one.source.asset, max(one.ids.first, low), min(one.ids.last, high))
            for one in rivals
            for low, high in [bounds.get(one.source.asset, (0, -1))]
        }
    )
    held = [one for one in held if one[2] <= one[3]]
    if not held:
        return DECODED_SCHEMA.empty_table()
    columns = dict(zip(("buckets", "assets", "first", "last"), map(list, zip(*held, strict=True)), strict=True))
    rows = cursor.execute(_STORED, columns | {"start": held[0][0], "end": held[-1][0]}).fetchall()
    unique = {(row[0], row[3], row[4]): row for row in rows}
    return pa.Table.from_pylist([dict(zip(_STORED_COLUMNS, row, strict=True)) for row in unique.values()], DECODED_SCHEMA)


def read_rivals_of(field: Field, rows: SourceRows, reader: SourceReader, connection: psycopg.Connection) -> list[SourceRows]:
    """The versions of a part's trades in other slices, as far as they can decide anything."""
    if not field.rivals or not len(rows.ticks):
        return []
    sources = [one.source for one in field.rivals if _may_count(one, field)]
    found = [reader.read_rivals(field.window, sources, ids_by_symbol(rows.ticks))] if sources else []
    lost = [one for one in field.rivals if one.loaded and one.source.bucket_5m in field.gone]
    if lost:  # their objects may be gone, but not what was loaded
        with server_errors(), connection.transaction(), connection.cursor() as cursor:
            stored = read_stored(cursor, lost, bounds_by_symbol(rows.ticks))
        found.append(SourceRows(stored, np.zeros(len(stored), np.int64), [ObjectVersion("the table of ticks", "")]))
    return [one for one in found if len(one.ticks)]


def _may_count(rival: Rival, field: Field) -> bool:
    """Whether a rival has to be read.

    A rival without any event time, such as a daily dump, loses against rows that have one. There is no need to read it again for each
    part of a recorded stream that it overlaps; its own slice is where its rows are left out.
    """
    if rival.source.bucket_5m in field.final:
        return rival.registered and rival.loaded and rival.source.bucket_5m not in field.gone
    return rival.registered and (rival.source.event_times != 0 or any(rival.ids.overlaps(ids) for ids in field.weak_ids))
