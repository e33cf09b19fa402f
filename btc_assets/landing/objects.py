"""The landing zone: listing objects and reading their bytes, verified, through one interface for S3, disk and memory."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import obstore
from obstore.exceptions import BaseError, NotFoundError, PreconditionError
from obstore.store import LocalStore, MemoryStore, ObjectStore, S3Store

from btc_assets.domain.errors import TransientError, UserError
from btc_assets.domain.feeds import folder_path, folder_time
from btc_assets.domain.objects import ObjectVersion
from btc_assets.domain.slices import DAY, Window, floor_day, floor_slice

SPOOL_BYTES = 8 << 20  # an object above this is read in pieces of this size, to a temporary file: memory does not grow with it
READ_ATTEMPTS = 3
_REQUEST_SECONDS = 30
_MD5_ETAG = re.compile(r'^"?([0-9a-f]{32})"?$')
_REFUSED = re.compile("Denied|Forbidden|InvalidAccessKey|SignatureDoesNotMatch|NoSuchBucket|ermission")  # does not pass by itself
_STORES: dict[str, ObjectStore] = {}  # `memory:///name` stores live as long as the process


@dataclass(frozen=True, order=True)
class LandedObject:
    """One object as a listing shows it; URI and ETag together identify its content."""

    uri: str
    etag: str
    size: int
    last_modified: datetime
    prefix: str = ""

    @property
    def version(self) -> ObjectVersion:
        """The URI and ETag, which together identify the content."""
        return ObjectVersion(self.uri, self.etag)

    @cached_property
    def folder_time(self) -> datetime | None:
        """The collector's wall clock when it opened the object, from its folders."""
        # Searched from the end, because the landing zone's own URL may hold the prefix as well.
        match = re.search(rf"/({re.escape(self.prefix)}/\d{{4}}(?:/\d\d){{2,4}}/[^/]+)$", self.uri)
        return folder_time(self.prefix, match[1]) if match else None

    def is_newer_than(self, time: datetime) -> bool:
        """Whether it was written after `time`, which another answer gave as its last modification: some give whole seconds."""
        return self.last_modified - time >= timedelta(seconds=1)

    @property
    def home_slice(self) -> datetime:
        """The slice that it most likely belongs to before it is read: that of its folder, but none after it was written."""
        return floor_slice(min(self.folder_time or self.last_modified, self.last_modified))


class ObjectGone(Exception):
    """The object is no longer there."""


class ObjectChanged(Exception):
    """The object has another ETag than the one asked for: list again."""


class ObjectCorrupt(Exception):
    """The bytes do not match their checksum, however often they are read."""


class _Interrupted(TransientError):
    """Reading broke off on the way; it is worth another attempt."""


