"""Listing one folder of a store: by obstore, and in another way what obstore does not list.

A bucket may hold names that obstore refuses, and then it refuses the whole answer (developmentseed/obstore#429); a directory may hold
links that lead in a circle, and names of which obstore says nothing. Whatever cannot be an object is a stray, and all else is listed.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, timedelta
from errno import EACCES, ELOOP, ENAMETOOLONG, EPERM
from heapq import nsmallest
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import obstore
from obstore.exceptions import InvalidPathError
from obstore.store import ObjectStore

from btc_assets.domain.slices import EPOCH
from btc_assets.landing.s3 import S3Access
from btc_assets.landing.strays import unreadable_name

if TYPE_CHECKING:
    from obstore import ObjectMeta

_PAGE = 1000  # objects; the most that S3 lists in one answer

Strays = dict[str, str]  # the reason by the path


class Lister(Protocol):
    """Lists folders of one store. Paths are relative to it and without slashes at the ends; `strays` gets what is no object."""

    def pages(self, folder: str, strays: Strays, after: str | None = None) -> Iterator[Iterable[ObjectMeta]]:
        """Everything below a folder, a page at a time; on S3 in order, and from the key that follows `after`."""

    def children(self, folder: str, strays: Strays) -> tuple[list[str], list[ObjectMeta]]:
        """The folders and the objects directly in a folder."""

    def names(self, folder: str, most: int) -> list[str]:
        """Some of the names directly in a folder, those of folders with a slash at the end."""


class StoreLister:
    """Lists any store by obstore alone."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def pages(self, folder: str, strays: Strays, after: str | None = None) -> Iterator[Iterable[ObjectMeta]]:
        """See `Lister`."""
        yield from obstore.list(self._store, folder, offset=after, chunk_size=_PAGE)

    def children(self, folder: str, strays: Strays) -> tuple[list[str], list[ObjectMeta]]:
        """See `Lister`."""
        listed = obstore.list_with_delimiter(self._store, folder)
        return [name.rstrip("/") for name in listed["common_prefixes"]], [*listed["objects"]]

    def names(self, folder: str, most: int) -> list[str]:
        """See `Lister`."""
        folders, objects = self.children(folder, {})
        names = [f"{name}/" for name in folders] + [meta["path"] for meta in objects]
        return [name.removeprefix(f"{folder}/") for name in sorted(names)[:most]]


class S3Lister(StoreLister):
    """Lists a bucket by obstore, and by boto3 from where obstore refuses an answer."""

    def __init__(self, store: ObjectStore, s3: S3Access) -> None:
        super().__init__(store)
        self._s3 = s3

    def pages(self, folder: str, strays: Strays, after: str | None = None) -> Iterator[Iterable[ObjectMeta]]:
        """See `Lister`."""
        try:
            for page in super().pages(folder, strays, after):
                yield self._without_markers(page, strays)
                after = page[-1]["path"]  # type: ignore[index]  # obstore's pages are sequences
            return
        except InvalidPathError:
            pass
        for answer in self._answers(folder, StartAfter=self._s3.key(after) if after else ""):
            yield self._objects(answer, strays)

    def children(self, folder: str, strays: Strays) -> tuple[list[str], list[ObjectMeta]]:
        """See `Lister`."""
        try:
            folders, objects = super().children(folder, strays)
            return folders, self._without_markers(objects, strays)
        except InvalidPathError:
            folders, objects = [], []
        for answer in self._answers(folder, Delimiter="/"):
            objects += self._objects(answer, strays)
            for found in answer.get("CommonPrefixes", ()):
                path = self._path(found["Prefix"]).removesuffix("/")
                if reason := unreadable_name(path):
                    strays[f"{path}/"] = reason
                else:
                    folders.append(path)
        return folders, objects

    def names(self, folder: str, most: int) -> list[str]:
        """See `Lister`."""
        prefix = self._prefix(folder)
        answer = self._s3.client().list_objects_v2(Bucket=self._s3.bucket, Prefix=prefix, Delimiter="/", MaxKeys=most)
        keys = [found["Prefix"] for found in answer.get("CommonPrefixes", ())] + [found["Key"] for found in answer.get("Contents", ())]
        return sorted(key.removeprefix(prefix) for key in keys if key != prefix)

    def _answers(self, folder: str, **options: str) -> Iterator[Mapping[str, Any]]:
        paginator = self._s3.client().get_paginator("list_objects_v2")
        yield from paginator.paginate(Bucket=self._s3.bucket, Prefix=self._prefix(folder), **options)

    def _objects(self, answer: Mapping[str, Any], strays: Strays) -> list[ObjectMeta]:
        objects: list[ObjectMeta] = []
        for found in answer.get("Contents", ()):
            path = self._path(found["Key"])
            if path.endswith("/") and not found["Size"]:
                continue  # it marks a folder
            if reason := unreadable_name(path):
                strays[path] = reason
            else:
                modified = found["LastModified"].astimezone(UTC)
                objects.append({"path": path, "size": found["Size"], "e_tag": found["ETag"], "last_modified": modified, "version": None})
        return objects

    def _without_markers(self, page: Iterable[ObjectMeta], strays: Strays) -> list[ObjectMeta]:
        """The same objects, without those whose name an answer in XML cannot tell, and without empty ones that mark a folder."""
        objects = []
        for meta in page:
            if "\ufffd" in meta["path"]:
                strays[meta["path"]] = "cannot be read, because its name holds characters that S3 does not tell: rename it"
            elif meta["size"] or not self._is_marker(meta["path"]):
                objects.append(meta)
        return objects

    def _is_marker(self, path: str) -> bool:
        """Whether an empty object is one whose key ends with a slash, which obstore leaves out."""
        key = self._s3.key(path)
        found = self._s3.client().list_objects_v2(Bucket=self._s3.bucket, Prefix=key, MaxKeys=1).get("Contents", ())
        return bool(found) and found[0]["Key"] == f"{key}/"

    def _prefix(self, folder: str) -> str:
        return self._s3.key(f"{folder}/" if folder else "")

    def _path(self, key: str) -> str:
        return key.removeprefix(self._s3.key(""))


