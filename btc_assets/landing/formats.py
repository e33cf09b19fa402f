"""Formats: the bytes of an object become a stream of raw Arrow tables, with the columns as the producer named them.

The content decides the format, never the name. `decode.py` decides what the columns mean.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa

from btc_assets.landing.bounds import NAME_CHARACTERS, ZIP_DEPTH, Bounds, exceeded, require_columns
from btc_assets.landing.gunzip import Gunzipped
from btc_assets.landing.parquet_file import read_parquet
from btc_assets.landing.raw import AGAIN, ObjectRejected, join_names
from btc_assets.landing.rejection import rejecting
from btc_assets.landing.text import HEAD_BYTES, find_text_format, read_text
from btc_assets.landing.zip_archive import copy_member, find_zip_format, read_zip

_ZIP = (b"PK\x03\x04", b"PK\x05\x06")

_Open = Callable[[], BinaryIO]  # opens bytes from their start
_Tables = Iterator[pa.Table]


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
        ObjectRejected: the object is empty, damaged, of no known format or too large; also raised later, while the tables are read.
    """
    reader = _Reader(Bounds(len(source) if isinstance(source, bytes) else source.stat().st_size))
    name, tables = reader.read_source(source)
    return RawObject(name, reader.checked(_spoken(name), tables), reader.notes)


def _spoken(name: str) -> str:
    """The format as messages call it."""
    return "Parquet" if name == "parquet" else "zip" if name.endswith("zip") else name


class _Reader:
    """Reads one object and whatever it contains.

    Attributes:
        notes: see `RawObject`.
    """

    def __init__(self, bounds: Bounds) -> None:
        self.notes: dict[str, Any] = {}
        self._bounds = bounds

    def read_source(self, source: bytes | Path) -> tuple[str, _Tables]:
        """The format and the raw tables of the object."""

        def open_source() -> BinaryIO:
            return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")

        with open_source() as file:
            magic = file.read(4)
        if not magic:
            raise ObjectRejected(f"the object is empty (0 bytes){AGAIN}")
        if magic == b"PARE":
            raise ObjectRejected("its Parquet content is encrypted: land it without encryption")
        if magic == b"PAR1":
            return "parquet", read_parquet(source, self._bounds)
        if magic in _ZIP:
            return self._read_zip(open_source, ZIP_DEPTH)
        return self._read_text(magic, open_source)

    def checked(self, name: str, tables: _Tables) -> _Tables:
        """The tables, with the errors of the parsers translated, and repeated and very long names refused."""
        with rejecting(name):
            for table in tables:
                names = table.column_names
                if len(set(names)) < len(names):
                    raise ObjectRejected(f"it has several columns with the same name (its columns: {join_names(names)}): keep one of each")
                require_columns(len(names))
                if any(len(each) > NAME_CHARACTERS for each in names):
                    raise exceeded("the length of a column's name", f"({NAME_CHARACTERS} characters)")
                self._bounds.take_rows(len(table))
                yield table

    def _read_member(self, open_member: _Open, size: int, depth: int) -> tuple[str, _Tables]:
        """The format and the raw tables of a member of a zip archive."""

        def open_bounded() -> BinaryIO:
            return self._bounded(open_member())

        with open_bounded() as file:
            magic = file.read(4)
        if magic == b"PARE":
            raise ObjectRejected("its Parquet content is encrypted: land it without encryption")
        if magic == b"PAR1":
            return "parquet", self._read_copy(open_bounded, size)
        if magic in _ZIP:
            if not depth:
                raise exceeded("zip files within zip files", f"({ZIP_DEPTH} deep)")
            return self._read_zip(lambda: copy_member(open_bounded, size, self._bounds), depth - 1)
        return self._read_text(magic, open_bounded)

    def _read_copy(self, open_member: _Open, size: int) -> _Tables:
        with copy_member(open_member, size, self._bounds) as copy:
            yield from read_parquet(copy, self._bounds)

    def _read_zip(self, open_file: _Open, depth: int) -> tuple[str, _Tables]:
        def read_member(open_member: _Open, size: int) -> tuple[str, _Tables]:
            return self._read_member(open_member, size, depth)

        def tables() -> _Tables:
            with open_file() as file:
                yield from read_zip(file, self._bounds, read_member, self.notes)

        with open_file() as file:
            return find_zip_format(file, read_member), tables()

    def _read_text(self, magic: bytes, open_file: _Open) -> tuple[str, _Tables]:
        ending = ""
        open_text = open_file
        if magic[:2] == b"\x1f\x8b":
            ending = ".gz"

            def open_text() -> BinaryIO:
                return self._bounded(Gunzipped(open_file()))  # type: ignore[arg-type]  # a stream of bytes is enough

        with rejecting("gzip" if ending else "text"), open_text() as file:
            name = find_text_format(file.read(HEAD_BYTES))

        def tables() -> _Tables:
            with open_text() as file:
                yield from read_text(name, file, self.notes)

        return name + ending, tables()

    def _bounded(self, file: BinaryIO) -> BinaryIO:
        return io.BufferedReader(_Bounded(file, self._bounds), 1 << 16)


class _Bounded(io.RawIOBase):
    """A stream whose bytes count."""

    def __init__(self, file: BinaryIO, bounds: Bounds) -> None:
        self._file, self._bounds = file, bounds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # readers pass no other kind of buffer
        part = self._file.read(len(buffer))
        self._bounds.take_bytes(len(part))
        buffer[: len(part)] = part
        return len(part)

    def close(self) -> None:
        with closing(self._file):
            super().close()
