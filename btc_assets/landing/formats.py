"""Formats: the bytes of an object become a stream of raw Arrow tables, with the columns as the producer named them.

The content decides the format, never the name. `decode.py` decides what the columns mean.
"""

from __future__ import annotations

import gzip
import io
import itertools
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from btc_assets.landing.csv_text import read_csv
from btc_assets.landing.raw import ObjectRejected, join_names
from btc_assets.landing.text import HEAD_BYTES, find_text_format, read_text

BATCH_ROWS = 65_536  # the most rows of a table that is read from Parquet on disk

# What the parsers raise for damaged content.
_DAMAGE = (pa.ArrowException, OSError, EOFError, ValueError, RuntimeError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)


def read_object(source: bytes | Path) -> tuple[str, Iterator[pa.Table]]:
    """Detect the format and return its name with the object's raw tables, in order, each of bounded size.

    Args:
        source: the bytes of the object, or the path of a file that holds them.

    Raises:
        ObjectRejected: the object is empty, damaged or of no known format; also raised later, while the tables are read.
    """
    with _open(source) as file:
        magic = file.read(4)
    if not magic:
        raise ObjectRejected("the object is empty (0 bytes): land it again")
    if magic == b"PAR1":
        return "parquet", _checked("Parquet", _read_parquet(source))
    if magic in (b"PK\x03\x04", b"PK\x05\x06"):
        return "csv.zip", _checked("zip", _read_zip(source))
    if magic[:2] == b"\x1f\x8b":
        name = _detect_text_format(lambda: _gunzip(source), "gzip")
        return f"{name}.gz", _checked(f"{name}.gz", _read_text(name, lambda: _gunzip(source)))
    name = _detect_text_format(lambda: _open(source), "text")
    return name, _checked(name, _read_text(name, lambda: _open(source)))


def _open(source: bytes | Path) -> BinaryIO:
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def _gunzip(source: bytes | Path) -> BinaryIO:
    return gzip.open(io.BytesIO(source) if isinstance(source, bytes) else source)  # type: ignore[return-value]  # it reads bytes as one


def _checked(name: str, tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The tables, with the errors of the parsers translated and repeated column names refused."""
    try:
        for table in tables:
            names = table.column_names
            if len(set(names)) < len(names):
                raise ObjectRejected(f"it has several columns with the same name (its columns: {join_names(names)}): keep one of each")
            yield table
    except _DAMAGE as error:
        raise _damaged(name, error) from error


def _damaged(name: str, error: BaseException) -> ObjectRejected:
    text = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
    return ObjectRejected(f"its {name} content is damaged or truncated ({text[:200]}): land it again")


def _detect_text_format(open_file: Callable[[], BinaryIO], what: str) -> str:
    try:
        with open_file() as file:
            head = file.read(HEAD_BYTES)
    except _DAMAGE as error:
        raise _damaged(what, error) from error
    return find_text_format(head)


def _read_text(name: str, open_file: Callable[[], BinaryIO]) -> Iterator[pa.Table]:
    with open_file() as file:
        yield from read_text(name, file)


def _read_parquet(source: bytes | Path) -> Iterator[pa.Table]:
    reader = pa.BufferReader(source) if isinstance(source, bytes) else source
    with pq.ParquetFile(reader, page_checksum_verification=True, pre_buffer=False) as file:
        if isinstance(source, bytes):  # small, so one call is faster
            tables = iter([file.read(use_threads=False)])
        else:
            batches = file.iter_batches(BATCH_ROWS, use_threads=False)
            tables = itertools.chain((pa.Table.from_batches([batch]) for batch in batches), [file.schema_arrow.empty_table()])
        for table in tables:
            table.validate(full=True)  # the reader checks neither that text is UTF-8 nor that dictionary indices are in range
            yield table


def _read_zip(source: bytes | Path) -> Iterator[pa.Table]:
    with _open(source) as file, zipfile.ZipFile(file) as archive:
        members = [m for m in archive.infolist() if m.filename.lower().endswith(".csv") and "__MACOSX" not in m.filename]
        if not members:
            raise ObjectRejected("the zip file holds no .csv file: land the dump as the exchange publishes it")
        for member in members:
            with archive.open(member) as content:
                yield from read_csv(content)  # type: ignore[arg-type]  # a stream of bytes is enough
