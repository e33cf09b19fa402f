"""Gzip: the members of a file one after another, also where a program has put line ends between or behind them."""

from __future__ import annotations

import io
import zlib
from contextlib import closing
from typing import BinaryIO

_GZIP = 31  # zlib's number for gzip with the largest window
_PADDING = b"\r\n\t \0"  # between members and behind the last one
_PIECE_BYTES = 64 << 10


class Gunzipped(io.RawIOBase):
    """The decompressed bytes of a file. It closes the file with itself.

    Raises:
        EOFError: while reading, the file ends within a member.
        zlib.error: while reading, a member is damaged, or what follows one is no member.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._member = zlib.decompressobj(_GZIP)
        self._rest = b""  # compressed bytes that were not used yet

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # readers pass no other kind of buffer
        while True:
            if self._member.eof and not self._begin_member():
                return 0
            compressed = self._rest or self._file.read(_PIECE_BYTES)
            part = self._member.decompress(compressed, len(buffer))
            self._rest = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            buffer[: len(part)] = part
            if part:
                return len(part)
            if not compressed and not self._member.eof:
                raise EOFError("Compressed file ended before the end-of-stream marker was reached")

    def _begin_member(self) -> bool:
        """Go on to the next member, if there is one."""
        while not (rest := self._rest.lstrip(_PADDING)):
            self._rest = self._file.read(_PIECE_BYTES)
            if not self._rest:
                return False
        self._rest, self._member = rest, zlib.decompressobj(_GZIP)
        return True

    def close(self) -> None:
        """Close the file."""
        with closing(self._file):
            super().close()
