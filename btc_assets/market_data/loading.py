"""Loading: from the registry to the exact rows of a range of slices, ready for COPY.

A part of the range is planned from the registry, its objects are read again (by ETag, so that it is what was
registered), decoded, ordered and de-duplicated. Under the slices' locks the plan is compared with the registry once
more; if somebody registered something meanwhile, the part is made again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa

from btc_assets.domain.errors import TransientError, UserError
from btc_assets.domain.feeds import Feed
from btc_assets.domain.objects import ObjectVersion
from btc_assets.domain.slices import SLICE, Window, microseconds, moment
from btc_assets.domain.ticks import TABLE, TICK_SCHEMA, conflicts, int64, repeats, tick_order
from btc_assets.ingestion.due import mark
from btc_assets.ingestion.offsets import advance
from btc_assets.landing.objects import LandedObject, ObjectChanged, ObjectGone
from btc_assets.landing.reading import SlicedObject, decode_group, fetch, fetch_groups, of_prefix, tick_slices
from btc_assets.landing.registry import mark_gone, register_group
from btc_assets.landing.spool import Spool
from btc_assets.landing.zone import LandingZone
from btc_assets.market_data.continuity import read_gaps
from btc_assets.market_data.pictures import VolumeStrips
from btc_assets.store.copy import Replacement, Replacements, Stale, cut
from btc_assets.store.database import server_errors

_SOURCES = """
SELECT bucket_5m, asset, uri, etag, size_bytes, row_count, last_modified
FROM landing.raw_blobs_5m
WHERE bucket_5m >= %s AND bucket_5m < %s AND status = 'registered' AND row_count > 0
ORDER BY bucket_5m, asset, uri
"""

_ORPHANED = """
SELECT DISTINCT bucket_5m, uri FROM landing.raw_blobs_5m AS loaded
WHERE bucket_5m >= %s AND bucket_5m < %s AND loaded_at IS NOT NULL AND row_count > 0 AND status IN ('gone', 'superseded')
    AND NOT EXISTS (
        SELECT 1 FROM landing.raw_blobs_5m AS now WHERE now.uri = loaded.uri AND now.status IN ('registered', 'rejected')
    )
ORDER BY bucket_5m, uri
"""

_MARK_LOADED = """
UPDATE landing.raw_blobs_5m AS blob SET loaded_at = now(), loaded_rows = source.loaded_rows
FROM unnest(%b::timestamptz[], %b::text[], %b::text[], %b::text[], %b::bigint[]) AS source (bucket_5m, asset, uri, etag, loaded_rows)
WHERE (blob.bucket_5m, blob.asset, blob.uri, blob.etag) = (source.bucket_5m, source.asset, source.uri, source.etag)
"""

_MARK_EMPTY_LOADED = """
UPDATE landing.raw_blobs_5m SET loaded_at = now(), loaded_rows = 0
WHERE bucket_5m >= %s AND bucket_5m < %s AND status = 'registered' AND row_count = 0
"""

_MARK_UNLOADED = """
UPDATE landing.raw_blobs_5m SET loaded_at = NULL, loaded_rows = NULL
WHERE bucket_5m >= %s AND bucket_5m < %s AND status <> 'registered' AND loaded_at IS NOT NULL
"""

_COUNTED = """
SELECT (SELECT count(DISTINCT (uri, etag)) FROM landing.raw_blobs_5m
        WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s AND loaded_at IS NOT NULL AND row_count > 0),
       (SELECT count(*) FROM landing.rejected_rows WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s)
"""

_TABLE = """
SELECT bucket_5m, asset, state, coalesce(loaded_rows, 0), coalesce(ticks, 0), coalesce(noticed_objects, 0)
FROM (SELECT * FROM landing.slices WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s) AS registered
FULL JOIN (
    SELECT bucket_5m, symbol AS asset, count(*) AS ticks FROM market_data.btc_ticks
    WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s GROUP BY bucket_5m, symbol
) AS stored USING (bucket_5m, asset)
WHERE coalesce(loaded_rows, 0) <> coalesce(ticks, 0)
        AND NOT (ticks IS NULL AND bucket_5m < ops.drop_horizon('market_data.btc_ticks'))
    OR state IS NULL OR %(unloaded)s AND state IN ('pending', 'stale') AND noticed_objects = 0
