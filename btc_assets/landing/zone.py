"""The landing zone: one interface to the objects in an S3 bucket, a directory or memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import unquote

import obstore
from obstore.store import LocalStore, MemoryStore, ObjectStore

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import DAY, Window
from btc_assets.landing.listers import DirectoryLister, Lister, S3Lister, StoreLister
from btc_assets.landing.listing import Listing
from btc_assets.landing.objects import LandedObject, ObjectGone
from btc_assets.landing.s3 import S3Access
from btc_assets.landing.strays import Stray
from btc_assets.landing.verified_read import VerifiedReader
from btc_assets.landing.zone_errors import ErrorTranslator

_MEMORY_STORES: dict[str, ObjectStore] = {}  # a `memory:///name` store lives as long as the process, for all zones of its name

_S3_ADVICE = "check the bucket in BTC_ASSETS_LANDING_URL, BTC_ASSETS_S3_ENDPOINT, BTC_ASSETS_S3_REGION and the AWS credentials."
_DIRECTORY_ADVICE = "check BTC_ASSETS_LANDING_URL and the permissions of that directory."


class LandingZone:
    """A bucket, a directory or memory that exchange feeds land in.

    Args:
        url: `s3://bucket/prefix`, `file:///directory` or `memory:///name`.
        endpoint: of an S3-compatible server, `http://` or `https://`; AWS if neither it nor AWS_ENDPOINT_URL is set.
        region: of the bucket; else what the AWS configuration says.
        etag: `md5` if a 32-digit ETag is the MD5 of the bytes (plain S3 and most servers), `opaque` if it is not
            (SSE-KMS); S3 objects are then verified with the checksum that S3 stored.
        concurrency: objects read at once.
        retries: how often a request to S3 is repeated, with growing pauses, before it counts as failed.

    Raises:
        UserError: the directory does not exist, the URL or the endpoint is of another kind, or there are no AWS credentials.
    """

    def __init__(
        self,
        url: str,
        *,
        endpoint: str | None = None,
        region: str | None = None,
        etag: str = "md5",
        concurrency: int = 16,
        retries: int = 5,
    ) -> None:
        self.url = url.rstrip("/")
        self.scheme, _, rest = self.url.partition("://")
        # Threads hide the latency of a network; a directory has none, and more threads only compete for the interpreter.
        self.concurrency = concurrency if self.scheme == "s3" else min(concurrency, 3)
        self._s3: S3Access | None = None
        root: Path | None = None
        host, _, path = rest.partition("/")
        if self.scheme == "s3" and host:
            self._s3 = S3Access(host, path.strip("/"), endpoint, region, concurrency, retries)
            self.store: ObjectStore = self._s3.object_store()
            lister: Lister = S3Lister(self.store, self._s3)
        elif self.scheme == "file" and host in ("", "localhost"):
            root = Path("/" + unquote(path))
            if not root.is_dir():
                raise UserError(
                    f"The landing zone {root} is not a directory: create it, or set BTC_ASSETS_LANDING_URL to where objects land."
                )
            self.url = root.as_uri()  # one spelling, because URIs are keys in the registry
            self.store = LocalStore(root)
            lister = DirectoryLister(root)
        elif self.scheme == "memory":
            self.store = _MEMORY_STORES.setdefault(self.url, MemoryStore())
            lister = StoreLister(self.store)
        else:
            raise UserError(f"The landing zone {url!r} must be s3://bucket/prefix or file:///directory.")
        self._errors = ErrorTranslator(_S3_ADVICE if self._s3 else _DIRECTORY_ADVICE)
        self._listing = Listing(lister, self.url, self.concurrency, self._errors)
        self._reader = VerifiedReader(self.store, self._s3, self._errors, etag_is_md5=etag == "md5", directory=root)

    # ---- names

    def path(self, uri: str) -> str:
        """The object's path below the landing zone's URL."""
        return uri.removeprefix(self.url + "/")

    def holds(self, uri: str) -> bool:
        """Whether an object with that URI would lie in the landing zone."""
        return uri.startswith(self.url + "/")

    def uri(self, bucket: str, key: str) -> str | None:
        """The URI of an object of S3; None if it lies outside the landing zone."""
        uri = f"s3://{bucket}/{key}"
        return uri if uri.startswith(self.url + "/") else None

    def uri_range(self, prefix: str, window: Window) -> tuple[str, str]:
        """The half-open range of URIs, in byte order, whose folder minute lies in `window`.

        An object directly in the folder of a day or an hour belongs to the range of that whole day or hour.
        """

        def edge(time: datetime) -> str:
            folder = f"{time:%Y/%m/%d/%H/%M}" if time.minute else f"{time:%Y/%m/%d/%H}/" if time.hour else f"{time:%Y/%m/%d}/"
            return f"{self.url}/{prefix}/{folder}"

        return edge(window.start), edge(window.end)

    def uris(self, prefix: str | None = None) -> tuple[str, str]:
        """The half-open range of all URIs below `prefix`, by default of the whole landing zone, in byte order."""
        folder = f"{self.url}/{prefix}" if prefix else self.url
        return f"{folder}/", f"{folder}0"  # "0" follows "/"

    # ---- listing

    def list_window(self, prefix: str, window: Window, strays: set[Stray] | None = None) -> list[LandedObject]:
        """Objects whose folder names a minute in `window`, or an hour or a day of which a part lies in it, ordered by URI.

        Lists whole days by day and the rest by hour: a few LIST calls for any range, and never the whole prefix.

        Args:
            prefix: of a feed.
            window: slices.
            strays: gets what lies among the objects and cannot be one of them, or lies in folders that are no time.
        """
        return self.list_windows([prefix], window, None if strays is None else {prefix: strays})[prefix]

    def list_windows(
        self, prefixes: Sequence[str], window: Window, strays: Mapping[str, set[Stray]] | None = None
    ) -> dict[str, list[LandedObject]]:
        """As `list_window` for several prefixes, whose folders are listed at once; `strays` has a set for each of them."""
        return self._listing.list_windows(prefixes, window, strays)

    def list_from(self, prefix: str, start: datetime, now: datetime, strays: set[Stray] | None = None) -> Iterator[list[LandedObject]]:
        """Objects whose folder minute is `start` or later, in batches.

        On S3 this is one LIST call for every thousand objects, however long ago `start` is. A directory has no order to start
        from, so it is listed day by day until a day after `now`, which includes a collector whose clock is fast. `strays` as in
        `list_window`.
        """
        if self.scheme != "file":
            yield from self._listing.list_since(prefix, start, strays)
            return
        for window in Window.covering(start, now + DAY).days():
            if objects := self.list_window(prefix, window, strays):
                yield objects

    def uris_from(self, prefix: str, start: datetime, now: datetime) -> tuple[str, str]:
        """The half-open range of URIs that `list_from` covers."""
        first, end = self.uri_range(prefix, Window.covering(start, now + DAY))
        return first, end if self.scheme == "file" else self.uris(prefix)[1]

    def list_all(self, prefix: str, strays: set[Stray] | None = None) -> Iterator[LandedObject]:
        """Every object below `prefix`, in the store's order; `strays` gets what lies there and can be no object."""
        return self._listing.list_all(prefix, strays)

    def days(self, prefix: str, strays: set[Stray]) -> set[datetime]:
        """The days that have folders below `prefix`; `strays` gets what lies in none of them."""
        return self._listing.list_days(prefix, strays)

    def names(self, folder: str, most: int = 5) -> list[str]:
        """Some of the names directly in a folder, those of folders with a slash at the end; not all, however many there are."""
        return self._listing.names(folder, most)

    def newest_minute(self, prefix: str) -> datetime | None:
        """The newest minute folder that holds an object, found with a few LIST calls by descending the folders."""
        return self._listing.newest_minute(prefix)

    # ---- single objects

    def head(self, uri: str, prefix: str) -> LandedObject | None:
        """The object's current version, or None if there is no such object.

        Asks the store for the object itself, because a listing can omit an object that exists.
        """
        try:
            with self._errors.during(f"Looking up {uri}", uri=uri):
                meta = obstore.head(self.store, self.path(uri))
        except (ObjectGone, ValueError):  # ValueError: no object can have such a name
            return None
        return self._listing.landed(meta, prefix)

    def read(self, obj: LandedObject) -> tuple[bytes | Path, str]:
        """The object's verified bytes, and how they were verified: `md5`, `s3` (its stored checksum) or `none` (there is none).

        A large object comes as the path of a temporary file, which the caller removes.

        Raises:
            ObjectGone, ObjectChanged: it is no longer the object that was listed; the message is its URI.
            ObjectCorrupt: its bytes do not match its checksum.
            UserError: the store refuses the request or does not answer.
        """
        return self._reader.read(obj, self.path(obj.uri))

    def put(self, path: str, data: bytes) -> str:
        """Store `data` at `path` below the landing zone's URL and return its URI."""
        uri = f"{self.url}/{path}"
        with self._errors.during(f"Writing {uri}"):
            if self.scheme == "file":  # obstore writes `name#1` first, which a listing would show; it passes over `.name`
                folder, slash, name = path.rpartition("/")
                obstore.put(self.store, f"{folder}{slash}.{name}", data)
                obstore.rename(self.store, f"{folder}{slash}.{name}", path)
            else:
                obstore.put(self.store, path, data)
        return uri

    def get(self, path: str) -> bytes | None:
        """The unverified bytes at `path` below the landing zone's URL; None if there is no such object."""
        uri = f"{self.url}/{path}"
        try:
            with self._errors.during(f"Reading {uri}", uri=uri):
                return obstore.get(self.store, path).bytes().to_bytes()
        except ObjectGone:
            return None

    def server_time(self) -> datetime | None:
        """The time on S3's clock, in whole seconds; None if the landing zone is not on S3."""
        if self._s3 is None:
            return None
        with self._errors.during(f"Listing {self.url}"):
            answer = self._s3.client().list_objects_v2(Bucket=self._s3.bucket, Prefix=self._s3.prefix, MaxKeys=1)
        return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
