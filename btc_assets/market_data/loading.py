"""Loading: from the registry to the exact rows of a range of slices, ready for COPY.

A part of the range is planned from the registry. Its objects are read by ETag, so that they are what was registered, decoded,
ordered and de-duplicated. Under the slices' locks the plan is compared with the registry once more; if anything was registered
meanwhile, the part is rebuilt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import numpy as np
import psycopg
import pyarrow as pa

from btc_assets.domain.errors import TransientError, UserError
from btc_assets.domain.feeds import Feeds
from btc_assets.domain.objects import ObjectVersion
from btc_assets.domain.slices import SLICE, Window, from_microseconds, to_microseconds
from btc_assets.domain.ticks import TABLE, TICK_SCHEMA, conflicts, int64, repeats, tick_order
from btc_assets.ingestion.due import mark_due
from btc_assets.ingestion.offsets import advance_offsets
from btc_assets.landing.objects import LandedObject, ObjectChanged, ObjectGone
from btc_assets.landing.reading import count_by_slice, decode_group, fetch, fetch_groups, group_by_prefix
from btc_assets.landing.registry import mark_gone, register_group
from btc_assets.landing.sliced_object import SlicedObject
from btc_assets.landing.spool import Spool
from btc_assets.landing.zone import LandingZone
from btc_assets.market_data.sources import Source, mark_loaded, read_orphaned, read_sources
from btc_assets.store.cut import cut_window
from btc_assets.store.database import Store, only_row
from btc_assets.store.errors import server_errors
from btc_assets.store.replace import Replacement, Replacements, Stale

_COUNTS = """
SELECT bucket_5m, sum(row_count)::bigint FROM landing.raw_blobs_5m
WHERE bucket_5m >= %s AND bucket_5m < %s AND status = 'registered' GROUP BY bucket_5m ORDER BY bucket_5m
"""

_TOTALS = """
SELECT (SELECT count(DISTINCT (uri, etag)) FROM landing.raw_blobs_5m
        WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s AND loaded_at IS NOT NULL AND row_count > 0),
       (SELECT count(*) FROM landing.rejected_rows WHERE bucket_5m >= %(start)s AND bucket_5m < %(end)s)
