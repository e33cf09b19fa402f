"""The spool: ticks that the registry decoded, kept on disk until the loader of the same process asks for them.

The registry reads every object, to verify and count it. A run that registers and then loads would fetch and decode each
one a second time, which costs more than everything else on the client's side; so what was decoded is handed over. It is
only a shortcut: what does not fit, or was registered by another process, is read from the landing zone.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from btc_assets.domain.objects import ObjectVersion

LIMIT_BYTES = 512 << 20  # about 6 million ticks; on a disk, not in memory


class Spool:
    """Ticks of registered objects, by URI and ETag. Its files have no name, so they go with the process however it ends."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self._limit = limit_bytes
        self._entries: dict[ObjectVersion, list[tuple[int, int, int]]] = {}  # file, first row, rows
        self._files: dict[int, pa.MemoryMappedFile] = {}
        self._waiting: Counter[int] = Counter()  # entries of each file that were not taken yet
        self._lock = threading.Lock()

    def put(self, keys: Sequence[ObjectVersion], pieces: Sequence[tuple[pa.Table, np.ndarray]]) -> None:
        """Keep the ticks of several objects, or where they do not fit, of none of them.

        Args:
            keys: the objects.
            pieces: tables of their rows, object by object, each with the ascending position in `keys` of every row's object.
        """
        pieces = [piece for piece in pieces if len(piece[0])]
        with self._lock:
            for key in keys:
                self._forget(key)
            if sum(file.size() for file in self._files.values()) + sum(ticks.nbytes for ticks, _ in pieces) > self._limit:
                return
            for ticks, owner in pieces:
                number = max(self._files, default=0) + 1
                self._files[number] = _write(ticks)
                bounds = np.searchsorted(owner, np.arange(len(keys) + 1))
                for key, first, end in zip(keys, bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
                    if end > first:
                        self._entries.setdefault(key, []).append((number, first, end - first))
                        self._waiting[number] += 1

    def take(self, keys: Sequence[ObjectVersion]) -> Iterator[tuple[ObjectVersion, pa.Table]]:
        """Hand over, and forget, what is kept of these objects; a key may come several times or not at all."""
        opened: dict[int, pa.Table] = {}
        with self._lock:
            for key in keys:
                for number, first, rows in self._entries.get(key, ()):
                    if number not in opened:
                        opened[number] = pa.ipc.open_file(self._files[number]).read_all()
                    yield key, opened[number].slice(first, rows)
                self._forget(key)

    def _forget(self, key: ObjectVersion) -> None:
        for number, _, _ in self._entries.pop(key, ()):
            self._waiting[number] -= 1
            if not self._waiting[number]:
                del self._files[number], self._waiting[number]


def _write(ticks: pa.Table) -> pa.MemoryMappedFile:
    descriptor, path = tempfile.mkstemp(prefix="btc_assets-", suffix=".arrow")
    os.close(descriptor)
    try:
        with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, ticks.schema) as writer:
            writer.write_table(ticks)
        return pa.memory_map(path)
    finally:
        os.unlink(path)
