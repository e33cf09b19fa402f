"""The landing zone: listing objects and reading their bytes, verified, through one interface for S3, disk and memory."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError, NotFoundError, PreconditionError
from obstore.store import LocalStore, MemoryStore, ObjectStore, S3Store

from btc_assets.errors import UserError
from btc_assets.landing.feeds import folder_path, folder_time
from btc_assets.slices import DAY, Window, floor_day

SPOOL_BYTES = 8 << 20  # an object above this goes to a temporary file, so that memory does not grow with it
READ_ATTEMPTS = 3
_MD5_ETAG = re.compile(r'^"?([0-9a-f]{32})"?$')
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
    def folder_time(self) -> datetime | None:
        """The collector's wall clock when it opened the object, from its folders."""
        at = self.uri.find(f"/{self.prefix}/")
        return folder_time(self.prefix, self.uri[at + 1 :]) if at >= 0 else None


class ObjectGone(Exception):
    """The object is no longer there."""


class ObjectChanged(Exception):
    """The object has another ETag than the one asked for: list again."""


class ObjectCorrupt(Exception):
    """The bytes do not match their checksum, however often they are read."""


class LandingZone:
    """A bucket, a directory or memory that exchange feeds land in.

    Args:
        url: `s3://bucket/prefix`, `file:///directory` or `memory:///name`.
        endpoint: of an S3-compatible server; AWS where it is None. `http://` is accepted for local servers.
        region: of the bucket; else what the AWS configuration says.
        etag: `md5` where a 32-digit ETag is the MD5 of the bytes (plain S3 and most servers), `opaque` where it
            is not (SSE-KMS); then S3 objects are read with the checksum that S3 stored.
        concurrency: objects read at once.

    Raises:
        UserError: a directory that does not exist, or a URL of another kind.
    """

    def __init__(
        self, url: str, *, endpoint: str | None = None, region: str | None = None, etag: str = "md5", concurrency: int = 16
    ) -> None:
        self.url = url.rstrip("/")
        self.etag_is_md5 = etag == "md5"
        self.concurrency = concurrency
        self._endpoint, self._region = endpoint, region
        parts = urlsplit(self.url)
        self.scheme = parts.scheme
        if parts.scheme == "s3":
            self._bucket, self._key_prefix = parts.netloc, parts.path.strip("/")
            self.store: ObjectStore = _s3_store(parts.netloc, self._key_prefix, endpoint, region)
        elif parts.scheme == "file":
            root = Path(unquote(parts.path))
            if not root.is_dir():
                raise UserError(
                    f"The landing zone {root} is not a directory: create it, or set BTC_ASSETS_LANDING_URL to where objects land."
                )
            self.store = LocalStore(root)
        elif parts.scheme == "memory":
            self.store = _STORES.setdefault(self.url, MemoryStore())
        else:
            raise UserError(f"The landing zone {url!r} must be s3://bucket/prefix or file:///directory.")

    def path(self, uri: str) -> str:
        """The object's path below the landing zone's URL."""
        return uri.removeprefix(self.url + "/")

    def list_window(self, prefix: str, window: Window) -> list[LandedObject]:
        """Objects whose folder minute lies in `window`, ordered by URI.

        Lists whole days by day and the rest by hour: a few LIST calls for any range, and never the whole prefix.
        """
        folders = list(_folders(prefix, window))
        with ThreadPoolExecutor(min(self.concurrency, len(folders))) as pool:
            listed = [obj for objects in pool.map(lambda f: list(self._list(f, prefix)), folders) for obj in objects]
        return sorted(obj for obj in listed if (at := obj.folder_time) is not None and at in window)

    def uri_range(self, prefix: str, window: Window) -> tuple[str, str]:
        """The half-open range of URIs, in byte order, whose folder minute lies in `window`."""
        return f"{self.url}/{folder_path(prefix, window.start)}", f"{self.url}/{folder_path(prefix, window.end)}"

    def list_all(self, prefix: str) -> Iterator[LandedObject]:
        """Every object below `prefix`, in the store's order."""
        return self._list(prefix, prefix)

    def _list(self, folder: str, prefix: str) -> Iterator[LandedObject]:
        try:
            for batch in obstore.list(self.store, folder, chunk_size=1000):
                for meta in batch:
                    yield LandedObject(
                        f"{self.url}/{meta['path']}", meta["e_tag"] or "", meta["size"], meta["last_modified"], prefix
                    )
        except (BaseError, OSError) as error:
            raise UserError(f"Listing {self.url}/{folder} failed ({_first_line(error)}): {self._advice()}") from error

    def head(self, uri: str, prefix: str) -> LandedObject | None:
        """The object as it is now, or None; asked of the store itself, because a listing can fail to show it."""
        try:
            meta = obstore.head(self.store, self.path(uri))
        except (NotFoundError, FileNotFoundError):
            return None
        except (BaseError, OSError) as error:
            raise UserError(f"Looking up {uri} failed ({_first_line(error)}): {self._advice()}") from error
        return LandedObject(uri, meta["e_tag"] or "", meta["size"], meta["last_modified"], prefix)

    def read(self, obj: LandedObject) -> tuple[bytes | Path, str]:
        """The object's bytes, verified, and how: `md5`, `s3` (its stored checksum) or `none` (the store keeps none).

        A large object comes as the path of a temporary file, which the caller removes.

        Raises:
            ObjectGone, ObjectChanged: it is not the object that was listed.
            ObjectCorrupt: its bytes do not match its checksum.
            UserError: the store does not answer.
        """
        expected = _MD5_ETAG.match(obj.etag) if self.etag_is_md5 and self.scheme == "s3" else None
        if self.scheme == "s3" and expected is None:
            return self._read_with_stored_checksum(obj)
        for _ in range(READ_ATTEMPTS):
            data, digest, size = self._get(obj)
            if size == obj.size and (expected is None or digest == expected[1]):
                return data, "md5" if expected else "none"
            if isinstance(data, Path):
                data.unlink(missing_ok=True)
        raise ObjectCorrupt(
            f"the bytes do not match the object's size or the MD5 in its ETag, read {READ_ATTEMPTS} times: upload it again "
            "(in a bucket with SSE-KMS, where an ETag is no MD5, set BTC_ASSETS_LANDING_ETAG=opaque)"
        )

    def _get(self, obj: LandedObject) -> tuple[bytes | Path, str, int]:
        path = self.path(obj.uri)
        # LocalStore has its own idea of an ETag and memory numbers its versions, so If-Match works for each of them.
        options: obstore.GetOptions = {"if_match": obj.etag} if obj.etag else {}
        try:
            result = obstore.get(self.store, path, options=options)
            if obj.size <= SPOOL_BYTES:
                data = result.bytes().to_bytes()
                return data, hashlib.md5(data, usedforsecurity=False).hexdigest(), len(data)
            digest = hashlib.md5(usedforsecurity=False)
            size = 0
            with tempfile.NamedTemporaryFile(prefix="btc_assets-", delete=False) as file:
                try:
                    for chunk in result.stream(min_chunk_size=1 << 20):
                        view = memoryview(chunk)
                        digest.update(view)
                        size += file.write(view)
                except BaseException:
                    Path(file.name).unlink(missing_ok=True)
                    raise
            return Path(file.name), digest.hexdigest(), size
        except (NotFoundError, FileNotFoundError):
            raise ObjectGone(obj.uri) from None
        except PreconditionError:
            raise ObjectChanged(obj.uri) from None
        except (BaseError, OSError) as error:
            raise UserError(f"Reading {obj.uri} failed ({_first_line(error)}): {self._advice()}") from error

    def _read_with_stored_checksum(self, obj: LandedObject) -> tuple[bytes | Path, str]:
        # Neither obstore nor an opaque ETag can tell a flipped byte; boto3 compares the checksum that S3 stored.
        from botocore.exceptions import BotoCoreError, ClientError, FlexibleChecksumError

        client = _boto3_session(self._region).client("s3", endpoint_url=self._endpoint)
        key = "/".join(filter(None, (self._key_prefix, self.path(obj.uri))))
        for attempt in range(READ_ATTEMPTS):
            try:
                answer = client.get_object(Bucket=self._bucket, Key=key, IfMatch=obj.etag, ChecksumMode="ENABLED")
                verified = "s3" if any(name.startswith("Checksum") for name in answer) else "none"
                if obj.size <= SPOOL_BYTES:
                    return answer["Body"].read(), verified
                with tempfile.NamedTemporaryFile(prefix="btc_assets-", delete=False) as file:
                    for chunk in answer["Body"].iter_chunks(1 << 20):
                        file.write(chunk)
                return Path(file.name), verified
            except FlexibleChecksumError as error:
                if attempt == READ_ATTEMPTS - 1:
                    raise ObjectCorrupt("the bytes do not match the checksum that S3 stored: upload it again") from error
            except ClientError as error:
                code = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
                if code == 404:
                    raise ObjectGone(obj.uri) from None
                if code == 412:
                    raise ObjectChanged(obj.uri) from None
                raise UserError(f"Reading {obj.uri} failed ({_first_line(error)}): {self._advice()}") from error
            except BotoCoreError as error:
                raise UserError(f"Reading {obj.uri} failed ({_first_line(error)}): {self._advice()}") from error
        raise AssertionError("unreachable")

    def put(self, path: str, data: bytes) -> str:
        """Store `data` at `path` below the landing zone's URL and return its URI."""
        try:
            obstore.put(self.store, path, data)
        except (BaseError, OSError) as error:
            raise UserError(f"Writing {self.url}/{path} failed ({_first_line(error)}): {self._advice()}") from error
        return f"{self.url}/{path}"

    def delete(self, uris: Iterable[str]) -> None:
        """Remove objects."""
        obstore.delete(self.store, [self.path(uri) for uri in uris])

    def _advice(self) -> str:
        if self.scheme == "s3":
            return "check the bucket in BTC_ASSETS_LANDING_URL, BTC_ASSETS_S3_ENDPOINT and the AWS credentials."
        return "check BTC_ASSETS_LANDING_URL and the rights on that directory."