class LandingZone:
    """A bucket, a directory or memory that exchange feeds land in.

    Args:
        url: `s3://bucket/prefix`, `file:///directory` or `memory:///name`.
        endpoint: of an S3-compatible server, `http://` or `https://`; AWS where neither it nor AWS_ENDPOINT_URL is set.
        region: of the bucket; else what the AWS configuration says.
        etag: `md5` where a 32-digit ETag is the MD5 of the bytes (plain S3 and most servers), `opaque` where it
            is not (SSE-KMS); then S3 objects are read with the checksum that S3 stored.
        concurrency: objects read at once.
        retries: how often a request to S3 is repeated, ever later, before it counts as failed.

    Raises:
        UserError: a directory that does not exist, a URL or an endpoint of another kind, or no AWS credentials.
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
        self.etag_is_md5 = etag == "md5"
        # Threads hide the latency of a network; a directory has none, and more of them only fight for the interpreter.
        self.concurrency = concurrency if self.url.startswith("s3:") else min(concurrency, 3)
        self.scheme, _, rest = self.url.partition("://")
        place, _, path = rest.partition("/")
        if self.scheme == "s3" and place:
            self._s3 = _S3(place, path.strip("/"), endpoint, region, concurrency, retries)
            self.store: ObjectStore = self._s3.store()
        elif self.scheme == "file" and place in ("", "localhost"):
            root = Path("/" + unquote(path))
            if not root.is_dir():
                raise UserError(
                    f"The landing zone {root} is not a directory: create it, or set BTC_ASSETS_LANDING_URL to where objects land."
                )
            self.url = root.as_uri()  # one spelling, because URIs are keys in the registry
            self.store = LocalStore(root)
        elif self.scheme == "memory":
            self.store = _STORES.setdefault(self.url, MemoryStore())
        else:
            raise UserError(f"The landing zone {url!r} must be s3://bucket/prefix or file:///directory.")

    def path(self, uri: str) -> str:
        """The object's path below the landing zone's URL."""
        return uri.removeprefix(self.url + "/")

    def uri(self, bucket: str, key: str) -> str | None:
        """The URI of an object of S3; None where it lies outside the landing zone."""
        uri = f"s3://{bucket}/{key}"
        return uri if uri.startswith(self.url + "/") else None

    def list_window(self, prefix: str, window: Window, strays: set[str] | None = None) -> list[LandedObject]:
        """Objects whose folder minute lies in `window`, ordered by URI.

        Lists whole days by day and the rest by hour: a few LIST calls for any range, and never the whole prefix. What lies
        among them in folders that are no time is added to `strays`.
        """
        folders = list(_folders(prefix, window))
        with ThreadPoolExecutor(min(self.concurrency, len(folders))) as pool:
            listed = [obj for objects in pool.map(lambda folder: list(self._list(prefix, *folder)), folders) for obj in objects]
        if strays is not None:
            strays.update(obj.uri for obj in listed if obj.folder_time is None)
        return sorted((obj for obj in listed if (at := obj.folder_time) is not None and at in window), key=attrgetter("uri"))

    def uri_range(self, prefix: str, window: Window) -> tuple[str, str]:
        """The half-open range of URIs, in byte order, whose folder minute lies in `window`.

        What lies in the folder of a day or an hour itself is in the range of that whole day or hour.
        """

        def edge(time: datetime) -> str:
            folder = f"{time:%Y/%m/%d/%H/%M}" if time.minute else f"{time:%Y/%m/%d/%H}/" if time.hour else f"{time:%Y/%m/%d}/"
            return f"{self.url}/{prefix}/{folder}"

        return edge(window.start), edge(window.end)

    def list_from(self, prefix: str, start: datetime, now: datetime) -> Iterator[list[LandedObject]]:
        """Objects whose folder minute is `start` or later, in batches; also those of a clock that runs ahead of `now` by a day.

        On S3 one LIST call for every thousand objects, however long ago `start` is.
        """
        if self.scheme == "file":  # has no order to start from
            for window in Window.covering(start, now + DAY).days():
                if objects := self.list_window(prefix, window):
                    yield objects
            return
        try:
            # Some servers skip the folder itself where the offset is its bare name; "!" sorts before any name in it.
            for batch in obstore.list(self.store, prefix, offset=f"{folder_path(prefix, start)}/!", chunk_size=1000):
                objects = [obj for meta in batch if (obj := self._landed(meta, prefix)) and obj.folder_time is not None]
                if objects:
                    yield objects
        except (BaseError, OSError) as error:
            raise self._failure(f"Listing {self.url}/{prefix}", error) from error

    def list_all(self, prefix: str) -> Iterator[LandedObject]:
        """Every object below `prefix`, in the store's order."""
        return self._list(prefix, prefix)

    def days(self, prefix: str) -> tuple[set[datetime], list[str]]:
        """The days that have folders below `prefix`, and the URIs of objects that lie in none of them."""
        level, days = [prefix], set()
        strays: list[str] = []
        for _ in range(3):  # years, months, days
            inside = [self._inside(folder, prefix) for folder in level]
            strays += [obj.uri for _, objects in inside for obj in objects]
            level = [folder for folders, _ in inside for folder in folders]
        for folder in level:
            if day := folder_time(prefix, f"{folder}/x"):
                days.add(day)
            else:
                strays += [obj.uri for obj in self._list(prefix, folder)]
        return days, strays

    def newest_minute(self, prefix: str) -> datetime | None:
        """The newest minute folder that holds an object; found by walking down the folders, with a few LIST calls."""

        def minutes(folder: str, depth: int) -> Iterator[str]:
            if depth == 5:
                yield folder
                return
            for name in sorted(self._inside(folder, prefix)[0], reverse=True):
                if name.rpartition("/")[2].isdecimal():
                    yield from minutes(name, depth + 1)

        # A directory that objects were removed from stays behind, empty.
        return next((obj.folder_time for folder in minutes(prefix, 0) for obj in self._list(prefix, folder) if obj.folder_time), None)

    def _inside(self, folder: str, prefix: str) -> tuple[list[str], list[LandedObject]]:
        """The folders and the objects that lie directly in a folder."""
        try:
            listed = obstore.list_with_delimiter(self.store, folder)
        except (NotFoundError, FileNotFoundError):
            return [], []
        except (BaseError, OSError) as error:
            raise self._failure(f"Listing {self.url}/{folder}", error) from error
        objects = [obj for meta in listed["objects"] if (obj := self._landed(meta, prefix))]
        return [name.rstrip("/") for name in listed["common_prefixes"]], objects

    def _list(self, prefix: str, folder: str, deep: bool = True) -> Iterator[LandedObject]:
        try:
            if deep:
                batches: Iterable[Sequence[obstore.ObjectMeta]] = obstore.list(self.store, folder, chunk_size=1000)
            else:
                batches = [obstore.list_with_delimiter(self.store, folder)["objects"]]
            for batch in batches:
                yield from filter(None, (self._landed(meta, prefix) for meta in batch))
        except (BaseError, OSError) as error:
            raise self._failure(f"Listing {self.url}/{folder}", error) from error

    def _landed(self, meta: obstore.ObjectMeta, prefix: str) -> LandedObject | None:
        if _is_hidden(meta["path"], meta["size"]):
            return None
        return LandedObject(f"{self.url}/{meta['path']}", meta["e_tag"] or "", meta["size"], meta["last_modified"], prefix)

    def head(self, uri: str, prefix: str) -> LandedObject | None:
        """The object as it is now, or None; asked of the store itself, because a listing can fail to show it."""
        try:
            meta = obstore.head(self.store, self.path(uri))
        except (NotFoundError, FileNotFoundError, ValueError):  # the last: no object can have such a name
            return None
        except (BaseError, OSError) as error:
            raise self._failure(f"Looking up {uri}", error) from error
        return self._landed(meta, prefix)

    def read(self, obj: LandedObject) -> tuple[bytes | Path, str]:
        """The object's bytes, verified, and how: `md5`, `s3` (its stored checksum) or `none` (the store keeps none).

        A large object comes as the path of a temporary file, which the caller removes.

        Raises:
            ObjectGone, ObjectChanged: it is not the object that was listed; the message is its URI.
            ObjectCorrupt: its bytes do not match its checksum.
            UserError: the store does not answer.
        """
        md5 = _MD5_ETAG.match(obj.etag) if self.scheme == "s3" and self.etag_is_md5 else None
        failure: Exception
        for _ in range(READ_ATTEMPTS):
            try:
                if self.scheme == "s3" and md5 is None:
                    verified, pieces = self._open_with_stored_checksum(obj)
                else:
                    verified, pieces = "md5" if md5 else "none", self._pieces(obj)
                data, size, digest = _spool(pieces) if obj.size > SPOOL_BYTES else _join(pieces, hashed=md5 is not None)
            except (ObjectCorrupt, _Interrupted) as error:
                failure = error
                continue
            if size == obj.size and (md5 is None or digest == md5[1]):
                return data, verified
            if isinstance(data, Path):
                data.unlink()
            failure = ObjectCorrupt(
                f"the bytes do not match the object's size or the MD5 in its ETag, read {READ_ATTEMPTS} times: upload it again "
                "(in a bucket with SSE-KMS, where an ETag is no MD5, set BTC_ASSETS_LANDING_ETAG=opaque)"
            )
        raise failure

    def _pieces(self, obj: LandedObject) -> Iterator[bytes]:
        # Each piece is a request of its own for this ETag (files have one, too): an object that is overwritten meanwhile
        # is noticed, no request takes long, and obstore's stream of a file that is cut short never ends.
        options: obstore.GetOptions = {"if_match": obj.etag} if obj.etag else {}
        try:
            for start in range(0, max(obj.size, 1), SPOOL_BYTES):
                if obj.size > SPOOL_BYTES:
                    options["range"] = (start, min(start + SPOOL_BYTES, obj.size))
                yield obstore.get(self.store, self.path(obj.uri), options=options).bytes().to_bytes()
        except PreconditionError:
            raise ObjectChanged(obj.uri) from None
        except (BaseError, OSError) as error:
            if isinstance(error, NotFoundError | FileNotFoundError) and "NoSuchBucket" not in str(error):
                raise ObjectGone(obj.uri) from None
            # A file can shrink between its opening and its reading; obstore itself repeats requests to S3.
            raise self._failure(f"Reading {obj.uri}", error, TransientError if self.scheme == "s3" else _Interrupted) from error

    def _open_with_stored_checksum(self, obj: LandedObject) -> tuple[str, Iterator[bytes]]:
        """Neither obstore nor an opaque ETag can tell a flipped byte; boto3 compares the checksum that S3 stored."""
        from botocore.exceptions import BotoCoreError, ClientError, FlexibleChecksumError
        from botocore.httpchecksum import StreamingChecksumBody

        try:
            answer = self._s3.client().get_object(
                Bucket=self._s3.bucket,
                Key="/".join(filter(None, (self._s3.prefix, self.path(obj.uri)))),
                ChecksumMode="ENABLED",
                **({"IfMatch": obj.etag} if obj.etag else {}),
            )
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if status == 404 and error.response.get("Error", {}).get("Code") != "NoSuchBucket":
                raise ObjectGone(obj.uri) from None
            if status == 412:
                raise ObjectChanged(obj.uri) from None
            raise self._failure(f"Reading {obj.uri}", error) from error
        except BotoCoreError as error:
            raise self._failure(f"Reading {obj.uri}", error) from error

        def pieces() -> Iterator[bytes]:
            try:
                yield from answer["Body"].iter_chunks(SPOOL_BYTES)
            except FlexibleChecksumError as error:
                raise ObjectCorrupt(
                    f"the bytes do not match the checksum that S3 stored, read {READ_ATTEMPTS} times: upload it again"
                ) from error
            except BotoCoreError as error:  # boto3 does not repeat a request whose body is cut
                raise self._failure(f"Reading {obj.uri}", error, _Interrupted) from error

        # boto3 compares nothing where S3 keeps a checksum of the parts' checksums, or one of a kind that it cannot compute.
        return "s3" if isinstance(answer["Body"], StreamingChecksumBody) else "none", pieces()

    def put(self, path: str, data: bytes) -> str:
        """Store `data` at `path` below the landing zone's URL and return its URI."""
        try:
            obstore.put(self.store, path, data)
        except (BaseError, OSError) as error:
            raise self._failure(f"Writing {self.url}/{path}", error) from error
        return f"{self.url}/{path}"

    def get(self, path: str) -> bytes | None:
        """What is stored at `path` below the landing zone's URL, not verified; None where nothing is."""
        try:
            return obstore.get(self.store, path).bytes().to_bytes()
        except (NotFoundError, FileNotFoundError):
            return None
        except (BaseError, OSError) as error:
            raise self._failure(f"Reading {self.url}/{path}", error) from error

    def clock(self) -> datetime | None:
        """The time on S3's clock, in whole seconds; None for a directory."""
        if self.scheme != "s3":
            return None
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            answer = self._s3.client().list_objects_v2(Bucket=self._s3.bucket, Prefix=self._s3.prefix, MaxKeys=1)
        except (BotoCoreError, ClientError) as error:
            raise self._failure(f"Listing {self.url}", error) from error
        return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])

    def _failure(self, what: str, error: Exception, kind: type[UserError] = TransientError) -> UserError:
        advice = (
            "check the bucket in BTC_ASSETS_LANDING_URL, BTC_ASSETS_S3_ENDPOINT, BTC_ASSETS_S3_REGION and the AWS credentials."
            if self.scheme == "s3"
            else "check BTC_ASSETS_LANDING_URL and the rights on that directory."
        )
        reason = _reason(error)
        return (UserError if _REFUSED.search(reason) else kind)(f"{what} failed ({reason}): {advice}")


