"""Files that are whole or not there: on a disk by a rename, on S3 by one upload."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from btc_assets.domain.errors import UserError
from btc_assets.domain.settings import Settings, load_settings

_ROWS_PER_GROUP = 262_144  # of ticks about 20 MB in memory and 3 MB on disk


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
    target = Path(to)
    if target.is_dir() or not target.parent.is_dir():
        wrong = "is a directory" if target.is_dir() else f"cannot be written, because {target.parent} is no directory"
        raise UserError(f"{target} {wrong}: name a file in a directory that exists.")
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(target)
    except OSError as error:
        raise UserError(f"{target} cannot be written ({error.strerror or error}): name a file in a writable directory.") from None
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _uploaded(url: str, settings: Settings | None) -> Iterator[Path]:
    import obstore

    from btc_assets.landing.s3 import S3Access
    from btc_assets.landing.zone_errors import ErrorTranslator

    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not url.startswith("s3://") or not bucket or not key or key.endswith("/"):
        raise UserError(f"{url!r} is no place for a file: write a path, or s3://bucket/key.")
    settings = settings or load_settings()
    access = S3Access(bucket, "", settings.s3_endpoint, settings.s3_region, concurrency=4, retries=5)
    with tempfile.TemporaryDirectory(prefix="btc_assets_") as folder:
        path = Path(folder) / "part"
        yield path
        advice = ErrorTranslator("check the bucket, BTC_ASSETS_S3_ENDPOINT, BTC_ASSETS_S3_REGION and the AWS credentials.")
        with advice.during(f"Writing {url}"):
            obstore.put(access.object_store(), key, path)  # in parts, which S3 puts together at the end


def write_parquet(reader: pa.RecordBatchReader, path: Path) -> int:
    """Write a stream to a file in row groups of about 260,000 rows; returns the number of rows."""
    rows, waiting = 0, list[pa.RecordBatch]()
    with pq.ParquetWriter(path, reader.schema, compression="zstd") as writer:
        for batch in reader:
            waiting.append(batch)
            rows += len(batch)
            if sum(map(len, waiting)) >= _ROWS_PER_GROUP:
                writer.write_table(pa.Table.from_batches(waiting, reader.schema))
                waiting = []
        writer.write_table(pa.Table.from_batches(waiting, reader.schema))
    return rows
