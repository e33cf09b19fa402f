"""Formats: the bytes of an object become a stream of raw Arrow tables, with the columns as the producer named them.

The content decides the format, never the name. `decode.py` decides what the columns mean.
"""

from __future__ import annotations

import gzip
import io
import itertools
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from btc_assets.landing.csv_text import read_csv
from btc_assets.landing.raw import AGAIN, ObjectRejected, join_names
from btc_assets.landing.rejection import rejecting
from btc_assets.landing.text import HEAD_BYTES, find_text_format, read_text

BATCH_ROWS = 65_536  # the most rows of a table that is read from Parquet on disk

_SPOKEN = {"parquet": "Parquet", "csv.zip": "zip"}  # formats as messages call them


class RawObject(NamedTuple):
    """An object before it is decoded.

    Attributes:
        format: its name, such as `csv.gz`.
        tables: its raw tables, in order, each of bounded size.
        notes: what the registry's metadata tell of it, such as parts that were left out; complete once all tables were read.
    """

    format: str
    tables: Iterator[pa.Table]
    notes: dict[str, Any]


def read_object(source: bytes | Path) -> RawObject:
    """Detect the format and open the object.

    Args:
        source: the bytes of the object, or the path of a file that holds them.

    Raises:
        ObjectRejected: the object is empty, damaged or of no known format; also raised later, while the tables are read.
    """
    notes: dict[str, Any] = {}
    name, tables = _recognize(source)
    return RawObject(name, _checked(_SPOKEN.get(name, name), tables), notes)


def _recognize(source: bytes | Path) -> tuple[str, Iterator[pa.Table]]:
    with _open(source) as file:
        magic = file.read(4)
    if not magic:
        raise ObjectRejected(f"the object is empty (0 bytes){AGAIN}")
    if magic == b"PARE":
        raise ObjectRejected("its Parquet content is encrypted: land it without encryption")
    if magic == b"PAR1":
        return "parquet", _read_parquet(source)
    if magic in (b"PK\x03\x04", b"PK\x05\x06"):
        return "csv.zip", _read_zip(source)
    if magic[:2] == b"\x1f\x8b":
        name = _detect_text_format(lambda: _gunzip(source), "gzip")
        return f"{name}.gz", _read_text(name, lambda: _gunzip(source))
    name = _detect_text_format(lambda: _open(source), "text")
    return name, _read_text(name, lambda: _open(source))


def _open(source: bytes | Path) -> BinaryIO:
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def _gunzip(source: bytes | Path) -> BinaryIO:
    return gzip.open(io.BytesIO(source) if isinstance(source, bytes) else source)  # type: ignore[return-value]  # it reads bytes as one


def _checked(name: str, tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The tables, with the errors of the parsers translated and repeated column names refused."""
    with rejecting(name):
        for table in tables:
            names = table.column_names
            if len(set(names)) < len(names):
                raise ObjectRejected(f"it has several columns with the same name (its columns: {join_names(names)}): keep one of each")
            yield table


def _detect_text_format(open_file: Callable[[], BinaryIO], what: str) -> str:
    with rejecting(what), open_file() as file:
        head = file.read(HEAD_BYTES)
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
