"""Loading: from the registry to the exact rows of a range of slices, ready for COPY.

Each part of the range is planned from the registry. Its objects are read by ETag, so that their content is what was
registered, and decoded, ordered and de-duplicated. Under the slices' locks the plan is compared with the registry once more; if
anything was registered meanwhile, the part is rebuilt.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import NamedTuple

import numpy as np
import psycopg
import pyarrow as pa

from btc_assets.domain.errors import TransientError, UserError
from btc_assets.domain.feeds import Feeds
from btc_assets.domain.slices import KEY_FORMAT, SLICE, Window, from_microseconds
from btc_assets.domain.ticks import TABLE, int64, tick_order, with_event_times
from btc_assets.ingestion.due import mark_closed, mark_open
from btc_assets.ingestion.offsets import advance_offsets
from btc_assets.landing.objects import ObjectChanged, ObjectGone
from btc_assets.landing.registration import record_missing, register_object
from btc_assets.landing.registry import mark_gone, mark_loaded
from btc_assets.landing.sources import (
    Source,
    count_rows_by_slice,
    read_empty_slices,
    read_lost_sources,
    read_other_symbols,
    read_sources,
    read_unloaded_slices,
)
from btc_assets.landing.spool import Spool
from btc_assets.landing.zone import LandingZone
from btc_assets.market_data.contest import Contest, Field, read_rivals_of
from btc_assets.market_data.derived import Derivation, Makers, Part
from btc_assets.market_data.slice_records import describe_slices, read_same_slices, record_slices
from btc_assets.market_data.source_rows import SourceReader, SourceRows, SourcesRefused
from btc_assets.store.cut import cut_window
from btc_assets.store.database import Store
from btc_assets.store.errors import server_errors
from btc_assets.store.replace import Replacement, Replacements, Stale

_READ_ATTEMPTS = 5  # of a part whose objects change while they are read

_OUTSIDE = (
    "{uri}, which is registered for them, lies outside the landing zone {zone}: correct BTC_ASSETS_LANDING_URL, or force the load "
    "(btc-assets load --force) to drop its rows."
)
_LOST = "{uri}, which they were loaded from, is gone: restore it, or force the load (btc-assets load --force) to drop its rows."


@dataclass
class LoadResult:
    """What loading a range did. The counts include committed parts only."""

    slices: int = 0
    rows: int = 0
    duplicates: int = 0
    conflicting: int = 0
    first_trade_id: int | None = None
    last_trade_id: int | None = None
    slice_rows: dict[datetime, int] = field(default_factory=dict, repr=False)

    def add(self, part: TickReplacement) -> None:
        """Count a part that was committed."""
        self.slices += len(part.window)
        self.rows += len(part.rows)
        self.duplicates += part.duplicates
        self.conflicting += part.conflicting
        if not len(part.rows):
            return
        ids = part.rows["trade_id"].to_numpy()
        first, last = int(ids.min()), int(ids.max())
        self.first_trade_id = first if self.first_trade_id is None else min(first, self.first_trade_id)
        self.last_trade_id = last if self.last_trade_id is None else max(last, self.last_trade_id)
        buckets, counts = np.unique(int64(part.rows["bucket_5m"]), return_counts=True)
        self.slice_rows.update(zip(map(from_microseconds, buckets.tolist()), counts.tolist(), strict=True))


@dataclass(frozen=True)
class LoadOptions:
    """How ticks are loaded.

    Attributes:
        commit_rows: about how many rows are prepared and committed together.
        followers: keys of the assets that are made of ticks: their slices are due after this load, unless it makes them itself.
        force: also replace slices that lost an object from which they were loaded, and drop its rows.
        spool: ticks that the registry of the same process has decoded already.
        derivations: what it makes itself, if it can.
        still_open: the slices are not closed, so that their ticks are due again at once.
    """

    commit_rows: int
    followers: Sequence[str] = ()
    force: bool = False
    spool: Spool | None = None
    derivations: Sequence[Derivation] = ()
    still_open: bool = False


class TickReplacement(Replacement):
    """The exact ticks of one window, with the sources that they come from.

    Args:
        load: the load that this is part of.
        sources: all registered sources of the window, of the feeds of today.
        contest: their rows, and which of them count.
        plan: what else is known of the window.
    """

    def __init__(self, load: TickLoad, sources: Sequence[Source], contest: Contest, plan: _Plan) -> None:
        self._load, self._sources, self._contest = load, sources, contest
        self.duplicates, self.conflicting = contest.duplicates, contest.conflicting
        if self.duplicates:
            kept = contest.kept.count_by_source()
            self._loaded_rows = [kept.get(source.key, 0) for source in sources]
        else:
            self._loaded_rows = [source.row_count for source in sources]  # as many as were read
        self.also_locked = {rival.source.bucket_5m for rival in contest.field.rivals}
        super().__init__(contest.field.window, with_event_times(contest.kept.ticks), plan.others)
        self._empty = frozenset(pair for pair in plan.empty if pair[0] in self.window)
        loaded = {(source.bucket_5m, source.asset) for source in sources} | self._empty
        self._derived = load.makers.make(Part(self.window, self.rows, loaded, self.kept_symbols))
        self._described = describe_slices(self.rows)

    def confirm(self, cursor: psycopg.Cursor) -> None:
        cursor.execute("SELECT market_data.ensure_tick_partitions(%s, %s)", (self.window.start, self.window.end))
        if [one for one in read_sources(cursor, self.window) if one.asset not in self.kept_symbols] != list(self._sources):
            raise Stale("objects were registered while these were read")
        if not self._load.options.force and read_lost_sources(cursor, self.window, self._load.feeds.labels):
            raise Stale("an object disappeared")
        if not self._contest.field.holds(cursor):
            raise Stale("objects with the same trades were registered in other slices")

    def record(self, cursor: psycopg.Cursor) -> None:
        self._derived.write(cursor)  # first, for loads that write the same symbols wait for each other from the offsets on
        same = read_same_slices(cursor, self._described)
        marks = mark_loaded(cursor, self.window, self._sources, self._loaded_rows, self.kept_symbols, same)
        if not marks.current:
            raise Stale("an object changed while its rows were written")
        if marks.lost and not self._load.options.force:
            raise Stale("an object disappeared while the rows were written")
        if self._load.makers and {pair for pair in marks.empty if pair[1] in self._load.feeds.labels} != self._empty:
            raise Stale("objects without rows were registered while the others were written")
        record_slices(cursor, self.window, self._described, self.kept_symbols)
        self._load.outdated.update(self._contest.record(cursor))
        newest: dict[str, datetime | None] = dict.fromkeys(marks.unloaded)
        for source, count in zip(self._sources, self._loaded_rows, strict=True):  # by slice, ascending
            if count:
                newest[source.asset] = source.bucket_5m
        advance_offsets(cursor, TABLE, self.window, newest, self.kept_symbols)
        self._derived.mark(cursor, self._load.options.followers)
        (mark_open if self._load.options.still_open else mark_closed)(cursor, self.window)

    def rebuild(self) -> Iterator[Replacement]:
        # By a load of its own, because another thread is using the one that built this part for the next one.
        load = self._load
        fresh = TickLoad(load.store, load.zone, load.feeds, self.window, replace(load.options, spool=None))
        fresh.refused, fresh.outdated, fresh.makers = load.refused, load.outdated, load.makers
        with fresh:
            yield from fresh.parts(self.window)


class _Plan(NamedTuple):
    """What the registry says of a window besides its sources.

    Attributes:
        others: symbols of feeds that were retired, whose ticks stay as they are.
        empty: slices, each with a symbol, of which an object without any valid row is registered.
    """

    others: Collection[str]
    empty: Collection[tuple[datetime, str]]


def _in_key_order(found: SourceRows) -> SourceRows:
    order = tick_order(found.ticks)
    return found if (order[1:] > order[:-1]).all() else found.take(order)


class TickLoad(Replacements):
    """All replacements of a range of slices. Iterated again, they are those that were not committed.

    Args:
        store: read through a connection of this load's own while other sessions write.
        zone: the landing zone.
        feeds: what lands there.
        window: slices to load.
        options: how to load them.
        on_commit: called after each commit with the number of slices done so far and the rows that were written.

    Raises:
        UserError: at the end, if slices were refused because their source is gone (their rows stay); or when something cannot
            be read.
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
        self.refused: dict[datetime, str] = {}  # slices that are left as they are, with the reason
        self.outdated: set[datetime] = set()  # slices that hold versions of trades that do not count any more, or miss one
        self.followed_up: list[Window] = []  # of those, what was loaded again
        self._follows = False  # the load that this one follows up asks for what else is outdated
        self.loaded_outside: list[Window] = []  # of that, what lies outside the window
        self.result = LoadResult()
        self.makers = Makers()
        self._on_commit = on_commit
        self._committed: list[Window] = []

    def __enter__(self) -> TickLoad:
        with ExitStack() as opened:
            self._connection = opened.enter_context(closing(self.store.connect()))
            self._reader = SourceReader(self._connection, self.zone, self.feeds, self.window, self.options.spool)
            opened.callback(self._reader.close)
            if not self.makers:
                self.makers = Makers.open(self.options.derivations, self._connection)
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def __iter__(self) -> Iterator[Replacement]:
        self.refused.clear()
        with self:
            for window in self._left():
                for part in self.cut(window):
                    yield from self.parts(part)
        if self.refused:
            bucket, reason = min(self.refused.items())
            raise UserError(f"{len(self.refused)} slice(s) were left as they are, the first at {bucket:{KEY_FORMAT}}, because {reason}")

    def _left(self) -> Iterator[Window]:
        """What was not committed yet."""
        committed = {bucket for window in self._committed for bucket in window.slices()}
        self._committed.clear()
        self.outdated.update(committed)  # at the end, what changed since is loaded again
        yield from _without(self.window, sorted(committed))

    def cut(self, window: Window) -> Iterator[Window]:
        """The parts of a window that are committed one by one."""
        for day in window.days():
            yield from cut_window(count_rows_by_slice(self._connection, day, self.makers.weight), day, self.options.commit_rows)

    def parts(self, window: Window) -> Iterator[Replacement]:
        """The replacements of one part of the range: one, or several around slices that must stay as they are."""
        changes = 0
        while changes < _READ_ATTEMPTS:
            with server_errors(), self._connection.transaction(), self._connection.cursor() as cursor:
                orphaned = {} if self.options.force else dict(read_lost_sources(cursor, window, self.feeds.labels))
                plan = _Plan(read_other_symbols(cursor, window, self.feeds.labels), read_empty_slices(cursor, window, self.feeds.labels))
                sources = [source for source in read_sources(cursor, window) if source.asset not in plan.others]
            self.refused.update((bucket, _LOST.format(uri=uri)) for bucket, uri in orphaned.items())
            if outside := [source for source in sources if not self.zone.holds(source.uri)]:
                if self.options.force:
                    mark_gone(self._connection, sorted({source.uri for source in outside}))
                    continue
                self.refused.update((source.bucket_5m, _OUTSIDE.format(uri=source.uri, zone=self.zone.url)) for source in outside)
            try:
                built = [
                    self._build(part, sources, plan) for part in _without(window, [bucket for bucket in self.refused if bucket in window])
                ]
            except SourcesRefused as refused:
                self._leave(refused, sources)
                continue
            except (ObjectGone, ObjectChanged) as moved:
                self._register_again(str(moved))
                changes += 1
                continue
            yield from built
            return
        raise TransientError(f"Objects of {window} keep changing while they are read: run it again once the landing zone is quiet.")

    def committed(self, replacement: Replacement) -> None:
        assert isinstance(replacement, TickReplacement)
        self._committed.append(replacement.window)
        self.result.add(replacement)
        self._on_commit(self.result.slices, replacement.rows)

    def follow_up(self) -> TickLoad | None:
        """A load of the first slices that are outdated and were not loaded since, in this load or beside it."""
        if self._follows or not self.outdated:
            return None
        with self.store.connect() as connection, server_errors():
            waiting = read_unloaded_slices(connection, self.outdated)
        waiting = [bucket for bucket in waiting if not any(bucket in window for window in self.followed_up)]  # once is enough
        if not waiting:
            return None
        end = next(bucket for bucket in waiting if bucket + SLICE not in waiting)
        window = Window(waiting[0], end + SLICE)
        more = TickLoad(self.store, self.zone, self.feeds, window, replace(self.options, force=False))
        more.outdated, more.makers, more._follows = self.outdated, self.makers, True
        self.followed_up.append(window)
        if window.start not in self.window or window.end > self.window.end:
            self.loaded_outside.append(window)
        return more

    def _leave(self, refused: SourcesRefused, sources: Sequence[Source]) -> None:
        """Leave the slices as they are whose objects are refused; if those belong to other slices, whose trades count here, all of a part."""
        left = [one for one in sources if one.bucket_5m not in self.refused]
        if not left:
            raise refused
        hit = [one for one in left if one.uri in refused.reasons]
        self.refused.update((one.bucket_5m, refused.reasons.get(one.uri, str(refused))) for one in hit or left)

    def _build(self, window: Window, sources: Sequence[Source], plan: _Plan) -> TickReplacement:
        own = [source for source in sources if source.bucket_5m in window]
        rows = _in_key_order(self._reader.read(window, own))
        with server_errors(), self._connection.transaction(), self._connection.cursor() as cursor:
            field = Field.read(cursor, window, own, rows)
        return TickReplacement(self, own, Contest(field, rows, read_rivals_of(field, rows, self._reader, self._connection)), plan)

    def _register_again(self, uri: str) -> None:
        """Correct the registry after an object turned out to differ from what was registered."""
        self._reader.close()  # parts of large objects were handed out already
        feeds = self.feeds.by_path(self.zone.path(uri))
        assert feeds is not None  # it was about to be read
        obj = self.zone.head(uri, feeds.prefixes[0])
        if obj is None:
            record_missing(self._connection, self.zone, feeds, [uri])
        else:
            register_object(self._connection, self.zone, obj, feeds)


def _without(window: Window, buckets: Iterable[datetime]) -> Iterator[Window]:
    """What remains of a window without these slices."""
    start = window.start
    for bucket in sorted(buckets):
        if bucket > start:
            yield Window(start, bucket)
        start = bucket + SLICE
    if start < window.end:
        yield Window(start, window.end)
