"""Rivals: what the registry knows of versions of the same trades in different slices.

A trade has one slice, that of the version that counts. Another slice that holds a version of it is a rival. The registry has the lowest
and the highest trade id of every object in every slice, so rivals are found without reading an object; nearly always there are none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import psycopg

from btc_assets.domain.objects import ObjectVersion
from btc_assets.domain.slices import SLICE, Window
from btc_assets.landing.sources import Source
from btc_assets.landing.states import Status
from btc_assets.store.database import only_row

_MIN, _MAX = -(2**63), 2**63 - 1
_STATUS: dict[str, object] = {"registered": Status.REGISTERED.value}
_CLOSE = 1000  # ranges with fewer ids between them are looked up as one: some markets skip ids

# The classes of width of the index raw_blobs_5m_trade_ids, and how many ids a row of each has at most.
_REACH = {14: 2**15, 20: 2**21, 63: 2**64}

_OVERLAPPING = """
SELECT DISTINCT bucket_5m, blob.asset, uri, etag, size_bytes, row_count, last_modified, first_trade_id, last_trade_id, event_times,
    status = %(registered)s, loaded_at IS NOT NULL
FROM unnest(%(assets)s::text[], %(widths)s::int[], %(from)s::bigint[], %(first)s::bigint[], %(last)s::bigint[])
    AS range (asset, width, from_id, first_id, last_id)
JOIN landing.raw_blobs_5m AS blob ON blob.asset = range.asset
    AND CASE WHEN (last_trade_id >> 14) - (first_trade_id >> 14) <= 1 THEN 14
             WHEN (last_trade_id >> 20) - (first_trade_id >> 20) <= 1 THEN 20 ELSE 63 END = range.width
    AND first_trade_id BETWEEN range.from_id AND range.last_id AND last_trade_id >= range.first_id
WHERE first_trade_id IS NOT NULL AND row_count > 0 AND (status = %(registered)s OR loaded_at IS NOT NULL)
    AND NOT coalesce(bucket_5m >= %(start)s::timestamptz AND bucket_5m < %(end)s::timestamptz, false)
"""

# Rows of releases that did not record ids: whatever stands in the slices beside may be a rival.
_UNKNOWN = """
SELECT bucket_5m, asset, uri, etag, size_bytes, row_count, last_modified, first_trade_id, last_trade_id, event_times,
    status = %(registered)s, loaded_at IS NOT NULL
FROM landing.raw_blobs_5m
WHERE bucket_5m IN (%(before)s, %(after)s) AND first_trade_id IS NULL AND row_count > 0 AND (status = %(registered)s OR loaded_at IS NOT NULL)
"""

_LEAVING = """
SELECT bucket_5m, asset, first_trade_id, last_trade_id FROM landing.raw_blobs_5m
WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s AND loaded_at IS NOT NULL AND status <> %(registered)s AND first_trade_id IS NOT NULL
ORDER BY bucket_5m, asset, uri, etag
"""

# Slices that are not replaced: an object that they were loaded from is gone, or retention dropped their ticks.
_FINAL = """
SELECT bucket_5m,
    EXISTS (
        SELECT 1 FROM landing.raw_blobs_5m AS lost
        WHERE lost.bucket_5m = rival.bucket_5m AND landing.is_source_gone(lost.status, lost.loaded_at)
    ),
    market_data.dropped_ticks(bucket_5m, bucket_5m + interval '5 minutes') IS NOT NULL
FROM unnest(%s::timestamptz[]) AS rival (bucket_5m)
"""

# The ids of an object that stand in a slice of a window while the object has them in another slice, by the slice of the window.
_CONTESTED = """
SELECT rival.bucket_5m, mine.asset, greatest(mine.first_trade_id, rival.first_trade_id), least(mine.last_trade_id, rival.last_trade_id)
FROM landing.raw_blobs_5m AS mine
CROSS JOIN (VALUES (14, 32768), (20, 2097152), (63, 9223372036854775807)) AS width (bits, reach)
JOIN landing.raw_blobs_5m AS rival ON rival.asset = mine.asset
    AND CASE WHEN (rival.last_trade_id >> 14) - (rival.first_trade_id >> 14) <= 1 THEN 14
             WHEN (rival.last_trade_id >> 20) - (rival.first_trade_id >> 20) <= 1 THEN 20 ELSE 63 END = width.bits
    AND rival.first_trade_id BETWEEN greatest(mine.first_trade_id, -9223372036854775807 + width.reach) - width.reach AND mine.last_trade_id
    AND rival.last_trade_id >= mine.first_trade_id AND rival.bucket_5m <> mine.bucket_5m
WHERE mine.uri = %(uri)s AND mine.etag = %(etag)s AND mine.status = %(registered)s AND mine.first_trade_id IS NOT NULL
    AND rival.first_trade_id IS NOT NULL AND rival.status = %(registered)s AND rival.bucket_5m >= %(start)s AND rival.bucket_5m < %(end)s
