"""Registering: the registry is brought up to date with the landing zone.

The folders of a window are listed and compared with the registry. Every version that the registry has not read yet is read once, and is
recorded under each slice that it covers, also outside the window. Ticks are not written here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from itertools import chain
from operator import attrgetter
from pathlib import Path

import psycopg

from btc_assets.domain.errors import UserError
from btc_assets.domain.feeds import Feeds
from btc_assets.domain.objects import ObjectVersion
from btc_assets.domain.slices import Window
from btc_assets.landing import registry
from btc_assets.landing.known_zone import require_known_zone
from btc_assets.landing.object_rows import build_readings, collect_contents, reject_misread_ids, reject_without_valid_rows
from btc_assets.landing.objects import LandedObject, ObjectChanged, ObjectGone
from btc_assets.landing.read_marks import ReadMarks
from btc_assets.landing.reading import Fetched, Piece, decode_group, fetch
from btc_assets.landing.registry import Readings
from btc_assets.landing.settled_folders import SettledFolders
from btc_assets.landing.spool import Spool
from btc_assets.landing.states import Status
from btc_assets.landing.strays import Stray, record_strays
from btc_assets.landing.zone import LandingZone
from btc_assets.landing.zone_errors import is_refusal

Progress = Callable[[int, int], None]  # objects done, objects in total

_READ_ATTEMPTS = 5  # of an object that changes while it is read
_SHOWN = 20  # sentences of each kind in a result
_LISTED_TOGETHER = 50_000  # about as many objects are listed before they are read, unless one prefix has more a day


@dataclass(frozen=True)
class RegisterOptions:
    """How a window is registered.

    Attributes:
        margin: how far an object's folder may lie from the event times in it.
        reread: read objects again that are registered already.
        spool: keeps what was decoded for a loader in the same process.
        new_zone: the landing zone may be one that the registry knows nothing of, beside another.
        on_settled: called with the time before which no folder has an object that is still to be read.
    """

    margin: timedelta
    reread: bool = False
    spool: Spool | None = None
    new_zone: bool = False
    on_settled: Callable[[datetime], object] = lambda before: None


@dataclass
class Registration:
    """What registering did.

    Attributes:
        listed: objects that the listings show.
        read: objects that were read; `bytes` is their size.
        registered, rejected: how many of those are readable and unreadable.
        refused: objects that the landing zone refused to hand out. They are noticed in the registry, and requested again.
        rejected_rows: rows of readable objects that are no valid trades.
        left_out_rows: rows of readable objects in which, by the word of the exchange, nothing was traded.
        gone: objects that have disappeared.
        rejections: a sentence for each of the first unreadable objects.
        refusals: a sentence for each of the first objects that were refused.
        strays: what lies among the objects and cannot be one of them.
    """

    listed: int = 0
    read: int = 0
    registered: int = 0
    rejected: int = 0
    refused: int = 0
    rejected_rows: int = 0
    left_out_rows: int = 0
    gone: int = 0
    bytes: int = 0
    rejections: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    strays: set[Stray] = field(default_factory=set)

    def __iadd__(self, other: Registration) -> Registration:
        for name in ("listed", "read", "registered", "rejected", "refused", "rejected_rows", "left_out_rows", "gone", "bytes"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.rejections = (self.rejections + other.rejections)[:_SHOWN]
        self.refusals = (self.refusals + other.refusals)[:_SHOWN]
        self.strays = self.strays | other.strays if other.strays else self.strays
        return self


def register_window(
    connection: psycopg.Connection,
    zone: LandingZone,
    feeds: Feeds,
    window: Window,
    options: RegisterOptions,
    progress: Progress = lambda done, total: None,
) -> Registration:
    """Bring the registry up to date with the objects whose folders lie in `window` or within the margin of it.

    Commits after every group of objects, so that a killed run keeps what it registered.

    Args:
        connection: to the store; not inside a transaction.
        zone: the landing zone.
        feeds: of the store.
        window: slices.
        options: how.
        progress: called day by day with the number of objects that are done.

    Raises:
        UserError: the landing zone or the server fails, the landing zone hands out no object at all, or the store was filled from
            another one.
    """
    if not options.new_zone:
        require_known_zone(connection, zone, feeds)
    total, failed = Registration(), set[str]()
    known: LandedObject | None = None  # an object that was readable before, the smallest one
    settled = SettledFolders(len(feeds.prefixes), options.on_settled)
    with ReadMarks(connection, zone, retry=options.reread) as marks:
        for folders in compare_days(connection, zone, feeds, ((day, feeds.prefixes) for day in window.widened(options.margin).days())):
            record_missing(connection, zone, feeds, folders.missing)
            record_listed(connection, feeds, folders)
            folders.record_strays(connection, zone, feeds)
            total += Registration(listed=len(folders.listed), gone=len(folders.missing), strays=set().union(*folders.strays.values()))
            known = min(filter(None, [known, *folders.readable]), key=attrgetter("size"), default=None)
            objects = settled.begin(folders.window, len(folders.strays), folders.listed if options.reread else folders.unread)
            done = total.listed - len(objects)
            progress(done, total.listed)
            for group in marks.fetch_groups(objects, feeds):
                failed.update(fetched.obj.uri for fetched in group if fetched.error)  # all others are not noticed any more
                total += register_group(connection, zone, group, feeds, reread=options.reread, spool=options.spool)
                settled.read([fetched.obj for fetched in group])
                done += len(group)
                progress(done, total.listed)
        objects = _noticed_elsewhere(connection, zone, feeds, window, failed)
        total.listed += len(objects)
        for group in marks.fetch_groups(objects, feeds):
            total += register_group(connection, zone, group, feeds, spool=options.spool)
    if total.refused and not total.read and not (known and _is_readable(zone, known)):
        raise UserError(total.refusals[0])  # no object can be read, so it is not the object
    return total


# ---- list and compare


@dataclass(frozen=True)
class Folders:
    """The folders of some prefixes and one window beside the registry.

    Attributes:
        window: the folders' minutes.
        listed: the objects in them, prefix by prefix.
        versions: the versions that the registry believes to be there, with their status.
        missing: URIs of those versions absent from the listing that HEAD also reports missing.
        strays: for each prefix, what lies among the objects and cannot be one of them.
    """

    window: Window
    listed: list[LandedObject]
    versions: dict[ObjectVersion, Status]
    missing: list[str]
    strays: dict[str, set[Stray]]

    @property
    def unknown(self) -> list[LandedObject]:
        """Objects whose current version the registry does not know."""
        return [obj for obj in self.listed if obj.version not in self.versions]

    @cached_property
    def double(self) -> dict[str, list[ObjectVersion]]:
        """Objects of which several versions are registered, and so counted twice."""
        registered: dict[str, list[ObjectVersion]] = {}
        for version, status in sorted(self.versions.items()):
            if status is Status.REGISTERED:
                registered.setdefault(version.uri, []).append(version)
        return {uri: versions for uri, versions in registered.items() if len(versions) > 1}

    @property
    def readable(self) -> list[LandedObject]:
        """Objects that were read before."""
        return [obj for obj in self.listed if self.versions.get(obj.version) == Status.REGISTERED]

    @property
    def unread(self) -> list[LandedObject]:
        """Objects whose current version was not read yet."""
        return [obj for obj in self.listed if self.versions.get(obj.version) not in (Status.REGISTERED, Status.REJECTED)]

    def record_strays(self, connection: psycopg.Connection, zone: LandingZone, feeds: Feeds) -> None:
        """Record the strays, and forget those that are not there any more."""
        uris = [zone.uri_range(prefix, self.window) for prefix in self.strays]
        record_strays(connection, uris, {feeds.by_prefix(prefix)[0].label: found for prefix, found in self.strays.items()})


def compare_days(
    connection: psycopg.Connection, zone: LandingZone, feeds: Feeds, days: Iterable[tuple[Window, Sequence[str]]]
) -> Iterator[Folders]:
    """Compare the folders of days with the registry, those of many prefixes at once if they have few objects.

    A prefix may have none a day, and another one fifty thousand.

    Args:
        connection: to the store.
        zone: the landing zone.
        feeds: what lands there.
        days: the folders' minutes, and the prefixes.
    """
    many = 4
    for day, rest in days:
        while rest:
            some, rest = rest[:many], rest[many:]
            folders = compare_folders(connection, zone, feeds, some, day)
            many = max(1, min(2 * many, len(some) * _LISTED_TOGETHER // max(len(folders.listed), 1)))
            yield folders


def compare_folders(connection: psycopg.Connection, zone: LandingZone, feeds: Feeds, prefixes: Sequence[str], window: Window) -> Folders:
    """List the folders of a window and compare them with the registry.

    Args:
        connection: to the store.
        zone: the landing zone.
        feeds: what lands there.
        prefixes: at least one.
        window: the folders' minutes.
    """
    strays: dict[str, set[Stray]] = {prefix: set() for prefix in prefixes}
    listed = list(chain.from_iterable(zone.list_windows(prefixes, window, strays).values()))
    versions = registry.read_current_versions(connection, {prefix: zone.uri_range(prefix, window) for prefix in prefixes}, listed)
    absent = sorted({version.uri for version in versions} - {obj.uri for obj in listed})
    found = _head_all(zone, feeds, absent)
    return Folders(window, listed, versions, [uri for uri in absent if found[uri] is None], strays)


def _head_all(zone: LandingZone, feeds: Feeds, uris: Collection[str]) -> dict[str, LandedObject | None]:
    """The current version of each object below the prefix of a feed; None if there is no such object."""

    def head(uri: str) -> LandedObject | None:
        own = feeds.by_path(zone.path(uri))
        return zone.head(uri, own.prefixes[0]) if own else None

    if not uris:
        return {}
    with ThreadPoolExecutor(min(zone.concurrency, len(uris))) as pool:
        return dict(zip(uris, pool.map(head, uris), strict=True))


def _noticed_elsewhere(
    connection: psycopg.Connection, zone: LandingZone, feeds: Feeds, window: Window, failed: Collection[str]
) -> list[LandedObject]:
    """Objects that were noticed under slices of `window` and lie in folders far from it, as of a collector whose clock is wrong.

    Without those whose reading `failed`: if a listing shows an object that nobody can read, marking it as gone would make every listing
    notice it again, and request a run for it.
    """
    noticed = registry.read_unread_uris(connection, window, zone.uris())
    uris = [uri for uri in noticed if uri not in failed and feeds.by_path(zone.path(uri))]
    found = _head_all(zone, feeds, uris)
    record_missing(connection, zone, feeds, [uri for uri, obj in found.items() if obj is None])
    return [obj for obj in found.values() if obj is not None]


# ---- read and record


def register_object(connection: psycopg.Connection, zone: LandingZone, obj: LandedObject, feeds: Feeds) -> Registration:
    """Read one object and record it."""
    return register_group(connection, zone, [fetch(zone, obj)], feeds)


def register_group(
    connection: psycopg.Connection,
    zone: LandingZone,
    group: Sequence[Fetched],
    feeds: Feeds,
    *,
    reread: bool = False,
    spool: Spool | None = None,
) -> Registration:
    """Decode fetched objects and record them in one transaction; an object that is refused holds up no others."""
    refused = {fetched.obj: str(fetched.error) for fetched in group if is_refusal(fetched.error)}
    registry.notice_refused(connection, feeds, refused)
    group = list(_read_current(zone, (fetched for fetched in group if not is_refusal(fetched.error))))
    spooled: list[Piece] | None = [] if spool is not None and all(fetched.source is None for fetched in group) else None
    contents = collect_contents(len(group), _keep(decode_group(group, feeds), spooled))
    reject_misread_ids(group, contents)
    reject_without_valid_rows(group, contents)
    readings = build_readings(group, contents, feeds)
    contested = registry.register(connection, readings, reread=reread)
    for obj in [fetched.obj for fetched in group if fetched.obj.uri in contested]:
        _register_contested(connection, zone, feeds, readings.select(obj.uri.__eq__), contested[obj.uri])
    if spool is not None:
        spool.put([fetched.obj.version for fetched in group], [(piece.decoded.ticks, piece.tick_object) for piece in spooled or ()])
    rejections = [f"{fetched.obj.uri}: {fetched.rejected}" for fetched in group if fetched.rejected]
    return Registration(
        read=len(group),
        registered=len(group) - len(rejections),
        rejected=len(rejections),
        refused=len(refused),
        rejected_rows=sum(row.row_count for row in readings.rejected_rows),
        left_out_rows=sum(content.left_out_rows for fetched, content in zip(group, contents, strict=True) if not fetched.rejected),
        bytes=sum(fetched.obj.size for fetched in group),
        rejections=rejections,
        refusals=list(refused.values()),
    )


def _register_contested(
    connection: psycopg.Connection, zone: LandingZone, feeds: Feeds, readings: Readings, contested: set[ObjectVersion]
) -> None:
    """Record an object that was read while another version may be current, according to their times: the landing zone knows."""
    (obj,), outdated = readings.objects, set[ObjectVersion]()
    while contested:
        current = zone.head(obj.uri, obj.prefix)
        if current is None:
            record_missing(connection, zone, feeds, [obj.uri])
            return
        if current.version != obj.version:
            record_current(connection, feeds, current, [obj.version])  # it may have been noticed
            return
        outdated |= contested
        contested = registry.register(connection, readings, outdated=outdated).get(obj.uri, set())


def record_current(connection: psycopg.Connection, feeds: Feeds, current: LandedObject, versions: Iterable[ObjectVersion]) -> None:
    """Record which version of an object the landing zone holds, and that these other versions are not there."""
    registry.notice(connection, feeds, [current])
    registry.supersede(connection, [version for version in versions if version != current.version], current.version)


def record_listed(connection: psycopg.Connection, feeds: Feeds, folders: Folders) -> None:
    """Of each object of which several versions are registered, record that the listed one is there, and that the others are not."""
    listed = {obj.uri: obj for obj in folders.listed if obj.uri in folders.double}
    for uri, obj in listed.items():
        record_current(connection, feeds, obj, folders.double[uri])


def record_missing(connection: psycopg.Connection, zone: LandingZone, feeds: Feeds, uris: Sequence[str]) -> None:
    """Record that objects are gone. One that landed again before that was recorded is work to do."""
    registry.mark_gone(connection, uris)
    back = _head_all(zone, feeds, uris)
    registry.notice(connection, feeds, [obj for obj in back.values() if obj is not None])


def _is_readable(zone: LandingZone, obj: LandedObject) -> bool:
    fetched = fetch(zone, obj)
    if isinstance(fetched.source, Path):
        fetched.source.unlink(missing_ok=True)
    return fetched.error is None


def _read_current(zone: LandingZone, group: Iterable[Fetched]) -> Iterator[Fetched]:
    """The objects as they are now: read again if they were overwritten meanwhile, left out if they have disappeared."""
    for fetched in group:
        for _ in range(_READ_ATTEMPTS):
            if not isinstance(fetched.error, ObjectChanged) or (obj := zone.head(fetched.obj.uri, fetched.obj.prefix)) is None:
                break
            fetched = fetch(zone, obj)
        else:
            reason = "it changes faster than it can be read: land each batch under a name of its own"
            fetched = replace(fetched, error=None, rejected=reason)
        if fetched.error is None:
            yield fetched
        elif not isinstance(fetched.error, ObjectGone | ObjectChanged):
            raise fetched.error


def _keep(pieces: Iterable[Piece], kept: list[Piece] | None) -> Iterator[Piece]:
    """The same pieces, each of them also added to `kept`."""
    for piece in pieces:
        if kept is not None:
            kept.append(piece)
        yield piece
