"""Running PyTorch over batches of rows with results that do not depend on the number of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

BATCH = 512  # windows

T = TypeVar("T")


def map_batches(work: Callable[[slice], T], count: int, size: int, device: torch.device) -> Iterator[T]:
    """Call `work` with each `size` rows of `count`, without gradients; yields its results in order.

    On a CPU each thread of PyTorch takes a whole batch. The operations are so short that threads which share them would mostly wait
    for each other, and this way sums do not depend on the number of threads.
    """

    @torch.inference_mode()
    def run_batch(start: int) -> T:
        return work(slice(start, min(start + size, count)))

    threads = torch.get_num_threads()
    if device.type != "cpu" or count <= size or threads == 1:
        yield from map(run_batch, range(0, count, size))
        return
    with single_threaded(), ThreadPoolExecutor(threads) as pool:  # threads of the pool inherit the number
        yield from pool.map(run_batch, range(0, count, size))


@contextmanager
def single_threaded() -> Iterator[None]:
    """Run each operation of PyTorch in the thread that calls it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
