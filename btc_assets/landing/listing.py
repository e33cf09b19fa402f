"""Listing the landing zone: which folders to ask for, and which objects in them count."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from operator import attrgetter
from typing import TYPE_CHECKING

from btc_assets.domain.feeds import folder_path, folder_time
from btc_assets.domain.slices import DAY, Window, floor_day
from btc_assets.landing.listers import Lister
from btc_assets.landing.objects import LandedObject, ObjectGone
from btc_assets.landing.strays import MISPLACED, Stray, is_hidden
from btc_assets.landing.zone_errors import ErrorTranslator

if TYPE_CHECKING:
    from obstore import ObjectMeta


class Listing:
    """Lists the objects of one store; `LandingZone` documents its methods.

    Args:
        lister: of the store.
        url: of the store, without a slash at the end; the start of every URI.
        concurrency: folders listed at once.
        errors: translates the store's errors.
    """

    def __init__(self, lister: Lister, url: str, concurrency: int, errors: ErrorTranslator) -> None:
        self._lister = lister
        self._url = url
        self._concurrency = concurrency
        self._errors = errors

    def list_windows(
        self, prefixes: Sequence[str], window: Window, strays: Mapping[str, set[Stray]] | None = None
    ) -> dict[str, list[LandedObject]]:
        """See `LandingZone.list_windows`."""
        folders = [(prefix, *folder) for prefix in prefixes for folder in folders_to_list(prefix, window)]
        listed: dict[str, list[LandedObject]] = {prefix: [] for prefix in prefixes}
        with ThreadPoolExecutor(max(min(self._concurrency, len(folders)), 1)) as pool:

            def list_folder(folder: tuple[str, str, bool]) -> list[LandedObject]:
                return list(self._list(*folder, strays[folder[0]] if strays else None))

            for (prefix, *_), objects in zip(folders, pool.map(list_folder, folders), strict=True):
                listed[prefix] += objects
        for prefix, found in strays.items() if strays else ():
            found.update(Stray.at(obj.uri, MISPLACED) for obj in listed[prefix] if obj.folder_span is None)
        return {
            prefix: sorted((obj for obj in objects if obj.folder_span and obj.folder_span.overlaps(window)), key=attrgetter("uri"))
            for prefix, objects in listed.items()
        }

    def list_since(self, prefix: str, start: datetime, strays: set[Stray] | None = None) -> Iterator[list[LandedObject]]:
        """Objects whose folder minute is `start` or later, a page at a time; for stores that list in order of the key."""
        # Some servers skip the folder itself if the offset is its bare name; "!" sorts before any name in it.
        for page in self._pages(prefix, prefix, strays, after=f"{folder_path(prefix, start)}/!"):
            if strays is not None:
                strays.update(Stray.at(obj.uri, MISPLACED) for obj in page if obj.folder_span is None)
            if objects := [obj for obj in page if obj.folder_span is not None]:
                yield objects

    def list_all(self, prefix: str, strays: set[Stray] | None = None) -> Iterator[LandedObject]:
        """See `LandingZone.list_all`."""
        return self._list(prefix, prefix, True, strays)

    def list_days(self, prefix: str, strays: set[Stray]) -> set[datetime]:
        """See `LandingZone.days`."""
        level, days = [prefix], set()
        for _ in range(3):  # years, months, days
            children = [self._children(folder, prefix, strays) for folder in level]
            strays.update(Stray.at(obj.uri, MISPLACED) for _, objects in children for obj in objects)
            level = [folder for folders, _ in children for folder in folders]
        for folder in level:
            if day := folder_time(prefix, f"{folder}/x"):
                days.add(day)
            else:
                strays.update(Stray.at(obj.uri, MISPLACED) for obj in self._list(prefix, folder, True, strays))
        return days

    def newest_minute(self, prefix: str) -> datetime | None:
        """See `LandingZone.newest_minute`."""

        def minute_folders(folder: str, depth: int) -> Iterator[str]:
            if depth == 5:
                yield folder
                return
            for name in sorted(self._children(folder, prefix)[0], reverse=True):
                if name.rpartition("/")[2].isdecimal():
                    yield from minute_folders(name, depth + 1)

        # A directory stays behind, empty, when its objects are removed: look on until a folder holds one.
        objects = (obj for folder in minute_folders(prefix, 0) for obj in self._list(prefix, folder))
        return next((obj.folder_time for obj in objects if obj.folder_time), None)

    def names(self, folder: str, most: int) -> list[str]:
        """See `LandingZone.names`."""
        with self._errors.during(f"Listing {self._url}/{folder}"):
            return self._lister.names(folder, most)

    def landed(self, meta: ObjectMeta, prefix: str) -> LandedObject | None:
        """The object that the store describes; None if it is hidden."""
        if is_hidden(meta["path"], meta["size"]):
            return None
        return LandedObject(f"{self._url}/{meta['path']}", meta["e_tag"] or "", meta["size"], meta["last_modified"], prefix)

    def _children(self, folder: str, prefix: str, strays: set[Stray] | None = None) -> tuple[list[str], list[LandedObject]]:
        """The folders and the objects directly in a folder; none if it does not exist."""
        found: dict[str, str] = {}
        try:
            with self._errors.during(f"Listing {self._url}/{folder}", uri=f"{self._url}/{folder}"):
                folders, metas = self._lister.children(folder, found)
        except ObjectGone:
            return [], []
        self._add_strays(found, strays)
        return folders, [obj for meta in metas if (obj := self.landed(meta, prefix))]

    def _list(self, prefix: str, folder: str, recursive: bool = True, strays: set[Stray] | None = None) -> Iterator[LandedObject]:
        if not recursive:
            yield from self._children(folder, prefix, strays)[1]
            return
        for page in self._pages(prefix, folder, strays):
            yield from page

    def _pages(self, prefix: str, folder: str, strays: set[Stray] | None, after: str | None = None) -> Iterator[list[LandedObject]]:
        found: dict[str, str] = {}
        with self._errors.during(f"Listing {self._url}/{folder}"):
            for page in self._lister.pages(folder, found, after):
                yield [obj for meta in page if (obj := self.landed(meta, prefix))]
        self._add_strays(found, strays)

    def _add_strays(self, found: dict[str, str], strays: set[Stray] | None) -> None:
        if strays is not None:
            strays.update(Stray.at(f"{self._url}/{path}", reason) for path, reason in found.items() if not is_hidden(path, 1))


def folders_to_list(prefix: str, window: Window) -> Iterator[tuple[str, bool]]:
    """The folders that cover `window`, and whether to list each recursively: whole days by day, the rest by hour.

    An object directly in the folder of an hour or a day may hold trades of all of it.
    """
    for day in window.days():
        midnight = floor_day(day.start)
        if day.end - day.start == DAY:
            yield f"{prefix}/{midnight:%Y/%m/%d}", True
            continue
        yield f"{prefix}/{midnight:%Y/%m/%d}", False
        hour = midnight + (day.start - midnight) // timedelta(hours=1) * timedelta(hours=1)
        while hour < day.end:
            yield f"{prefix}/{hour:%Y/%m/%d/%H}", True
            hour += timedelta(hours=1)
