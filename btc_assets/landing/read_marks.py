"""Marks of objects that are being read, so that one during whose reading a process died does not end another.

A process that is killed by what it reads cannot say so. It marks each group of objects in the store before it reads them, and removes the
marks afterwards. A mark whose reader is gone is a suspicion: that object is tried in a process of its own, and read alone after that. One
that ends the trial, or two processes that read it alone, is rejected; `--reread` tries it again.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import psycopg

from btc_assets.domain.feeds import Feeds
from btc_assets.domain.objects import ObjectVersion
from btc_assets.landing.objects import LandedObject
from btc_assets.landing.reading import Fetched, fetch, fetch_groups
from btc_assets.landing.zone import LandingZone
from btc_assets.store.errors import server_errors

_TRIALS = 2  # of an object whose trial is killed from outside, as it is when memory is short
_ALONE = 2  # times that an object is read alone

_LOCK = "hashtextextended('landing.objects_being_read ' || %(reader)s, 0)"
_TAKE_LOCK = f"SELECT pg_advisory_lock({_LOCK})"
_RELEASE_LOCK = f"SELECT pg_advisory_unlock({_LOCK})"

# The lock of a reader that lives cannot be taken.
_SUSPECTS = """
WITH readers AS MATERIALIZED (
    SELECT reader, hashtextextended('landing.objects_being_read ' || reader, 0) AS key
    FROM (SELECT DISTINCT reader FROM landing.objects_being_read) AS each
), dead AS MATERIALIZED (
    SELECT reader FROM readers WHERE CASE WHEN pg_try_advisory_lock(key) THEN pg_advisory_unlock(key) ELSE false END
)
SELECT uri, etag, max(alone), array_agg(reader) FROM landing.objects_being_read JOIN dead USING (reader) GROUP BY uri, etag
"""

# A mark that a power cut loses is no loss, so nobody waits for the disk.
_MARK = """
WITH lazily AS (SELECT set_config('synchronous_commit', 'off', true))
INSERT INTO landing.objects_being_read (uri, etag, reader, alone)
SELECT uri, etag, %(reader)s, %(alone)s FROM unnest(%(uris)s::text[], %(etags)s::text[]) AS read (uri, etag), lazily
ON CONFLICT (uri, etag, reader) DO UPDATE SET alone = excluded.alone
"""

_UNMARK = """
WITH lazily AS (SELECT set_config('synchronous_commit', 'off', true))
DELETE FROM landing.objects_being_read AS mark USING unnest(%(uris)s::text[], %(etags)s::text[]) AS read (uri, etag), lazily
WHERE (mark.uri, mark.etag) = (read.uri, read.etag) AND reader = ANY (%(readers)s)
"""

_UNMARK_ALL = "DELETE FROM landing.objects_being_read WHERE reader = %(reader)s"


class ReadMarks:
    """The marks of one process; use it as a context manager.

    Args:
        connection: to the store, in autocommit mode; the process counts as alive as long as its session.
        zone: the landing zone.
        retry: read also those objects again that two processes died of.

    Attributes:
        suspects: the objects during whose reading a process died, with how often they were read alone, and by whom.
    """

    def __init__(self, connection: psycopg.Connection, zone: LandingZone, *, retry: bool = False) -> None:
        self._connection, self._zone, self._retry = connection, zone, retry
        self._reader = uuid.uuid4().hex
        self.suspects: dict[ObjectVersion, tuple[int, list[str]]] = {}

    def __enter__(self) -> Self:
        with server_errors():
            self._connection.execute(_TAKE_LOCK, {"reader": self._reader})
            for uri, etag, alone, readers in self._connection.execute(_SUSPECTS):
                self.suspects[ObjectVersion(uri, etag)] = alone, readers
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(psycopg.Error):  # of a session that was lost, the marks are only a suspicion that proves wrong
            self._connection.execute(_UNMARK_ALL, {"reader": self._reader})
            self._connection.execute(_RELEASE_LOCK, {"reader": self._reader})

    def fetch_groups(self, objects: Iterable[LandedObject], feeds: Feeds) -> Iterator[list[Fetched]]:
        """As `reading.fetch_groups`, with marks as long as a group is in use; suspects come last, each alone.

        Args:
            objects: best prefix by prefix.
            feeds: what lands there.
        """
        objects = list(objects)
        for group in fetch_groups(self._zone, [obj for obj in objects if obj.version not in self.suspects], self._mark):
            yield group
            self._unmark([fetched.obj for fetched in group], [self._reader])
        for obj in objects:
            if obj.version not in self.suspects:
                continue
            alone, readers = self.suspects[obj.version]
            reason = self._try(obj, feeds.by_prefix(obj.prefix), alone)
            if reason is not None:
                yield [Fetched(obj, rejected=reason)]
                continue
            self._mark([obj], alone + 1)
            yield [fetch(self._zone, obj)]
            self._unmark([obj], [self._reader, *readers])
            del self.suspects[obj.version]

    def _mark(self, objects: Sequence[LandedObject], alone: int = 0) -> None:
        parameters = {"reader": self._reader, "alone": alone, "uris": [obj.uri for obj in objects], "etags": [obj.etag for obj in objects]}
        with server_errors():
            self._connection.execute(_MARK, parameters)

    def _unmark(self, objects: Sequence[LandedObject], readers: Sequence[str]) -> None:
        parameters = {"readers": list(readers), "uris": [obj.uri for obj in objects], "etags": [obj.etag for obj in objects]}
        with server_errors():
            self._connection.execute(_UNMARK, parameters)

    def _try(self, obj: LandedObject, feeds: Feeds, alone: int) -> str | None:
        """Why a suspect must not be read; None if it may be."""
        if alone >= _ALONE and not self._retry:
            return (
                f"{alone} processes ended while each read nothing but this object: land it in another form, or have it read again "
                "(btc-assets load --reread)"
            )
        try:
            source, _ = self._zone.read(obj)
        except Exception:
            return None  # reading it says what is wrong
        if isinstance(source, Path):
            try:
                ended = _try_in_child(source, feeds)
            finally:
                source.unlink(missing_ok=True)
        else:
            with tempfile.NamedTemporaryFile(prefix="btc_assets-") as file:
                file.write(source)
                file.flush()
                ended = _try_in_child(Path(file.name), feeds)
        return ended and (
            f"a process ended while it read this object, and another one that read nothing else ({ended}): land it in another form, or "
            "have it read again (btc-assets load --reread)"
        )


def _try_in_child(path: Path, feeds: Feeds) -> str | None:
    """The signal that ends a process which decodes the object; None if none does."""
    names = [f"{feed.prefix}={feed.symbol}:{feed.label}" for feed in feeds]
    for _ in range(_TRIALS):
        done = subprocess.run(
            [sys.executable, "-m", "btc_assets.landing.trial", str(path), *names], check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode >= 0:
            return None
        if done.returncode != -signal.SIGKILL:
            break
    return signal.Signals(-done.returncode).name