"""


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


@dataclass(frozen=True)
class LoadOptions:
    """How ticks are loaded.

    Attributes:
        commit_rows: about how many rows are prepared and committed together.
        followers: keys of the assets whose slices are due after this load.
        force: also replace slices that lost an object which they were loaded from; its rows go.
        spool: where the registry of the same process left what it decoded.
    """

    commit_rows: int
    followers: Sequence[str] = ()
    force: bool = False
    spool: Spool | None = None


class TickReplacement(Replacement):
    """The exact ticks of one window, with the registry rows that they were made from."""

    def __init__(self, load: TickLoad, window: Window, sources: Sequence[Source]) -> None:
        self._load = load
        self.sources = sources
        rows, owner, position = load.read(window, sources)
        order = tick_order(rows)
        in_order = (order[1:] > order[:-1]).all()
        rows, owner = (rows, owner) if in_order else (rows.take(order), owner[order])
        repeated = repeats(rows)
        self.duplicates = int(repeated.sum())
        self.conflicting = conflicts(rows, repeated)
        self.loaded_rows = [source.row_count for source in sources]  # `read` compared them
        if self.duplicates:
            rows, owner = rows.filter(pa.array(~repeated)), owner[~repeated]
            self.loaded_rows = _kept_rows(rows, owner, sources, position)
        super().__init__(window, rows)

    def confirm(self, cursor: psycopg.Cursor) -> None:
        cursor.execute("SELECT market_data.ensure_tick_partitions(%s, %s)", (self.window.start, self.window.end))
        if read_sources(cursor, self.window) != list(self.sources):
            raise Stale("objects were registered while these were read")
        if not self._load.options.force and read_orphaned(cursor, self.window):
            raise Stale("an object disappeared")

    def record(self, cursor: psycopg.Cursor) -> None:
        mark_loaded(cursor, self.window, self.sources, self.loaded_rows)
        advance_offsets(cursor, TABLE, self._load.feeds.labels)
        mark_due(cursor, self._load.options.followers, self.window)

    def rebuild(self) -> Iterator[Replacement]:
        # A load of its own, because the one that made this part is busy with the next in another thread.
        load = self._load
        again = TickLoad(load.store, load.zone, load.feeds, self.window, replace(load.options, spool=None))
        again.refused = load.refused
        with again:
            yield from again.parts(self.window)


class TickLoad(Replacements):
    """All replacements of a range of slices; iterate over it once.

    Args:
        store: read by a connection of this load's own while others write.
        zone: the landing zone.
        feeds: what lands there.
        window: slices to load.
        options: how.
        on_commit: called after each commit with the number of slices done and the rows that were written.

    Raises:
        UserError: at the end, if slices were refused (promise 6: their rows stay), or when something cannot be read.
    """

    table = TABLE

    def __init__(
        self,
        store: Store,
        zone: LandingZone,
        feeds: Feeds,
        window: Window,
        options: LoadOptions,
        on_commit: Callable[[int, pa.Table], None] = lambda done, rows: None,
    ) -> None:
        self.store, self.zone, self.feeds, self.window, self.options = store, zone, feeds, window, options
        self.refused: dict[datetime, str] = {}
        self.result = LoadResult()
        self._on_commit = on_commit
        self._large: dict[ObjectVersion, SlicedObject] = {}

    def __enter__(self) -> TickLoad:
        self._connection = self.store.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        for large in self._large.values():
            large.close()
        self._large.clear()

    def __iter__(self) -> Iterator[Replacement]:
        with self:
            for day in self.window.days():
                with server_errors():
                    counts = self._connection.execute(_COUNTS, (day.start, day.end)).fetchall()
                for part in cut_window(counts, day, self.options.commit_rows):
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
            with server_errors(), self._connection.transaction(), self._connection.cursor() as cursor:
                orphaned = {} if self.options.force else dict(read_orphaned(cursor, window))
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
        for version in [version for version in self._large if version.uri == uri]:
            self._large.pop(version).close()
        prefix = next(obj.prefix for obj in map(self._object, sources) if obj.uri == uri)
        obj = self.zone.head(uri, prefix)
        if obj is None:
            mark_gone(self._connection, [uri])
        else:
            register_group(self._connection, self.zone, [fetch(self.zone, obj)], self.feeds.by_prefix(prefix))

    def read(self, window: Window, sources: Sequence[Source]) -> tuple[pa.Table, np.ndarray, dict[ObjectVersion, int]]:
        """The rows of `sources`, each with the position of its object among them; objects are in order of their URI.

        Raises:
            ObjectGone, ObjectChanged: an object is not there any more as it was registered.
            UserError: what is in an object differs from what was registered.
        """
        position = {version: i for i, version in enumerate(sorted({source.version for source in sources}))}
        objects = {source.version: self._object(source) for source in sources}
        tables: list[pa.Table] = []
        owners: list[np.ndarray] = []
        spooled = set()
        for key, ticks in self.options.spool.take(list(position)) if self.options.spool else ():
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
        inside = (bucket >= to_microseconds(window.start)) & (bucket < to_microseconds(window.end))
        if not inside.all():
            rows, owner = rows.filter(pa.array(inside)), owner[inside]
        if (np.diff(owner) < 0).any():  # objects of several schemas or sizes; the earlier URI wins among repeats
            by_object = np.argsort(owner, kind="stable")
            rows, owner = rows.take(by_object), owner[by_object]
        self._compare(rows, owner, sources, position)
        return rows.combine_chunks(), owner, position

    def _read_small(self, objects: Sequence[LandedObject], position: dict[ObjectVersion, int]) -> Iterator[tuple[pa.Table, np.ndarray]]:
        """Fetch and decode objects in groups; rows come with the position of their object."""
        for prefix_objects, feeds in group_by_prefix(objects, self.feeds):
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
        counted = count_by_slice(rows, owner)
        found = {
            (bucket, symbol, obj): count for obj, symbol, bucket, count in zip(*(counted[i].to_pylist() for i in range(4)), strict=True)
        }
        for source in sources:
            count = found.pop((source.bucket_5m, source.asset, position[source.version]), 0)
            if count != source.row_count:
                raise UserError(
                    f"{source.uri} holds {count} ticks of {source.asset} in slice {source.bucket_5m:%Y-%m-%dT%H:%MZ}, but "
                    f"{source.row_count} were registered: the settings changed since, so register it again (btc-assets load --reread)."
                )
        if found:
            (bucket, symbol, obj), count = next(iter(found.items()))
            raise UserError(
                f"{list(position)[obj].uri} holds {count} ticks of {symbol} in slice {bucket:%Y-%m-%dT%H:%MZ}, but none were registered: "
                "the settings changed since, so register it again (btc-assets load --reread)."
            )

    def _large_object(self, obj: LandedObject) -> SlicedObject:
        version = obj.version
        if version not in self._large:
            with server_errors(), self._connection.transaction():
                expected = self._connection.execute(
                    "SELECT bucket_5m, sum(row_count)::bigint FROM landing.raw_blobs_5m "
                    "WHERE uri = %s AND etag = %s AND status = 'registered' AND bucket_5m >= %s AND bucket_5m < %s GROUP BY bucket_5m",
                    (*version, self.window.start, self.window.end),
                ).fetchall()
            self._large[version] = SlicedObject(self.zone, obj, self.feeds.by_prefix(obj.prefix), dict(expected))
        return self._large[version]

    def _object(self, source: Source) -> LandedObject:
        path = self.zone.path(source.uri)
        feeds = self.feeds.by_path(path)
        if feeds is None or path == source.uri:
            raise UserError(
                f"{source.uri} is registered, but lies outside the landing zone {self.zone.url} and its feeds: correct "
                "BTC_ASSETS_LANDING_URL or BTC_ASSETS_LANDING_FEEDS."
            )
        return LandedObject(source.uri, source.etag, source.size_bytes, source.last_modified, feeds.prefixes[0])

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
                result.slice_rows[from_microseconds(bucket)] = count
        self._on_commit(result.slices, rows)


def count_sources(connection: psycopg.Connection, window: Window) -> tuple[int, int]:
    """The objects that a window is loaded from, and its rejected rows; counted by the server, because a set would grow with the range."""
    with server_errors():
        objects, rejected_rows = only_row(connection.execute(_TOTALS, {"start": window.start, "end": window.end}))
    return objects, rejected_rows


def _without(window: Window, buckets: Iterable[datetime]) -> Iterator[Window]:
    start = window.start
    for bucket in sorted(buckets):
        if bucket > start:
            yield Window(start, bucket)
        start = bucket + SLICE
    if start < window.end:
        yield Window(start, window.end)


def _kept_rows(rows: pa.Table, owner: np.ndarray, sources: Sequence[Source], position: dict[ObjectVersion, int]) -> list[int]:
    """For each source, how many of its rows are kept."""
    counted = count_by_slice(rows, owner)
    kept = {(bucket, symbol, obj): count for obj, symbol, bucket, count in zip(*(counted[i].to_pylist() for i in range(4)), strict=True)}
    return [kept.get((source.bucket_5m, source.asset, position[source.version]), 0) for source in sources]
