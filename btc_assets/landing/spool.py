"""The spool: decoded ticks that wait on disk for the loader of the same process.

The registry reads every object to verify and count it. A run that registers and then loads would fetch and decode each
object a second time, which costs more than everything else on the client's side; the spool hands the decoded ticks over
instead. It is only a shortcut: the loader reads from the landing zone what did not fit or another process registered.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from btc_assets.domain.objects import ObjectVersion

LIMIT_BYTES = 512 << 20  # about 6 million ticks; on disk, not in memory
LIMIT_FILES = 500  # each keeps a descriptor, of which a process may have 1,024; a file holds some 256 objects


class _Rows(NamedTuple):
    """A range of rows in one of the files."""

    file: int
    first: int
    length: int


class Spool:
    """Ticks of registered objects. Its files have no name, so they vanish with the process, however it ends."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self._limit = limit_bytes
        self._rows: dict[ObjectVersion, list[_Rows]] = {}
        self._files: dict[int, pa.MemoryMappedFile] = {}
        self._untaken: Counter[int] = Counter()  # ranges of each file that were not taken yet
        self._lock = threading.Lock()

    def put(self, versions: Sequence[ObjectVersion], pieces: Sequence[tuple[pa.Table, np.ndarray]]) -> None:
        """Keep the ticks of several objects; of none of them if they do not fit.

        Args:
            versions: the objects.
            pieces: tables of their rows, object by object, each with the ascending position in `versions` of every row's object.
        """
        pieces = [piece for piece in pieces if len(piece[0])]
        with self._lock:
            for version in versions:
                self._forget(version)
            size = sum(file.size() for file in self._files.values()) + sum(ticks.nbytes for ticks, _ in pieces)
            if not pieces or size > self._limit or len(self._files) >= LIMIT_FILES:
                return
            number = max(self._files, default=0) + 1
            try:
                self._files[number] = _write([ticks for ticks, _ in pieces])
            except OSError:  # no room for a shortcut: the loader reads these objects from the landing zone
                return
            before = 0
            for ticks, owner in pieces:
                bounds = np.searchsorted(owner, np.arange(len(versions) + 1))
                for version, first, end in zip(versions, bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
                    if end > first:
                        self._rows.setdefault(version, []).append(_Rows(number, before + first, end - first))
                        self._untaken[number] += 1
                before += len(ticks)

    def take(self, versions: Sequence[ObjectVersion]) -> Iterator[tuple[ObjectVersion, pa.Table]]:
        """Hand over and forget the ticks of these objects; a version may come several times, or not at all."""
        opened: dict[int, pa.Table] = {}
        with self._lock:
            for version in versions:
                yield from self._read(version, opened)
                self._forget(version)

    def look_at(self, versions: Sequence[ObjectVersion]) -> Iterator[tuple[ObjectVersion, pa.Table]]:
        """The ticks of these objects, which are kept for whoever takes them."""
        opened: dict[int, pa.Table] = {}
        with self._lock:
            for version in versions:
                yield from self._read(version, opened)

    def _read(self, version: ObjectVersion, opened: dict[int, pa.Table]) -> Iterator[tuple[ObjectVersion, pa.Table]]:
        for rows in self._rows.get(version, ()):
            if rows.file not in opened:
                opened[rows.file] = pa.ipc.open_file(self._files[rows.file]).read_all()
            yield version, opened[rows.file].slice(rows.first, rows.length)

    def _forget(self, version: ObjectVersion) -> None:
        for rows in self._rows.pop(version, ()):
            self._untaken[rows.file] -= 1
            if not self._untaken[rows.file]:
                del self._files[rows.file], self._untaken[rows.file]


def _write(tables: Sequence[pa.Table]) -> pa.MemoryMappedFile:
    """Write ticks, one table after the other, to a file without a name."""
    descriptor, path = tempfile.mkstemp(prefix="btc_assets-", suffix=".arrow")
    os.close(descriptor)
    try:
        with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, tables[0].schema) as writer:
            for ticks in tables:
                writer.write_table(ticks)
        return pa.memory_map(path)
    finally:
        os.unlink(path)
