"""Files that are whole or not there: on a disk by a rename, on S3 by one upload."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from btc_assets.client.formats import writing
from btc_assets.domain.errors import UserError
from btc_assets.domain.settings import Settings, load_settings

if TYPE_CHECKING:
    from btc_assets.landing.s3 import S3Access
    from btc_assets.landing.zone_errors import ErrorTranslator


@contextmanager
def whole_file(to: str | PathLike[str], settings: Settings | None = None) -> Iterator[Path]:
    """Yield the path of a temporary file, which takes its place at `to` if the block ends without an error.

    Args:
        to: path of a file, which is replaced, or `s3://bucket/key`.
        settings: with the endpoint and region of S3; those of the environment if omitted.

    Raises:
        UserError: it cannot be written there.
    """
    if "://" in os.fspath(to):
        with _uploaded(os.fspath(to), settings) as path:
            yield path
        return
    target = Path(to).resolve()  # where a link leads
    if target.is_dir() or not target.parent.is_dir():
        wrong = "is a directory" if target.is_dir() else f"cannot be written, because {Path(to).parent} is no directory"
        raise UserError(f"{to} {wrong}: name a file in a directory that exists.")
    if target.exists() and not target.is_file():  # a pipe or a device has no name to give to another file
        try:
            yield target
        except BrokenPipeError:  # whoever read it has enough
            raise
        except OSError as error:
            raise UserError(f"{to} cannot be written ({error.strerror or error}): name a file in a writable directory.") from None
        return
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(target)
    except OSError as error:
        raise UserError(f"{to} cannot be written ({error.strerror or error}): name a file in a writable directory.") from None
    finally:
        partial.unlink(missing_ok=True)


def exists(to: str | PathLike[str], settings: Settings | None = None) -> bool:
    """Whether there is a file, or an object of S3; arguments and errors are those of `whole_file`. Pipes and devices do not count."""
    if "://" not in os.fspath(to):
        return Path(to).is_file()
    from btc_assets.landing.objects import ObjectGone

    bucket, key, access, errors = _place(os.fspath(to), settings)
    try:
        with errors.during(f"Looking up {os.fspath(to)}", uri=os.fspath(to)):
            access.client().head_object(Bucket=bucket, Key=key)
    except ObjectGone:
        return False
    return True


@contextmanager
def _uploaded(url: str, settings: Settings | None) -> Iterator[Path]:
    bucket, key, access, errors = _place(url, settings)
    with tempfile.TemporaryDirectory(prefix="btc_assets_") as folder:
        path = Path(folder) / "part"
        yield path
        # Not by obstore, which cannot be interrupted: boto3 takes back the parts that S3 has, after Ctrl-C and after an error.
        with errors.during(f"Writing {url}"), path.open("rb") as file:
            access.client().upload_fileobj(file, bucket, key)


def _place(url: str, settings: Settings | None) -> tuple[str, str, S3Access, ErrorTranslator]:
    """Bucket and key of a URL, and how they are reached."""
    from btc_assets.landing.s3 import S3Access
    from btc_assets.landing.zone_errors import ErrorTranslator

    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not url.startswith("s3://") or not bucket or not key or key.endswith("/"):
        raise UserError(f"{url!r} is no place for a file: write a path, or s3://bucket/key.")
    settings = settings or load_settings()
    access = S3Access(bucket, "", settings.s3_endpoint, settings.s3_region, concurrency=10, retries=5)  # boto3 sends ten parts at once
    return bucket, key, access, ErrorTranslator("check the bucket, BTC_ASSETS_S3_ENDPOINT, BTC_ASSETS_S3_REGION and the AWS credentials.")


def write_parquet(reader: pa.RecordBatchReader, path: Path) -> int:
    """Write a stream to a file; returns the number of rows."""
    rows = 0
    with path.open("wb") as file, writing("parquet", file, reader.schema) as writer:
        for batch in reader:
            writer.write(batch)
            rows += len(batch)
    return rows
