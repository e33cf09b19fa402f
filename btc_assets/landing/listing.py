"""Listing the landing zone: which folders to ask for, and which objects in them count."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from operator import attrgetter

import obstore
from obstore.store import ObjectStore

from btc_assets.domain.feeds import folder_path, folder_time
from btc_assets.domain.slices import DAY, Window, floor_day
from btc_assets.landing.objects import LandedObject, ObjectGone
from btc_assets.landing.zone_errors import ErrorTranslator

_PAGE = 1000  # objects; the most that S3 lists in one answer


class Listing:
    """Lists the objects of one store; `LandingZone` documents its methods.

    Args:
        store: where to list.
        url: of the store, without a slash at the end; the start of every URI.
        concurrency: folders listed at once.
        errors: translates the store's errors.
    """

    def __init__(self, store: ObjectStore, url: str, concurrency: int, errors: ErrorTranslator) -> None:
        self._store = store
        self._url = url
        self._concurrency = concurrency
        self._errors = errors

    def list_window(self, prefix: str, window: Window, misplaced: set[str] | None = None) -> list[LandedObject]:
        """See `LandingZone.list_window`."""
        folders = list(folders_to_list(prefix, window))
        with ThreadPoolExecutor(min(self._concurrency, len(folders))) as pool:
            listed = [obj for objects in pool.map(lambda folder: list(self._list(prefix, *folder)), folders) for obj in objects]
        if misplaced is not None:
            misplaced.update(obj.uri for obj in listed if obj.folder_time is None)
        return sorted((obj for obj in listed if (at := obj.folder_time) is not None and at in window), key=attrgetter("uri"))

    def list_since(self, prefix: str, start: datetime) -> Iterator[list[LandedObject]]:
        """Objects whose folder minute is `start` or later, a page at a time; for stores that list in order of the key."""
        with self._errors.during(f"Listing {self._url}/{prefix}"):
            # Some servers skip the folder itself if the offset is its bare name; "!" sorts before any name in it.
            for page in obstore.list(self._store, prefix, offset=f"{folder_path(prefix, start)}/!", chunk_size=_PAGE):
                objects = [obj for meta in page if (obj := self.landed(meta, prefix)) and obj.folder_time is not None]
                if objects:
                    yield objects

    def list_all(self, prefix: str) -> Iterator[LandedObject]:
        """See `LandingZone.list_all`."""
        return self._list(prefix, prefix)

    def list_days(self, prefix: str) -> tuple[set[datetime], list[str]]:
        """See `LandingZone.days`."""
        level, days = [prefix], set()
        misplaced: list[str] = []
        for _ in range(3):  # years, months, days
            children = [self._children(folder, prefix) for folder in level]
            misplaced += [obj.uri for _, objects in children for obj in objects]
            level = [folder for folders, _ in children for folder in folders]
        for folder in level:
            if day := folder_time(prefix, f"{folder}/x"):
                days.add(day)
            else:
                misplaced += [obj.uri for obj in self._list(prefix, folder)]
        return days, misplaced

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

    def landed(self, meta: obstore.ObjectMeta, prefix: str) -> LandedObject | None:
        """The object that the store describes; None if it is hidden."""
        if is_hidden(meta["path"], meta["size"]):
            return None
        return LandedObject(f"{self._url}/{meta['path']}", meta["e_tag"] or "", meta["size"], meta["last_modified"], prefix)

    def _children(self, folder: str, prefix: str) -> tuple[list[str], list[LandedObject]]:
        """The folders and the objects directly in a folder; none if it does not exist."""
        try:
            with self._errors.during(f"Listing {self._url}/{folder}", uri=f"{self._url}/{folder}"):
                listed = obstore.list_with_delimiter(self._store, folder)
        except ObjectGone:
            return [], []
        objects = [obj for meta in listed["objects"] if (obj := self.landed(meta, prefix))]
        return [name.rstrip("/") for name in listed["common_prefixes"]], objects

    def _list(self, prefix: str, folder: str, recursive: bool = True) -> Iterator[LandedObject]:
        with self._errors.during(f"Listing {self._url}/{folder}"):
            if recursive:
                pages: Iterable[Sequence[obstore.ObjectMeta]] = obstore.list(self._store, folder, chunk_size=_PAGE)
            else:
                pages = [obstore.list_with_delimiter(self._store, folder)["objects"]]
            for page in pages:
                yield from filter(None, (self.landed(meta, prefix) for meta in page))


def folders_to_list(prefix: str, window: Window) -> Iterator[tuple[str, bool]]:
    """The folders that cover `window`, and whether to list each recursively: whole days by day, the rest by hour."""
    for day in window.days():
        midnight = floor_day(day.start)
        if day.end - day.start == DAY:
            yield f"{prefix}/{midnight:%Y/%m/%d}", True
            continue
        if day.start == midnight:
            yield f"{prefix}/{midnight:%Y/%m/%d}", False  # an object directly in the day's folder counts as landed at midnight
        hour = midnight + (day.start - midnight) // timedelta(hours=1) * timedelta(hours=1)
        while hour < day.end:
            yield f"{prefix}/{hour:%Y/%m/%d/%H}", True
            hour += timedelta(hours=1)


def is_hidden(path: str, size: int) -> bool:
    """Whether this is no landed object: `.name`, as rsync calls an unfinished file, or the empty object that marks a folder."""
    name = path.rpartition("/")[2]
    return name.startswith(".") or (size == 0 and re.fullmatch(r"\d\d", name) is not None)
