"""Reading the ticks of sources, exactly as registered: from the spool, from small objects in groups, from large objects by slice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc

from btc_assets.domain.errors import UserError
from btc_assets.domain.feeds import Feeds
from btc_assets.domain.objects import ObjectVersion
from btc_assets.domain.slices import KEY_FORMAT, SLICE, Window, to_microseconds
from btc_assets.domain.ticks import DECODED_SCHEMA, int64
from btc_assets.landing.objects import LandedObject
from btc_assets.landing.reading import Fetched, count_by_slice, decode_group, fetch, fetch_groups
from btc_assets.landing.rivals import IdRange, merge, read_contested_ids
from btc_assets.landing.sliced_object import SlicedObject
from btc_assets.landing.sources import Source, SourceKey, count_object_rows
from btc_assets.landing.spool import Spool
from btc_assets.landing.zone import LandingZone
from btc_assets.landing.zone_errors import is_refusal
from btc_assets.store.errors import server_errors

_CONTESTED_ROWS = 1_000_000  # rows of a large object that are kept in memory for later parts

_Piece = tuple[pa.Table, np.ndarray]  # ticks, and for each the position of its object


class SourcesRefused(UserError):
    """The landing zone does not hand out these objects, though it hands out others.

    Args:
        reasons: for each URI, the sentence about it.
    """

    def __init__(self, reasons: Mapping[str, str]) -> None:
        super().__init__(next(iter(reasons.values())))
        self.reasons = reasons


@dataclass(frozen=True)
class SourceRows:
    """Ticks and the objects that they come from.

    Attributes:
        ticks: in `DECODED_SCHEMA`.
        owner: for each tick, the position of its object in `versions`.
        versions: the objects, in the order of their URIs.
    """

    ticks: pa.Table
    owner: np.ndarray
    versions: Sequence[ObjectVersion]

    def take(self, rows: np.ndarray) -> SourceRows:
        """The rows at these positions, in this order."""
        return SourceRows(self.ticks.take(rows), self.owner[rows], self.versions)

    def filter(self, keep: np.ndarray) -> SourceRows:
        """The rows where `keep` is true."""
        return SourceRows(self.ticks.filter(pa.array(keep)), self.owner[keep], self.versions)

    def count_by_source(self) -> dict[SourceKey, int]:
        """Rows of each source that has any."""
        counted = count_by_slice(self.ticks, self.owner)
        buckets, symbols, objects, counts = (counted[name].to_pylist() for name in ("bucket_5m", "symbol", "object", "row_count"))
        return {
            SourceKey(bucket, symbol, self.versions[position]): count
            for bucket, symbol, position, count in zip(buckets, symbols, objects, counts, strict=True)
        }


class SourceReader:
    """Reads the ticks of sources, part by part; keeps large objects open from one part to the next.

    Args:
        connection: to the store, in autocommit mode; it must stay open as long as the reader.
        zone: the landing zone.
        feeds: what lands there.
        window: all slices that will be read.
        spool: ticks that the registry of the same process has decoded already.
    """

    def __init__(self, connection: psycopg.Connection, zone: LandingZone, feeds: Feeds, window: Window, spool: Spool | None = None) -> None:
        self._connection, self._zone, self._feeds, self._window, self._spool = connection, zone, feeds, window, spool
        self._large: dict[ObjectVersion, SlicedObject] = {}
        self._contested: dict[ObjectVersion, tuple[Window, pa.Table]] = {}  # rows of large objects that may be rivals of a window

    def read(self, window: Window, sources: Sequence[Source]) -> SourceRows:
        """All rows of the sources of a window, object by object.

        Args:
            window: the next slices, in ascending order from call to call.
            sources: all sources of the window.

        Raises:
            ObjectGone, ObjectChanged: an object is no longer what was registered.
            SourcesRefused: the landing zone refuses to hand out some of the objects.
            UserError: an object holds other rows than were registered.
        """
        by_version = {source.version: source for source in sources}
        versions = sorted(by_version)
        objects = {version: self.landed_object(by_version[version]) for version in versions}
        position = {version: i for i, version in enumerate(versions)}
        pieces = list(self._pieces(window, objects, position))
        ticks = pa.concat_tables([ticks for ticks, _ in pieces]) if pieces else DECODED_SCHEMA.empty_table()
        owner = np.concatenate([owner for _, owner in pieces]) if pieces else np.empty(0, np.int64)
        pieces.clear()
        rows = _in_object_order(_inside(SourceRows(ticks, owner, versions), window))
        _require_registered(rows.count_by_source(), sources)
        return SourceRows(rows.ticks.combine_chunks(), rows.owner, versions)

    def read_rivals(self, window: Window, rivals: Sequence[Source], wanted: Mapping[str, np.ndarray]) -> SourceRows:
        """The rows of rivals that are versions of some trades.

        Args:
            window: the slices of these trades; rows inside it are left out.
            rivals: registered parts of objects outside the window.
            wanted: the trade ids by symbol, sorted.

        Raises:
            ObjectGone, ObjectChanged: an object is no longer what was registered.
            UserError: an object cannot be read.
        """
        # What lies outside the landing zone cannot be read and is told where its own slice is loaded: it holds up no other slice.
        by_version = {source.version: source for source in rivals if self._zone.holds(source.uri)}
        versions = sorted(by_version)
        position = {version: i for i, version in enumerate(versions)}
        objects = {version: self.landed_object(by_version[version]) for version in versions}
        pieces = [
            (ticks.filter(pa.array(keep)), owner[keep])
            for ticks, owner in self._rival_pieces(window, objects, position)
            if (keep := _is_wanted(ticks, wanted) & ~_is_inside(ticks, window)).any()
        ]
        ticks = pa.concat_tables([ticks for ticks, _ in pieces]) if pieces else DECODED_SCHEMA.empty_table()
        return SourceRows(ticks, np.concatenate([owner for _, owner in pieces]) if pieces else np.empty(0, np.int64), versions)

    def landed_object(self, source: Source) -> LandedObject:
        """The object that a source is part of.

        Raises:
            SourcesRefused: it lies outside the landing zone.
            UserError: its symbol belongs to no feed.
        """
        if not self._zone.holds(source.uri):
            sentence = f"{source.uri} is registered, but lies outside the landing zone {self._zone.url}: correct BTC_ASSETS_LANDING_URL."
            raise SourcesRefused({source.uri: sentence})
        # The prefix of a feed may have moved since; then the object is read as one of its symbol's feed.
        feeds = self._feeds.by_path(self._zone.path(source.uri))
        prefix = feeds.prefixes[0] if feeds else self._feeds.by_label(source.asset).prefix
        return LandedObject(source.uri, source.etag, source.size_bytes, source.last_modified, prefix)

    def close(self) -> None:
        """Close the large objects, and remove their temporary files and all that is kept of them."""
        for large in self._large.values():
            large.close()
        self._large.clear()
        self._contested.clear()

    def _pieces(
        self, window: Window, objects: Mapping[ObjectVersion, LandedObject], position: Mapping[ObjectVersion, int]
    ) -> Iterator[_Piece]:
        spooled = set()
        for version, ticks in self._spool.take(list(objects)) if self._spool else ():
            spooled.add(version)
            yield ticks, np.full(len(ticks), position[version])
        unread = [obj for version, obj in objects.items() if version not in spooled]
        yield from self._read_small([obj for obj in unread if not obj.is_large], position)
        for obj in unread:
            if obj.is_large:
                try:
                    ticks = self._sliced(obj).take(window)
                except UserError as error:
                    self._large.pop(obj.version).close()
                    if is_refusal(error):
                        raise SourcesRefused({obj.uri: str(error)}) from error
                    raise
                yield ticks, np.full(len(ticks), position[obj.version])

    def _rival_pieces(
        self, window: Window, objects: Mapping[ObjectVersion, LandedObject], position: Mapping[ObjectVersion, int]
    ) -> Iterator[_Piece]:
        spooled = set()
        for version, ticks in self._spool.look_at(list(objects)) if self._spool else ():
            spooled.add(version)
            yield ticks, np.full(len(ticks), position[version])
        unread = [obj for version, obj in objects.items() if version not in spooled]
        yield from self._read_small([obj for obj in unread if not obj.is_large], position)
        for obj in unread:
            for ticks in self._read_contested(obj, window) if obj.is_large else ():
                yield ticks, np.full(len(ticks), position[obj.version])

    def _read_contested(self, obj: LandedObject, window: Window) -> Iterator[pa.Table]:
        """The rows of a large object that may be rivals of a part, and perhaps more.

        The object is read from its beginning to its end, so what the parts after this one may need is kept, as far as that is bounded.
        """
        covered, kept = self._contested.get(obj.version, (None, None))
        if covered is not None and window.start in covered and window.end <= covered.end:
            yield kept
            return
        with server_errors(), self._connection.transaction(), self._connection.cursor() as cursor:
            contested = read_contested_ids(cursor, obj.version, Window(window.start, max(window.end, self._window.end)))
        if not contested:  # a former release registered it, and did not record its ids
            yield from self._decode_whole(obj)
            return
        end, count = window.end, 0
        for bucket, ids in contested:
            count += ids.last - ids.first + 1
            if bucket >= end:
                if count > _CONTESTED_ROWS:
                    break
                end = bucket + SLICE
        ranges = merge((ids for bucket, ids in contested if bucket < end), gap=0)
        rows = [ticks.filter(pa.array(keep)) for ticks in self._decode_whole(obj) if (keep := _is_in_ranges(ticks, ranges)).any()]
        self._contested[obj.version] = Window(window.start, end), pa.concat_tables([DECODED_SCHEMA.empty_table(), *rows])
        yield self._contested[obj.version][1]

    def _decode_whole(self, obj: LandedObject) -> Iterator[pa.Table]:
        fetched = fetch(self._zone, obj)
        if refused := _refusals([fetched]):
            raise SourcesRefused(refused)
        for piece in decode_group([fetched], self._feeds):
            yield piece.decoded.ticks
        _require_readable(fetched)

    def _read_small(self, objects: Sequence[LandedObject], position: Mapping[ObjectVersion, int]) -> Iterator[_Piece]:
        refused: dict[str, str] = {}
        for group in fetch_groups(self._zone, sorted(objects, key=attrgetter("prefix", "uri"))):
            refused |= _refusals(group)
            if refused:
                continue  # look for others that are refused as well
            positions = np.array([position[fetched.obj.version] for fetched in group])
            for piece in decode_group(group, self._feeds):
                yield piece.decoded.ticks, positions[piece.tick_object]
            for fetched in group:
                _require_readable(fetched)
        if refused:
            raise SourcesRefused(refused)

    def _sliced(self, obj: LandedObject) -> SlicedObject:
        if obj.version not in self._large:
            expected = count_object_rows(self._connection, obj.version, self._window)
            self._large[obj.version] = SlicedObject(self._zone, obj, self._feeds.by_prefix(obj.prefix), expected)
        return self._large[obj.version]


def _require_readable(fetched: Fetched) -> None:
    if fetched.rejected is not None:
        raise UserError(f"{fetched.obj.uri} could be read when it was registered and cannot any more: {fetched.rejected}.")


def _refusals(group: Sequence[Fetched]) -> dict[str, str]:
    """The URIs of objects that are refused, each with the sentence about it; raises what else went wrong with one."""
    refused = {fetched.obj.uri: str(fetched.error) for fetched in group if is_refusal(fetched.error)}
    for fetched in group:
        if fetched.error is not None and fetched.obj.uri not in refused:
            raise fetched.error
    return refused


def _inside(rows: SourceRows, window: Window) -> SourceRows:
    inside = _is_inside(rows.ticks, window)
    return rows if inside.all() else rows.filter(inside)


def _is_inside(ticks: pa.Table, window: Window) -> np.ndarray:
    bucket = int64(ticks["bucket_5m"])
    inside: np.ndarray = (bucket >= to_microseconds(window.start)) & (bucket < to_microseconds(window.end))
    return inside


def _is_wanted(ticks: pa.Table, wanted: Mapping[str, np.ndarray]) -> np.ndarray:
    """Which rows have one of the trade ids of their symbol."""
    trade_id, keep = ticks["trade_id"].to_numpy(), np.zeros(len(ticks), bool)
    for symbol, ids in wanted.items():
        keep |= np.isin(trade_id, ids) & pc.equal(ticks["symbol"], symbol).to_numpy()
    return keep


def _is_in_ranges(ticks: pa.Table, ranges: Sequence[IdRange]) -> np.ndarray:
    """Which rows have a trade id in one of the ranges, which are in order and do not overlap."""
    trade_id, keep = ticks["trade_id"].to_numpy(), np.zeros(len(ticks), bool)
    for symbol in {one.asset for one in ranges}:
        first, last = np.array([(one.first, one.last) for one in ranges if one.asset == symbol]).T
        at = np.maximum(np.searchsorted(first, trade_id, side="right") - 1, 0)
        keep |= (trade_id >= first[at]) & (trade_id <= last[at]) & pc.equal(ticks["symbol"], symbol).to_numpy()
    return keep


def _in_object_order(rows: SourceRows) -> SourceRows:
    """Rows object by object, so that the earlier URI comes first among repeated keys; out of order after several schemas or sizes."""
    return rows.take(np.argsort(rows.owner, kind="stable")) if (np.diff(rows.owner) < 0).any() else rows


def _require_registered(found: dict[SourceKey, int], sources: Sequence[Source]) -> None:
    """Raise UserError if the objects hold other numbers of rows than were registered."""
    for source in sources:
        count = found.pop(source.key, 0)
        if count != source.row_count:
            raise _other_rows(source.key, count, f"{source.row_count} were")
    for key, count in found.items():
        raise _other_rows(key, count, "none were")


def _other_rows(key: SourceKey, count: int, registered: str) -> UserError:
    return UserError(
        f"{key.version.uri} holds {count} ticks of {key.asset} in slice {key.bucket_5m:{KEY_FORMAT}}, but {registered} registered: "
        "the settings changed since, so register it again (btc-assets load --reread)."
    )