def _folders(prefix: str, window: Window) -> Iterator[tuple[str, bool]]:
    """The folders to list, and whether with all that is below them."""
    for day in window.days():
        midnight = floor_day(day.start)
        if day.end - day.start == DAY:
            yield f"{prefix}/{midnight:%Y/%m/%d}", True
            continue
        if day.start == midnight:
            yield f"{prefix}/{midnight:%Y/%m/%d}", False  # what lies in the day's own folder counts as landed at midnight
        hour = midnight + (day.start - midnight) // timedelta(hours=1) * timedelta(hours=1)
        while hour < day.end:
            yield f"{prefix}/{hour:%Y/%m/%d/%H}", True
            hour += timedelta(hours=1)


def _is_hidden(path: str, size: int) -> bool:
    """What is no landed object: `.name` (as rsync calls a file until it is whole) and the empty object that marks a folder."""
    name = path.rpartition("/")[2]
    return name.startswith(".") or (size == 0 and re.fullmatch(r"\d\d", name) is not None)


def _join(pieces: Iterable[bytes], *, hashed: bool) -> tuple[bytes, int, str]:
    data = b"".join(pieces)
    return data, len(data), hashlib.md5(data, usedforsecurity=False).hexdigest() if hashed else ""


def _spool(pieces: Iterable[bytes]) -> tuple[Path, int, str]:
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with tempfile.NamedTemporaryFile(prefix="btc_assets-", delete=False) as file:
            path = Path(file.name)
            try:
                for piece in pieces:
                    digest.update(piece)
                    file.write(piece)
                file.flush()
                return path, file.tell(), digest.hexdigest()
            except BaseException:
                path.unlink()
                raise
    except OSError as error:
        raise UserError(
            f"A large object cannot be kept in {tempfile.gettempdir()} while it is read ({error.strerror}): "
            "make room there, or set TMPDIR to a directory with more."
        ) from error


