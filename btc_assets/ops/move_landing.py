"""Moving the landing zone: the registry follows objects that somebody copied or moved to another bucket or directory.

Every object that the registry believes to be there is looked up in the new place first. Its rows follow only if it is the same object:
of the same size, and with the same ETag or the same bytes. So nothing has to be loaded again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import LiteralString, NamedTuple

import psycopg

from btc_assets.landing.objects import LandedObject, ObjectChanged, ObjectCorrupt, ObjectGone
from btc_assets.landing.registry import rename_objects
from btc_assets.landing.states import Status
from btc_assets.landing.strays import forget_strays
from btc_assets.landing.zone import LandingZone
from btc_assets.store.database import only_row
from btc_assets.store.errors import server_errors

_BATCH = 1000  # URIs
_SHOWN = 20
_MD5 = re.compile(r'"?([0-9a-f]{32})"?')

_VERSIONS: LiteralString = """
SELECT uri, etag, max(size_bytes), max(last_modified), bool_or(status = ANY(%(current)s)) FROM landing.raw_blobs_5m
WHERE uri > %(after)s AND uri < %(end)s AND uri = ANY(ARRAY(
    SELECT DISTINCT uri FROM landing.raw_blobs_5m WHERE uri > %(after)s AND uri < %(end)s ORDER BY uri LIMIT %(batch)s
))
GROUP BY uri, etag ORDER BY uri, etag
"""


class _Version(NamedTuple):
    uri: str
    etag: str
    size: int
    last_modified: datetime
    current: bool


@dataclass
class Move:
    """What a move finds and does.

    Attributes:
        objects: URIs below the old place that the registry has.
        compared: how many of them had to be read, because their ETag is another one in the new place.
        refused: how many cannot be moved; `reasons` are the first of them.
    """

    objects: int = 0
    compared: int = 0
    refused: int = 0
    reasons: list[str] = field(default_factory=list)


class LandingMove:
    """A move of all objects below one URL to another.

    Args:
        connection: to the store, in autocommit mode.
        old_url: where the registry says they are.
        new: where they are now.
        old: the old place, if it can still be read.
        etag_is_md5: whether a 32-digit ETag of S3 is the MD5 of the bytes.
    """

    def __init__(
        self, connection: psycopg.Connection, old_url: str, new: LandingZone, old: LandingZone | None = None, *, etag_is_md5: bool = True
    ) -> None:
        self._connection, self._old_url, self._new, self._old = connection, old_url.rstrip("/"), new, old
        self._knows_md5 = etag_is_md5 and self._old_url.startswith("s3://")

    def count(self) -> int:
        """Objects below the old place that the registry has."""
        with server_errors():
            (count,) = only_row(
                self._connection.execute("SELECT count(DISTINCT uri) FROM landing.raw_blobs_5m WHERE uri > %s AND uri < %s", self._range)
            )
        return int(count)

    def verify(self, progress: Callable[[int], None] = lambda done: None) -> Move:
        """Look every object up in the new place, and remember what it is called there; changes nothing."""
        move = Move()
        with server_errors():
            self._connection.execute("DROP TABLE IF EXISTS pg_temp.moved_objects")
            self._connection.execute(
                'CREATE TEMPORARY TABLE moved_objects (uri text COLLATE "C", etag text, new_uri text, new_etag text, last_modified timestamptz, '
                "PRIMARY KEY (uri, etag))"
            )
            with ThreadPoolExecutor(self._new.concurrency) as pool:
                for versions in self._batches():
                    found = list(pool.map(self._find, versions))
                    for version, (_, compared, problem) in zip(versions, found, strict=True):
                        move.compared += compared
                        if problem:
                            move.refused += 1
                            move.reasons = [*move.reasons, f"{version.uri}: {problem}"][:_SHOWN]
                    rows = [(*version[:2], *row) for version, (row, _, _) in zip(versions, found, strict=True)]
                    with self._connection.cursor() as cursor:
                        cursor.executemany("INSERT INTO moved_objects VALUES (%s, %s, %s, %s, %s)", rows)
                    move.objects += len({version.uri for version in versions})
                    progress(move.objects)
        return move

    def apply(self, progress: Callable[[int], None] = lambda done: None) -> int:
        """Have the registry name what `verify` found; returns how many objects."""
        moved = 0
        with server_errors():
            while True:
                with self._connection.transaction(), self._connection.cursor() as cursor:
                    uris = [
                        uri
                        for (uri,) in cursor.execute("SELECT DISTINCT uri FROM moved_objects ORDER BY uri LIMIT %s", (_BATCH,)).fetchall()
                    ]
                    if not uris:
                        break
                    rename_objects(cursor, cursor.execute("DELETE FROM moved_objects WHERE uri = ANY(%s) RETURNING *", (uris,)).fetchall())
                moved += len(uris)
                progress(moved)
        forget_strays(self._connection, self._range)  # the next listing finds those of the new place
        return moved

    @property
    def _range(self) -> tuple[str, str]:
        return f"{self._old_url}/", f"{self._old_url}0"  # "0" follows "/"

    def _batches(self) -> Iterator[list[_Version]]:
        after, end = self._range
        current = [Status.NOTICED, Status.REGISTERED, Status.REJECTED]
        while True:
            parameters = {"after": after, "end": end, "batch": _BATCH, "current": current}
            rows = self._connection.execute(_VERSIONS, parameters).fetchall()
            if not rows:
                return
            yield [_Version(*row) for row in rows]
            after = rows[-1][0]

    def _find(self, version: _Version) -> tuple[tuple[str, str, datetime], bool, str]:
        """The version in the new place, whether its bytes were compared, and why it cannot be moved; empty if it can."""
        uri = f"{self._new.url}/{version.uri.removeprefix(self._old_url + '/')}"
        same = uri, version.etag, version.last_modified
        if not version.current:  # it is nowhere any more
            return same, False, ""
        obj = self._new.head(uri, "")
        if obj is None:
            return same, False, f"there is no {uri}: copy it there"
        if obj.size != version.size:
            return same, False, f"{uri} has {obj.size:,} bytes instead of {version.size:,}: copy it again"
        found = uri, obj.etag, obj.last_modified
        if obj.etag == version.etag:
            return found, False, ""
        return found, True, self._compare(version, obj)

    def _compare(self, version: _Version, obj: LandedObject) -> str:
        """Why an object with another ETag is not the same; empty if it is."""
        md5 = _MD5.fullmatch(version.etag) if self._knows_md5 else None
        try:
            if md5:
                same = _digest(self._new, obj, "md5") == md5[1]
            else:
                original = self._old.head(version.uri, "") if self._old else None
                if self._old is None or original is None or original.etag != version.etag:
                    return (
                        f"{obj.uri} has another ETag, and the original is not there to be compared with: copy it back, or forget the objects "
                        f"(btc-assets db forget --objects {self._old_url}) and load them from the new place"
                    )
                same = _digest(self._new, obj, "sha256") == _digest(self._old, original, "sha256")
        except (ObjectGone, ObjectChanged, ObjectCorrupt) as error:
            return f"it cannot be compared ({error})"
        return "" if same else f"{obj.uri} has other bytes: copy it again"


def _digest(zone: LandingZone, obj: LandedObject, algorithm: str) -> str:
    data, _ = zone.read(obj)
    if isinstance(data, bytes):
        return hashlib.new(algorithm, data, usedforsecurity=False).hexdigest()
    try:
        with data.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
    finally:
        with suppress(FileNotFoundError):
            Path(data).unlink()