class _Folder(NamedTuple):
    """A folder to list: its path, where it really is, and from where links led to it."""

    path: str
    real: str
    entered: tuple[str, ...]


class DirectoryLister:
    """Lists a directory. obstore stops at names that it cannot hold and at links in a circle, and passes over `name#1`."""

    # Of the names in a directory, those that obstore cannot read: it takes `name#1` for a file that it is still writing.
    _UNREADABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]|#\d+$")
    _NO_WAY_IN = (EACCES, EPERM, ELOOP, ENAMETOOLONG)

    def __init__(self, root: Path) -> None:
        self._root = str(root)

    def pages(self, folder: str, strays: Strays, after: str | None = None) -> Iterator[Iterable[ObjectMeta]]:
        """See `Lister`."""
        top = os.path.join(self._root, folder)
        pending = [_Folder(folder, os.path.realpath(top), ())]
        page: list[ObjectMeta] = []
        while pending:
            one = pending.pop()
            try:
                folders, objects = self._list(one, strays)
            except OSError as error:
                if one.path == folder or error.errno not in self._NO_WAY_IN:
                    raise
                strays[one.path] = f"is a folder that cannot be read ({error.strerror}): let this user read it, or move it away"
                continue
            pending += folders
            page += objects
            if len(page) >= _PAGE:
                yield page
                page = []
        if page:
            yield page

    def children(self, folder: str, strays: Strays) -> tuple[list[str], list[ObjectMeta]]:
        """See `Lister`."""
        folders, objects = self._list(_Folder(folder, os.path.realpath(os.path.join(self._root, folder)), ()), strays)
        return [one.path for one in folders], objects

    def names(self, folder: str, most: int) -> list[str]:
        """See `Lister`."""
        try:
            with os.scandir(os.path.join(self._root, folder)) as entries:
                return nsmallest(most, (f"{entry.name}/" if entry.is_dir() else entry.name for entry in islice(entries, 100_000)))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _list(self, folder: _Folder, strays: Strays) -> tuple[list[_Folder], list[ObjectMeta]]:
        folders: list[_Folder] = []
        objects: list[ObjectMeta] = []
        try:
            with os.scandir(os.path.join(self._root, folder.path)) as entries:
                for entry in entries:
                    path = f"{folder.path}/{entry.name}" if folder.path else entry.name
                    if flaw := self._add(entry, path, folder, folders, objects):
                        strays[path] = flaw
        except (FileNotFoundError, NotADirectoryError):
            pass
        return folders, objects

    def _add(  # six: what is found, and where it goes
        self, entry: os.DirEntry[str], path: str, folder: _Folder, folders: list[_Folder], objects: list[ObjectMeta]
    ) -> str | None:
        """Add an entry to the folders or objects; returns what is wrong with it, if it can be neither."""
        try:
            found = entry.stat() if entry.is_symlink() or not entry.is_dir() else None
        except FileNotFoundError:  # removed meanwhile
            return "is a link that leads nowhere: remove it" if entry.is_symlink() else None
        except OSError as error:
            if error.errno not in self._NO_WAY_IN:
                raise
            return f"is a link that cannot be followed ({error.strerror}): remove it"
        is_folder = found is None or stat.S_ISDIR(found.st_mode)
        if match := self._UNREADABLE.search(entry.name):
            if not match[0].startswith("#"):
                return unreadable_name(path)
            if not is_folder:
                return "is named like a file that is still being written (#): rename it if it is whole, or remove it"
        if is_folder:
            return self._add_folder(entry, path, folder, folders)
        assert found is not None
        if not stat.S_ISREG(found.st_mode):
            return "is no regular file: remove it"
        objects.append(_meta(path, found))
        return None

    def _add_folder(self, entry: os.DirEntry[str], path: str, folder: _Folder, folders: list[_Folder]) -> str | None:
        if not entry.is_symlink():
            folders.append(_Folder(path, f"{folder.real}/{entry.name}", folder.entered))
            return None
        target, entered = os.path.realpath(entry.path), (*folder.entered, folder.real)
        if any(f"{above}/".startswith(f"{target}/") for above in entered):
            return "is a link that leads back to a folder above it: remove it"
        folders.append(_Folder(path, target, entered))
        return None


def file_etag(found: os.stat_result) -> str:
    """The ETag that obstore gives a file, which changes whenever the file does."""
    return f'"{found.st_ino:x}-{max(found.st_mtime_ns // 1000, 0):x}-{found.st_size:x}"'


def _meta(path: str, found: os.stat_result) -> ObjectMeta:
    """A file as obstore describes it."""
    return {
        "path": path,
        "size": found.st_size,
        "e_tag": file_etag(found),
        "last_modified": EPOCH + timedelta(microseconds=found.st_mtime_ns // 1000),
        "version": None,
    }