class _S3:
    """One AWS session, and the two kinds of client that are made from it."""

    def __init__(self, bucket: str, prefix: str, endpoint: str | None, region: str | None, concurrency: int, retries: int) -> None:
        import boto3
        from botocore.exceptions import BotoCoreError

        endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        if endpoint and not re.match(r"https?://[^/]", endpoint):
            raise UserError(f"The S3 endpoint {endpoint!r} must begin with http:// or https://: correct BTC_ASSETS_S3_ENDPOINT.")
        self.bucket, self.prefix = bucket, prefix
        self._endpoint, self._concurrency, self._retries = endpoint and endpoint.rstrip("/"), concurrency, retries
        try:
            self._session = boto3.Session(region_name=region)
            credentials = self._session.get_credentials()
        except BotoCoreError as error:
            raise UserError(f"The AWS configuration is wrong ({_reason(error)}): correct the AWS_* variables or the profile.") from error
        if credentials is None:
            raise UserError(
                f"No AWS credentials were found for s3://{bucket}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or a role."
            )
        self._client: Any = None
        self._lock = threading.Lock()

    def store(self) -> S3Store:
        """The one for listing and bulk reads."""
        from obstore.auth.boto3 import Boto3CredentialProvider

        config: dict[str, object] = {"region": self._session.region_name or "us-east-1"}
        if self._endpoint:
            config |= {"endpoint": self._endpoint, "virtual_hosted_style_request": False}
        return S3Store(
            self.bucket,
            prefix=self.prefix or None,
            config=config,  # type: ignore[arg-type]
            client_options={
                "allow_http": bool(self._endpoint and self._endpoint.startswith("http://")),
                "timeout": timedelta(seconds=_REQUEST_SECONDS),
            },
            retry_config={"max_retries": self._retries, "retry_timeout": timedelta(seconds=2 * _REQUEST_SECONDS)},
            credential_provider=Boto3CredentialProvider(self._session),
        )

    def client(self) -> Any:  # boto3 makes its types at run time
        """boto3's; it costs as much as a hundred reads, so there is one for all threads."""
        from botocore.config import Config

        with self._lock:  # a session must not make two clients at once
            if self._client is None:
                self._client = self._session.client(
                    "s3",
                    endpoint_url=self._endpoint,
                    config=Config(
                        retries={"total_max_attempts": self._retries + 1, "mode": "standard"},
                        read_timeout=_REQUEST_SECONDS,
                        max_pool_connections=self._concurrency,
                    ),
                )
            return self._client


# What obstore calls the kinds of errors of HTTP that have no words of S3's or the system's.
_BROKEN = {
    "Timeout": f"no answer within {_REQUEST_SECONDS} seconds",
    "Request": "the connection broke off before the answer",
    "Interrupted": "the connection broke off within the answer",
}


def _reason(error: Exception) -> str:
    """What went wrong, out of the many lines of a store's error: S3's own words, the system's, ours, or the first line."""
    text = str(error)
    if match := re.search(r"<Code>(.*?)</Code>.*?<Message>(.*?)</Message>", text, re.DOTALL):
        return f"{match[1]}: {match[2]}".rstrip(".")
    if match := re.search(r'(?:message|error): "([^"]+)"', text):
        return match[1]
    if (match := re.search(r"HttpError \{\s*kind: (\w+)", text)) and match[1] in _BROKEN:
        return _BROKEN[match[1]]
    return next((line.strip(" :.") for line in text.splitlines() if line.strip()), type(error).__name__)
