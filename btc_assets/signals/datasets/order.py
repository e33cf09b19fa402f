"""The order in which rows are streamed: shuffled within a buffer, shared out among workers, and taken up again exactly.

The rows lie in blocks, windows of slices. In each epoch the blocks are permuted and dealt out to the shards (a shard is a worker, or a
worker of one of several machines), so that each block belongs to one shard. A shard reads blocks until its buffer is full, permutes
the rows in it and hands them out; then it fills the buffer again. Every permutation follows from the seed, the epoch, the shard and
the first block in the buffer, so a position consists of a few numbers, and taking up reads no more than one buffer again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from btc_assets.domain.slices import Window

_BLOCK = 288  # slices: a day
_FEWEST_BLOCKS = 8  # so that a short range can be shared out, too
_SMALLEST_BLOCK = 12


@dataclass(frozen=True)
class Order:
    """How rows are streamed.

    Attributes:
        blocks: windows of slices.
        buffer: how many rows are shuffled at once, at least; 0: rows stay in order of time within a shard.
        seed: the same seed gives the same order.
    """

    blocks: tuple[Window, ...]
    buffer: int
    seed: int

    def blocks_of(self, epoch: int, shard: int, shards: int) -> np.ndarray:
        """Indices of the blocks of a shard, in the order in which it reads them."""
        numbers = np.arange(len(self.blocks))
        return (np.random.default_rng([self.seed, epoch]).permutation(numbers) if self.buffer else numbers)[shard::shards]


@dataclass(frozen=True)
class Position:
    """How far a shard has come.

    Attributes:
        epoch: counted from 0.
        block: how many of the shard's blocks were handed out completely, before those in the buffer.
        rows: how many rows of the buffer were handed out.
        done: whether the epoch is over.
    """

    epoch: int = 0
    block: int = 0
    rows: int = 0
    done: bool = False


def cut_blocks(windows: Sequence[Window]) -> tuple[Window, ...]:
    """Windows in blocks of a day, or in smaller ones if that would be few."""
    total = sum(map(len, windows))
    size = max(min(_BLOCK, total // _FEWEST_BLOCKS), _SMALLEST_BLOCK)
    blocks: list[Window] = []
    for window in windows:
        step = (window.end - window.start) / len(window) * size
        start = window.start
        while start < window.end:
            blocks.append(Window(start, min(start + step, window.end)))
            start = blocks[-1].end
    return tuple(blocks)


def stream_buffers(
    order: Order, read: Callable[[Window], pa.Table], start: Position, shard: int, shards: int
) -> Iterator[tuple[Position, pa.Table]]:
    """The rows of a shard from a position on, a buffer at a time.

    Args:
        order: of the rows.
        read: returns the rows of a block.
        start: where to begin.
        shard, shards: which of how many.

    Yields:
        The rows of a buffer in their order, and the position of the first of them; rows before `start` are left out.
    """
    blocks = order.blocks_of(start.epoch, shard, shards)
    at, skipped = start.block, start.rows
    while at < len(blocks):
        first, parts, rows = at, list[pa.Table](), 0
        while at < len(blocks) and (not parts or rows < order.buffer):
            parts.append(read(order.blocks[blocks[at]]))
            rows, at = rows + len(parts[-1]), at + 1
        table = pa.concat_tables(parts)
        if order.buffer:
            table = table.take(np.random.default_rng([order.seed, start.epoch, shard, first]).permutation(rows))
        yield replace(start, block=first, rows=skipped), table.slice(skipped)
        skipped = 0
