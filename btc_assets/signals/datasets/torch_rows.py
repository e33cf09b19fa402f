"""Rows of a data set for PyTorch: an iterable data set that streams, shuffles, shares out and resumes. Import it only where PyTorch is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import IterableDataset, get_worker_info

from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import Window
from btc_assets.domain.ticks import int64
from btc_assets.signals.datasets.order import Order, Position, stream_buffers
from btc_assets.signals.datasets.plan import Plan

Sample = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Delivery:
    """How rows are handed out.

    Attributes:
        batch_size: rows in a sample; None for single ones.
        dtype: of features, bars and targets.
        rank, world_size: which of how many processes that train together; each gets other rows.
    """

    batch_size: int | None = None
    dtype: torch.dtype = torch.float32
    rank: int = 0
    world_size: int = 1


class TorchRows(IterableDataset[Sample]):
    """Rows as tensors: `features` [f], `bars` [60, channels], `target` [], and `bucket_5m` [], µs since 1970; batches have one dimension more.

    A `DataLoader` with several workers gives each of them other rows; together they hand out each row once. `state_dict` and
    `load_state_dict` are what torchdata's `StatefulDataLoader` calls, in its workers; with a plain `DataLoader` without workers, call
    them yourself. The state is where the rows go on: (number of the epoch, block, row), and what it is a position in.

    Args:
        plan: what the rows consist of.
        read: returns the rows of a block; where workers are started anew (`spawn`), it must be picklable.
        order: in which they are streamed.
        delivery: how they are handed out.
    """

    def __init__(self, plan: Plan, read: Callable[[Window], pa.Table], order: Order, delivery: Delivery) -> None:
        self._plan, self._read, self._order, self._delivery = plan, read, order, delivery
        self._position, self._resumes = Position(), False

    def __iter__(self) -> Iterator[Sample]:
        if not self._resumes:  # then `load_state_dict` has said where to begin
            epoch = self._position.epoch
            self._position = Position(epoch + 1 if self._position.done else epoch)
        return self._stream()

    def set_epoch(self, epoch: int) -> None:
        """Begin with the order of this epoch: needed with workers that live for one epoch only, as those of a `DataLoader` do by default."""
        self._position, self._resumes = Position(epoch), False

    def state_dict(self) -> dict[str, Any]:
        """Where the rows go on."""
        return {**asdict(self._position), "of": self._identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a state was taken.

        Raises:
            UserError: it is the state of other rows, of another order or of another worker.
        """
        if state.get("of") != self._identity():
            raise UserError(
                "This state is of other rows: the same data set, seed, buffer and number of workers go on where it was taken; "
                f"it is of {state.get('of')}, this is {self._identity()}."
            )
        self._position = Position(**{name: state[name] for name in ("epoch", "block", "rows", "done")})
        self._resumes = True

    def _shard(self) -> tuple[int, int]:
        worker, delivery = get_worker_info(), self._delivery
        workers, number = (worker.num_workers, worker.id) if worker else (1, 0)
        return delivery.rank * workers + number, delivery.world_size * workers

    def _identity(self) -> str:
        shard, shards = self._shard()
        blocks = self._order.blocks
        return (
            f"{self._plan.fingerprint}, {len(blocks)} blocks from {blocks[0].start:%Y-%m-%dT%H:%MZ}, seed {self._order.seed}, "
            f"buffer {self._order.buffer}, worker {shard} of {shards}"
        )

    def _stream(self) -> Iterator[Sample]:
        self._resumes = False
        start, size = self._position, self._delivery.batch_size
        if start.done:
            return
        for position, rows in stream_buffers(self._order, self._read, start, *self._shard()):
            tensors = self._tensors(rows)
            for first in range(0, len(rows), size or 1):
                last = min(first + (size or 1), len(rows))
                self._position = replace(position, rows=position.rows + last)
                yield {name: values[first:last] if size else values[first] for name, values in tensors.items()}
        self._position = Position(start.epoch, done=True)

    def _tensors(self, rows: pa.Table) -> Sample:
        plan, dtype = self._plan, self._delivery.dtype
        found = {"bucket_5m": torch.from_numpy(int64(rows["bucket_5m"]).copy())}
        if plan.inputs:
            matrix = np.column_stack([rows[name].to_numpy() for name in plan.inputs])
            found["features"] = torch.from_numpy(np.ascontiguousarray(matrix)).to(dtype)
        if plan.channels:
            bars = rows["bars"].combine_chunks()
            shape = (len(rows), bars.type.list_size, len(plan.channels))
            found["bars"] = torch.from_numpy(bars.flatten().flatten().to_numpy().reshape(shape).copy()).to(dtype)
        if plan.target:
            found["target"] = torch.from_numpy(rows["target"].to_numpy().copy()).to(dtype)
        return found