ORDER BY bucket_5m, asset
"""


@dataclass(frozen=True, order=True)
class Source:
    """What one object has for one slice, as registered."""

    bucket_5m: datetime
    asset: str
    uri: str
    etag: str
    size_bytes: int
    row_count: int
    last_modified: datetime


@dataclass
class LoadResult:
    """What loading a range did; counts are of committed parts only."""

    slices: int = 0
    rows: int = 0
    duplicates: int = 0
    conflicting: int = 0
    first_trade_id: int | None = None
    last_trade_id: int | None = None
    slice_rows: dict[datetime, int] = field(default_factory=dict, repr=False)


class TickReplacement(Replacement):
    """The exact ticks of one window, with the registry rows that they were made from."""

    def __init__(self, load: TickLoad, window: Window, sources: Sequence[Source]) -> None:
        self._load = load
        self.sources = sources
        rows, owner, sources_index = load.read(window, sources)
        order = tick_order(rows)
        in_order = (order[1:] > order[:-1]).all()
        rows, owner = (rows, owner) if in_order else (rows.take(order), owner[order])
        repeated = repeats(rows)
        self.duplicates = int(repeated.sum())
        self.conflicting = conflicts(rows, repeated)
        self.loaded_rows = [source.row_count for source in sources]  # as `read` has compared
        if self.duplicates:
            rows, owner = rows.filter(pa.array(~repeated)), owner[~repeated]
            self.loaded_rows = _loaded_rows(rows, owner, sources, sources_index)
        super().__init__(window, rows)

    def confirm(self, cursor: psycopg.Cursor) -> None:
        cursor.execute("SELECT market_data.ensure_tick_partitions(%s, %s)", (self.window.start, self.window.end))
        if read_sources(cursor, self.window) != list(self.sources):
            raise Stale("objects were registered while these were read")
        if not self._load.force and read_orphaned(cursor, self.window):
            raise Stale("an object disappeared")

    def record(self, cursor: psycopg.Cursor) -> None:
        columns: list[list[object]] = [[], [], [], [], []]
        for source, rows in zip(self.sources, self.loaded_rows, strict=True):
            for column, value in zip(columns, (source.bucket_5m, source.asset, source.uri, source.etag, rows), strict=True):
                column.append(value)
        cursor.execute(_MARK_LOADED, columns)
        cursor.execute(_MARK_EMPTY_LOADED, (self.window.start, self.window.end))
        cursor.execute(_MARK_UNLOADED, (self.window.start, self.window.end))
        advance(cursor, TABLE, {feed.label for feed in self._load.feeds})
        mark(cursor, self._load.followers, self.window)

    def again(self) -> Iterator[Replacement]:
        # A load of its own, because the one that made this part is busy with the next in another thread.
        load = self._load
        again = TickLoad(
            load.connect, load.zone, load.feeds, self.window, followers=load.followers, commit_rows=load.commit_rows, force=load.force
        )
        again.refused = load.refused
        with again:
            yield from again.parts(self.window)


class TickLoad(Replacements):
    """All replacements of a range of slices: iterate over it once.

    Args:
        connect: opens a connection to the store; this one reads the registry while another writes.
        zone: the landing zone.
        feeds: what lands there.
        window: slices to load.
        commit_rows: about how many rows are prepared and committed together.
        followers: keys of the assets whose slices must be made again after this.
        force: also replace slices of which an object has disappeared since they were loaded.
        spool: where the registry of the same process left what it decoded.
        progress: told how many slices are committed.

    Raises:
        UserError: at the end, where slices were refused (promise 6: their rows stay), or when something cannot be read.
    """

    def __init__(
        self,
        connect: Callable[[], psycopg.Connection],
        zone: LandingZone,
        feeds: Sequence[Feed],
        window: Window,
        *,
        commit_rows: int,
        followers: Sequence[str] = (),
        force: bool = False,
        spool: Spool | None = None,
        progress: Callable[[int], None] = lambda done: None,
    ) -> None:
        self._progress = progress
        self._spool = spool
        self.connect, self.zone, self.feeds, self.window = connect, zone, feeds, window
        self.commit_rows, self.followers, self.force = commit_rows, followers, force
        self.refused: dict[datetime, str] = {}
        self.result = LoadResult()
        self._strips = VolumeStrips(window, [feed.label for feed in feeds])
        self._large: dict[ObjectVersion, SlicedObject] = {}

    def __enter__(self) -> TickLoad:
        self.connection = self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()
        for large in self._large.values():
            large.close()
        self._large.clear()

    def __iter__(self) -> Iterator[Replacement]:
        with self:
            for day in self.window.days():
                with server_errors(), self.connection.transaction():
                    counts = self.connection.execute(
                        "SELECT bucket_5m, sum(row_count)::bigint FROM landing.raw_blobs_5m WHERE bucket_5m >= %s AND bucket_5m < %s "
                        "AND status = 'registered' GROUP BY bucket_5m ORDER BY bucket_5m",
                        (day.start, day.end),
                    ).fetchall()
                for part in cut(counts, day, self.commit_rows):
                    yield from self.parts(part)
        if self.refused:
            bucket, uri = min(self.refused.items())
            raise UserError(
                f"{len(self.refused)} slice(s) were left as they are, the first at {bucket:%Y-%m-%dT%H:%MZ}, because {uri}, "
                "which they were loaded from, is gone: restore it, or force the load (btc-assets load --force) to drop its rows."
            )

    def parts(self, window: Window) -> Iterator[Replacement]:
        """Replacements for one part of the range: one, or several around slices that must stay as they are."""
        for _ in range(5):
            with server_errors(), self.connection.transaction(), self.connection.cursor() as cursor:
                orphaned = {} if self.force else dict(read_orphaned(cursor, window))
                sources = read_sources(cursor, window)
            self.refused.update(orphaned)
            try:
                made = [
                    TickReplacement(self, part, [source for source in sources if source.bucket_5m in part])
                    for part in _without(window, orphaned)
                ]
            except (ObjectGone, ObjectChanged) as moved:
                self._register_again(str(moved), sources)
                continue
            yield from made
            return
        raise TransientError(f"Objects of {window} keep changing while they are read: run it again when the landing zone is at rest.")

    def _register_again(self, uri: str, sources: Sequence[Source]) -> None:
        """An object is not what it was when it was registered: put the registry right."""
        for key in [key for key in self._large if key[0] == uri]:
            self._large.pop(key).close()
        prefix = next(obj.prefix for obj in (self._object(source) for source in sources) if obj.uri == uri)
        obj = self.zone.head(uri, prefix)
        if obj is None:
            mark_gone(self.connection, [uri])
        else:
            register_group(self.connection, self.zone, [fetch(self.zone, obj)], [feed for feed in self.feeds if feed.prefix == prefix])

    def read(self, window: Window, sources: Sequence[Source]) -> tuple[pa.Table, np.ndarray, dict[ObjectVersion, int]]:
        """The rows of `sources`, each with the position of its object among them; objects are in order of their URI.

        Raises:
            ObjectGone, ObjectChanged: an object is not there any more as it was registered.
            UserError: what is in an object differs from what was registered.
        """
        position = {key: i for i, key in enumerate(sorted({ObjectVersion(source.uri, source.etag) for source in sources}))}
        objects = {ObjectVersion(source.uri, source.etag): self._object(source) for source in sources}
        tables: list[pa.Table] = []
        owners: list[np.ndarray] = []
        spooled = set()
        for key, ticks in self._spool.take(list(position)) if self._spool else ():
            spooled.add(key)
            tables.append(ticks)
            owners.append(np.full(len(ticks), position[key]))
        small = [objects[key] for key in position if key not in spooled and not objects[key].is_large]
        for ticks, owner in self._read_small(small, position):
            tables.append(ticks)
            owners.append(owner)
        for key in position:
            if objects[key].is_large and key not in spooled:
                ticks = self._large_object(objects[key]).take(window)
                tables.append(ticks)
                owners.append(np.full(len(ticks), position[key]))
        rows = pa.concat_tables(tables) if tables else TICK_SCHEMA.empty_table()
        owner = np.concatenate(owners) if owners else np.empty(0, np.int64)
        bucket = int64(rows["bucket_5m"])
        inside = (bucket >= microseconds(window.start)) & (bucket < microseconds(window.end))
        if not inside.all():
            rows, owner = rows.filter(pa.array(inside)), owner[inside]
        if (np.diff(owner) < 0).any():  # objects of several schemas or sizes; the earlier URI wins among repeats
            by_object = np.argsort(owner, kind="stable")
            rows, owner = rows.take(by_object), owner[by_object]
        self._compare(rows, owner, sources, position)
        return rows.combine_chunks(), owner, position

    def _read_small(self, objects: Sequence[LandedObject], position: dict[ObjectVersion, int]) -> Iterator[tuple[pa.Table, np.ndarray]]:
        """Fetch and decode objects in groups; rows come with the position of their object."""
        for prefix_objects, feeds in of_prefix(objects, self.feeds).values():
            for group in fetch_groups(self.zone, prefix_objects):
                for fetched in group:
                    if fetched.error is not None:
                        raise fetched.error
                of_group = np.array([position[fetched.obj.version] for fetched in group])
                for piece in decode_group(group, feeds):
                    yield piece.decoded.ticks, of_group[piece.tick_object]
                for fetched in group:
                    if fetched.rejected is not None:
                        raise UserError(f"{fetched.obj.uri} could be read when it was registered and cannot any more: {fetched.rejected}.")

    def _compare(self, rows: pa.Table, owner: np.ndarray, sources: Sequence[Source], position: dict[ObjectVersion, int]) -> None:
        counted = tick_slices(rows, owner)
        found = {
            (bucket, symbol, obj): count for obj, symbol, bucket, count in zip(*(counted[i].to_pylist() for i in range(4)), strict=True)
        }
        for source in sources:
            count = found.pop((source.bucket_5m, source.asset, position[ObjectVersion(source.uri, source.etag)]), 0)
            if count != source.row_count:
                raise UserError(
                    f"{source.uri} holds {count} ticks of {source.asset} in slice {source.bucket_5m:%Y-%m-%dT%H:%MZ}, but "
                    f"{source.row_count} were registered: the settings changed since, so register it again (btc-assets load --reread)."
                )
        if found:
            (bucket, symbol, obj), count = next(iter(found.items()))
            raise UserError(
                f"{list(position)[obj][0]} holds {count} ticks of {symbol} in slice {bucket:%Y-%m-%dT%H:%MZ}, but none were registered: "
                "the settings changed since, so register it again (btc-assets load --reread)."
            )

    def _large_object(self, obj: LandedObject) -> SlicedObject:
        key = obj.version
        if key not in self._large:
            with server_errors(), self.connection.transaction():
                expected = self.connection.execute(
                    "SELECT bucket_5m, sum(row_count)::bigint FROM landing.raw_blobs_5m "
                    "WHERE uri = %s AND etag = %s AND status = 'registered' AND bucket_5m >= %s AND bucket_5m < %s GROUP BY bucket_5m",
                    (*key, self.window.start, self.window.end),
                ).fetchall()
            feeds = [feed for feed in self.feeds if feed.prefix == obj.prefix]
            self._large[key] = SlicedObject(self.zone, obj, feeds, dict(expected))
        return self._large[key]

    def _object(self, source: Source) -> LandedObject:
        path = self.zone.path(source.uri)
        prefix = next((feed.prefix for feed in self.feeds if path.startswith(f"{feed.prefix}/")), None)
        if prefix is None or path == source.uri:
            raise UserError(
                f"{source.uri} is registered, but lies outside the landing zone {self.zone.url} and its feeds: correct "
                "BTC_ASSETS_LANDING_URL or BTC_ASSETS_LANDING_FEEDS."
            )
        return LandedObject(source.uri, source.etag, source.size_bytes, source.last_modified, prefix)

    def committed(self, replacement: Replacement) -> None:
        assert isinstance(replacement, TickReplacement)
        result, rows = self.result, replacement.rows
        result.slices += len(replacement.window)
        result.rows += len(rows)
        result.duplicates += replacement.duplicates
        result.conflicting += replacement.conflicting
        if len(rows):
            ids = rows["trade_id"].to_numpy()
            first, last = int(ids.min()), int(ids.max())
            result.first_trade_id = first if result.first_trade_id is None else min(first, result.first_trade_id)
            result.last_trade_id = last if result.last_trade_id is None else max(last, result.last_trade_id)
            buckets, counts = np.unique(int64(rows["bucket_5m"]), return_counts=True)
            for bucket, count in zip(buckets.tolist(), counts.tolist(), strict=True):
                result.slice_rows[moment(bucket)] = count
            self._strips.add(rows)
        self._progress(result.slices)

    def metadata(self) -> dict[str, Any]:
        result = self.result
        return {
            **self._counted(),
            "slices_with_ticks": len(result.slice_rows),
            "duplicates_removed": result.duplicates,
            "conflicting_duplicates": result.conflicting,
            "first_trade_id": result.first_trade_id,
            "last_trade_id": result.last_trade_id,
        }

    def slice_rows(self) -> dict[datetime, int]:
        return self.result.slice_rows

    def pictures(self, connection: psycopg.Connection) -> dict[str, str]:
        return {f"volume and gaps of {symbol}": svg for symbol, svg in self._strips.draw(read_gaps(connection, self.window)).items()}

    def _counted(self) -> dict[str, int]:
        # Counted by the server: a set of all objects here would grow with the range.
        with self.connect() as connection, server_errors():
            row = connection.execute(_COUNTED, {"start": self.window.start, "end": self.window.end}).fetchone()
        assert row is not None
        return {"objects": row[0], "rejected_rows": row[1]}


def read_sources(cursor: psycopg.Cursor, window: Window) -> list[Source]:
    """What is registered for a window, by slice, symbol and URI."""
    cursor.execute(_SOURCES, (window.start, window.end))
    return [Source(*row) for row in cursor]


def read_orphaned(cursor: psycopg.Cursor, window: Window) -> list[tuple[datetime, str]]:
    """Slices whose rows come from an object that is gone, with one such object."""
    cursor.execute(_ORPHANED, (window.start, window.end))
    return [(bucket, uri) for bucket, uri in cursor]


def table_differences(connection: psycopg.Connection, window: Window, *, unloaded: bool = True) -> list[tuple[datetime, str]]:
    """Slices of which the table holds other rows than the registry says, each with a sentence.

    Args:
        connection: to the store.
        window: the slices to compare.
        unloaded: also those of which something registered is not loaded.
    """
    with server_errors(), connection.transaction():
        rows = connection.execute(_TABLE, {"start": window.start, "end": window.end, "unloaded": unloaded}).fetchall()
    return [
        (bucket, f"{asset} {bucket:%Y-%m-%dT%H:%MZ}: {state or 'not registered'}, {loaded} rows by the registry, {ticks} in the table")
        for bucket, asset, state, loaded, ticks, _ in rows
    ]


def _without(window: Window, buckets: Iterable[datetime]) -> Iterator[Window]:
    start = window.start
    for bucket in sorted(buckets):
        if bucket > start:
            yield Window(start, bucket)
        start = bucket + SLICE
    if start < window.end:
        yield Window(start, window.end)


def _loaded_rows(rows: pa.Table, owner: np.ndarray, sources: Sequence[Source], position: dict[ObjectVersion, int]) -> list[int]:
    """For each source, how many of its rows are kept."""
    counted = tick_slices(rows, owner)
    kept = {(bucket, symbol, obj): count for obj, symbol, bucket, count in zip(*(counted[i].to_pylist() for i in range(4)), strict=True)}
    return [kept.get((source.bucket_5m, source.asset, position[ObjectVersion(source.uri, source.etag)]), 0) for source in sources]