ORDER BY 1, 2, 3, 4
"""

_HOLD_REGISTERED = """
SELECT count(*) FROM (
    SELECT 1 FROM landing.raw_blobs_5m AS blob
    JOIN unnest(%(buckets)s::timestamptz[], %(assets)s::text[], %(uris)s::text[], %(etags)s::text[]) AS rival (bucket_5m, asset, uri, etag)
        ON (blob.bucket_5m, blob.asset, blob.uri, blob.etag) = (rival.bucket_5m, rival.asset, rival.uri, rival.etag)
    WHERE status = %(registered)s ORDER BY blob.bucket_5m, blob.asset, blob.uri, blob.etag FOR SHARE OF blob
) AS held
"""


class IdRange(NamedTuple):
    """Trade ids of a symbol, from the first to the last."""

    asset: str
    first: int
    last: int

    def overlaps(self, other: IdRange) -> bool:
        return self.asset == other.asset and self.first <= other.last and other.first <= self.last


class Leaving(NamedTuple):
    """Ids of a version that a slice was loaded from and that is registered no longer."""

    bucket_5m: datetime
    ids: IdRange


@dataclass(frozen=True, order=True)
class Rival:
    """A part of an object in another slice, with ids that may be among those of a window.

    Attributes:
        source: as registered.
        registered: whether the object is there.
        loaded: whether ticks of the table come from it.
    """

    source: Source
    registered: bool
    loaded: bool

    @property
    def ids(self) -> IdRange:
        """Its ids; all there are if they are unknown."""
        return IdRange(self.source.asset, *(self.source.trade_ids or (_MIN, _MAX)))


def ids_of(sources: Iterable[Source]) -> list[IdRange]:
    """The ranges of ids of sources, those that touch or lie close together as one; sources whose ids are unknown are left out."""
    return merge(IdRange(source.asset, *source.trade_ids) for source in sources if source.trade_ids)


def merge(ranges: Iterable[IdRange], gap: int = _CLOSE) -> list[IdRange]:
    """The ranges in order; those with at most `gap` ids between them are one."""
    merged: list[IdRange] = []
    for one in sorted(ranges):
        if merged and merged[-1].asset == one.asset and one.first - merged[-1].last - 1 <= gap:
            merged[-1] = IdRange(one.asset, merged[-1].first, max(merged[-1].last, one.last))
        else:
            merged.append(one)
    return merged


def read_rivals(cursor: psycopg.Cursor, window: Window, ids: Sequence[IdRange]) -> list[Rival]:
    """What stands or will stand in slices outside `window` with ids that overlap `ids`, or with unknown ids right beside the window."""
    beside = cursor.execute(_UNKNOWN, _STATUS | {"before": window.start - SLICE, "after": window.end}).fetchall()
    rivals = [*_read_overlapping(cursor, ids, window), *(Rival(Source(*row[:-2]), *row[-2:]) for row in beside)]
    return sorted((rival for rival in rivals if rival.source.bucket_5m not in window), key=lambda rival: rival.source.key)


def _read_overlapping(cursor: psycopg.Cursor, ids: Sequence[IdRange], outside: Window | None = None) -> list[Rival]:
    wanted = [(one.asset, width, max(one.first - reach, _MIN), one.first, one.last) for one in ids for width, reach in _REACH.items()]
    if not wanted:
        return []
    edges = {"start": outside and outside.start, "end": outside and outside.end}
    columns = dict(zip(("assets", "widths", "from", "first", "last"), map(list, zip(*wanted, strict=True)), strict=True))
    return [Rival(Source(*row[:-2]), *row[-2:]) for row in cursor.execute(_OVERLAPPING, _STATUS | columns | edges)]


def read_contested_ids(cursor: psycopg.Cursor, version: ObjectVersion, window: Window) -> list[tuple[datetime, IdRange]]:
    """The ids of an object that other objects have in slices of `window` while it has them in another slice, by those slices."""
    rows = cursor.execute(_CONTESTED, _STATUS | version._asdict() | {"start": window.start, "end": window.end})
    return [(bucket, IdRange(*ids)) for bucket, *ids in rows]


def read_leaving(cursor: psycopg.Cursor, window: Window) -> list[Leaving]:
    """The versions of a window whose ticks the next replacement removes."""
    return [
        Leaving(bucket, IdRange(*ids)) for bucket, *ids in cursor.execute(_LEAVING, _STATUS | {"start": window.start, "end": window.end})
    ]


def read_final_slices(cursor: psycopg.Cursor, buckets: Iterable[datetime]) -> tuple[frozenset[datetime], frozenset[datetime]]:
    """Those of some slices that no load replaces unless a person asks for it: what they hold, they keep.

    Returns:
        Slices that were loaded from an object which is gone, and slices whose ticks were dropped.
    """
    wanted = sorted(set(buckets))
    rows = cursor.execute(_FINAL, (wanted,)).fetchall() if wanted else []
    return frozenset(bucket for bucket, gone, _ in rows if gone), frozenset(bucket for bucket, _, dropped in rows if dropped)


def hold_registered(cursor: psycopg.Cursor, sources: Sequence[Source]) -> bool:
    """Keep sources registered until the transaction ends; False if some are not any more."""
    return not sources or only_row(cursor.execute(_HOLD_REGISTERED, _STATUS | _keys(sources))) == (len(sources),)


def find_slices_to_give_back(cursor: psycopg.Cursor, leaving: Sequence[Leaving]) -> set[datetime]:
    """Loaded slices that may have to take back trades, because versions of them in other slices are registered no longer."""
    return {
        rival.source.bucket_5m
        for rival in _read_overlapping(cursor, merge(one.ids for one in leaving))
        if rival.registered and rival.loaded
        for one in leaving
        if one.bucket_5m != rival.source.bucket_5m and one.ids.overlaps(rival.ids)
    }


def _keys(sources: Sequence[Source]) -> dict[str, list[object]]:
    columns = zip(*((one.bucket_5m, one.asset, one.uri, one.etag) for one in sources), strict=True)
    return dict(zip(("buckets", "assets", "uris", "etags"), map(list, columns), strict=True))