def _folders(prefix: str, window: Window) -> Iterator[str]:
    for day in window.days():
        if day.end - day.start == DAY:
            yield f"{prefix}/{day.start:%Y/%m/%d}"
            continue
        hour = floor_day(day.start) + (day.start - floor_day(day.start)) // timedelta(hours=1) * timedelta(hours=1)
        while hour < day.end:
            yield f"{prefix}/{hour:%Y/%m/%d/%H}"
            hour += timedelta(hours=1)


def _boto3_session(region: str | None):  # type: ignore[no-untyped-def]  # boto3 makes its types at run time
    import boto3

    return boto3.Session(region_name=region)


def _s3_store(bucket: str, prefix: str, endpoint: str | None, region: str | None) -> S3Store:
    from obstore.auth.boto3 import Boto3CredentialProvider

    session = _boto3_session(region)
    if session.get_credentials() is None:
        raise UserError(
            f"No AWS credentials were found for s3://{bucket}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or a role."
        )
    config: dict[str, object] = {"region": session.region_name or "us-east-1"}
    if endpoint:
        config |= {"endpoint": endpoint, "virtual_hosted_style_request": False}
    return S3Store(
        bucket,
        prefix=prefix or None,
        config=config,  # type: ignore[arg-type]
        client_options={"allow_http": bool(endpoint and endpoint.startswith("http://")), "timeout": timedelta(seconds=30)},
        retry_config={"max_retries": 5, "retry_timeout": timedelta(seconds=60)},
        credential_provider=Boto3CredentialProvider(session),
    )


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
