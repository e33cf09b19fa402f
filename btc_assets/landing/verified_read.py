"""Reading the bytes of an object and comparing them with its checksum; large objects go to disk."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import obstore
from obstore.store import ObjectStore

from btc_assets.domain.errors import TransientError, UserError
from btc_assets.landing.listers import file_etag
from btc_assets.landing.objects import LandedObject, ObjectCorrupt, ObjectGone
from btc_assets.landing.s3 import S3Access
from btc_assets.landing.zone_errors import ErrorTranslator, Interrupted

READ_ATTEMPTS = 3
PIECE_BYTES = 8 << 20  # read in one request
_MD5_ETAG = re.compile(r'^"?([0-9a-f]{32})"?$')


class Content(NamedTuple):
    """The bytes of an object, in memory or in a temporary file, with their number and, if computed, their MD5."""

    data: bytes | Path
    size: int
    md5: str


class VerifiedReader:
    """Reads objects of one store.

    Args:
        store: where they are.
        s3: access to S3 by boto3; None if the store is no S3.
        errors: translates the store's errors.
        etag_is_md5: whether a 32-digit ETag of S3 is the MD5 of the bytes.
        directory: in which the objects are files, if they are.
    """

    def __init__(
        self, store: ObjectStore, s3: S3Access | None, errors: ErrorTranslator, *, etag_is_md5: bool, directory: Path | None = None
    ) -> None:
        self._store = store
        self._s3 = s3
        self._errors = errors
        self._etag_is_md5 = etag_is_md5
        self._directory = directory

    def read(self, obj: LandedObject, path: str) -> tuple[bytes | Path, str]:
        """See `LandingZone.read`; `path` is the object's path in the store."""
        failure: Exception
        for _ in range(READ_ATTEMPTS):
            try:
                return self._read_once(obj, path)
            except (ObjectCorrupt, Interrupted) as error:
                failure = error
            except ObjectGone:
                if self._s3 and self._ends_with_a_slash(self._s3, path):
                    raise ObjectCorrupt("its key ends with a slash, so it cannot be read: copy it to a key without") from None
                raise
        if isinstance(failure, ObjectCorrupt):
            advice = "upload it again"
            if self._md5(obj):
                advice += " (in a bucket with SSE-KMS, where an ETag is no MD5, set BTC_ASSETS_LANDING_ETAG=opaque)"
            raise ObjectCorrupt(f"{failure}, read {READ_ATTEMPTS} times: {advice}") from failure
        raise failure

    def _ends_with_a_slash(self, s3: S3Access, path: str) -> bool:
        """Whether the key that a listing shows as `path` has a slash at its end, which obstore leaves out."""
        key = f"{s3.key(path)}/"
        with self._errors.during(f"Listing s3://{s3.bucket}/{key}"):
            found = s3.client().list_objects_v2(Bucket=s3.bucket, Prefix=key, MaxKeys=1).get("Contents", ())
        return bool(found) and found[0]["Key"] == key

    def _read_once(self, obj: LandedObject, path: str) -> tuple[bytes | Path, str]:
        if self._directory is not None and not obj.is_large and (data := _read_unchanged(self._directory / path, obj)) is not None:
            return data, "none"
        md5 = self._md5(obj)
        if self._s3 and md5 is None:
            verified, pieces = self._open_with_stored_checksum(self._s3, obj, path)
        else:
            verified, pieces = "md5" if md5 else "none", self._pieces(obj, path)
        content = write_to_disk(pieces) if obj.is_large else join(pieces, with_md5=md5 is not None)
        if content.size == obj.size and md5 in (None, content.md5):
            return content.data, verified
        if isinstance(content.data, Path):
            content.data.unlink()
        raise ObjectCorrupt("the bytes do not match the object's size or the MD5 in its ETag")

    def _md5(self, obj: LandedObject) -> str | None:
        """The MD5 of the bytes according to the ETag; None if the ETag does not tell."""
        match = _MD5_ETAG.match(obj.etag) if self._s3 and self._etag_is_md5 else None
        return match[1] if match else None

    def _pieces(self, obj: LandedObject, path: str) -> Iterator[bytes]:
        """The bytes, with one request for each piece."""
        # Every request names the ETag (files have one, too), which detects an object that is overwritten meanwhile; no request
        # takes long; and obstore's own stream of a file that is truncated while it is read never ends.
        options: obstore.GetOptions = {"if_match": obj.etag} if obj.etag else {}
        # obstore repeats requests to S3 itself. A file can shrink between opening and reading.
        transient = TransientError if self._s3 else Interrupted
        for start in range(0, max(obj.size, 1), PIECE_BYTES):
            if obj.size > PIECE_BYTES:
                options["range"] = (start, min(start + PIECE_BYTES, obj.size))
            with self._errors.during(f"Reading {obj.uri}", uri=obj.uri, transient=transient):
                piece = obstore.get(self._store, path, options=options).bytes().to_bytes()
            yield piece

    def _open_with_stored_checksum(self, s3: S3Access, obj: LandedObject, path: str) -> tuple[str, Iterator[bytes]]:
        """How the object will be verified, and its bytes.

        With an opaque ETag only boto3 can detect a flipped bit: it compares the checksum that S3 stored, which obstore does not.
        """
        from botocore.httpchecksum import StreamingChecksumBody

        condition = {"IfMatch": obj.etag} if obj.etag else {}
        with self._errors.during(f"Reading {obj.uri}", uri=obj.uri):
            answer = s3.client().get_object(Bucket=s3.bucket, Key=s3.key(path), ChecksumMode="ENABLED", **condition)

        def pieces() -> Iterator[bytes]:
            # boto3 does not repeat a request whose body is cut off.
            with self._errors.during(f"Reading {obj.uri}", transient=Interrupted):
                yield from answer["Body"].iter_chunks(PIECE_BYTES)

        # boto3 compares nothing if S3 stored only a checksum of the parts' checksums, or one that boto3 cannot compute.
        return "s3" if isinstance(answer["Body"], StreamingChecksumBody) else "none", pieces()


def _read_unchanged(path: Path, obj: LandedObject) -> bytes | None:
    """The bytes of a small file that is the one that was listed; None if anything is odd, which obstore then tells in its own words.

    Four times faster than obstore, which matters for files of a few kilobytes.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # what is no file by now must not block
        with open(descriptor, "rb", buffering=0) as file:
            data = file.read(obj.size + 1) if file_etag(os.fstat(descriptor)) == obj.etag else b""
            return data if len(data) == obj.size and file_etag(os.fstat(descriptor)) == obj.etag else None
    except OSError:
        return None


def join(pieces: Iterable[bytes], *, with_md5: bool) -> Content:
    """Collect the bytes in memory."""
    data = b"".join(pieces)
    return Content(data, len(data), hashlib.md5(data, usedforsecurity=False).hexdigest() if with_md5 else "")


def write_to_disk(pieces: Iterable[bytes]) -> Content:
    """Write the bytes to a temporary file, which the caller removes.

    Raises:
        UserError: the directory for temporary files is missing or full.
    """
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with tempfile.NamedTemporaryFile(prefix="btc_assets-", delete=False) as file:
            path = Path(file.name)
            try:
                for piece in pieces:
                    digest.update(piece)
                    file.write(piece)
                file.flush()
                return Content(path, file.tell(), digest.hexdigest())
            except BaseException:
                path.unlink()
                raise
    except OSError as error:
        raise UserError(
            f"A large object cannot be written to {tempfile.gettempdir()} while it is read ({error.strerror}): "
            "make room there, or set TMPDIR to a directory with more."
        ) from error
